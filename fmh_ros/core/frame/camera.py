# SPDX-License-Identifier: Apache-2.0
"""Pinhole cameras: optical frame x right, y down, z forward; pixel centres at integer coordinates."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fmh_ros.core.errors import CameraError

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class CameraModel:
    """Intrinsics of a rectified pinhole image.

    width, height : pixels.
    K : (3, 3) float64, the matrix of REP 104, in pixels; pixel (u, v) = (0, 0) is the centre of the first pixel.
    distortion : the coefficients that were removed from the image (plumb_bob or rational_polynomial order, empty for
        none). The image that goes with this object is already undistorted.
    source : "given" by a calibration, or "estimated" from a default field of view.
    """

    width: int
    height: int
    K: FloatArray
    distortion: tuple[float, ...] = ()
    source: Literal["given", "estimated"] = "given"

    def validate(self) -> None:
        """Raise CameraError unless the intrinsics are finite and plausible for this image size."""
        if self.K.shape != (3, 3) or not np.isfinite(self.K).all():
            raise CameraError(
                f"The camera matrix is not finite: {np.asarray(self.K).ravel().tolist()}",
                expected="nine finite numbers",
                change="Calibrate the camera, or leave the calibration out to have the field of view estimated",
            )
        fx, fy = self.K[0, 0], self.K[1, 1]
        longest = max(self.width, self.height)
        if not (0.2 * longest < fx < 50 * longest and 0.2 * longest < fy < 50 * longest):
            raise CameraError(
                f"The focal length is {fx:.1f}, {fy:.1f} px for a {self.width}x{self.height} image",
                expected="a focal length between 0.2 and 50 times the longer side (0 means uncalibrated)",
                change="Check that the calibration belongs to this image and is in pixels",
            )

    @property
    def focal(self) -> float:
        """Geometric mean of the two focal lengths, pixels."""
        return float(np.sqrt(self.K[0, 0] * self.K[1, 1]))

    def project(self, points: NDArray[np.floating]) -> FloatArray:
        """Project points (..., 3) in metres, optical frame, to pixels (..., 2)."""
        points = np.asarray(points, np.float64)
        homogeneous = points @ self.K.T
        result: FloatArray = homogeneous[..., :2] / homogeneous[..., 2:3]
        return result

    def rays(self, pixels: NDArray[np.floating]) -> FloatArray:
        """Return directions (..., 3) with z = 1 through pixels (..., 2)."""
        pixels = np.asarray(pixels, np.float64)
        ones = np.ones((*pixels.shape[:-1], 1))
        result: FloatArray = np.concatenate([pixels, ones], -1) @ np.linalg.inv(self.K).T
        return result

    def pixel_grid(self) -> FloatArray:
        """Return pixel centres (height, width, 2) as (u, v)."""
        u, v = np.meshgrid(np.arange(self.width), np.arange(self.height))
        return np.stack([u, v], -1).astype(np.float64)

    def crop(self, box: tuple[float, float, float, float], width: int, height: int) -> CameraModel:
        """Camera of the region ``box`` (x0, y0, x1, y1 in pixel-edge coordinates) resampled to width x height.

        Pixel-edge coordinates: the first pixel spans 0 to 1, so the whole image is (0, 0, width, height).
        """
        x0, y0, x1, y1 = box
        sx, sy = width / (x1 - x0), height / (y1 - y0)
        A = np.array([[sx, 0, sx * (0.5 - x0) - 0.5], [0, sy, sy * (0.5 - y0) - 0.5], [0, 0, 1.0]])
        return replace(self, width=width, height=height, K=A @ self.K)

    def mirrored(self) -> CameraModel:
        """Camera of the horizontally flipped image."""
        K = self.K.copy()
        K[0, 2] = self.width - 1 - K[0, 2]
        K[0, 1] = -K[0, 1]
        return replace(self, K=K)


def camera_from_field_of_view(width: int, height: int, degrees: float = 55.0) -> CameraModel:
    """Camera whose longer side spans ``degrees``, principal point at the centre, marked as estimated.

    55 degrees is near the main camera of phones and the colour stream of depth cameras.
    """
    longest = max(width, height)
    focal = 0.5 * longest / np.tan(np.radians(degrees) / 2)
    K = np.array([[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1.0]])
    return CameraModel(width, height, K, (), "estimated")
