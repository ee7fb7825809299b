# SPDX-License-Identifier: Apache-2.0
"""How far a hand and an object are inside each other.

Inside and outside are by winding number, so that a mesh may intersect itself and have small holes, such as the wrist.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import trimesh
from numpy.typing import NDArray

from fmh_ros.core.fields.mesh_queries import MeshQueries
from fmh_ros.evaluation.points import sample_points
from fmh_ros.evaluation.types import FloatArray, IntArray

#: Pitch of the voxels that the literature counts (GraspingField and those after it), metres.
VOXEL_PITCH_M = 0.005
#: Cells that the exact volume begins and ends with, metres.
FIRST_CELL_M, LAST_CELL_M = 0.008, 0.002
#: Points on the hand, besides its vertices, whose depth in the object is looked at, and their seed.
DEPTH_SAMPLES, DEPTH_SEED = 10_000, 0


@dataclass(frozen=True)
class Solid:
    """A closed mesh: vertices (V, 3) metres, faces (F, 3), outward winding, and its queries."""

    vertices: FloatArray
    faces: IntArray
    queries: MeshQueries

    def signed_distance(self, points: FloatArray) -> FloatArray:
        """Return distances (N,) of points (N, 3) to the surface, metres, negative inside."""
        if not len(points):
            return np.zeros(0)
        return self.queries.nearest(points).signed_distance


def make_solid(vertices: FloatArray, faces: NDArray[np.integer]) -> Solid:
    """Return a mesh that can be asked for distances; its winding is turned outward when its volume is negative."""
    inward = signed_volume(vertices, faces) < 0
    turned = np.array(faces[:, ::-1] if inward else faces, np.int64)
    return Solid(np.asarray(vertices, np.float64), turned, MeshQueries(vertices, turned))


def signed_volume(vertices: FloatArray, faces: NDArray[np.integer]) -> float:
    """Return the volume of a closed mesh, cubic metres; negative when its winding is inward."""
    a, b, c = (vertices[faces[:, k]] - vertices.mean(0) for k in range(3))
    return float((a * np.cross(b, c)).sum() / 6)


def voxel_intersection(hand: Solid, obj: Solid, pitch_m: float = VOXEL_PITCH_M) -> float:
    """Return the volume that hand and object share as the literature counts it, cubic metres.

    The object is made of voxels as trimesh makes them (each one that the surface passes through, and those within), and
    those with their centre inside the hand are counted. More than the true volume, since a surface voxel counts fully.
    """
    if _overlap_box(hand, obj) is None:
        return 0.0
    voxels = trimesh.Trimesh(obj.vertices, obj.faces, process=False).voxelized(pitch_m).fill(method="holes")
    centres = np.asarray(voxels.points, np.float64)
    low, high = hand.vertices.min(0), hand.vertices.max(0)
    near = centres[((centres > low) & (centres < high)).all(1)]
    return float((hand.signed_distance(near) < 0).sum()) * pitch_m**3


def exact_intersection(hand: Solid, obj: Solid, cell_m: float = LAST_CELL_M) -> float:
    """Return the volume that hand and object share, cubic metres, from their signed distances.

    The box that both reach into is cut into cells of 8 mm. A cell whose centre is deeper inside both, or farther
    outside one, than its corners are away is decided; the others are halved down to ``cell_m``, and of each of the last
    the share is counted that both surfaces leave, as planes (``_shares``).
    """
    box = _overlap_box(hand, obj)
    if box is None:
        return 0.0
    low, high = box
    counts = np.ceil((high - low) / FIRST_CELL_M).astype(int)
    edge = (high - low) / counts
    centres = low + (np.indices(tuple(counts.tolist())).reshape(3, -1).T + 0.5) * edge
    volume = 0.0
    while edge.max() > cell_m:
        reach = float(np.linalg.norm(edge)) / 2
        depth = _outside_either(hand, obj, centres, reach)
        volume += float((depth <= -reach).sum() * edge.prod())
        open_ = centres[np.abs(depth) < reach]
        edge = edge / 2
        corners = (np.indices((2, 2, 2)).reshape(3, -1).T - 0.5) * edge
        centres = (open_[:, None] + corners).reshape(-1, 3)
    return volume + float(_shares(hand, obj, centres, float(np.cbrt(edge.prod()))).sum() * edge.prod())


def penetration_depth(hand: Solid, obj: Solid, samples: int = DEPTH_SAMPLES, seed: int = DEPTH_SEED) -> float:
    """Return how deep the deepest point of the hand's surface is inside the object, metres, 0 when none is."""
    points = np.concatenate([hand.vertices, sample_points(hand.vertices, hand.faces, samples, seed)])
    low, high = obj.vertices.min(0), obj.vertices.max(0)
    inside = points[((points > low) & (points < high)).all(1)]
    return float(max(0.0, -obj.signed_distance(inside).min(initial=0.0)))


def _overlap_box(hand: Solid, obj: Solid) -> tuple[FloatArray, FloatArray] | None:
    low = np.maximum(hand.vertices.min(0), obj.vertices.min(0))
    high = np.minimum(hand.vertices.max(0), obj.vertices.max(0))
    return None if (high <= low).any() else (low, high)


def _outside_either(hand: Solid, obj: Solid, points: FloatArray, reach: float) -> FloatArray:
    """Return the signed distance (N,) to the shared volume, exact inside and up to ``reach`` from each surface.

    The greater one of the two distances; the hand is asked only where the object leaves it open.
    """
    result = obj.signed_distance(points)
    open_ = result < reach
    result[open_] = np.maximum(result[open_], hand.signed_distance(points[open_]))
    return result


def _shares(hand: Solid, obj: Solid, centres: FloatArray, edge: float) -> FloatArray:
    """Return the share (N,) of each cell that is in both bodies, whose surfaces are planes within a cell.

    Of surfaces that face each other, as where the hand touches, a cell keeps what both shares have beyond one; of
    surfaces that cross, their product; of surfaces that face the same way, the smaller one; in between, linearly.
    """
    if not len(centres):
        return np.zeros(0)
    result = np.zeros(len(centres))
    found = obj.queries.nearest(centres)
    some = found.signed_distance < edge / 2
    if not some.any():
        return result
    a, outward = _share(centres[some], found.signed_distance[some], found.point[some], edge)
    found = hand.queries.nearest(centres[some])
    b, other = _share(centres[some], found.signed_distance, found.point, edge)
    cosine = (outward * other).sum(1)
    extreme = np.where(cosine < 0, np.maximum(a + b - 1, 0), np.minimum(a, b))
    result[some] = a * b + np.abs(cosine) * (extreme - a * b)
    return result


def _share(
    centres: FloatArray, distance: FloatArray, nearest: FloatArray, edge: float
) -> tuple[FloatArray, FloatArray]:
    """Return the share (N,) of each cell behind the plane at its nearest point, and the plane's outward normal."""
    way = (centres - nearest) * np.sign(distance)[:, None]
    length = np.maximum(np.linalg.norm(way, axis=1, keepdims=True), 1e-12)
    return np.clip(0.5 - distance / edge, 0, 1), way / length
