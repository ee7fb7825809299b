# SPDX-License-Identifier: Apache-2.0
"""Ray-cast geometry buffers of a hand, its forearm and an object: exact masks, depth, normals and shadows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import trimesh
from numpy.typing import NDArray

from fmh_ros.core.fields.mesh_queries import MeshQueries, vertex_normals
from fmh_ros.core.frame.camera import CameraModel
from fmh_ros.core.hand.rig import HandRig
from fmh_ros.core.transforms import Similarity
from fmh_ros.training.scenes.arm import forearm
from fmh_ros.training.scenes.grasp import Grasp

Rng = np.random.Generator
FloatArray = NDArray[np.float64]

BACKGROUND, HAND, ARM, SLEEVE, OBJECT = 0, 1, 2, 3, 4
OCCLUSION_RAYS = 6
LIGHTS = 2
SHADOW_REACH_M = 0.6
OCCLUSION_REACH_M = 0.06


@dataclass(frozen=True)
class Part:
    """One surface of the scene, hand frame, metres.

    label : BACKGROUND .. OBJECT; vertices (V, 3); normals (V, 3) unit; faces (F, 3); surface : (V, 3) coordinates that
    stick to the surface (rest pose or object frame), for textures.
    """

    label: int
    vertices: FloatArray
    normals: FloatArray
    faces: NDArray[np.int64]
    surface: FloatArray


@dataclass(frozen=True)
class Buffers:
    """What each pixel sees. Maps are (H, W) or (H, W, C).

    label : uint8; depth : float32 metres along z, 0 where nothing; normal : float32 unit, camera frame;
    surface : float32 texture coordinates, metres; openness : float32, 0 in crevices to 1; lit : bool (H, W, LIGHTS),
    not in shadow; amodal : bool, the object as if the hand were not there; lights : (LIGHTS, 3) unit, towards the
    light, camera frame; hand_only : bool, the hand as if the object were not there.
    """

    label: NDArray[np.uint8]
    depth: NDArray[np.float32]
    normal: NDArray[np.float32]
    surface: NDArray[np.float32]
    openness: NDArray[np.float32]
    lit: NDArray[np.bool_]
    amodal: NDArray[np.bool_]
    hand_only: NDArray[np.bool_]
    lights: FloatArray


def scene_parts(
    rng: Rng, rig: HandRig, grasp: Grasp, *, with_object: bool = True, arm_reach: tuple[float, float] = (0.22, 0.34)
) -> list[Part]:
    """Return the surfaces of a grasp: hand, forearm (bare or sleeved) and, when wanted and held, the object.

    arm_reach : shortest and longest arm to draw, metres.
    """
    hand = Part(HAND, grasp.vertices, vertex_normals(grasp.vertices, rig.faces), rig.faces, rig.vertices)
    sleeve_from = float(rng.uniform(-0.01, 0.18)) if rng.random() < 0.55 else np.inf
    vertices, faces, along = forearm(rng, grasp.shape.scale, sleeve_from, arm_reach)
    normals = vertex_normals(vertices, faces)
    surface = np.stack([-along, vertices[:, 1], vertices[:, 2]], 1)
    parts = [hand]
    covered = (along[faces] > sleeve_from).all(1)
    for label, chosen in ((ARM, faces[~covered]), (SLEEVE, faces[covered])):
        if len(chosen):
            parts.append(Part(label, vertices, normals, chosen, surface))
    if with_object and grasp.object is not None:
        held = grasp.object
        parts.append(
            Part(
                OBJECT,
                held.vertices @ grasp.rotation.T + grasp.translation,
                held.normals @ grasp.rotation.T,
                held.faces.astype(np.int64),
                held.vertices.astype(np.float64),
            )
        )
    return parts


class Scene:
    """Surfaces ready to be ray cast from many cameras. All coordinates are of the hand frame."""

    def __init__(self, parts: list[Part]) -> None:
        offsets = np.cumsum([0, *(len(p.vertices) for p in parts)])
        self.vertices = np.concatenate([p.vertices for p in parts])
        self.normals = np.concatenate([p.normals for p in parts])
        self.surface = np.concatenate([p.surface for p in parts])
        self.faces = np.concatenate([p.faces + o for p, o in zip(parts, offsets, strict=False)])
        self.label = np.concatenate([np.full(len(p.faces), p.label, np.uint8) for p in parts])
        self._all = MeshQueries(self.vertices, self.faces)
        self._solo = [self._only(self.label == OBJECT), self._only(self.label != OBJECT)]

    def _only(self, chosen: NDArray[np.bool_]) -> MeshQueries | None:
        return MeshQueries(self.vertices, self.faces[chosen]) if chosen.any() else None

    def render(self, rng: Rng, camera: CameraModel, T_camera_hand: Similarity, *, shading: bool = True) -> Buffers:
        """Cast one ray per pixel.

        Args:
            rng: decides where the lights are.
            camera: what is seen.
            T_camera_hand: where the hand is.
            shading: cast shadow and occlusion rays too; without them everything counts as open and lit.
        """
        shape = (camera.height, camera.width)
        rays = camera.rays(camera.pixel_grid().reshape(-1, 2))
        inverse = T_camera_hand.inverse()
        origin, directions = inverse.translation, rays @ inverse.rotation.T
        length = np.linalg.norm(directions, axis=1)
        hits = self._all.cast(origin, directions)
        seen = hits.face >= 0
        # Rays have z = 1 in the camera frame: dividing by their length turns distance into depth.
        depth = np.where(seen, hits.distance / length, 0.0)
        points = (origin + depth[:, None] * directions)[seen]
        corners = self.faces[hits.face[seen]]
        weight = trimesh.triangles.points_to_barycentric(self.vertices[corners], points)
        normal = np.einsum("nk,nkc->nc", weight, self.normals[corners])
        normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-9)
        openness, lit, lights = self._light(rng, inverse, points, normal, shading)
        solo = [np.zeros(len(rays), bool) if m is None else m.distances(origin, directions) < 10.0 for m in self._solo]

        def image(values: NDArray[np.floating]) -> NDArray[np.float32]:
            full = np.zeros((len(seen), *values.shape[1:]), np.float32)
            full[seen] = values
            return full.reshape(*shape, *values.shape[1:])

        return Buffers(
            np.where(seen, self.label[np.maximum(hits.face, 0)], BACKGROUND).astype(np.uint8).reshape(shape),
            depth.astype(np.float32).reshape(shape),
            image(normal @ T_camera_hand.rotation.T),
            image(np.einsum("nk,nkc->nc", weight, self.surface[corners])),
            image(openness),
            image(lit) > 0.5,
            solo[0].reshape(shape),
            solo[1].reshape(shape),
            lights @ T_camera_hand.rotation.T,
        )

    def shadowed(
        self, points: NDArray[np.floating], direction: NDArray[np.floating], reach: float
    ) -> NDArray[np.bool_]:
        """Whether the scene stands between points (N, 3) and a lamp in a direction (3,), within ``reach`` metres."""
        towards = np.broadcast_to(direction, np.shape(points))
        return np.isfinite(self._all.distances(points, towards, reach))

    def covered(self, origin: FloatArray, points: FloatArray, slack: float) -> NDArray[np.bool_]:
        """Whether a surface hides points (N, 3) from a place (3,), more than ``slack`` metres before them."""
        offset = points - origin
        found = self._all.distances(origin, offset)
        return np.asarray(found < np.linalg.norm(offset, axis=1) - slack)

    def _light(
        self, rng: Rng, inverse: Similarity, points: FloatArray, normal: FloatArray, shading: bool
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return openness (N,), 1 where a lamp shines (N, LIGHTS), and directions to the lamps, hand frame."""
        towards = rng.normal(size=(LIGHTS, 3)) * [1, 1, 0.7] - [0, 0.4, 1.0]
        lights = towards @ inverse.rotation.T
        lights /= np.linalg.norm(lights, axis=1, keepdims=True)
        openness, lit = np.ones(len(points)), np.ones((len(points), LIGHTS))
        if len(points) == 0 or not shading:
            return openness, lit, lights
        lifted = points + 8e-4 * normal
        for k in range(LIGHTS):
            lit[:, k] = np.isinf(self._all.distances(lifted, np.broadcast_to(lights[k], lifted.shape), SHADOW_REACH_M))
        for _ in range(OCCLUSION_RAYS):
            scatter = rng.normal(size=points.shape)
            scatter /= np.linalg.norm(scatter, axis=1, keepdims=True)
            near = self._all.distances(lifted, scatter + 1.02 * normal, OCCLUSION_REACH_M)
            openness -= np.isfinite(near) / OCCLUSION_RAYS
        return openness, lit, lights
