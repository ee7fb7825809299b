# SPDX-License-Identifier: Apache-2.0
"""A closed mesh of a cloud of surface points, for what needs an inside."""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import Delaunay

from fmh_ros.core.errors import EmptyShapeError
from fmh_ros.evaluation.types import FloatArray, IntArray

#: Radii of the ball that cannot pass between the points, metres; the smallest one that does not leak is taken.
ALPHAS_M = (0.005, 0.010, 0.020)
#: A ball leaks in when its body has less than this share of the next larger ball's.
LEAK = 0.8
#: Noise that is added to the points, metres.
JITTER_M = 1e-6
#: Corners of the faces of a tetrahedron, each opposite to the corner of its index.
_FACES = np.array([[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2]])


def alpha_shape(points: FloatArray, alphas_m: tuple[float, ...] = ALPHAS_M) -> tuple[FloatArray, IntArray]:
    """Return the closed surface, vertices (V, 3) and faces (F, 3) with outward winding, round points (N, 3).

    The space within is what a ball that comes from outside does not reach: of the points' Delaunay tetrahedra those
    that are not joined to the outside through triangles whose circumscribed circle is larger than the ball
    (Edelsbrunner and Mücke, Three-dimensional alpha shapes, 1994, with its cavities filled). The points need not fill
    the body. A small ball follows the surface best; where it falls in between the points the next larger one is used.
    Raises EmptyShapeError when the points are so sparse that nothing is left.
    """
    # Points of a flat side make tetrahedra without a volume, whose winding is undetermined: no side is flat now.
    points = points + np.random.default_rng(0).normal(0, JITTER_M, points.shape)
    mesh = Delaunay(points)
    cells = mesh.simplices.astype(np.int64)
    radii = _circumradius(points[cells[:, _FACES]].reshape(-1, 3, 3)).reshape(-1, 4)
    size = np.abs(np.linalg.det(points[cells[:, 1:]] - points[cells[:, :1]]))
    choices = [_outside(radii > alpha, mesh.neighbors.astype(np.int64)) for alpha in alphas_m]
    volumes = [float(size[~outside].sum()) for outside in choices]
    whole = [v >= LEAK * larger for v, larger in itertools.pairwise(volumes)] + [True]
    outside = choices[whole.index(True)]
    padded = np.append(outside, True)  # neighbour -1: beyond the hull
    cell, corner = np.nonzero(~outside[:, None] & padded[mesh.neighbors])
    if not len(cell):
        raise EmptyShapeError(
            f"{len(points)} points are too sparse for a closed surface",
            expected=f"points of a surface less than {2e3 * max(alphas_m):.0f} mm apart",
        )
    faces = cells[cell[:, None], _FACES[corner]]
    a, b, c = (points[faces[:, k]] for k in range(3))
    inner = points[cells[cell, corner]]
    flipped = (np.cross(b - a, c - a) * (inner - a)).sum(1) > 0
    faces[flipped] = faces[flipped][:, ::-1]
    used, index = np.unique(faces, return_inverse=True)
    return np.asarray(points[used], np.float64), np.asarray(index.reshape(-1, 3), np.int64)


def _outside(open_: NDArray[np.bool_], neighbours: IntArray) -> NDArray[np.bool_]:
    """Return which tetrahedra (T,) the ball comes to through the faces (T, 4) that are open to it."""
    count = len(open_)
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
