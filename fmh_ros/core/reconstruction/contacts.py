# SPDX-License-Identifier: Apache-2.0
"""Where the hand touches the object."""

from __future__ import annotations

import numpy as np
import trimesh
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from fmh_ros.core.fields.mesh_queries import MeshQueries, NearestPoints, vertex_normals
from fmh_ros.core.hand.types import FINGERS, HandMesh
from fmh_ros.core.reconstruction.types import Contact, ObjectMesh

FloatArray = NDArray[np.float64]

#: A point of the object's surface this close to the hand counts as touched, metres.
CONTACT_DISTANCE_M = 0.004
#: Two contacts of one finger are at least this far apart, metres.
CONTACT_SPACING_M = 0.006
#: The surface is looked at in steps no longer than this, metres.
SAMPLE_SPACING_M = 0.003
#: Below this distance the direction to the hand is rounding error, metres.
TOUCHING_M = 3e-4
#: Cosine between the surface normal and the direction to the hand, below which the hand is on the other side.
FACING = 0.2


def find_contacts(
    obj: ObjectMesh,
    hand: HandMesh,
    max_gap_m: float = CONTACT_DISTANCE_M,
    spacing_m: float = CONTACT_SPACING_M,
) -> tuple[Contact, ...]:
    """Return contact points on the object's surface, ordered by finger, closest first.

    A surface point is a contact when the nearest hand surface is within ``max_gap_m``, or the point is inside the
    hand, and the hand is on the outer side of the surface there: the far side of a thin object is not touched.
    Positions and normals are in the camera optical frame; ``gap_m`` is negative where hand and object overlap.
    """
    points, normals = surface_samples(obj, SAMPLE_SPACING_M)
    hand_vertices = hand.T_camera_hand.apply(hand.vertices)
    near = _near_box(points, hand_vertices, max_gap_m)
    points, normals = points[near], normals[near]
    if not len(points):
        return ()
    nearest = MeshQueries(hand_vertices, hand.faces).nearest(points)
    touched = _touched(points, normals, nearest, max_gap_m)
    points, normals, gaps = points[touched], normals[touched], nearest.signed_distance[touched]
    fingers = _finger_at(hand, hand_vertices, nearest.face[touched], nearest.point[touched])
    contacts: list[Contact] = []
    for index, name in enumerate(FINGERS):
        chosen = np.flatnonzero(fingers == index)
        kept = chosen[_thinned(points[chosen], gaps[chosen], spacing_m)]
        contacts += [Contact(points[i], normals[i], name, float(gaps[i])) for i in kept]
    return tuple(contacts)


def surface_samples(obj: ObjectMesh, spacing_m: float) -> tuple[FloatArray, FloatArray]:
    """Return points (N, 3) all over the object's surface, in the camera frame, and their outward normals (N, 3)."""
    vertices, faces = obj.vertices, obj.faces
    edges = np.linalg.norm(vertices[faces] - vertices[np.roll(faces, 1, axis=1)], axis=-1)
    if edges.max() <= spacing_m:
        normals = vertex_normals(vertices, faces)
        return obj.T_camera_object.apply(vertices), normals @ obj.T_camera_object.rotation.T
    mesh = trimesh.Trimesh(vertices, faces, process=False)
    fine, fine_faces, parent = trimesh.remesh.subdivide_to_size(
        vertices, faces, max_edge=spacing_m, max_iter=20, return_index=True
    )
    # Face centres and not vertices: a large flat face then keeps its own normal up to its edges.
    centres = fine[fine_faces].mean(1)
    normals = np.asarray(mesh.face_normals)[parent]
    return obj.T_camera_object.apply(centres), normals @ obj.T_camera_object.rotation.T


def _near_box(points: FloatArray, vertices: FloatArray, margin: float) -> NDArray[np.bool_]:
    low, high = vertices.min(0) - margin, vertices.max(0) + margin
    result: NDArray[np.bool_] = ((points >= low) & (points <= high)).all(-1)
    return result


def _touched(points: FloatArray, normals: FloatArray, nearest: NearestPoints, max_gap_m: float) -> NDArray[np.bool_]:
    gap = nearest.signed_distance
    # Inside the hand the nearest surface lies back through the object's surface, against the normal.
    towards = (nearest.point - points) * np.where(gap < 0, -1.0, 1.0)[:, None]
    facing = (towards * normals).sum(-1) > FACING * np.abs(gap)
    result: NDArray[np.bool_] = (gap <= max_gap_m) & (facing | (np.abs(gap) < TOUCHING_M))
    return result


def _finger_at(
    hand: HandMesh, vertices: FloatArray, faces: NDArray[np.int64], positions: FloatArray
) -> NDArray[np.int64]:
    """Return the finger (N,) of the corner of ``faces`` (N,) that is nearest to ``positions`` (N, 3)."""
    corners = hand.faces[faces]
    distance = np.linalg.norm(vertices[corners] - positions[:, None], axis=-1)
    nearest = corners[np.arange(len(corners)), distance.argmin(-1)]
    return np.asarray(hand.vertex_finger[nearest], np.int64)


def _thinned(points: FloatArray, gaps: FloatArray, spacing_m: float) -> NDArray[np.int64]:
    """Return indices of a subset no two of which are nearer than ``spacing_m``, the closest contacts first."""
    if not len(points):
        return np.zeros(0, np.int64)
    tree = cKDTree(points)
    free = np.ones(len(points), bool)
    kept = []
    for index in np.argsort(np.abs(gaps), kind="stable"):
        if free[index]:
            kept.append(index)
            free[tree.query_ball_point(points[index], spacing_m)] = False
    return np.array(kept, np.int64)
