# SPDX-License-Identifier: Apache-2.0
"""Where in an image a hand with known landmarks is: its bones, and its forearm, which has no landmarks."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Mask = NDArray[np.bool_]
FloatArray = NDArray[np.float64]

#: Half width of the forearm at the wrist, as a part of the hand's box; how much it may turn to either side, as a slope.
ARM_WIDTH, ARM_TURN = 0.45, 0.8


def distance_to_bones(keypoints: FloatArray, shape: tuple[int, ...]) -> FloatArray:
    """Distance (S, S), px, to the bones between the landmarks."""
    drawn = np.zeros(shape, np.uint8)
    pixels = np.round(keypoints).astype(int)
    for finger in range(5):
        chain = [0, *range(1 + 4 * finger, 5 + 4 * finger)]
        cv2.polylines(drawn, [pixels[chain].reshape(-1, 1, 2).astype(np.int32)], False, 1, 2)
    return np.asarray(ndimage.distance_transform_edt(drawn == 0), np.float64)


def along_forearm(keypoints: FloatArray, shape: tuple[int, ...]) -> Mask:
    """Where the forearm may be (S, S): beyond the wrist, away from the knuckles."""
    wrist, knuckles = keypoints[0], keypoints[[5, 9, 13, 17]].mean(0)
    away = wrist - knuckles
    length = float(np.linalg.norm(away))
    if length < 1:
        return np.zeros(shape, bool)
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    offset = np.stack([columns - wrist[0], rows - wrist[1]], -1)
    along = offset @ (away / length)
    across = np.abs(offset @ np.array([-away[1], away[0]])) / length
    size = float(np.ptp(keypoints, axis=0).max())
    result: Mask = (along > 0) & (across < ARM_WIDTH * size + ARM_TURN * along)
    return result
