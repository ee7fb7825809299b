# SPDX-License-Identifier: Apache-2.0
"""Messages in bags are the same with ROS and without it, and those that ROS itself would write."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from synthetic_result import synthetic_reconstruction

pytest.importorskip("rosbags", reason="the extra 'bags' is not installed")
pytest.importorskip("mcap_ros2", reason="mcap-ros2-support is not installed")

from bag_files import RESULT, read_elsewhere, stored, write_bag

from fmh_ros.bags.convert import encode
from fmh_ros.bags.definitions import message_folder, typestore
from fmh_ros.core.reconstruction.types import Reconstruction
from fmh_ros.messages.basics import rows
from fmh_ros.messages.parse import from_hand_object
from fmh_ros.messages.result import Made, to_hand_object

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def result() -> Reconstruction:
    return synthetic_reconstruction()


def test_hashes_of_the_definitions_are_those_that_ros_computes() -> None:
    shares = list((Path(sys.prefix) / "share" / "follow_my_hold" / "msg").glob("*.json"))
    if not shares:
        pytest.skip("the messages are not built into this environment")
    assert {path.stem for path in shares} == {path.stem for path in message_folder().glob("*.msg")}
    for path in shares:
        hashes = {item["type_name"]: item["hash_string"] for item in json.loads(path.read_text())["type_hashes"]}
        name = f"follow_my_hold/msg/{path.stem}"
        assert typestore().hash_rihs01(name) == hashes[name]


WITHOUT_ROS = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0].endswith(("_msgs", "_interfaces")) or name.split(".")[0] in ("rclpy", "follow_my_hold"):
            raise ImportError(name)

sys.meta_path.insert(0, Blocker())
sys.path.insert(0, sys.argv[2])
import bag_files
from synthetic_result import synthetic_reconstruction
assert "rclpy" not in sys.modules and bag_files.provide_message_classes() is False  # supplied at import
from fmh_ros.bags.classes import Message
from fmh_ros.messages.result import Made, to_hand_object
assert issubclass(bag_files.message_class(bag_files.RESULT), Message)
from pathlib import Path
folder, result = Path(sys.argv[1]), synthetic_reconstruction()
message = to_hand_object(result, Made("same"))
(folder / "raw").write_bytes(bag_files.encode(message, bag_files.RESULT))
source = bag_files.write_bag(folder / "in.mcap", result, 2)
assert bag_files.run(source, folder / "out.mcap", bag_files.PreparedEngine(result), depth="/cam/depth").succeeded == 2
"""


def test_bags_are_the_same_without_ros(result: Reconstruction, tmp_path: Path) -> None:
    command = [sys.executable, "-c", WITHOUT_ROS, str(tmp_path), str(Path(__file__).parent)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert ran.returncode == 0, ran.stderr
    assert (tmp_path / "raw").read_bytes() == encode(to_hand_object(result, Made("same")), RESULT)
    write_bag(tmp_path / "with_ros.mcap", result, 2)
    assert [m.raw for m in stored(tmp_path / "in.mcap")] == [m.raw for m in stored(tmp_path / "with_ros.mcap")]
    message = next(m for topic, _, m in read_elsewhere(tmp_path / "out.mcap") if topic.endswith("/reconstruction"))
    np.testing.assert_allclose(rows(message.object.vertices, 3), result.object.vertices, atol=1e-7)


def test_bytes_are_those_of_ros_s_own_serialiser(result: Reconstruction) -> None:
    serialization = pytest.importorskip("rclpy.serialization", reason="rclpy is not installed")
    message = to_hand_object(result, Made("same"))
    ours = encode(message, RESULT)
    theirs = serialization.serialize_message(message)
    assert serialization.deserialize_message(ours, type(message)) == serialization.deserialize_message(
        theirs, type(message)
    )
    assert from_hand_object(serialization.deserialize_message(ours, type(message))).id == "same"
