# SPDX-License-Identifier: Apache-2.0
"""Measured depth of a hand's visible skin, tied to points of its mesh, and how well a mesh explains it."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from fmh_ros.core.cues.hand_pixels import along_forearm
from fmh_ros.core.fields.mesh_queries import MeshQueries, RayHits, vertex_normals
from fmh_ros.core.frame.camera import CameraModel
from fmh_ros.core.hand.types import HandMesh

FloatArray = NDArray[np.float64]

_MOST_RAYS = 3000
_MOST_SAMPLES = 150
_MOST_POINTS = 250

#: Fewer pixels of skin with a depth say nothing.
FEWEST_PIXELS = 25
#: A mesh so far from the measured skin does not explain it; one so far before what is measured is not there, metres.
NEAR_M, BEHIND_M = 0.01, 0.02


@dataclass(frozen=True)
class SurfacePlaces:
    """N places on the hand's surface, which move with its vertices.

    vertex_ids : (M,) vertices in use; corners : (N, 3) indices into vertex_ids; weights : (N, 3) barycentric.
    """

    vertex_ids: NDArray[np.int64]
    corners: NDArray[np.int64]
    weights: FloatArray


@dataclass(frozen=True)
class SkinPoints:
    """Measured points (N, 3) of skin, metres, camera frame, and the places of the surface that belong there.

    normals : (N, 3) unit, of the surface at the places.
    """

    places: SurfacePlaces
    points: FloatArray
    normals: FloatArray


@dataclass(frozen=True)
class SkinDepth:
    """Depth at N places of the hand's surface.

    depth : (N,) float64 metres along z, measured. ratio : median of measured over modelled depth.
    relative_error : how uncertain that ratio is, one sigma.
    """

    places: SurfacePlaces
    depth: FloatArray
    ratio: float
    relative_error: float


def measure_skin(
    mesh: HandMesh,
    camera: CameraModel,
    depth: NDArray[np.float32],
    hand_mask: NDArray[np.bool_] | None,
    *,
    coarse: bool,
) -> SkinDepth | None:
    """Look up the depth where the mesh is seen.

    Args:
        mesh: the hand as fitted so far.
        camera: intrinsics of the depth image.
        depth: (H, W) metres, NaN where unknown.
        hand_mask: (H, W) visible skin, or None to trust depth that lies near the mesh.
        coarse: True while the distance is still a guess: any depth is believed then, not only that near the mesh.

    Returns:
        The samples, or None when too few pixels of skin have a depth.
    """
    points = mesh.T_camera_hand.apply(mesh.vertices)
    pixels = _pixels(camera, camera.project(points))
    rays = camera.rays(pixels.astype(np.float64))
    hits, modelled = _cast(points, mesh.faces, rays)
    usable = _flat(depth) if hand_mask is None else _flat(depth) & _inside(hand_mask)
    keep = (hits.face >= 0) & usable[pixels[:, 1], pixels[:, 0]]
    measured = depth[pixels[:, 1], pixels[:, 0]].astype(np.float64)
    if keep.sum() < FEWEST_PIXELS:
        return None
    ratio = measured / np.where(keep, modelled, 1.0)
    middle = float(np.median(ratio[keep]))
    near = 0.06 if coarse else 0.025
    keep &= np.abs(measured - middle * modelled) < near
    if keep.sum() < FEWEST_PIXELS:
        return None
    middle = float(np.median(ratio[keep]))
    scatter = 1.4826 * float(np.median(np.abs(ratio[keep] / middle - 1.0)))
    chosen = np.flatnonzero(keep)
    chosen = chosen[np.linspace(0, len(chosen) - 1, min(len(chosen), _MOST_SAMPLES)).astype(int)]
    places = _places(points, mesh.faces[hits.face[chosen]], rays[chosen] * modelled[chosen, None])
    # Neighbouring pixels err together, so the scatter does not average out over their number.
    return SkinDepth(places, measured[chosen], middle, 0.01 + 0.3 * scatter)


def skin_points(
    camera: CameraModel, depth: NDArray[np.float32], hand_mask: NDArray[np.bool_], keypoints_2d: FloatArray
) -> FloatArray:
    """Return measured points (N, 3) of the visible skin, metres, camera frame, without the forearm, which no mesh has.

    The arguments are those of ``skin_agreement``.
    """
    usable = _inside(hand_mask) & _flat(depth) & ~along_forearm(keypoints_2d, depth.shape)
    rows, columns = np.nonzero(usable)
    chosen = np.linspace(0, len(rows) - 1, min(len(rows), _MOST_POINTS)).astype(int)
    v, u = rows[chosen], columns[chosen]
    rays = camera.rays(np.stack([u, v], 1).astype(np.float64))
    return np.asarray(rays * depth[v, u].astype(np.float64)[:, None], np.float64)


def match_points(mesh: HandMesh, points: FloatArray, reach: float) -> SkinPoints | None:
    """Find the place of the mesh nearest to each measured point (N, 3).

    Points farther away than ``reach`` metres, and those nearest to a side that the camera does not see, are left out.
    Returns None when too few are left.
    """
    vertices = mesh.T_camera_hand.apply(mesh.vertices)
    nearest = MeshQueries(vertices, mesh.faces).nearest(points)
    corners = mesh.faces[nearest.face]
    a, b, c = (vertices[corners[:, k]] for k in range(3))
    facing = (np.cross(b - a, c - a) * points).sum(1) < 0
    keep = facing & (np.abs(nearest.signed_distance) < reach)
    if keep.sum() < FEWEST_PIXELS:
        return None
    places = _places(vertices, corners[keep], nearest.point[keep])
    at_corners = vertex_normals(vertices, mesh.faces)[corners[keep]]
    normals = (at_corners * places.weights[..., None]).sum(1)
    return SkinPoints(places, points[keep], normals / np.linalg.norm(normals, axis=1, keepdims=True))


def _places(vertices: FloatArray, corners: NDArray[np.int64], points: FloatArray) -> SurfacePlaces:
    """Points (N, 3) in the triangles of ``vertices`` (V, 3) with these corners (N, 3)."""
    ids, inverse = np.unique(corners, return_inverse=True)
    return SurfacePlaces(ids, inverse.reshape(-1, 3), _barycentric(vertices[corners], points))


def skin_agreement(
    mesh: HandMesh,
    camera: CameraModel,
    depth: NDArray[np.float32],
    hand_mask: NDArray[np.bool_],
    keypoints_2d: FloatArray,
) -> float:
    """Return how well a mesh explains the measured hand, 0 to 1: which of several readings of a hand is the right one.

    A pixel of skin on which the mesh lies counts as 1 where it lies at the measured depth and falls to 0 at NEAR_M from
    it; skin the mesh leaves bare or that has no depth counts 0, and so does a pixel through which something is seen far
    behind the mesh.

    Args:
        mesh: a fitted hand.
        camera: intrinsics of the depth image.
        depth: (H, W) metres, NaN where unknown.
        hand_mask: (H, W) visible skin; the forearm, which no mesh has, is left out where it is bare.
        keypoints_2d: (21, 2) px, landmarks of the same reading, which tell where the forearm is.
    """
    points = mesh.T_camera_hand.apply(mesh.vertices)
    rows, columns = np.nonzero(hand_mask)
    pixels = _pixels(camera, np.vstack([camera.project(points), np.stack([columns, rows], 1)]))
    _, modelled = _cast(points, mesh.faces, camera.rays(pixels.astype(np.float64)))
    u, v = pixels.T
    skin, covered = hand_mask[v, u], np.isfinite(modelled)
    beyond = depth[v, u] - modelled  # not a number, and so neither near nor behind, where either is unknown
    near = np.nan_to_num(np.clip(1 - np.abs(beyond) / NEAR_M, 0, 1))[skin].sum()
    bare = skin & ~covered & ~along_forearm(keypoints_2d, depth.shape)[v, u]
    total = int((skin & covered).sum() + bare.sum() + (~skin & (beyond > BEHIND_M)).sum())
    return float(near / max(total, 1))


def _cast(points: FloatArray, faces: NDArray[np.int64], rays: FloatArray) -> tuple[RayHits, FloatArray]:
    """Return what rays (N, 3) with z = 1 from the camera hit, and its depth (N,) along z, infinite where nothing is."""
    hits = MeshQueries(points, faces).cast(np.zeros(3), rays)
    return hits, hits.distance / np.linalg.norm(rays, axis=1)


def _pixels(camera: CameraModel, projected: FloatArray) -> NDArray[np.int64]:
    """Return a regular set of pixels (N, 2) inside the image over points (M, 2) px."""
    limit = np.array([camera.width - 1, camera.height - 1])
    low = np.clip(np.floor(projected.min(0)), 0, limit).astype(int)
    high = np.clip(np.ceil(projected.max(0)), 0, limit).astype(int)
    step = max(1, int(np.ceil(np.sqrt(np.prod(high - low + 1.0) / _MOST_RAYS))))
    u, v = np.meshgrid(np.arange(low[0], high[0] + 1, step), np.arange(low[1], high[1] + 1, step))
    return np.stack([u.ravel(), v.ravel()], 1)


def _flat(depth: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Pixels whose depth is known and not at a jump."""
    known = np.isfinite(depth) & (depth > 0)
    filled = np.where(known, depth, 0.0).astype(np.float32)
    kernel = np.ones((3, 3), np.uint8)
    jump = cv2.dilate(filled, kernel) - cv2.erode(np.where(known, filled, 1e6).astype(np.float32), kernel)
    return known & (jump < 0.03)


def _inside(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Mask without its rim."""
    return cv2.erode(mask.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0


def _barycentric(triangles: FloatArray, points: FloatArray) -> FloatArray:
    """Weights (N, 3) of points (N, 3) that lie in triangles (N, 3, 3)."""
    a, b, c = (triangles[:, k] for k in range(3))
    normal = np.cross(b - a, c - a)
    square = (normal**2).sum(1)
    first = (np.cross(b - points, c - points) * normal).sum(1) / square
    second = (np.cross(c - points, a - points) * normal).sum(1) / square
    return np.stack([first, second, 1.0 - first - second], 1)
