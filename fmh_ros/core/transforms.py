# SPDX-License-Identifier: Apache-2.0
"""Similarity transforms. ``T_a_b`` is the pose of b in a: it maps coordinates in b to coordinates in a."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Similarity:
    """``x_a = scale * rotation @ x_b + translation``; a rigid pose when ``scale`` is 1.

    rotation : (3, 3) float64, proper (determinant +1); translation : (3,) float64, in a's units (metres when a is a
    camera frame); scale : a-units per b-unit.
    """

    rotation: FloatArray = field(default_factory=lambda: np.eye(3))
    translation: FloatArray = field(default_factory=lambda: np.zeros(3))
    scale: float = 1.0

    def apply(self, points: NDArray[np.floating]) -> FloatArray:
        """Map points (..., 3) from b to a."""
        result: FloatArray = self.scale * (np.asarray(points, np.float64) @ self.rotation.T) + self.translation
        return result

    def inverse(self) -> Similarity:
        """Return ``T_b_a``."""
        rotation = self.rotation.T
        return Similarity(rotation, -(rotation @ self.translation) / self.scale, 1.0 / self.scale)

    def __matmul__(self, other: Similarity) -> Similarity:
        """Compose: ``T_a_b @ T_b_c = T_a_c``."""
        return Similarity(self.rotation @ other.rotation, self.apply(other.translation), self.scale * other.scale)

    def rigid(self) -> Similarity:
        """Return the same pose with scale 1."""
        return Similarity(self.rotation, self.translation, 1.0)

    def matrix(self) -> FloatArray:
        """Return the (4, 4) homogeneous matrix, scale included."""
        result = np.eye(4)
        result[:3, :3] = self.scale * self.rotation
        result[:3, 3] = self.translation
        return result


def nearest_rotation(matrix: NDArray[np.floating]) -> FloatArray:
    """Return the orthonormal matrix (3, 3) nearest to one that is a rotation but for rounding."""
    u, _, vt = np.linalg.svd(np.asarray(matrix, np.float64))
    result: FloatArray = u @ vt
    return result


def mirror_x(transform: Similarity) -> Similarity:
    """Mirror both frames of a transform across their own yz planes: the result is again proper."""
    flip = np.diag([-1.0, 1.0, 1.0])
    return Similarity(flip @ transform.rotation @ flip, flip @ transform.translation, transform.scale)
