# SPDX-License-Identifier: Apache-2.0
"""Shaded pictures of a finished reconstruction, by casting rays: soft key light, fill, ambient occlusion."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import trimesh
from numpy.typing import NDArray

from fmh_ros.core.fields.mesh_queries import MeshQueries, RayHits, join, vertex_normals
from fmh_ros.core.frame.camera import CameraModel
from fmh_ros.core.transforms import Similarity

FloatArray = NDArray[np.float64]
Color = tuple[int, int, int]

#: Surface colours, sRGB.
HAND_COLOR: Color = (233, 178, 148)
OBJECT_COLOR: Color = (84, 142, 204)
BACKGROUND_TOP: Color = (250, 250, 252)
BACKGROUND_BOTTOM: Color = (226, 229, 235)

#: Rays a pixel side for smooth edges, and rays a point for its light.
SAMPLES = 2
OCCLUSION_RAYS = 32
SHADOW_RAYS = 2
#: Directions towards the lights in the viewer's frame (x right, y down, z away), and their strengths.
KEY_LIGHT = (-0.45, -0.75, -0.65)
FILL_LIGHT = (0.85, -0.05, -0.45)
KEY, FILL, AMBIENT = 0.80, 0.20, 0.42
GAMMA = 2.2


@dataclass(frozen=True)
class Part:
    """One coloured mesh: vertices (V, 3) in the world frame of the picture, faces (F, 3), an sRGB colour."""

    vertices: FloatArray
    faces: NDArray[np.int64]
    color: Color


@dataclass(frozen=True)
class Picture:
    """A rendering: image (H, W, 3) uint8 RGB, depth (H, W) metres along the view's z, NaN on the background."""

    image: NDArray[np.uint8]
    depth: FloatArray


class ShadedScene:
    """Coloured meshes that can be looked at from anywhere."""

    def __init__(self, parts: list[Part]) -> None:
        self._vertices, self._faces, self._part = join([(part.vertices, part.faces) for part in parts])
        self._queries = MeshQueries(self._vertices, self._faces)
        self._albedo = np.array([(np.array(part.color) / 255.0) ** GAMMA for part in parts])
        self._vertex_openness: FloatArray | None = None
        self.centre: FloatArray = (self._vertices.min(0) + self._vertices.max(0)) / 2
        self.radius = float(np.linalg.norm(self._vertices - self.centre, axis=1).max())

    def render(self, camera: CameraModel, T_world_view: Similarity) -> Picture:
        """Render from ``camera`` placed at ``T_world_view`` (rigid), over a plain background."""
        fine = camera.crop((0, 0, camera.width, camera.height), camera.width * SAMPLES, camera.height * SAMPLES)
        rays = fine.rays(fine.pixel_grid()).reshape(-1, 3)
        hits = self._queries.cast(T_world_view.translation, rays @ T_world_view.rotation.T)
        hit = np.flatnonzero(hits.face >= 0)
        colors = _background(fine.height, fine.width).reshape(-1, 3)
        if len(hit):
            colors[hit] = self._colors_at(hits, hit, rays[hit], T_world_view, fine.width)
        shape = (fine.height, fine.width)
        part = np.where(hits.face >= 0, self._part[hits.face], -1).reshape(shape)
        along_z = hits.distance / np.linalg.norm(rays, axis=-1)
        depth = np.where(hits.face >= 0, along_z, np.nan).reshape(shape)
        lined = colors.reshape(*shape, 3) * (1.0 - 0.6 * _edges(part, depth, self.radius))[..., None]
        small = cv2.resize(lined, (camera.width, camera.height), interpolation=cv2.INTER_AREA)
        image = np.clip(np.asarray(small) ** (1 / GAMMA) * 255.0 + 0.5, 0, 255).astype(np.uint8)
        return Picture(image, depth[SAMPLES // 2 :: SAMPLES, SAMPLES // 2 :: SAMPLES])

    def _colors_at(
        self, hits: RayHits, hit: NDArray[np.int64], rays: FloatArray, T_world_view: Similarity, width: int
    ) -> FloatArray:
        """Return linear colours (N, 3) of the rays ``hit`` (N,) of ``hits``; ``rays`` (N, 3) in the view frame."""
        unit = rays / np.linalg.norm(rays, axis=-1, keepdims=True)
        points = T_world_view.apply(unit * hits.distance[hit, None])
        normals = hits.normal[hit] @ T_world_view.rotation
        # Interpolated normals may turn away from the viewer at silhouettes.
        normals -= unit * np.maximum((normals * unit).sum(-1, keepdims=True) + 0.02, 0)
        normals /= np.linalg.norm(normals, axis=-1, keepdims=True)
        albedo = self._albedo[self._part[hits.face[hit]]]
        lit = self._key_visibility(points, hits.normal[hit], T_world_view, hit, width)
        return _shade(albedo, normals, unit, self._openness(hits.face[hit], points), lit)

    def _openness(self, faces: NDArray[np.int64], points: FloatArray) -> FloatArray:
        """Share of the hemisphere over each surface point (N, 3) that is open nearby, (N,).

        It is the same from everywhere, so it is computed once for each vertex and interpolated.
        """
        if self._vertex_openness is None:
            normals = vertex_normals(self._vertices, self._faces)
            origins = self._vertices + normals * 4e-3 * self.radius
            directions = _sphere_directions(OCCLUSION_RAYS)
            reach = 0.5 * self.radius
            total = np.zeros(len(origins))
            for direction in directions:
                distance = self._queries.distances(origins, direction + normals * 1.001, reach)
                total += np.clip(distance / reach, 0, 1)
            self._vertex_openness = total / len(directions)
        corners = self._faces[faces]
        weights = trimesh.triangles.points_to_barycentric(self._vertices[corners], points, method="cross")
        result: FloatArray = (self._vertex_openness[corners] * np.clip(weights, 0, 1)).sum(-1)
        return result

    def _key_visibility(
        self, points: FloatArray, normals: FloatArray, T_world_view: Similarity, pixel: NDArray[np.int64], width: int
    ) -> FloatArray:
        """Share of a small area light that each point sees, (N,); ``pixel`` (N,) is its index in the fine image.

        Neighbouring samples of one pixel look at different parts of the light, so that their mean sees all of it.
        """
        origins = points + normals * 1.5e-2 * self.radius
        key = np.array(KEY_LIGHT) / np.linalg.norm(KEY_LIGHT)
        offsets = 0.18 * _sphere_directions(SAMPLES * SAMPLES * SHADOW_RAYS)
        place = (pixel // width % SAMPLES) * SAMPLES + pixel % width % SAMPLES
        seen = np.zeros(len(points))
        for ray in range(SHADOW_RAYS):
            directions = (key + offsets[place + ray * SAMPLES * SAMPLES]) @ T_world_view.rotation.T
            seen += ~np.isfinite(self._queries.distances(origins, directions))
        return seen / SHADOW_RAYS


def _shade(
    albedo: FloatArray, normals: FloatArray, rays: FloatArray, open_share: FloatArray, lit: FloatArray
) -> FloatArray:
    """Return linear colours (N, 3); normals and rays (N, 3) are in the viewer's frame."""
    key, fill = (np.array(light) / np.linalg.norm(light) for light in (KEY_LIGHT, FILL_LIGHT))
    key_light = KEY * lit * np.clip(normals @ key, 0, 1)
    fill_light = FILL * np.clip(normals @ fill, 0, 1)
    sky = AMBIENT * (0.75 - 0.25 * normals[:, 1])
    diffuse = (key_light + (fill_light + sky) * open_share)[:, None] * albedo
    half = key - rays
    half /= np.linalg.norm(half, axis=-1, keepdims=True)
    gloss = 0.10 * lit * np.clip((normals * half).sum(-1), 0, 1) ** 40
    result: FloatArray = diffuse + gloss[:, None]
    return result


def _edges(part: NDArray[np.int64], depth: FloatArray, radius: float) -> FloatArray:
    """Return (H, W), 1 on lines where the visible part changes or the depth jumps, softened."""
    filled = np.nan_to_num(depth, nan=1e3)
    line = np.zeros(part.shape, np.float64)
    for axis in (0, 1):
        jump = (np.diff(part, axis=axis) != 0) | (np.abs(np.diff(filled, axis=axis)) > 0.06 * radius)
        edge = np.zeros(part.shape, bool)
        edge[(slice(None, -1), slice(None)) if axis == 0 else (slice(None), slice(None, -1))] = jump
        line = np.maximum(line, edge)
    return np.asarray(cv2.GaussianBlur(line, (0, 0), 0.8)).clip(0, 1)


def _background(height: int, width: int) -> FloatArray:
    top, bottom = ((np.array(color) / 255.0) ** GAMMA for color in (BACKGROUND_TOP, BACKGROUND_BOTTOM))
    t = np.linspace(0, 1, height)[:, None, None]
    return np.broadcast_to(top * (1 - t) + bottom * t, (height, width, 3)).copy()


def _sphere_directions(count: int) -> FloatArray:
    """Return ``count`` directions spread evenly over the sphere, (count, 3)."""
    index = np.arange(count) + 0.5
    z = 1 - 2 * index / count
    around = np.pi * (1 + 5**0.5) * index
    ring = np.sqrt(1 - z**2)
    return np.stack([ring * np.cos(around), ring * np.sin(around), z], -1)
