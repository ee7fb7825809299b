# SPDX-License-Identifier: Apache-2.0
"""Numbers, arrays, poses and headers as message fields."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Any

import numpy as np
from builtin_interfaces.msg import Time
from geometry_msgs.msg import Point, Pose, Quaternion, Transform, Vector3
from numpy.typing import ArrayLike, NDArray
from std_msgs.msg import Header

from fmh_ros.core.transforms import Similarity
from fmh_ros.ros_compat import matrix_from_quat_xyzw, quat_xyzw_from_matrix

FloatArray = NDArray[np.float64]
NANOSECONDS = 1_000_000_000
_DTYPES = {"f": np.float32, "d": np.float64, "I": np.uint32, "B": np.uint8}


def flat(values: ArrayLike, code: str) -> array[Any]:
    """Return numbers of any shape as a flat array of type ``code``: "f", "d", "I" or "B".

    Message fields take an ``array.array`` as it is; a list or a NumPy array is checked number by number, which takes
    a hundred times longer.
    """
    result = array(code)
    result.frombytes(np.ascontiguousarray(values, _DTYPES[code]).tobytes())
    return result


def rows(values: Sequence[Any], width: int) -> FloatArray:
    """Return a flat field of numbers as (N, width) float64."""
    return np.array(values, np.float64).reshape(-1, width)


def to_time(stamp_ns: int | None) -> Time:
    """Nanoseconds as a time; None becomes zero, which is how ROS writes an unknown time."""
    seconds, nanoseconds = divmod(stamp_ns or 0, NANOSECONDS)
    return Time(sec=seconds, nanosec=nanoseconds)


def from_time(time: Time) -> int:
    """A time as nanoseconds."""
    return int(time.sec) * NANOSECONDS + int(time.nanosec)


def to_header(frame_id: str, stamp_ns: int | None) -> Header:
    """A header."""
    return Header(stamp=to_time(stamp_ns), frame_id=frame_id)


def to_point(position: ArrayLike) -> Point:
    """A position (3,) metres."""
    x, y, z = np.asarray(position, np.float64).tolist()
    return Point(x=x, y=y, z=z)


def to_points(positions: ArrayLike) -> list[Point]:
    """Positions (N, 3) metres."""
    return [Point(x=x, y=y, z=z) for x, y, z in np.asarray(positions, np.float64).tolist()]


def to_vector(vector: ArrayLike) -> Vector3:
    """A vector (3,)."""
    x, y, z = np.asarray(vector, np.float64).tolist()
    return Vector3(x=x, y=y, z=z)


def from_xyz(value: Point | Vector3) -> FloatArray:
    """A point or vector as (3,) float64."""
    return np.array([value.x, value.y, value.z])


def to_quaternion(rotation: FloatArray) -> Quaternion:
    """A rotation matrix (3, 3) as a unit quaternion with w >= 0."""
    x, y, z, w = quat_xyzw_from_matrix(rotation).tolist()
    return Quaternion(x=x, y=y, z=z, w=w)


def to_pose(pose: Similarity) -> Pose:
    """A rigid pose; its scale is not written."""
    return Pose(position=to_point(pose.translation), orientation=to_quaternion(pose.rotation))


def from_pose(pose: Pose) -> Similarity:
    """A pose message as a rigid transform. Raises ValueError for a quaternion of length 0."""
    quat_xyzw = [pose.orientation.x, pose.orientation.y, pose.orientation.z, pose.orientation.w]
    return Similarity(matrix_from_quat_xyzw(quat_xyzw), from_xyz(pose.position))


def to_transform(pose: Similarity) -> Transform:
    """The same as ``to_pose`` in the type that TF uses."""
    return Transform(translation=to_vector(pose.translation), rotation=to_quaternion(pose.rotation))


def from_transform(transform: Transform) -> Similarity:
    """A transform message as a rigid transform."""
    q = transform.rotation
    return Similarity(matrix_from_quat_xyzw([q.x, q.y, q.z, q.w]), from_xyz(transform.translation))
