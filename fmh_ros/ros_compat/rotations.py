# SPDX-License-Identifier: Apache-2.0
"""Quaternions in ROS's order x, y, z, w: tf_transformations where it is installed, else SciPy."""

from __future__ import annotations

from types import ModuleType

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.transform import Rotation, Slerp

try:
    import tf_transformations as _tf_transformations
except ImportError:
    _tf_transformations = None

#: The distribution's tf_transformations, None where there is none.
TF_TRANSFORMATIONS: ModuleType | None = _tf_transformations

FloatArray = NDArray[np.float64]


def quat_xyzw_from_matrix(rotation: FloatArray, *, use_ros: bool = True) -> FloatArray:
    """Return a proper rotation (3, 3) as a unit quaternion (4,) with w >= 0."""
    if use_ros and TF_TRANSFORMATIONS is not None:
        homogeneous = np.eye(4)
        homogeneous[:3, :3] = rotation
        quat_xyzw = np.asarray(TF_TRANSFORMATIONS.quaternion_from_matrix(homogeneous), np.float64)
        quat_xyzw /= np.linalg.norm(quat_xyzw)
        return quat_xyzw if quat_xyzw[3] >= 0 else -quat_xyzw
    return np.asarray(Rotation.from_matrix(rotation).as_quat(canonical=True), np.float64)


def matrix_from_quat_xyzw(quat_xyzw: ArrayLike, *, use_ros: bool = True) -> FloatArray:
    """Return the rotation (3, 3) of a quaternion (4,) of any length but 0. Raises ValueError for length 0 or NaN."""
    quaternion = np.asarray(quat_xyzw, np.float64)
    length = np.linalg.norm(quaternion)
    if not (np.isfinite(length) and length > 0):
        raise ValueError(f"The quaternion {quaternion.tolist()} is no rotation")
    if use_ros and TF_TRANSFORMATIONS is not None:
        return np.asarray(TF_TRANSFORMATIONS.quaternion_matrix(quaternion / length)[:3, :3], np.float64)
    return np.asarray(Rotation.from_quat(quaternion).as_matrix(), np.float64)


def interpolate_quat_xyzw(first: ArrayLike, second: ArrayLike, share: float) -> FloatArray:
    """Return the rotation ``share`` (0 to 1) of the way from first to second, on the shorter way round."""
    keys = Rotation.from_quat(np.stack([np.asarray(first, np.float64), np.asarray(second, np.float64)]))
    return np.asarray(Slerp([0.0, 1.0], keys)([share]).as_quat()[0], np.float64)
