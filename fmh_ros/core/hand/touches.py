# SPDX-License-Identifier: Apache-2.0
"""Where a posed hand reaches into what it holds, and where it nearly touches it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fmh_ros.core.fields.mesh_queries import MeshQueries, vertex_normals
from fmh_ros.core.hand.skin_depth import SurfacePlaces
from fmh_ros.core.hand.types import FINGERS, HandMesh

FloatArray = NDArray[np.float64]

#: A vertex deeper in the object than TOO_DEEP_M is no error of a finger: hand or object is elsewhere altogether. One
#: less deep than SURFACE_M lies on it.
SURFACE_M, TOO_DEEP_M = 0.0005, 0.03
#: A finger that ends so near to the object holds it; of its vertices that face the object the NEAREST count.
REACH_M, NEAREST = 0.012, 8
#: Cosine between a vertex' normal and the way to the object, from which it faces it.
FACING = 0.3


@dataclass(frozen=True)
class Touches:
    """Places of the hand's surface that belong on a plane of the object's surface.

    points : (N, 3) metres, camera frame, of the object's surface; normals : (N, 3) unit, away from the object;
    inside : (N,) whether the place is in the object (it has to leave it) or before it (it probably touches it).
    """

    places: SurfacePlaces
    points: FloatArray
    normals: FloatArray
    inside: NDArray[np.bool_]


def find_touches(mesh: HandMesh, held: MeshQueries) -> Touches | None:
    """Return where a hand reaches into the object and where its fingers end just before it; None for nowhere.

    held : the object, closed, camera frame. A finger that reaches into the object is not also pulled to it.
    """
    vertices = mesh.T_camera_hand.apply(mesh.vertices)
    nearest = held.nearest(vertices)
    gap = nearest.signed_distance
    away = (vertices - nearest.point) * np.where(gap < 0, -1.0, 1.0)[:, None]
    normals = away / np.maximum(np.linalg.norm(away, axis=1, keepdims=True), 1e-9)
    inside = (gap < -SURFACE_M) & (gap > -TOO_DEEP_M)
    faces_it = (gap >= 0) & ((vertex_normals(vertices, mesh.faces) * normals).sum(1) < -FACING)
    chosen = [np.flatnonzero(inside)]
    for finger in range(len(FINGERS) - 1):
        mine = mesh.vertex_finger == finger
        before = np.flatnonzero(mine & faces_it)
        before = before[np.argsort(gap[before], kind="stable")[:NEAREST]]
        if len(before) and gap[before[0]] < REACH_M and not (mine & (gap < 0)).any():
            chosen.append(before)
    ids = np.concatenate(chosen)
    if not len(ids):
        return None
    corners = np.repeat(np.arange(len(ids))[:, None], 3, axis=1)
    places = SurfacePlaces(ids, corners, np.tile([1.0, 0.0, 0.0], (len(ids), 1)))
    return Touches(places, nearest.point[ids], normals[ids], inside[ids])
