# SPDX-License-Identifier: Apache-2.0
"""Fewer triangles, for messages that cost by the triangle.

Our own few lines because the libraries that do it are not among the packages that rosdep can install.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


def decimated(vertices: FloatArray, faces: IntArray, most: int) -> tuple[FloatArray, IntArray]:
    """Return a mesh of at most ``most`` triangles that looks alike; the same mesh when it has no more.

    Vertices in one cell of a grid become their mean, and triangles that collapse are dropped; the grid is the finest
    that gives few enough. Winding is kept; a closed mesh may get edges that more than two triangles share.
    vertices : (V, 3), faces : (F, 3).
    """
    if len(faces) <= most:
        return vertices, faces
    size = float(np.ptp(vertices, axis=0).max())
    few, many = 1.0, 4096.0  # cells along the longest side
    best = _clustered(vertices, faces, size)
    while many / few > 1.05:
        middle = np.sqrt(few * many)
        trial = _clustered(vertices, faces, size / middle)
        if len(trial[1]) <= most:
            few, best = middle, trial
        else:
            many = middle
    return best


def _clustered(vertices: FloatArray, faces: IntArray, cell: float) -> tuple[FloatArray, IntArray]:
    """Merge the vertices of each cell of this size."""
    cells = np.floor((vertices - vertices.min(0)) / cell).astype(np.int64)
    keys = (cells[:, 0] * 8192 + cells[:, 1]) * 8192 + cells[:, 2]
    _, which, counts = np.unique(keys, return_inverse=True, return_counts=True)
    which = which.ravel()
    means = np.stack([np.bincount(which, vertices[:, axis]) for axis in range(3)], -1) / counts[:, None]
    merged = which[faces]
    a, b, c = merged.T
    merged = merged[(a != b) & (b != c) & (c != a)]
    _, first = np.unique(np.sort(merged, axis=1), axis=0, return_index=True)
    return means, merged[np.sort(first)]
