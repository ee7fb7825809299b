# SPDX-License-Identifier: Apache-2.0
"""The node ``example_camera``: publishes the bundled example as a depth camera would, for demos without a camera."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import resources
from typing import Any

import numpy as np
import rclpy
import yaml
from geometry_msgs.msg import TransformStamped
from numpy.typing import NDArray
from PIL import Image as PillowImage
from rcl_interfaces.msg import FloatingPointRange, ParameterDescriptor
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header

from fmh_ros.ros_compat import StaticTransformBroadcaster, array_to_image, use_large_shared_memory

NAME = "example_camera"
#: An optical frame in its camera's body frame: x forward, y left, z up becomes x right, y down, z forward (REP 103).
OPTICAL_QUAT_XYZW = (-0.5, 0.5, -0.5, 0.5)


class ExampleCamera(Node):
    """Publishes ``image`` (rgb8), ``depth`` (16UC1, millimetres, aligned) and ``camera_info`` with equal stamps.

    Parameters: rate (Hz), frame_id, depth (whether to publish it), and parent_frame, in which the camera is fixed with
    a static transform (empty: none is published).
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(NAME, **kwargs)
        limits = ParameterDescriptor(
            description="Images per second, Hz.",
            read_only=True,
            floating_point_range=[FloatingPointRange(from_value=0.1, to_value=60.0)],
        )
        rate: float = self.declare_parameter("rate", 10.0, limits).value
        self._frame_id = str(self.declare_parameter("frame_id", "camera_color_optical_frame").value)
        parent = str(self.declare_parameter("parent_frame", "camera_link").value)
        self._image = array_to_image(_pixels("rgb.png"), "rgb8", Header())
        self._depth = array_to_image(_pixels("depth.png"), "16UC1", Header())
        self._camera_info = _camera_info()
        self._image_publisher = self.create_publisher(Image, "image", 1)
        self._camera_info_publisher = self.create_publisher(CameraInfo, "camera_info", 1)
        self._depth_publisher = None
        if self.declare_parameter("depth", True).value:
            self._depth_publisher = self.create_publisher(Image, "depth", 1)
        if parent:
            self._fix(parent)
        self.create_timer(1.0 / float(rate), self._publish)

    def _publish(self) -> None:
        header = Header(stamp=self.get_clock().now().to_msg(), frame_id=self._frame_id)
        self._image.header = self._depth.header = self._camera_info.header = header
        self._camera_info_publisher.publish(self._camera_info)
        if self._depth_publisher is not None:
            self._depth_publisher.publish(self._depth)
        self._image_publisher.publish(self._image)

    def _fix(self, parent: str) -> None:
        transform = TransformStamped(child_frame_id=self._frame_id)
        transform.header.frame_id = parent
        transform.header.stamp = self.get_clock().now().to_msg()
        rotation = transform.transform.rotation
        rotation.x, rotation.y, rotation.z, rotation.w = OPTICAL_QUAT_XYZW
        self._broadcaster = StaticTransformBroadcaster(self)
        self._broadcaster.sendTransform(transform)


def main(args: Sequence[str] | None = None) -> int:
    """Publish until SIGINT or SIGTERM."""
    use_large_shared_memory()
    rclpy.init(args=list(args) if args is not None else None)
    try:
        rclpy.spin(ExampleCamera())
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        rclpy.try_shutdown()
    return 0


def _pixels(name: str) -> NDArray[np.generic]:
    with resources.as_file(_example() / name) as path, PillowImage.open(path) as image:
        return np.asarray(image)


def _camera_info() -> CameraInfo:
    values = yaml.safe_load((_example() / "camera.yaml").read_text(encoding="utf-8"))
    return CameraInfo(
        width=values["image_width"],
        height=values["image_height"],
        distortion_model=values["distortion_model"],
        d=[float(value) for value in values["distortion_coefficients"]["data"]],
        k=[float(value) for value in values["camera_matrix"]["data"]],
        r=[float(value) for value in values["rectification_matrix"]["data"]],
        p=[float(value) for value in values["projection_matrix"]["data"]],
    )


def _example() -> Any:
    return resources.files("fmh_ros") / "assets" / "example"
