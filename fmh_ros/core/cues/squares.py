# SPDX-License-Identifier: Apache-2.0
"""Turned squares of the frame, and how to look at one: every network sees the image in such crops."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Square:
    """A square of the frame, turned: centre (2,) px, side px, angle radians (of the crop's x axis in the frame)."""

    centre: FloatArray
    side: float
    angle: float = 0.0

    def to_frame(self, size: int) -> FloatArray:
        """(2, 3) affine map from pixels of a size x size crop to pixels of the frame."""
        step = self.side / size
        c, s = step * np.cos(self.angle), step * np.sin(self.angle)
        linear = np.array([[c, -s], [s, c]])
        offset = self.centre - linear @ np.full(2, (size - 1) / 2)
        return np.concatenate([linear, offset[:, None]], 1)


def invert(affine: FloatArray) -> FloatArray:
    """Inverse of a (2, 3) affine map."""
    return np.asarray(cv2.invertAffineTransform(affine), np.float64)


def apply(affine: FloatArray, points: FloatArray) -> FloatArray:
    """Map points (N, 2) by a (2, 3) affine map."""
    result: FloatArray = np.asarray(points, np.float64) @ affine[:, :2].T + affine[:, 2]
    return result


def cut(image: NDArray[np.uint8], to_frame: FloatArray, size: int) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Resample a square of an image (H, W, C): (size, size, C), black outside, and where it is inside."""
    scale = float(np.hypot(*to_frame[:, 0]))
    # Smooth before taking every n-th pixel.
    source = image if scale < 1.5 else cv2.GaussianBlur(image, (0, 0), 0.4 * scale)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    crop = cv2.warpAffine(source, to_frame, (size, size), flags=flags)
    ones = np.full(image.shape[:2], 255, np.uint8)
    inside = cv2.warpAffine(ones, to_frame, (size, size), flags=cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP) > 0
    return np.asarray(crop, np.uint8), inside
