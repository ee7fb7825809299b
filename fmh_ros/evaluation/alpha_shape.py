# SPDX-License-Identifier: Apache-2.0
"""A closed mesh of a cloud of surface points, for what needs an inside."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import Delaunay

from fmh_ros.core.errors import EmptyShapeError
from fmh_ros.evaluation.types import FloatArray, IntArray

#: Radius of the ball that cannot pass between the points, metres.
ALPHA_M = 0.010
#: Noise that is added to the points, metres.
JITTER_M = 1e-6
#: Corners of the faces of a tetrahedron, each opposite to the corner of its index.
_FACES = np.array([[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2]])


def alpha_shape(points: FloatArray, alpha_m: float = ALPHA_M) -> tuple[FloatArray, IntArray]:
    """Return the closed surface, vertices (V, 3) and faces (F, 3) with outward winding, round points (N, 3).

    The space within is what a ball of radius ``alpha_m`` that comes from outside does not reach: of the points'
    Delaunay tetrahedra those that are not joined to the outside through triangles whose circumscribed circle is larger
    than the ball (Edelsbrunner and Mücke, Three-dimensional alpha shapes, 1994, with its cavities filled). The points
    need not fill the body. Raises EmptyShapeError when the points are so sparse that nothing is left.
    """
    # Points of a flat side make tetrahedra without a volume, whose winding is undetermined: no side is flat now.
    points = points + np.random.default_rng(0).normal(0, JITTER_M, points.shape)
    mesh = Delaunay(points)
    cells = mesh.simplices.astype(np.int64)
    outside = _outside(points, cells, mesh.neighbors.astype(np.int64), alpha_m)
    padded = np.append(outside, True)  # neighbour -1: beyond the hull
    cell, corner = np.nonzero(~outside[:, None] & padded[mesh.neighbors])
    if not len(cell):
        raise EmptyShapeError(
            f"{len(points)} points are too sparse for a closed surface",
            expected=f"points of a surface less than {2 * alpha_m * 1e3:.0f} mm apart",
        )
    faces = cells[cell[:, None], _FACES[corner]]
    a, b, c = (points[faces[:, k]] for k in range(3))
    inner = points[cells[cell, corner]]
    flipped = (np.cross(b - a, c - a) * (inner - a)).sum(1) > 0
    faces[flipped] = faces[flipped][:, ::-1]
    used, index = np.unique(faces, return_inverse=True)
    return np.asarray(points[used], np.float64), np.asarray(index.reshape(-1, 3), np.int64)


def _outside(points: FloatArray, cells: IntArray, neighbours: IntArray, alpha: float) -> NDArray[np.bool_]:
    """Return which tetrahedra (T,) the ball comes to."""
    count = len(cells)
    triangles = points[cells[:, _FACES]]
    open_ = _circumradius(triangles.reshape(-1, 3, 3)).reshape(count, 4) > alpha
    cell, corner = np.nonzero(open_)
    other = np.where(neighbours[cell, corner] < 0, count, neighbours[cell, corner])
    joined = coo_matrix((np.ones(len(cell), bool), (cell, other)), shape=(count + 1, count + 1))
    label = connected_components(joined, directed=False)[1]
    return np.asarray(label[:count] == label[count])


def _circumradius(triangles: FloatArray) -> FloatArray:
    a, b, c = (np.linalg.norm(triangles[:, k] - triangles[:, k - 1], axis=1) for k in range(3))
    area = np.linalg.norm(np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0]), axis=1)
    result: FloatArray = a * b * c / np.maximum(2 * area, 1e-18)
    return result
