# SPDX-License-Identifier: Apache-2.0
"""``fmh record`` as a process of its own, beside real publishers."""
# ruff: noqa: E402 - these modules are only there where the checks before them pass

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

rclpy = pytest.importorskip("rclpy", reason="rclpy is not installed")
pytest.importorskip("follow_my_hold.msg", reason="the messages are not built")
pytest.importorskip("tf2_msgs.msg", reason="tf2_msgs is not installed")
pytest.importorskip("rosbags", reason="the extra 'bags' is not installed")
pytest.importorskip("mcap_ros2", reason="mcap-ros2-support is not installed")

import numpy as np
from follow_my_hold.msg import HandObject
from geometry_msgs.msg import TransformStamped
from mcap_ros2.reader import read_ros2_messages
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy, qos_profile_sensor_data
from rclpy.serialization import deserialize_message, serialize_message
from ros_domain import claim_domain
from sensor_msgs.msg import Image
from synthetic_result import synthetic_reconstruction
from tf2_msgs.msg import TFMessage

from fmh_ros.bags.reading import BagReader
from fmh_ros.messages.basics import to_header
from fmh_ros.messages.result import Made, to_hand_object
from fmh_ros.ros_compat import array_to_image

ROOT = Path(__file__).parents[2]
LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL, reliability=ReliabilityPolicy.RELIABLE)
COUNT = 30


@pytest.fixture
def node(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
    os.environ.setdefault("FASTDDS_DEFAULT_PROFILES_FILE", str(ROOT / "config" / "fastdds_shm.xml"))
    domain, claim = claim_domain()
    monkeypatch.setenv("ROS_DOMAIN_ID", str(domain))  # for the processes that a test starts
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=domain)
    made = rclpy.create_node("publishers", context=context)
    yield made
    made.destroy_node()
    rclpy.try_shutdown(context=context)
    claim.close()


def start(out: Path, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "fmh_ros", "record", str(out), *options]
    return subprocess.Popen(command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def wait_for_subscribers(publishers: list[Any]) -> None:
    deadline = time.monotonic() + 60
    while not all(publisher.get_subscription_count() for publisher in publishers):
        assert time.monotonic() < deadline, "nobody subscribed"
        time.sleep(0.02)


@pytest.mark.parametrize("name", ["out.mcap", "folder"])
def test_live_topics_are_recorded_as_they_are(node: Any, tmp_path: Path, name: str) -> None:
    # All images are counted, and a busy machine may lose large ones that are sent at best effort: those go reliably.
    images = node.create_publisher(Image, "/cam/image_raw", qos_profile_sensor_data)
    large = node.create_publisher(Image, "/cam/large", QoSProfile(depth=COUNT))
    results = node.create_publisher(HandObject, "/reconstruction_node/reconstruction", LATCHED)
    static = node.create_publisher(TFMessage, "/tf_static", LATCHED)
    result = synthetic_reconstruction()
    sent = to_hand_object(result, Made("live"))
    results.publish(sent)  # before anybody listens: only a subscription that is latched too gets it
    static.publish(TFMessage(transforms=[TransformStamped(child_frame_id="camera")]))
    topics = ("/cam/image_raw", "/cam/large", "/reconstruction_node/reconstruction", "/tf_static")
    process = start(tmp_path / name, "--topics", *topics)
    try:
        wait_for_subscribers([images, large, results, static])
        for number in range(COUNT):
            for publisher, size in ((images, (24, 32, 3)), (large, (240, 320, 3))):
                pixels = np.full(size, number, np.uint8)
                publisher.publish(array_to_image(pixels, "rgb8", to_header("cam", number + 1)))
            time.sleep(0.03)
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        said, errors = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0, errors
    assert f"{2 * COUNT + 2} messages of 4 topics" in said
    path = tmp_path / name
    file = path / f"{name}.mcap" if path.is_dir() else path
    found = [(item.channel.topic, item.ros_msg) for item in read_ros2_messages(str(file))]
    for camera, count in (("/cam/image_raw", 24 * 32 * 3), ("/cam/large", 240 * 320 * 3)):
        pictures = [message for topic, message in found if topic == camera]
        assert [message.header.stamp.nanosec for message in pictures] == list(range(1, COUNT + 1))
        assert all(bytes(m.data) == bytes([number]) * count for number, m in enumerate(pictures))
    with BagReader(path) as bag:
        raw = {stored.topic.name: stored.raw for stored in bag.messages()}
        qos = {topic.name: topic.qos[0] for topic in bag.topics()}
    expected = deserialize_message(serialize_message(sent), HandObject)
    assert deserialize_message(raw["/reconstruction_node/reconstruction"], HandObject) == expected
    assert qos["/tf_static"].durability.name == "TRANSIENT_LOCAL"
    assert qos["/cam/image_raw"].reliability.name == "BEST_EFFORT"
    assert qos["/cam/large"].reliability.name == "RELIABLE"


def test_a_recorder_that_is_killed_leaves_what_it_wrote(node: Any, tmp_path: Path) -> None:
    images = node.create_publisher(Image, "/cam/image_raw", 10)
    process = start(tmp_path / "out.mcap", "--topics", "/cam/image_raw")
    try:
        wait_for_subscribers([images])
        pixels = np.full((480, 640, 3), 9, np.uint8)
        for number in range(COUNT):
            images.publish(array_to_image(pixels, "rgb8", to_header("cam", number + 1)))
            time.sleep(0.05)
        time.sleep(0.5)
    finally:
        process.kill()
        process.communicate(timeout=60)
    with BagReader(tmp_path / "out.mcap.partial") as bag:
        summary = bag.summary()
    # The last megabyte may have been in memory.
    assert COUNT - 3 <= summary.count <= COUNT and summary.cut


def test_the_duration_counts_from_the_first_message_and_an_existing_bag_is_not_touched(
    node: Any, tmp_path: Path
) -> None:
    images = node.create_publisher(Image, "/cam/image_raw", 10)
    options = ("--duration", "1.5", "--topics", "/cam/image_raw", "/nobody")
    process = start(tmp_path / "out.mcap", *options)
    wait_for_subscribers([images])
    time.sleep(3.0)  # longer than the duration, and nothing has come
    pixels = np.full((24, 32, 3), 9, np.uint8)
    began, number = time.monotonic(), 0
    while process.poll() is None:
        number += 1
        images.publish(array_to_image(pixels, "rgb8", to_header("cam", number)))
        time.sleep(0.05)
        assert time.monotonic() - began < 60
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert "/nobody was not recorded: nobody publishes it" in errors
    with BagReader(tmp_path / "out.mcap") as bag:
        summary = bag.summary()
    assert summary.count > 3 and 1.0 < summary.duration_s <= 1.7
    before = (tmp_path / "out.mcap").read_bytes()
    process = start(tmp_path / "out.mcap", "--duration", "0.5")
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 15 and "is there already" in errors
    assert (tmp_path / "out.mcap").read_bytes() == before


@pytest.mark.parametrize("silent", [True, False])
def test_a_recording_to_which_nothing_comes_fails_and_leaves_no_bag(node: Any, tmp_path: Path, silent: bool) -> None:
    publisher = node.create_publisher(Image, "/cam/image_raw" if silent else "/elsewhere", 10)
    process = start(tmp_path / "out.mcap", "--duration", "5", "--wait", "6", "--topics", "/cam/image_raw")
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 2, errors
    assert ("1 publisher(s), but no message" if silent else "nobody publishes it") in errors
    assert publisher.topic_name in errors and "--wait" in errors
    assert list(tmp_path.iterdir()) == []
