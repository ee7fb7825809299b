# SPDX-License-Identifier: Apache-2.0
"""Errors of pose, size and joints."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import trimesh
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from fmh_ros.core.transforms import Similarity
from fmh_ros.evaluation.overlap import signed_volume
from fmh_ros.evaluation.registration import align_points
from fmh_ros.evaluation.types import FloatArray, Symmetry


@dataclass(frozen=True)
class PoseErrors:
    """rotation_deg : angle, 0 to 180 degrees, the smallest over the object's symmetries; translation_mm : distance of
    the object's middle from where it should be."""

    rotation_deg: float
    translation_mm: float


@dataclass(frozen=True)
class ScaleRatios:
    """How many times as large as the true the predicted object is. volume : cube root of the ratio of the volumes, None
    when one of the meshes is not closed; extents : ratio of the diagonals of the smallest oriented boxes."""

    volume: float | None
    extents: float


@dataclass(frozen=True)
class KeypointErrors:
    """Mean distances of the 21 joints, mm: camera as they are, root with the wrists laid on each other, aligned after
    a least-squares similarity (PA-MPJPE)."""

    camera: float
    root: float
    aligned: float


def displacement(
    T_true_predicted: Similarity, centre: FloatArray, T_camera_object: Similarity | None, symmetry: Symmetry
) -> PoseErrors:
    """Return how far the predicted object is from where it should be.

    T_true_predicted : similarity that lays the predicted surface on the true one, both in the frame of the comparison.
    centre : (3,) middle of the true object in that frame. T_camera_object : pose of the true object frame, whose
    symmetries are ``symmetry``; None leaves them out.
    """
    turn = T_true_predicted.rotation
    if T_camera_object is not None:
        own = T_camera_object.rotation
        angle = symmetric_angle(own.T @ turn @ own, symmetry)
    else:
        angle = symmetric_angle(turn, Symmetry(any_rotation=symmetry.any_rotation))
    return PoseErrors(
        float(np.degrees(angle)), float(np.linalg.norm(T_true_predicted.inverse().apply(centre) - centre)) * 1e3
    )


def symmetric_angle(rotation: FloatArray, symmetry: Symmetry) -> float:
    """Return the smallest angle, radians, of ``rotation`` (3, 3), in the object frame, followed by a symmetry."""
    if symmetry.any_rotation:
        return 0.0
    turned = symmetry.rotations @ rotation
    if symmetry.axis is None:
        return float(Rotation.from_matrix(turned).magnitude().min())
    # What no turn about the axis can undo is the tilt of the axis itself.
    axis = symmetry.axis / np.linalg.norm(symmetry.axis)
    return float(np.arccos(np.clip((turned @ axis) @ axis, -1, 1)).min())


def pose_errors(predicted: Similarity, true: Similarity, symmetry: Symmetry) -> PoseErrors:
    """Compare poses of one and the same object frame, for systems that know the object's model."""
    angle = symmetric_angle(true.rotation.T @ predicted.rotation, symmetry)
    return PoseErrors(float(np.degrees(angle)), float(np.linalg.norm(predicted.translation - true.translation)) * 1e3)


def scale_ratios(
    predicted: tuple[FloatArray, NDArray[np.integer]], true: tuple[FloatArray, NDArray[np.integer]]
) -> ScaleRatios:
    """Compare the sizes of two objects, vertices (V, 3) in equal units and faces (F, 3)."""
    volumes = [volume_of(*mesh) for mesh in (predicted, true)]
    boxes = [np.linalg.norm(trimesh.bounds.oriented_bounds(vertices)[1]) for vertices, _ in (predicted, true)]
    closed = volumes[0] is not None and volumes[1] is not None
    return ScaleRatios(
        float(np.cbrt((volumes[0] or 0.0) / (volumes[1] or 1.0))) if closed else None, float(boxes[0] / boxes[1])
    )


def volume_of(vertices: FloatArray, faces: NDArray[np.integer]) -> float | None:
    """Return the volume of a mesh, cubic units, or None when it has gaps; vertices at one place count as one.

    It is closed when every edge is passed as often in the one direction as in the other.
    """
    if not len(faces):
        return None
    places, index = np.unique(vertices, axis=0, return_inverse=True)
    joined = index.reshape(-1)[np.asarray(faces, np.int64)]
    edges = np.concatenate([joined[:, [0, 1]], joined[:, [1, 2]], joined[:, [2, 0]]])
    edges = edges[edges[:, 0] != edges[:, 1]]
    key = edges.min(1) * len(places) + edges.max(1)
    way = np.where(edges[:, 0] < edges[:, 1], 1, -1)
    closed = not np.bincount(np.unique(key, return_inverse=True)[1].reshape(-1), way).any()
    volume = abs(signed_volume(places, joined))
    return volume if closed and volume > 0 else None


def keypoint_errors(predicted: FloatArray, true: FloatArray) -> KeypointErrors:
    """Compare joints (21, 3), metres, the wrist first."""
    aligned = align_points(predicted, true).apply(predicted)
    rooted = predicted - predicted[0] + true[0]
    camera, root, procrustes = (
        float(np.linalg.norm(points - true, axis=1).mean()) * 1e3 for points in (predicted, rooted, aligned)
    )
    return KeypointErrors(camera, root, procrustes)
