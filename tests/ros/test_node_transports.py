# SPDX-License-Identifier: Apache-2.0
"""Compressed images and depth, and quality of service from outside, on the node's real subscriptions."""

from __future__ import annotations

from array import array
from typing import Any

import cv2
import numpy as np
import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed here")
pytest.importorskip("follow_my_hold.msg", reason="the interfaces are not built here")

from follow_my_hold.action import Reconstruct
from rclpy.qos import QoSProfile, ReliabilityPolicy
from ros_world import FRAME, Camera, World, world_with_node
from rvl_encoder import encode_rvl
from sensor_msgs.msg import CompressedImage

Result = Reconstruct.Result
COLOR = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 255, (240, 320, 3), np.uint8), (0, 0), 9)
DEPTH = np.linspace(400, 700, 240 * 320).reshape(240, 320).astype(np.uint16)


class CompressingCamera(Camera):
    """A camera whose image and depth also come compressed, and only so."""

    def __init__(self, world: World, image: CompressedImage, depth: CompressedImage | None) -> None:
        super().__init__(world, rate=20.0)
        qos = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
        self.world.node.destroy_publisher(self._publishers["image"])
        self._publishers["image"] = world.node.create_publisher(CompressedImage, "/image/compressed", qos)
        self.image = image
        self.depth = depth
        if depth is not None:
            self._publishers["depth"] = world.node.create_publisher(CompressedImage, "/depth/compressedDepth", qos)


def compressed(kind: str, data: bytes) -> CompressedImage:
    message = CompressedImage(format=kind, data=array("B", data))
    message.header.frame_id = FRAME
    return message


def coded(ending: str, pixels: np.ndarray) -> bytes:
    done, data = cv2.imencode(ending, pixels)
    assert done
    return bytes(data)


@pytest.mark.parametrize("kind", ["jpeg", "png"])
def test_compressed_images_are_reconstructed_with_raw_calibration(kind: str) -> None:
    image = compressed(f"rgb8; {kind} compressed bgr8", coded(f".{kind}", COLOR))
    with world_with_node(image_transport="compressed") as world, CompressingCamera(world, image, None):
        result = world.goal().result
        assert result.error_code == 0, result.error_text
        assert result.reconstruction.header.frame_id == FRAME


@pytest.mark.parametrize("kind", ["png", "rvl"])
def test_compressed_depth_is_read_and_what_is_broken_is_said(kind: str) -> None:
    picture = coded(".png", DEPTH) if kind == "png" else encode_rvl(DEPTH)
    image = compressed("rgb8; jpeg compressed bgr8", coded(".jpeg", COLOR))
    depth = compressed(f"16UC1; compressedDepth {kind}", bytes(12) + picture)
    settings = {"image_transport": "compressed", "depth_transport": "compressedDepth", "use_depth": True}
    with world_with_node(**settings) as world, CompressingCamera(world, image, depth) as camera:
        assert world.goal().result.error_code == 0
        for broken, code in (
            (compressed(depth.format, bytes(12) + picture[:50]), Result.DEPTH),
            (compressed("jpeg", coded(".jpeg", COLOR)), Result.ENCODING),
            (compressed(depth.format, bytes(12) + (encode_rvl if kind == "rvl" else _png)(DEPTH[:99])), Result.DEPTH),
        ):
            camera.depth = broken
            result = goal_after(world, camera)
            assert result.error_code == code and "/depth/compressedDepth" in result.error_text, result.error_text
        camera.depth, camera.image = depth, compressed("jpeg", b"nothing that could be decoded")
        result = goal_after(world, camera)
        assert result.error_code == Result.IMAGE and "/image/compressed" in result.error_text


def _png(pixels: np.ndarray) -> bytes:
    return coded(".png", pixels)


def goal_after(world: World, camera: Camera) -> Any:
    """Send a goal when the camera has sent what it was given."""
    before = camera.sent
    world.wait_for(lambda: camera.sent > before + 2)
    return world.goal().result


def test_an_override_of_the_quality_of_service_takes_effect() -> None:
    with World() as world:
        world.start(**{"qos_overrides./image.subscription.reliability": "reliable", "frame_timeout": 1.0})
        world.wait_until_active()
        wait_for_subscription(world, "/image")
        (image,) = world.node.get_subscriptions_info_by_topic("/image")
        (info,) = world.node.get_subscriptions_info_by_topic("/camera_info")
        assert image.qos_profile.reliability == ReliabilityPolicy.RELIABLE
        assert info.qos_profile.reliability == ReliabilityPolicy.BEST_EFFORT
        with Camera(world):
            result = world.goal().result
            assert result.error_code == Result.NO_IMAGE and "QoS" in result.error_text, result.error_text
        with Camera(world, image_reliability=ReliabilityPolicy.RELIABLE):
            world.wait_for(lambda: world.goal().result.error_code == 0)


def wait_for_subscription(world: World, topic: str) -> None:
    world.wait_for(lambda: len(world.node.get_subscriptions_info_by_topic(topic)) == 1)
