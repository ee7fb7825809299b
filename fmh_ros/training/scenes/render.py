# SPDX-License-Identifier: Apache-2.0
"""Ray-cast geometry buffers of a hand, its forearm and an object: exact masks, depth, normals and shadows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import warp as wp
from numpy.typing import NDArray

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


def vertex_normals(vertices: FloatArray, faces: NDArray[np.integer]) -> FloatArray:
    """Area-weighted unit normals (V, 3) of a mesh."""
    corner = vertices[faces]
    face_normal = np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0])
    result = np.zeros_like(vertices)
    for k in range(3):
        np.add.at(result, faces[:, k], face_normal)
    normalised: FloatArray = result / np.maximum(np.linalg.norm(result, axis=1, keepdims=True), 1e-12)
    return normalised


def scene_parts(rng: Rng, rig: HandRig, grasp: Grasp, *, with_object: bool = True) -> list[Part]:
    """Return the surfaces of a grasp: hand, forearm (bare or sleeved) and, when wanted and held, the object."""
    hand = Part(HAND, grasp.vertices, vertex_normals(grasp.vertices, rig.faces), rig.faces, rig.vertices)
    sleeve_from = float(rng.uniform(-0.01, 0.18)) if rng.random() < 0.55 else np.inf
    vertices, faces, along = forearm(rng, grasp.shape.scale, sleeve_from)
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


@wp.kernel
def _cast(
    mesh: wp.uint64,
    origins: wp.array(dtype=wp.vec3),
    directions: wp.array(dtype=wp.vec3),
    face: wp.array(dtype=wp.int32),
    hit: wp.array(dtype=wp.vec3),
) -> None:
    i = wp.tid()
    query = wp.mesh_query_ray(mesh, origins[i], directions[i], 100.0)
    face[i] = -1
    if query.result:
        face[i] = query.face
        hit[i] = wp.vec3(query.u, query.v, query.t)


@wp.kernel
def _blocked(
    mesh: wp.uint64,
    origins: wp.array(dtype=wp.vec3),
    directions: wp.array(dtype=wp.vec3),
    reach: wp.float32,
    result: wp.array(dtype=wp.int32),
) -> None:
    i = wp.tid()
    query = wp.mesh_query_ray(mesh, origins[i], directions[i], reach)
    result[i] = wp.where(query.result, 1, 0)


def _vec3(values: NDArray[np.floating]) -> wp.array:
    return wp.array(np.ascontiguousarray(values, np.float32), dtype=wp.vec3, device="cpu")


class Scene:
    """Surfaces ready to be ray cast from many cameras. All coordinates are of the hand frame."""

    def __init__(self, parts: list[Part]) -> None:
        offsets = np.cumsum([0, *(len(p.vertices) for p in parts)])
        self.vertices = np.concatenate([p.vertices for p in parts])
        self.normals = np.concatenate([p.normals for p in parts])
        self.surface = np.concatenate([p.surface for p in parts])
        self.faces = np.concatenate([p.faces + o for p, o in zip(parts, offsets, strict=False)])
        self.label = np.concatenate([np.full(len(p.faces), p.label, np.uint8) for p in parts])
        self._all = self._mesh(self.faces)
        self._object = self._mesh(self.faces[self.label == OBJECT])
        self._hand = self._mesh(self.faces[self.label != OBJECT])

    def _mesh(self, faces: NDArray[np.int64]) -> wp.Mesh | None:
        if len(faces) == 0:
            return None
        indices = wp.array(faces.astype(np.int32).ravel(), dtype=wp.int32, device="cpu")
        return wp.Mesh(_vec3(self.vertices), indices)

    @staticmethod
    def _first_hits(
        mesh: wp.Mesh | None, origin: FloatArray, directions: FloatArray
    ) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        count = len(directions)
        if mesh is None:
            return np.full(count, -1, np.int32), np.zeros((count, 3), np.float32)
        face = wp.zeros(count, dtype=wp.int32, device="cpu")
        hit = wp.zeros(count, dtype=wp.vec3, device="cpu")
        origins = _vec3(np.broadcast_to(origin, directions.shape))
        wp.launch(_cast, count, inputs=[mesh.id, origins, _vec3(directions), face, hit], device="cpu")
        return face.numpy(), hit.numpy()

    def _is_blocked(self, origins: FloatArray, directions: FloatArray, reach: float) -> NDArray[np.bool_]:
        result = wp.zeros(len(origins), dtype=wp.int32, device="cpu")
        inputs = [self._all.id, _vec3(origins), _vec3(directions), reach, result]  # type: ignore[union-attr]
        wp.launch(_blocked, len(origins), inputs=inputs, device="cpu")
        return result.numpy().astype(bool)

    def render(self, rng: Rng, camera: CameraModel, T_camera_hand: Similarity, *, occlusion: bool = True) -> Buffers:
        """Cast one ray per pixel; the camera and the light directions are the only things that change."""
        shape = (camera.height, camera.width)
        rays = camera.rays(camera.pixel_grid().reshape(-1, 2))
        inverse = T_camera_hand.inverse()
        # Directions keep z = 1 in the camera frame, so the hit parameter is the depth.
        directions = rays @ inverse.rotation.T
        face, hit = self._first_hits(self._all, inverse.translation, directions)
        seen = face >= 0
        f = np.maximum(face, 0)
        weight = np.stack([hit[:, 0], hit[:, 1], 1 - hit[:, 0] - hit[:, 1]], 1)
        corners = self.faces[f]
        normal = np.einsum("nk,nkc->nc", weight, self.normals[corners])
        normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-9)
        surface = np.einsum("nk,nkc->nc", weight, self.surface[corners])
        label = np.where(seen, self.label[f], BACKGROUND).astype(np.uint8)
        openness, lit, lights = self._light(rng, inverse, directions, hit[:, 2], normal, seen, occlusion)
        amodal = self._first_hits(self._object, inverse.translation, directions)[0] >= 0
        hand_only = self._first_hits(self._hand, inverse.translation, directions)[0] >= 0
        camera_normal = normal @ T_camera_hand.rotation.T

        def image(values: NDArray[np.generic], kind: type) -> NDArray[np.generic]:
            values = np.where(seen.reshape(-1, *[1] * (values.ndim - 1)), values, 0)
            return values.astype(kind).reshape(*shape, *values.shape[1:])

        return Buffers(
            label.reshape(shape),
            image(hit[:, 2], np.float32),  # type: ignore[arg-type]
            image(camera_normal, np.float32),  # type: ignore[arg-type]
            image(surface, np.float32),  # type: ignore[arg-type]
            image(openness, np.float32),  # type: ignore[arg-type]
            image(lit, np.bool_),  # type: ignore[arg-type]
            amodal.reshape(shape),
            hand_only.reshape(shape),
            lights @ T_camera_hand.rotation.T,
        )

    def _light(
        self,
        rng: Rng,
        inverse: Similarity,
        directions: FloatArray,
        depth: NDArray[np.float32],
        normal: FloatArray,
        seen: NDArray[np.bool_],
        occlusion: bool,
    ) -> tuple[FloatArray, NDArray[np.bool_], FloatArray]:
        """Return openness (N,), shadow-free flags (N, LIGHTS) and the directions to the lights, hand frame."""
        towards = rng.normal(size=(LIGHTS, 3)) * [1, 1, 0.7] - [0, 0.4, 1.0]
        lights = towards @ inverse.rotation.T
        lights /= np.linalg.norm(lights, axis=1, keepdims=True)
        openness = np.ones(len(seen))
        lit = np.ones((len(seen), LIGHTS), bool)
        points = (inverse.translation + depth[:, None] * directions)[seen] + 8e-4 * normal[seen]
        if len(points) == 0 or not occlusion:
            return openness, lit, lights
        for k in range(LIGHTS):
            towards_light = np.broadcast_to(lights[k], points.shape)
            lit[seen, k] = ~self._is_blocked(points, towards_light, 0.6)
        blocked = np.zeros(len(points))
        for _ in range(OCCLUSION_RAYS):
            scatter = rng.normal(size=points.shape)
            scatter /= np.linalg.norm(scatter, axis=1, keepdims=True)
            blocked += self._is_blocked(points, scatter + 1.02 * normal[seen], 0.06)
        openness[seen] = 1 - blocked / OCCLUSION_RAYS
        return openness, lit, lights
