# SPDX-License-Identifier: Apache-2.0
"""The visible surface from aligned depth: cleaned of flying pixels, with normals."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from fmh_ros.core.cues.types import HandObservation, PointMap, SceneMasks
from fmh_ros.core.frame.camera import CameraModel
from fmh_ros.core.frame.frame import Frame

Depth = NDArray[np.float32]

#: Neighbours count as one surface when their depths differ by less than FLAT_M + FLAT_SHARE * depth per pixel.
FLAT_M = 0.004
FLAT_SHARE = 0.008
#: Depth inside the object mask this much nearer or further than its median is the background showing through, metres.
OBJECT_REACH_M = 0.3
SENSOR_SCALE_SIGMA = 0.01


class SensorPointMapper:
    """`PointMapper` on the frame's own depth; returns None when the frame has none."""

    name = "sensor"

    def map_points(self, frame: Frame, hand: HandObservation, masks: SceneMasks) -> PointMap | None:
        """Return cleaned depth (metres) and normals (camera frame, towards the camera), NaN where unknown."""
        if frame.depth is None or not np.isfinite(frame.depth).any():
            return None
        depth = drop_strays(remove_flying_pixels(frame.depth), masks.object)
        return PointMap(depth, normals_from_depth(depth, frame.camera), "sensor", SENSOR_SCALE_SIGMA)


def drop_strays(depth: Depth, mask: NDArray[np.bool_]) -> Depth:
    """Set to NaN what lies in the object mask (H, W) but far from most of the object: background showing through."""
    seen = depth[mask]
    seen = seen[np.isfinite(seen)]
    if not seen.size:
        return depth
    with np.errstate(invalid="ignore"):
        stray = mask & (np.abs(depth - np.median(seen)) > OBJECT_REACH_M)
    return np.where(stray, np.nan, depth).astype(np.float32)


def _tolerance(depth: Depth) -> Depth:
    return np.float32(FLAT_M) + np.float32(FLAT_SHARE) * depth


def _shifted(values: Depth, dy: int, dx: int) -> Depth:
    """The value of the neighbour at (y + dy, x + dx), NaN outside."""
    padded = np.pad(values, 1, constant_values=np.nan)
    height, width = values.shape
    return padded[1 + dy : 1 + dy + height, 1 + dx : 1 + dx + width]


def remove_flying_pixels(depth: Depth, fewest: int = 4) -> Depth:
    """Set to NaN what fewer than ``fewest`` of its eight neighbours agree with: mixed pixels at edges, and specks."""
    tolerance = _tolerance(depth)
    support = np.zeros(depth.shape, np.int32)
    for dy in (-1, 0, 1):
        for dx in (-1, 0, 1):
            if dy or dx:
                with np.errstate(invalid="ignore"):
                    support += np.abs(_shifted(depth, dy, dx) - depth) < tolerance
    return np.where(support >= fewest, depth, np.nan).astype(np.float32)


def smooth_depth(depth: Depth, sigma: float) -> Depth:
    """Smooth within surfaces: a bilateral filter that ignores unknown pixels; NaN stays NaN."""
    known = np.isfinite(depth)
    if not known.any():
        return depth
    far = float(np.nanmax(depth)) + 10.0
    radius = 3.0 * float(_tolerance(np.float32(np.nanmedian(depth)) * np.ones(1, np.float32))[0])
    filled = np.where(known, depth, far).astype(np.float32)
    smoothed = cv2.bilateralFilter(filled, -1, radius, sigma)
    return np.where(known, smoothed, np.nan).astype(np.float32)


def normals_from_depth(depth: Depth, camera: CameraModel, sigma: float = 1.5) -> NDArray[np.float32]:
    """Unit normals (H, W, 3) of a depth map, camera frame, towards the camera; NaN where the surface is broken."""
    smoothed = smooth_depth(depth, sigma)
    points = camera.rays(camera.pixel_grid()) * smoothed[..., None]
    across = np.full_like(points, np.nan)
    down = np.full_like(points, np.nan)
    across[:, 1:-1] = points[:, 2:] - points[:, :-2]
    down[1:-1] = points[2:] - points[:-2]
    limit = 6 * _tolerance(smoothed)
    normal = np.cross(down, across)
    with np.errstate(invalid="ignore", divide="ignore"):
        broken = (np.abs(across[..., 2]) > limit) | (np.abs(down[..., 2]) > limit)
        normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
        facing = np.einsum("hwc,hwc->hw", normal, points)
    normal[broken] = np.nan
    # Both differences run along increasing pixels, so the cross product already faces the camera unless folded.
    normal[facing > 0] *= -1
    return normal.astype(np.float32)
