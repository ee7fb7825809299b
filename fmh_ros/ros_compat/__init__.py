# SPDX-License-Identifier: Apache-2.0
"""What cv_bridge, sensor_msgs_py, tf2_ros and tf_transformations do for this package.

They are used where they are installed, as on every ROS distribution; where ROS comes from PyPI they do not exist, and
this package, and only this one, supplies the same few functions.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from fmh_ros.ros_compat.clouds import make_cloud
from fmh_ros.ros_compat.fastdds import profile_variable, share_directory, use_large_shared_memory
from fmh_ros.ros_compat.images import (
    COLOR_ENCODINGS,
    array_to_image,
    compressed_depth_to_array,
    compressed_to_rgb,
    image_to_array,
    image_to_rgb,
)
from fmh_ros.ros_compat.rotations import matrix_from_quat_xyzw, quat_xyzw_from_matrix

if TYPE_CHECKING:
    from fmh_ros.ros_compat.transform_buffer import (
        Buffer,
        ConnectivityException,
        ExtrapolationException,
        LookupException,
        StaticTransformBroadcaster,
        TransformBroadcaster,
        TransformException,
        TransformListener,
    )

__all__ = [
    "COLOR_ENCODINGS",
    "Buffer",
    "ConnectivityException",
    "ExtrapolationException",
    "LookupException",
    "StaticTransformBroadcaster",
    "TransformBroadcaster",
    "TransformException",
    "TransformListener",
    "array_to_image",
    "compressed_depth_to_array",
    "compressed_to_rgb",
    "image_to_array",
    "image_to_rgb",
    "make_cloud",
    "matrix_from_quat_xyzw",
    "profile_variable",
    "quat_xyzw_from_matrix",
    "share_directory",
    "use_large_shared_memory",
]


def __getattr__(name: str) -> Any:
    """Look up transform classes when they are asked for: they need rclpy, the other functions only the messages."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        module = importlib.import_module("tf2_ros")
    except ImportError:
        module = importlib.import_module("fmh_ros.ros_compat.transform_buffer")
    return getattr(module, name)
