# SPDX-License-Identifier: Apache-2.0
"""What cv_bridge, sensor_msgs_py, tf2_ros and tf_transformations do for this package.

They are used where they are installed, as on every ROS distribution; where ROS comes from PyPI they do not exist, and
this package, and only this one, supplies the same few functions.
"""

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

try:
    from tf2_ros import (
        Buffer,
        ConnectivityException,
        ExtrapolationException,
        LookupException,
        StaticTransformBroadcaster,
        TransformBroadcaster,
        TransformException,
        TransformListener,
    )
except ImportError:
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
