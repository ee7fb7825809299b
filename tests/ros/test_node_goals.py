# SPDX-License-Identifier: Apache-2.0
"""Goals, results, topics, TF, services and parameters of the node, whose engine needs no models here."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import trimesh

pytest.importorskip("rclpy", reason="ROS 2 is not installed here")
pytest.importorskip("follow_my_hold.msg", reason="the interfaces are not built here")

from action_msgs.msg import GoalStatus
from diagnostic_msgs.msg import DiagnosticArray
from follow_my_hold.action import Reconstruct
from follow_my_hold.msg import ContactArray, HandObject
from follow_my_hold.srv import Clear, Export, GetLatest
from geometry_msgs.msg import PoseArray, TransformStamped
from rcl_interfaces.msg import ParameterType, ParameterValue
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from ros_world import FRAME, Camera, Ending, World, camera_info, make_image, to_ns, to_time, world_with_node
from sensor_msgs.msg import CompressedImage, Image, PointCloud2
from tf2_msgs.msg import TFMessage
from visualization_msgs.msg import MarkerArray

from fmh_ros.messages.basics import from_pose, from_transform
from fmh_ros.ros_compat import StaticTransformBroadcaster

Goal, Result = Reconstruct.Goal, Reconstruct.Result
LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL, reliability=ReliabilityPolicy.RELIABLE)


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with world_with_node(tf_rate=20.0, frame_timeout=20.0) as made:
        yield made


@pytest.fixture
def camera(world: World) -> Iterator[Camera]:
    with Camera(world) as made:
        yield made


def assert_succeeded(ending: Ending) -> None:
    assert (ending.result.error_code, ending.result.error_text) == (0, "")
    assert ending.status == GoalStatus.STATUS_SUCCEEDED


def test_a_goal_returns_a_result_with_the_header_of_an_image_that_came_after_it(world: World, camera: Camera) -> None:
    sent_ns = time.time_ns()
    ending = world.goal(seed=5, samples=2)
    assert_succeeded(ending)
    message = ending.result.reconstruction
    assert message.header.frame_id == FRAME and to_ns(message.header.stamp) >= sent_ns - 20_000_000
    assert (message.provenance.seed, message.provenance.samples, message.provenance.guidance) == (5, 2, True)
    assert message.id and ending.feedback[0].stage == "queued"
    fractions = [feedback.fraction for feedback in ending.feedback]
    assert fractions == sorted(fractions) and ending.feedback[-1].stage == "flow"
    assert to_ns(ending.feedback[-1].stamp) == to_ns(message.header.stamp) and ending.feedback[-1].frame_id == FRAME


def test_the_latched_result_is_what_a_late_listener_gets(world: World, camera: Camera) -> None:
    message = world.goal().result.reconstruction
    heard = world.listen(HandObject, "~/reconstruction", LATCHED)
    world.wait_for(lambda: bool(heard))
    assert heard[-1] == message


def test_frames_equal_the_poses_of_the_message(world: World, camera: Camera) -> None:
    heard = world.listen(TFMessage, "/tf", 100)
    message = world.goal().result.reconstruction
    stamp_ns = to_ns(message.header.stamp)

    def frames() -> dict[str, TransformStamped]:
        return {t.child_frame_id: t for tf in heard for t in tf.transforms if to_ns(t.header.stamp) == stamp_ns}

    world.wait_for(lambda: len(frames()) == 7)
    assert all(transform.header.frame_id == FRAME for transform in frames().values())
    for name, pose in (("object", message.object.pose), ("hand_right", message.hand.wrist_pose)):
        moved = from_transform(frames()[name].transform).matrix()
        np.testing.assert_allclose(moved, from_pose(pose).matrix(), atol=1e-12)
    # Published again with later stamps while it is current.
    world.wait_for(lambda: any(to_ns(t.header.stamp) > stamp_ns for tf in heard for t in tf.transforms))


def test_derived_messages_have_the_header_of_the_image_and_come_to_late_listeners(world: World, camera: Camera) -> None:
    message = world.goal().result.reconstruction
    kinds = {
        "~/markers": MarkerArray, "~/object_cloud": PointCloud2, "~/contacts": ContactArray,
        "~/hand_joints": PoseArray, "~/overlay": Image,
    }  # fmt: skip
    heard = {topic: world.listen(kind, topic) for topic, kind in kinds.items()}  # volatile, as RViz listens
    world.wait_for(lambda: all(heard.values()))
    for topic, messages in heard.items():
        header = messages[-1].markers[1].header if topic == "~/markers" else messages[-1].header
        assert header == message.header, topic
    assert heard["~/contacts"][-1].contacts == message.contacts


def test_the_mesh_in_the_result_is_closed(world: World, camera: Camera) -> None:
    obj = world.goal().result.reconstruction.object
    vertices = np.array(obj.vertices, np.float64).reshape(-1, 3)
    mesh = trimesh.Trimesh(vertices, np.array(obj.faces, np.int64).reshape(-1, 3), process=False)
    assert mesh.is_watertight and mesh.volume == pytest.approx(obj.volume, rel=1e-4)


def test_images_in_the_goal_need_no_topics(world: World) -> None:
    image = make_image(np.full((240, 320, 3), 90, np.uint8), "bgr8", "other_camera")
    image.header.stamp = to_time(1_600_000_000_123_456_789)
    info = camera_info(frame="")
    ending = world.goal(input=Goal.IMAGES, image=image, camera_info=info, guidance=False)
    assert_succeeded(ending)
    assert ending.result.reconstruction.header == image.header
    assert ending.result.reconstruction.provenance.guidance is False


def test_a_compressed_image_in_the_goal_is_read(world: World) -> None:
    import cv2

    _, data = cv2.imencode(".png", np.full((240, 320, 3), 90, np.uint8))
    image = CompressedImage(format="png", data=data.tobytes())
    image.header.frame_id = "phone"
    ending = world.goal(input=Goal.IMAGES, compressed_image=image)
    assert_succeeded(ending)
    assert ending.result.reconstruction.header.frame_id == "phone"


def test_a_stamp_picks_the_image_still_to_come(world: World) -> None:
    camera = Camera(world)
    stamp_ns = time.time_ns() + 3 * 10**9
    world.wait_for(lambda: camera._publishers["image"].get_subscription_count() > 0)
    sent = world.send(input=Goal.STAMP, stamp=to_time(stamp_ns))
    for shift in (-1, 0, 1):
        time.sleep(0.1)
        camera.stamp_ns = lambda shift=shift: stamp_ns + shift * 10**8
        camera.publish_once()
    ending = sent.ending()
    camera.__enter__().__exit__()
    assert_succeeded(ending)
    assert to_ns(ending.result.reconstruction.header.stamp) == stamp_ns


def test_previews_come_only_when_asked_for(world: World, camera: Camera) -> None:
    with_preview = [feedback for feedback in world.goal(preview=True).feedback if len(feedback.preview_vertices)]
    assert with_preview and max(with_preview[0].preview_faces) < len(with_preview[0].preview_vertices) // 3
    assert not any(len(feedback.preview_vertices) for feedback in world.goal().feedback)


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"profile": "no_such"}, Result.PROFILE),
        ({"preset": "no_such"}, Result.USAGE),
        ({"samples": 0}, Result.USAGE),
        ({"side": 9}, Result.USAGE),
        ({"input": 9}, Result.USAGE),
        ({"time_budget": float("nan")}, Result.USAGE),
        ({"input": Goal.IMAGES}, Result.ENCODING),
        ({"input": Goal.STAMP, "stamp": to_time(1)}, Result.STAMP),
        ({"text": "the red cup"}, Result.UNSUPPORTED_PROMPT),
        ({"points": [10.0, 10.0], "point_labels": [0]}, Result.UNSUPPORTED_PROMPT),
        ({"points": [10.0]}, Result.PROMPT),
        ({"points": [1e4, 10.0]}, Result.PROMPT),
        ({"box": [1.0, 2.0, 3.0]}, Result.PROMPT),
        ({"box": [100.0, 100.0, 50.0, 120.0]}, Result.PROMPT),
        ({"box": [float("inf"), 0.0, 1.0, 1.0]}, Result.PROMPT),
        ({"mask": make_image(np.zeros((240, 320), np.uint8), "mono8")}, Result.PROMPT),
        ({"mask": make_image(np.zeros((10, 10), np.uint8), "mono8")}, Result.PROMPT),
        ({"mask": make_image(np.zeros((240, 320, 3), np.uint8), "rgb8")}, Result.ENCODING),
        ({"time_budget": 1e-6}, Result.TIME_BUDGET),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else str(value),
)
def test_a_goal_that_cannot_be_served_is_aborted_with_its_code(
    world: World, camera: Camera, fields: dict[str, object], code: int
) -> None:
    ending = world.goal(**fields)
    assert (ending.status, ending.result.error_code) == (GoalStatus.STATUS_ABORTED, code), ending.result.error_text
    assert ending.result.error_text.endswith(".")


def test_get_latest_export_and_clear(world: World, camera: Camera, tmp_path: Path) -> None:
    first = world.goal().result.reconstruction
    second = world.goal().result.reconstruction
    assert world.call(GetLatest, "get_latest", GetLatest.Request()).reconstruction == second
    assert world.call(GetLatest, "get_latest", GetLatest.Request(id=first.id)).reconstruction == first
    unknown = world.call(GetLatest, "get_latest", GetLatest.Request(id="nope"))
    assert (unknown.success, unknown.error_code) == (False, Result.NO_RESULT)

    answer = world.call(Export, "export", Export.Request(folder=str(tmp_path / "out")))
    assert answer.success, answer.error_text
    expected = {f"{part}.{kind}" for part in ("hand", "object") for kind in ("glb", "obj", "ply", "stl")}
    assert {Path(file).name for file in answer.files} == expected | {"scene.glb", "reconstruction.json"}
    pose = from_pose(second.object.pose)
    truth = pose.apply(np.array(second.object.vertices).reshape(-1, 3))
    for kind in ("obj", "ply", "stl", "glb"):
        mesh = trimesh.load(tmp_path / "out" / f"object.{kind}", force="mesh")
        np.testing.assert_allclose(mesh.bounds, [truth.min(0), truth.max(0)], atol=1e-5)
        mesh.merge_vertices()
        assert mesh.is_watertight, kind
    for folder, formats, code in (
        ("relative", [], Result.OUTPUT),
        ("", [], Result.OUTPUT),
        ("/proc/none", [], Result.OUTPUT),
        (str(tmp_path), ["dae"], Result.USAGE),
    ):
        refused = world.call(Export, "export", Export.Request(folder=folder, formats=formats))
        assert (refused.success, refused.error_code) == (False, code), folder

    markers = world.listen(MarkerArray, "~/markers")
    world.wait_for(lambda: bool(markers))
    assert world.call(Clear, "clear", Clear.Request()).cleared
    world.wait_for(lambda: len(markers[-1].markers) == 1)
    assert not world.call(Clear, "clear", Clear.Request()).cleared
    assert world.call(GetLatest, "get_latest", GetLatest.Request()).error_code == Result.NO_RESULT
    late = world.listen(HandObject, "~/reconstruction", LATCHED)
    time.sleep(0.5)
    assert not late


def test_frames_hang_from_the_fixed_frame_as_it_was_at_the_image(world: World, camera: Camera) -> None:
    broadcaster = StaticTransformBroadcaster(world.node)
    fixed = TransformStamped(child_frame_id=FRAME)
    fixed.header.frame_id = "map"
    fixed.transform.translation.x = 1.5
    fixed.transform.rotation.z = fixed.transform.rotation.w = float(np.sqrt(0.5))
    broadcaster.sendTransform(fixed)
    text = ParameterType.PARAMETER_STRING
    assert world.set_parameter("fixed_frame", ParameterValue(type=text, string_value="map")).successful
    heard = world.listen(TFMessage, "/tf", 100)
    time.sleep(0.5)
    message = world.goal().result.reconstruction
    assert message.header.frame_id == FRAME and not message.quality.warnings[1:]
    found = lambda: [t for tf in heard for t in tf.transforms if t.header.frame_id == "map"]  # noqa: E731
    world.wait_for(lambda: any(t.child_frame_id == "object" for t in found()))
    moved = next(from_transform(t.transform) for t in found() if t.child_frame_id == "object")
    expected = from_transform(fixed.transform) @ from_pose(message.object.pose)
    np.testing.assert_allclose(moved.matrix(), expected.matrix(), atol=1e-9)

    assert world.set_parameter("fixed_frame", ParameterValue(type=text, string_value="moon")).successful
    warned = world.goal().result
    assert warned.error_code == 0 and any("moon" in warning for warning in warned.reconstruction.quality.warnings)
    flag = ParameterValue(type=ParameterType.PARAMETER_BOOL, bool_value=True)
    assert world.set_parameter("require_fixed_frame", flag).successful
    assert world.goal().result.error_code == Result.TRANSFORM
    for name, value in (("fixed_frame", ParameterValue(type=text)), ("require_fixed_frame", None)):
        back = value or ParameterValue(type=ParameterType.PARAMETER_BOOL, bool_value=False)
        assert world.set_parameter(name, back).successful


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("mode", ParameterValue(type=ParameterType.PARAMETER_STRING, string_value="never"), "on_request"),
        ("queue_size", ParameterValue(type=ParameterType.PARAMETER_INTEGER, integer_value=99), "range"),
        ("sync_slop", ParameterValue(type=ParameterType.PARAMETER_DOUBLE, double_value=float("nan")), ""),
        ("queue_size", ParameterValue(type=ParameterType.PARAMETER_STRING, string_value="two"), "type"),
        ("use_depth", ParameterValue(type=ParameterType.PARAMETER_BOOL, bool_value=True), "deactivate"),
        ("autostart", ParameterValue(type=ParameterType.PARAMETER_BOOL, bool_value=False), "read"),
    ],
)
def test_bad_parameters_are_refused_with_a_reason(world: World, name: str, value: ParameterValue, reason: str) -> None:
    before = world.get_parameter(name)
    answer = world.set_parameter(name, value)
    assert not answer.successful and answer.reason and reason in answer.reason.lower().replace("_request", "_request")
    assert world.get_parameter(name) == before


def test_diagnostics_say_what_happens(world: World, camera: Camera) -> None:
    world.goal()
    heard = world.listen(DiagnosticArray, "/diagnostics")
    heard.clear()
    world.wait_for(lambda: len(heard) >= 3)
    statuses = {status.name: status for status in heard[-1].status}
    assert set(statuses) == {f"reconstruction_node: {part}" for part in ("node", "input", "worker", "output")}
    assert all(status.level == b"\x00" for status in statuses.values()), statuses
    assert "Waits for a Reconstruct goal" in statuses["reconstruction_node: node"].message
    assert "/image" in statuses["reconstruction_node: input"].message
    assert "Latest reconstruction" in statuses["reconstruction_node: output"].message
