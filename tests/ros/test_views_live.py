# SPDX-License-Identifier: Apache-2.0
"""Every topic, type, field and frame that the RViz and Foxglove views name is there while camera and node run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

pytest.importorskip("rclpy", reason="ROS is not installed: make setup-ros")
pytest.importorskip("follow_my_hold.msg", reason="the messages are not built: make setup-ros")

from rclpy.qos import DurabilityPolicy, QoSProfile
from ros_world import ROOT, World
from tf2_msgs.msg import TFMessage

from fmh_ros.bags.classes import message_class

CAMERA = "from fmh_ros.nodes.example_camera import main; main()"
LATCHED = QoSProfile(depth=10, durability=DurabilityPolicy.TRANSIENT_LOCAL)
#: What a display of RViz subscribes to, and which panel of Foxglove can show what.
RVIZ_TYPES = {
    "MarkerArray": "visualization_msgs/msg/MarkerArray",
    "PointCloud2": "sensor_msgs/msg/PointCloud2",
    "PoseArray": "geometry_msgs/msg/PoseArray",
    "Image": "sensor_msgs/msg/Image",
}
SHOWN_IN_3D = {RVIZ_TYPES[name] for name in ("MarkerArray", "PointCloud2", "PoseArray")}


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with World() as made:
        environment = {**os.environ, "ROS_DOMAIN_ID": str(made.domain)}
        made.processes.append(subprocess.Popen([sys.executable, "-c", CAMERA], cwd=ROOT, env=environment))
        made.start(use_depth=True, fixed_frame="camera_link")
        made.wait_until_active()
        made.wait_for(lambda: made.node.count_publishers("/depth") > 0)
        yield made


@pytest.fixture(scope="module")
def topics(world: World) -> dict[str, str]:
    """What is published, by name, with its type."""
    result = world.goal().result
    assert result.error_code == 0, result.error_text
    found = dict(world.node.get_topic_names_and_types())
    return {name: types[0] for name, types in found.items() if world.node.count_publishers(name)}


@pytest.fixture(scope="module")
def frames(world: World, topics: dict[str, str]) -> set[str]:
    static, moving = world.listen(TFMessage, "/tf_static", LATCHED), world.listen(TFMessage, "/tf")
    world.wait_for(lambda: bool(static) and bool(moving))
    sent = [transform for message in [*static, *moving] for transform in message.transforms]
    return {name for transform in sent for name in (transform.header.frame_id, transform.child_frame_id)}


def test_rviz_names_what_is_there(topics: dict[str, str], frames: set[str]) -> None:
    view = yaml.safe_load((ROOT / "config" / "reconstruction.rviz").read_text())["Visualization Manager"]
    shown = {}
    for display in view["Displays"]:
        if "Topic" in display:
            shown[display["Topic"]["Value"]] = RVIZ_TYPES[display["Class"].rpartition("/")[2]]
    assert len(shown) == 4 and shown.items() <= topics.items()
    assert view["Global Options"]["Fixed Frame"] in frames
    assert {"hand_right", "object"} <= frames


def test_foxglove_names_what_is_there(topics: dict[str, str], frames: set[str]) -> None:
    panels = json.loads((ROOT / "config" / "foxglove.json").read_text())["configById"]
    for name, panel in panels.items():
        for topic in panel.get("topics", {}):
            assert topics[topic] in SHOWN_IN_3D, (name, topic)
        for key, kind in (("imageTopic", "Image"), ("calibrationTopic", "CameraInfo")):
            topic = panel.get("imageMode", {}).get(key)
            assert topic is None or topics[topic] == f"sensor_msgs/msg/{kind}", (name, topic)
        for layer in panel.get("layers", {}).values():
            assert layer["frameId"] in frames
        assert panel.get("followTf", "camera_link") in frames
    (summary,) = (panel for name, panel in panels.items() if name.startswith("DiagnosticSummary"))
    assert topics[summary["topicToRender"]] == "diagnostic_msgs/msg/DiagnosticArray"
    (raw,) = (panel for name, panel in panels.items() if name.startswith("RawMessages"))
    topic, _, field = raw["topicPath"].partition(".")
    message: Any = message_class(topics[topic])
    assert field in message.get_fields_and_field_types()
