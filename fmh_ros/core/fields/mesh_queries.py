# SPDX-License-Identifier: Apache-2.0
"""Questions to finished triangle meshes: what does a ray hit first, how far is a point from the surface.

No gradients (the differentiable renderer is in ``core.fields``). Built on NVIDIA Warp's bounding volume hierarchy.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import warp as wp
from numpy.typing import NDArray

from fmh_ros.core.fields.warp_runtime import start_warp
from fmh_ros.core.frame.camera import CameraModel

FloatArray = NDArray[np.float64]

#: Farther than anything is, metres.
_FAR = 1.0e6


@dataclass(frozen=True)
class RayHits:
    """First hits of N rays.

    distance : (N,) float64 along the unit direction, infinite where nothing was hit; face : (N,) int64, -1 there;
    normal : (N, 3) float64 unit, outward, interpolated from the vertex normals, zero there.
    """

    distance: FloatArray
    face: NDArray[np.int64]
    normal: FloatArray


@dataclass(frozen=True)
class NearestPoints:
    """Nearest surface points of N queries.

    signed_distance : (N,) float64, negative inside; face : (N,) int64; point : (N, 3) float64.
    """

    signed_distance: FloatArray
    face: NDArray[np.int64]
    point: FloatArray


@wp.kernel(enable_backward=False)
def cast_rays(
    mesh: wp.uint64,
    origins: wp.array[wp.vec3],
    directions: wp.array[wp.vec3],
    reach: wp.float32,
    distance: wp.array[wp.float32],
    face: wp.array[wp.int32],
    barycentric: wp.array[wp.vec2],
) -> None:
    """First hit of one ray; the outputs as in ``RayHits``, the weights of the first two corners in place of normals."""
    i = wp.tid()
    hit = wp.mesh_query_ray(mesh, origins[i], directions[i], reach)
    face[i] = -1
    if hit.result:
        distance[i] = hit.t
        face[i] = hit.face
        barycentric[i] = wp.vec2(hit.u, hit.v)


@wp.kernel(enable_backward=False)
def _nearest(
    mesh: wp.uint64,
    points: wp.array[wp.vec3],
    signed_distance: wp.array[wp.float32],
    face: wp.array[wp.int32],
    nearest: wp.array[wp.vec3],
) -> None:
    i = wp.tid()
    found = wp.mesh_query_point_sign_winding_number(mesh, points[i], 1.0e6)
    face[i] = -1
    if found.result:
        position = wp.mesh_eval_position(mesh, found.face, found.u, found.v)
        signed_distance[i] = found.sign * wp.length(points[i] - position)
        face[i] = found.face
        nearest[i] = position


class MeshQueries:
    """A triangle mesh that answers ray and distance queries on the CPU.

    vertices : (V, 3) metres, any frame; faces : (F, 3), outward winding. Distances have a sign only when the mesh is
    closed; it may intersect itself.
    """

    def __init__(self, vertices: NDArray[np.floating], faces: NDArray[np.integer]) -> None:
        start_warp()
        self._faces = np.asarray(faces, np.int64)
        self._vertices = np.asarray(vertices, np.float64)
        # Coordinates about the mesh's own centre keep float32 precise whatever its distance from the camera.
        self._centre = self._vertices.mean(0)
        points = wp.array(self._local(self._vertices), dtype=wp.vec3, device="cpu")
        indices = wp.array(self._faces.astype(np.int32).ravel(), dtype=wp.int32, device="cpu")
        self._normals: FloatArray | None = None
        self._mesh = wp.Mesh(points=points, indices=indices, support_winding_number=True)

    def cast(self, origins: NDArray[np.floating], directions: NDArray[np.floating]) -> RayHits:
        """Cast rays from ``origins`` (N, 3) along ``directions`` (N, 3), of any length, in the mesh's frame."""
        distance, face, uv = self._first_hits(origins, directions)
        hit = face >= 0
        normal = np.zeros((len(face), 3))
        if hit.any():
            normal[hit] = self._normals_at(face[hit], uv[hit])
        return RayHits(distance, face, normal)

    def distances(
        self, origins: NDArray[np.floating], directions: NDArray[np.floating], reach: float = _FAR
    ) -> FloatArray:
        """Return only the distances (N,) of ``cast``, infinite beyond ``reach``, in less time."""
        return self._first_hits(origins, directions, reach)[0]

    def _first_hits(
        self, origins: NDArray[np.floating], directions: NDArray[np.floating], reach: float = _FAR
    ) -> tuple[FloatArray, NDArray[np.int64], NDArray[np.float32]]:
        """Return distances (N,), faces (N,) and Warp's barycentric coordinates (N, 2)."""
        unit = directions / np.linalg.norm(directions, axis=-1, keepdims=True)
        count = len(unit)
        distance = wp.zeros(count, dtype=wp.float32, device="cpu")
        face = wp.zeros(count, dtype=wp.int32, device="cpu")
        uv = wp.zeros(count, dtype=wp.vec2, device="cpu")
        inputs = [
            self._mesh.id,
            wp.array(self._local(np.broadcast_to(origins, unit.shape)), dtype=wp.vec3, device="cpu"),
            wp.array(np.ascontiguousarray(unit, np.float32), dtype=wp.vec3, device="cpu"),
            reach,
        ]
        wp.launch(cast_rays, dim=count, inputs=[*inputs, distance, face, uv], device="cpu")
        faces = face.numpy().astype(np.int64)
        return np.where(faces >= 0, distance.numpy(), np.inf).astype(np.float64), faces, uv.numpy()

    def nearest(self, points: NDArray[np.floating]) -> NearestPoints:
        """Return the surface points nearest to ``points`` (N, 3) and their signed distances."""
        count = len(points)
        distance = wp.zeros(count, dtype=wp.float32, device="cpu")
        face = wp.zeros(count, dtype=wp.int32, device="cpu")
        nearest = wp.zeros(count, dtype=wp.vec3, device="cpu")
        queries = wp.array(self._local(points), dtype=wp.vec3, device="cpu")
        wp.launch(_nearest, dim=count, inputs=[self._mesh.id, queries, distance, face, nearest], device="cpu")
        position = nearest.numpy().astype(np.float64) + self._centre
        return NearestPoints(distance.numpy().astype(np.float64), face.numpy().astype(np.int64), position)

    def _local(self, points: NDArray[np.floating]) -> NDArray[np.float32]:
        return np.ascontiguousarray(np.asarray(points, np.float64) - self._centre, np.float32)

    def _normals_at(self, faces: NDArray[np.int64], uv: NDArray[np.float32]) -> FloatArray:
        # Warp's u and v weigh the first two corners.
        weights = np.stack([uv[:, 0], uv[:, 1], 1.0 - uv.sum(-1)], -1)[..., None]
        if self._normals is None:
            self._normals = vertex_normals(self._vertices, self._faces)
        blended = (self._normals[self._faces[faces]] * weights).sum(1)
        return _unit(blended)


def vertex_normals(vertices: NDArray[np.floating], faces: NDArray[np.integer]) -> FloatArray:
    """Return area-weighted unit normals (V, 3)."""
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    area_normals = np.cross(b - a, c - a)
    result = np.zeros((len(vertices), 3))
    for k in range(3):
        for axis in range(3):
            result[:, axis] += np.bincount(faces[:, k], area_normals[:, axis], len(vertices))
    return _unit(result)


def render_first_hits(queries: MeshQueries, camera: CameraModel) -> tuple[FloatArray, NDArray[np.int64]]:
    """Return depth (H, W) metres along z, NaN where nothing is, and face (H, W), -1 there.

    The mesh must be in the camera's optical frame.
    """
    rays = camera.rays(camera.pixel_grid()).reshape(-1, 3)
    hits = queries.cast(np.zeros(3), rays)
    along_z = hits.distance / np.linalg.norm(rays, axis=-1)
    shape = (camera.height, camera.width)
    depth = np.where(hits.face >= 0, along_z, np.nan).reshape(shape)
    return depth, hits.face.reshape(shape)


def join(
    parts: list[tuple[NDArray[np.floating], NDArray[np.integer]]],
) -> tuple[FloatArray, NDArray[np.int64], NDArray[np.int64]]:
    """Concatenate (vertices, faces) parts; also return which part each face came from, (F,)."""
    offsets = np.cumsum([0] + [len(vertices) for vertices, _ in parts])
    vertices = np.concatenate([np.asarray(v, np.float64) for v, _ in parts])
    faces = np.concatenate([np.asarray(f, np.int64) + offset for (_, f), offset in zip(parts, offsets, strict=False)])
    part = np.concatenate([np.full(len(f), index, np.int64) for index, (_, f) in enumerate(parts)])
    return vertices, faces, part


def _unit(vectors: FloatArray) -> FloatArray:
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    result: FloatArray = vectors / np.maximum(length, 1e-12)
    return result
