# SPDX-License-Identifier: Apache-2.0
"""Bodies of a generated shape that the hand hides the connection of.

A hammer held at its middle is seen as a head and a handle, and a generator that knows the middle only as "unknown" may
leave it empty. A thin neck that the image shows may be lost too. What a hand holds is one thing: pieces that are both
seen, with nothing but the hand or the object's own mask between them, are connected by a rod as thick as the thinner of
them there. Pieces that were not seen, or that have a visible gap between them, are left apart, for ``field_to_mesh`` to
drop.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

from fmh_ros.core.cues.types import SceneMasks
from fmh_ros.core.frame.camera import CameraModel
from fmh_ros.core.transforms import Similarity

FloatArray = NDArray[np.float64]
Grid = NDArray[np.floating]

#: A piece smaller than this part of the largest is a speck.
LEAST_PIECE = 0.02
#: Part of a piece that must lie on the object's mask, and on it or behind the hand.
SEEN, POSSIBLE = 0.05, 0.8
#: Part of the gap that must lie behind the hand or on the object's mask, and how long it may be at most, metres: of a
#: hammer along the line of sight both ends are seen and nothing between.
COVERED, LONGEST_M = 0.7, 0.3
#: Thickness of the rod over that of the thinner piece where it begins, and how far from there it is measured, cells.
THICKNESS, NEARBY = 0.8, 5.0


@dataclass(frozen=True)
class Sight:
    """What the image says of a place: whether it shows the object there, or a hand that may hide it."""

    camera: CameraModel
    masks: SceneMasks

    def at(self, points: FloatArray) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Return, for points (N, 3), metres, camera optical frame: on the object's mask (N,), and hidden (N,), which is
        behind the hand or outside the image."""
        pixels = np.round(self.camera.project(points)).astype(int)
        size = [self.camera.width, self.camera.height]
        inside = (pixels >= 0).all(1) & (pixels < size).all(1) & (points[:, 2] > 0)
        u, v = np.where(inside[:, None], pixels, 0).T
        return inside & self.masks.object[v, u], ~inside | self.masks.hand[v, u]


def join_bodies(values: Grid, bounds: float, T_camera_field: Similarity, sight: Sight) -> Grid:
    """Return the distances (R, R, R) of a field on [-bounds, bounds]^3 with its pieces joined where the hand hides how.

    values : negative inside, field units. What needs no joining is returned as it is.
    """
    inside = values < 0
    pieces, count = ndimage.label(inside, np.ones((3, 3, 3)))
    if count < 2:
        return values
    sizes = ndimage.sum_labels(inside, pieces, np.arange(1, count + 1))
    order = np.argsort(-sizes) + 1
    cell = 2.0 * bounds / (values.shape[0] - 1)
    large = [np.argwhere(pieces == k) for k in order if sizes[k - 1] > LEAST_PIECE * sizes.max()]
    waiting = [piece for piece in large if _possible(piece * cell - bounds, T_camera_field, sight)]
    if len(waiting) < 2:
        return values
    body = waiting.pop(0)
    depth = ndimage.distance_transform_edt(inside)
    while waiting:
        reaches = [cKDTree(body).query(piece) for piece in waiting]
        nearest = min(range(len(waiting)), key=lambda k: reaches[k][0].min())
        piece, (distance, index) = waiting.pop(nearest), reaches[nearest]
        gap = body[index[distance.argmin()]], piece[distance.argmin()]
        if _covered(np.array(gap) * cell - bounds, T_camera_field, sight):
            ends, radius = _rod(depth, gap)
            values = np.minimum(values, _capsule(values.shape[0], ends, radius) * cell).astype(values.dtype)
            body = np.concatenate([body, piece])
    return values


def _possible(points: FloatArray, T_camera_field: Similarity, sight: Sight) -> bool:
    """Whether a piece (N, 3), field units, is where the image shows the object or cannot tell."""
    shown, hidden = sight.at(T_camera_field.apply(points))
    return bool(shown.mean() > SEEN and (shown | hidden).mean() > POSSIBLE)


def _covered(ends: FloatArray, T_camera_field: Similarity, sight: Sight) -> bool:
    """Whether the gap between two points (2, 3), field units, is short and nowhere seen to be empty."""
    first, last = T_camera_field.apply(ends)
    if np.linalg.norm(last - first) > LONGEST_M:
        return False
    shown, hidden = sight.at(first + np.linspace(0, 1, 40)[:, None] * (last - first))
    return bool((shown | hidden).mean() > COVERED)


def _rod(depth: FloatArray, ends: tuple[NDArray[np.integer], NDArray[np.integer]]) -> tuple[FloatArray, float]:
    """Return where a rod between two pieces begins and ends (2, 3) and its radius, all in cells.

    depth : (R, R, R), cells to the outside. Each end moves to the middle of its piece nearby.
    """
    moved, radii = [], []
    for end in ends:
        low = np.maximum(end - int(NEARBY), 0)
        high = np.minimum(end + int(NEARBY) + 1, depth.shape)
        window = depth[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
        moved.append(low + np.array(np.unravel_index(window.argmax(), window.shape)))
        radii.append(float(window.max()))
    return np.array(moved, float), max(THICKNESS * min(radii), 1.2)


def _capsule(size: int, ends: FloatArray, radius: float) -> FloatArray:
    """Signed distance (R, R, R), cells, to a rod with round ends; far from it a lower bound."""
    result = np.full((size,) * 3, float(size))
    margin = int(np.ceil(radius)) + 3
    low = np.maximum(np.floor(ends.min(0)).astype(int) - margin, 0)
    high = np.minimum(np.ceil(ends.max(0)).astype(int) + margin + 1, size)
    points = np.stack(np.meshgrid(*(np.arange(a, b) for a, b in zip(low, high, strict=True)), indexing="ij"), -1)
    along = ends[1] - ends[0]
    share = np.clip((points - ends[0]) @ along / max(float(along @ along), 1e-9), 0, 1)
    distance = np.linalg.norm(points - ends[0] - share[..., None] * along, axis=-1) - radius
    result[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] = distance
    return result
