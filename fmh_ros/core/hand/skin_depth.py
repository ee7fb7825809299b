# SPDX-License-Identifier: Apache-2.0
"""Measured depth of a hand's visible skin, tied to points of its mesh."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from fmh_ros.core.fields.mesh_queries import MeshQueries
from fmh_ros.core.frame.camera import CameraModel
from fmh_ros.core.hand.types import HandMesh

FloatArray = NDArray[np.float64]

_MOST_RAYS = 3000
_MOST_SAMPLES = 150

#: Fewer pixels of skin with a depth say nothing.
FEWEST_PIXELS = 25


@dataclass(frozen=True)
class SkinDepth:
    """Depth at N points of the hand's surface.

    vertex_ids : (M,) vertices in use; corners : (N, 3) indices into vertex_ids; weights : (N, 3) barycentric.
    depth : (N,) float64 metres along z, measured. ratio : median of measured over modelled depth.
    relative_error : how uncertain that ratio is, one sigma.
    """

    vertex_ids: NDArray[np.int64]
    corners: NDArray[np.int64]
    weights: FloatArray
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
    pixels = _pixels(camera, points)
    rays = camera.rays(pixels.astype(np.float64))
    hits = MeshQueries(points, mesh.faces).cast(np.zeros(3), rays)
    modelled = hits.distance / np.linalg.norm(rays, axis=1)
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
    corners = mesh.faces[hits.face[chosen]]
    weights = _barycentric(points[corners], rays[chosen] * modelled[chosen, None])
    ids, inverse = np.unique(corners, return_inverse=True)
    # Neighbouring pixels err together, so the scatter does not average out over their number.
    return SkinDepth(ids, inverse.reshape(-1, 3), weights, measured[chosen], middle, 0.01 + 0.3 * scatter)


def _pixels(camera: CameraModel, points: FloatArray) -> NDArray[np.int64]:
    """Return a regular set of pixels (N, 2) inside the image over the projected points."""
    projected = camera.project(points)
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
