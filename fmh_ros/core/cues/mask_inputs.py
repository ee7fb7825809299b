# SPDX-License-Identifier: Apache-2.0
"""What the mask network is told besides the picture: the hand's skeleton, the prompt, the depth, the photo's border."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

CROP_SIZE = 192
MAP_SIZE = 96
#: Maps: five fingers, palm, forearm, box, points, "no prompt", inside the photo, depth, depth known.
MAP_COUNT = 13
#: Side of the first crop over the longer side of the box round the landmarks.
CROP_FACTOR = 2.5

_FINGERS = ((0, 1, 2, 3, 4), (5, 6, 7, 8), (9, 10, 11, 12), (13, 14, 15, 16), (17, 18, 19, 20))
_PALM = (0, 1, 5, 9, 13, 17)


@dataclass(frozen=True)
class CropPrompt:
    """A prompt in pixels of the crop: box x0, y0, x1, y1 or None, points (N, 2)."""

    box: tuple[float, float, float, float] | None = None
    points: FloatArray = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        if self.points is None:
            object.__setattr__(self, "points", np.zeros((0, 2)))


def hand_size_px(keypoints: FloatArray) -> float:
    """Longer side of the box round landmarks (21, 2), pixels."""
    return float(np.ptp(keypoints, axis=0).max())


def stroke(points: FloatArray, width: float) -> NDArray[np.float32]:
    """Draw a line through points (N, 2), pixels of a map, so many pixels wide: (MAP_SIZE, MAP_SIZE), 0 to 1."""
    canvas = np.zeros((MAP_SIZE, MAP_SIZE), np.uint8)
    fixed = np.round(np.clip(points, -500, 500) * 8).astype(np.int32)
    cv2.polylines(canvas, [fixed], False, 255, max(round(width), 1), cv2.LINE_AA, 3)
    return (canvas / 255).astype(np.float32)


def guidance_maps(
    keypoints: FloatArray,
    prompt: CropPrompt,
    inside: NDArray[np.bool_],
    relative_depth: NDArray[np.floating] | None = None,
) -> NDArray[np.float32]:
    """Draw the maps (MAP_COUNT, MAP_SIZE, MAP_SIZE).

    Args:
        keypoints: (21, 2) px of the crop (CROP_SIZE).
        prompt: what the user pointed at, px of the crop.
        inside: (CROP_SIZE, CROP_SIZE), False where the crop sticks out of the photo.
        relative_depth: (CROP_SIZE, CROP_SIZE) depth minus the wrist's, over the hand's length; NaN where unknown.
    """
    ratio = MAP_SIZE / CROP_SIZE
    points = (keypoints + 0.5) * ratio - 0.5
    size = hand_size_px(points)
    maps = np.zeros((MAP_COUNT, MAP_SIZE, MAP_SIZE), np.float32)
    for k, finger in enumerate(_FINGERS):
        maps[k] = stroke(points[list(finger)], 0.09 * size)
    palm = np.zeros((MAP_SIZE, MAP_SIZE), np.uint8)
    hull = cv2.convexHull(np.clip(points[list(_PALM)], -500, 500).astype(np.float32))
    cv2.fillConvexPoly(palm, np.round(hull * 8).astype(np.int32), 255, cv2.LINE_AA, 3)
    maps[5] = palm.astype(np.float32) / 255
    back = points[0] - points[[5, 9, 13, 17]].mean(0)
    reach = points[0] + back / (np.linalg.norm(back) + 1e-6) * 1.6 * size
    maps[6] = stroke(np.stack([points[0], reach]), 0.25 * size)
    if prompt.box is not None:
        low = (np.array(prompt.box[:2]) + 0.5) * ratio - 0.5
        high = (np.array(prompt.box[2:]) + 0.5) * ratio - 0.5
        x0, y0 = np.clip(np.round(low), 0, MAP_SIZE).astype(int)
        x1, y1 = np.clip(np.round(high) + 1, 0, MAP_SIZE).astype(int)
        maps[7, y0:y1, x0:x1] = 1
    for x, y in (prompt.points + 0.5) * ratio - 0.5:
        cv2.circle(maps[8], (round(float(x)), round(float(y))), 4, 1.0, -1)
    maps[9] = float(prompt.box is None and len(prompt.points) == 0)
    maps[10] = cv2.resize(inside.astype(np.float32), (MAP_SIZE, MAP_SIZE), interpolation=cv2.INTER_AREA)
    if relative_depth is not None:
        known = np.isfinite(relative_depth)
        filled = np.where(known, np.clip(relative_depth, -3, 3), 0).astype(np.float32)
        maps[11] = cv2.resize(filled, (MAP_SIZE, MAP_SIZE), interpolation=cv2.INTER_AREA)
        maps[12] = cv2.resize(known.astype(np.float32), (MAP_SIZE, MAP_SIZE), interpolation=cv2.INTER_AREA)
    return maps
