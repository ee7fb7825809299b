# SPDX-License-Identifier: Apache-2.0
"""Objects to be held: a metric signed distance function, its mesh, and where a hand could take it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import trimesh
from numpy.typing import NDArray
from skimage.measure import marching_cubes

from fmh_ros.core.fields.mesh_queries import MeshQueries
from fmh_ros.training.shapes.families import draw_shape
from fmh_ros.training.shapes.primitives import Sdf

Rng = np.random.Generator
Points = NDArray[np.floating]

#: Longest side in metres that each family usually has; families not named get DEFAULT_SIZE.
SIZES: dict[str, tuple[float, float]] = {
    "cuboid": (0.06, 0.34),
    "slab": (0.08, 0.19),
    "can": (0.08, 0.18),
    "bottle": (0.14, 0.30),
    "mug": (0.09, 0.15),
    "cup": (0.08, 0.16),
    "bowl": (0.12, 0.26),
    "glass": (0.12, 0.22),
    "pitcher": (0.16, 0.26),
    "stick": (0.10, 0.30),
    "hammer": (0.20, 0.33),
    "drill": (0.16, 0.28),
    "scissors": (0.13, 0.22),
    "utensil": (0.15, 0.30),
    "banana": (0.14, 0.21),
    "fruit": (0.05, 0.11),
    "ring": (0.06, 0.16),
    "glider": (0.14, 0.30),
    "camera_body": (0.10, 0.16),
}
DEFAULT_SIZE = (0.06, 0.22)


@dataclass(frozen=True)
class SceneObject:
    """An object in its own frame, metres.

    name : family or file; distance : points (N, 3) to signed distances (N,), metres, negative inside.
    vertices : (V, 3) float32; normals : (V, 3) float32 unit, outward; faces : (F, 3) int32.
    """

    name: str
    distance: Callable[[Points], NDArray[np.float64]]
    vertices: NDArray[np.float32]
    normals: NDArray[np.float32]
    faces: NDArray[np.int32]


def _bounds(shape: Sdf) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    axis = np.linspace(-2.0, 2.0, 44, dtype=np.float32)
    points = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)
    near = points[shape(points) < 0.06]
    if len(near) == 0:
        near = np.array([[-1.0, -1, -1], [1, 1, 1]])
    return near.min(0) - 0.06, near.max(0) + 0.06


def mesh_of(shape: Sdf, cells: int = 60) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Triangulate a distance function: vertices (V, 3) in its own units and outward faces (F, 3)."""
    low, high = _bounds(shape)
    step = float((high - low).max() / cells)
    axes = [np.arange(lo, hi + step, step, dtype=np.float32) for lo, hi in zip(low, high, strict=True)]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), -1)
    values = shape(grid.reshape(-1, 3)).reshape(grid.shape[:3])
    vertices, faces, _, _ = marching_cubes(values, 0.0, spacing=(step,) * 3)
    return vertices + np.array([a[0] for a in axes]), faces


def _edges(faces: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.concatenate([faces[:, :2], faces[:, 1:]])


def _gradient_normals(shape: Sdf, vertices: Points, step: float = 0.01) -> NDArray[np.float64]:
    offsets = np.eye(3, dtype=np.float32) * np.float32(step)
    points = vertices.astype(np.float32)
    gradient = np.stack([shape(points + o) - shape(points - o) for o in offsets], -1).astype(np.float64)
    result: NDArray[np.float64] = gradient / np.maximum(np.linalg.norm(gradient, axis=1, keepdims=True), 1e-9)
    return result


def procedural_object(rng: Rng, family: str | None = None) -> SceneObject:
    """Draw a procedural shape of one body at a plausible metric size, centred on its bounding box."""
    while True:
        name, shape = draw_shape(rng, family)
        vertices, faces = mesh_of(shape)
        if len(np.unique(trimesh.graph.connected_component_labels(_edges(faces), node_count=len(vertices)))) == 1:
            break
    low, high = vertices.min(0), vertices.max(0)
    centre = (low + high) / 2
    size = rng.uniform(*SIZES.get(name, DEFAULT_SIZE))
    scale = float(size / (high - low).max())

    def distance(points: Points) -> NDArray[np.float64]:
        local = (np.asarray(points) / scale + centre).astype(np.float32)
        return scale * shape(np.ascontiguousarray(local)).astype(np.float64)

    normals = _gradient_normals(shape, vertices)
    return SceneObject(
        name,
        distance,
        ((vertices - centre) * scale).astype(np.float32),
        normals.astype(np.float32),
        faces.astype(np.int32),
    )


def mesh_object(path: Path) -> SceneObject:
    """Load a metric mesh file (STL, OBJ, PLY) as a scene object, centred on its bounding box."""
    mesh = trimesh.load_mesh(path)
    mesh.merge_vertices()
    mesh.apply_translation(-mesh.bounds.mean(0))
    return scene_object(path.stem, mesh)


def scene_object(name: str, mesh: trimesh.Trimesh) -> SceneObject:
    """Turn a closed metric mesh with outward winding into a scene object; its coordinates become the object's frame."""
    queries = MeshQueries(mesh.vertices, mesh.faces)

    def distance(points: Points) -> NDArray[np.float64]:
        return queries.nearest(points).signed_distance

    return SceneObject(
        name,
        distance,
        mesh.vertices.astype(np.float32),
        mesh.vertex_normals.astype(np.float32),
        mesh.faces.astype(np.int32),
    )
