# SPDX-License-Identifier: Apache-2.0
"""The shipped RViz and Foxglove views show topics that the node publishes, and the profile is one of Fast DDS."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("rclpy", reason="ROS is not installed: make setup-ros")
pytest.importorskip("follow_my_hold.msg", reason="the messages are not built: make setup-ros")

from fmh_ros.nodes.reconstruction_node import NAME
from fmh_ros.ros_compat import fastdds, profile_variable, share_directory, use_large_shared_memory

CONFIG = Path(__file__).parents[2] / "config"
DDS = "{http://www.eprosima.com}"


def published() -> set[str]:
    text = "".join((CONFIG.parent / "fmh_ros" / "nodes" / name).read_text() for name in ("output.py", "input.py"))
    return {f"/{NAME}/{name}" for name in re.findall(r'"~/([a-z_]+)"', text)}


def test_rviz_shows_what_the_node_publishes() -> None:
    view = yaml.safe_load((CONFIG / "reconstruction.rviz").read_text())["Visualization Manager"]
    topics = [display["Topic"] for display in view["Displays"] if "Topic" in display]
    assert {topic["Value"] for topic in topics} <= published() and len(topics) == 4
    # Results are latched: who starts RViz later must see them too.
    assert {topic["Durability Policy"] for topic in topics} == {"Transient Local"}


def panels(node: Any) -> list[str]:
    return [node] if isinstance(node, str) else panels(node["first"]) + panels(node["second"])


def test_foxglove_shows_what_the_node_publishes() -> None:
    text = (CONFIG / "foxglove.json").read_text()
    layout = json.loads(text)
    assert sorted(panels(layout["layout"])) == sorted(layout["configById"])
    assert set(re.findall(rf"/{NAME}/[a-z_]+", text)) <= published()


def test_the_profile_has_a_large_shared_segment_for_every_participant() -> None:
    root = ET.parse(CONFIG / "fastdds_shm.xml").getroot()
    sizes = {
        transport.findtext(f"{DDS}type"): int(transport.findtext(f"{DDS}segment_size") or 0)
        for transport in root.iter(f"{DDS}transport_descriptor")
    }
    assert sizes == {"SHM": 64 * 2**20, "UDPv4": 0}
    (participant,) = root.iter(f"{DDS}participant")
    assert participant.get("is_default_profile") == "true"
    declared = {element.text for element in root.iter(f"{DDS}transport_id")}
    assert {element.text for element in participant.iter(f"{DDS}transport_id")} == declared


@pytest.mark.parametrize(
    ("distribution", "variable"),
    [
        ("humble", "FASTRTPS_DEFAULT_PROFILES_FILE"),
        ("jazzy", "FASTRTPS_DEFAULT_PROFILES_FILE"),
        ("kilted", "FASTDDS_DEFAULT_PROFILES_FILE"),
        ("rolling", "FASTDDS_DEFAULT_PROFILES_FILE"),
    ],
)
def test_the_variable_is_the_one_that_the_distribution_reads(distribution: str, variable: str) -> None:
    environ = {"ROS_DISTRO": distribution}
    profile = use_large_shared_memory(environ)
    assert environ == {"ROS_DISTRO": distribution, variable: profile}
    assert Path(profile).samefile(CONFIG / "fastdds_shm.xml")


@pytest.mark.parametrize(("version", "old"), [("7.1.6", True), ("9.1.2", False), ("?", False)])
def test_without_a_distribution_the_version_of_rclpy_decides(
    monkeypatch: pytest.MonkeyPatch, version: str, old: bool
) -> None:
    monkeypatch.setattr(fastdds, "version", lambda name: version)
    assert profile_variable({}) == ("FASTRTPS" if old else "FASTDDS") + "_DEFAULT_PROFILES_FILE"


def test_a_profile_that_is_chosen_already_is_kept() -> None:
    environ = {"FASTRTPS_DEFAULT_PROFILES_FILE": "/mine.xml", "ROS_DISTRO": "kilted"}
    assert use_large_shared_memory(environ) == "/mine.xml" and len(environ) == 2


def test_the_shared_files_are_found_where_they_are_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "share" / "follow_my_hold"
    (folder / "config").mkdir(parents=True)
    monkeypatch.setenv("AMENT_PREFIX_PATH", f"/nowhere:{tmp_path}")
    assert share_directory() == folder
