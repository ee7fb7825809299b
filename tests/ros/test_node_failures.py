# SPDX-License-Identifier: Apache-2.0
"""What goes wrong on a robot, one test each: floods, bad messages, silence, jumps of time, shutting down."""

from __future__ import annotations

import signal
import time
from array import array
from collections.abc import Callable, Iterator

import cv2
import numpy as np
import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed here")
pytest.importorskip("follow_my_hold.msg", reason="the interfaces are not built here")

from action_msgs.msg import GoalStatus
from diagnostic_msgs.msg import DiagnosticStatus
from follow_my_hold.action import Reconstruct
from lifecycle_msgs.msg import Transition
from rclpy.qos import QoSProfile, ReliabilityPolicy
from ros_world import (
    ROOT,
    Camera,
    World,
    camera_info,
    children,
    make_image,
    to_ns,
    to_time,
    wait_for_status,
    world_with_node,
)
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, Image

Goal, Result = Reconstruct.Goal, Reconstruct.Result
GREY = np.full((240, 320, 3), 90, np.uint8)


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with world_with_node(job_s=2.0, queue_size=1, frame_timeout=2.0) as made:
        yield made


def goal_with(world: World, image: Image, info: CameraInfo | None = None, depth: Image | None = None) -> Result:
    fields = {"image": image, **({"camera_info": info} if info else {}), **({"depth": depth} if depth else {})}
    return world.goal(input=Goal.IMAGES, **fields).result


def spoiled_image(**changes: object) -> Image:
    image = make_image(GREY, "rgb8")
    for name, value in changes.items():
        setattr(image, name, value)
    return image


@pytest.mark.parametrize(
    ("image", "code"),
    [
        (spoiled_image(encoding="nv21"), Result.ENCODING),
        (spoiled_image(encoding="16UC1", step=640), Result.ENCODING),
        (spoiled_image(encoding=""), Result.ENCODING),
        (spoiled_image(step=10), Result.IMAGE),
        (spoiled_image(data=array("B", bytes(1000))), Result.IMAGE),
        (spoiled_image(width=2**32 - 1, height=2**32 - 1), Result.IMAGE),
        (spoiled_image(width=0), Result.IMAGE),
        (make_image(GREY[:20, :20], "rgb8"), Result.IMAGE),
    ],
    ids=["unknown", "depth", "empty", "short_rows", "short_data", "absurd", "no_width", "tiny"],
)
def test_a_bad_image_fails_with_its_code(world: World, image: Image, code: int) -> None:
    result = goal_with(world, image)
    assert result.error_code == code, result.error_text
    assert "goal's image" in result.error_text


def spoiled_info(**changes: object) -> CameraInfo:
    info = camera_info()
    for name, value in changes.items():
        setattr(info, name, value)
    return info


@pytest.mark.parametrize(
    ("info", "code", "word"),
    [
        (spoiled_info(k=np.zeros(9)), Result.CAMERA, "uncalibrated"),
        (spoiled_info(k=np.full(9, np.nan)), Result.CAMERA, "not finite"),
        (spoiled_info(d=[float("nan")] * 5), Result.CAMERA, "not finite"),
        (spoiled_info(d=[0.1] * 4, distortion_model="equidistant"), Result.CAMERA, "rectify"),
        (spoiled_info(width=640, height=480), Result.CAMERA, "multiply K"),
        (spoiled_info(binning_x=2, binning_y=2), Result.CAMERA, "binning"),
        (camera_info(frame="left_eye"), Result.FRAME_MISMATCH, "left_eye"),
    ],
    ids=["zero", "nan", "nan_d", "fisheye", "size", "binning", "frame"],
)
def test_a_bad_calibration_fails_and_says_everything(world: World, info: CameraInfo, code: int, word: str) -> None:
    result = goal_with(world, make_image(GREY, "rgb8"), info)
    assert result.error_code == code and word in result.error_text, result.error_text


@pytest.mark.parametrize(
    ("depth", "code"),
    [
        (make_image(np.zeros((240, 320), np.uint16), "16UC1"), Result.DEPTH),
        (make_image(np.full((240, 320), np.nan, np.float32), "32FC1"), Result.DEPTH),
        (make_image(np.full((240, 320), 500.0, np.float32), "32FC1"), Result.DEPTH),
        (make_image(np.full((480, 640), 500, np.uint16), "16UC1"), Result.DEPTH),
        (make_image(GREY, "rgb8"), Result.ENCODING),
        (make_image(np.full((240, 320), 500, np.uint16), "16UC1", "other"), Result.FRAME_MISMATCH),
    ],
    ids=["zero", "nan", "millimetres_as_metres", "size", "colour", "frame"],
)
def test_a_bad_depth_image_fails_with_its_code(world: World, depth: Image, code: int) -> None:
    result = goal_with(world, make_image(GREY, "rgb8"), camera_info(), depth)
    assert result.error_code == code, result.error_text


def test_no_camera_at_all_is_said_in_the_result_and_in_diagnostics(world: World) -> None:
    began = time.monotonic()
    result = world.goal().result
    assert result.error_code == Result.NO_IMAGE and "/image" in result.error_text
    assert "nobody publishes" in result.error_text
    assert time.monotonic() - began < 20
    status = input_status(world, lambda s: "Nobody publishes /image" in s.message)
    assert status.level != DiagnosticStatus.OK


def test_images_without_calibration_are_said(world: World) -> None:
    with Camera(world) as camera:
        camera.info = None
        time.sleep(0.5)
        result = world.goal().result
    assert result.error_code == Result.CAMERA_INFO_MISSING and "/camera_info" in result.error_text


def test_a_flood_of_large_images_delays_neither_feedback_nor_result(world: World) -> None:
    with Camera(world, rate=30.0, size=(1280, 720)):
        world.goal()  # matched and warm
        delays, stamps = [], []
        for _ in range(3):
            ending = world.goal()
            assert ending.result.error_code == 0, ending.result.error_text
            delays.append(ending.first_s)
            stamps.append(to_ns(ending.result.reconstruction.header.stamp))
    assert stamps == sorted(stamps) and len(set(stamps)) == 3
    assert min(delays) < 0.2  # the machine that runs this may be busy: the best of three


def test_goals_beyond_the_queue_are_busy_and_the_others_succeed(world: World) -> None:
    with Camera(world):
        world.goal()
        sent = [world.send() for _ in range(4)]
        endings = [one.ending() for one in sent]
    codes = [ending.result.error_code for ending in endings]
    assert codes == [0, 0, Result.BUSY, Result.BUSY]
    assert [ending.status for ending in endings] == [GoalStatus.STATUS_SUCCEEDED] * 2 + [GoalStatus.STATUS_ABORTED] * 2
    assert "queue_size" in endings[-1].result.error_text


@pytest.mark.parametrize("place", ["running", "waiting"])
def test_a_goal_is_cancelled_within_a_second(world: World, place: str) -> None:
    with Camera(world):
        first = world.send()
        world.wait_for(lambda: any(feedback.stage == "flow" for feedback in first.feedback))
        second = world.send()
        time.sleep(0.2)
        chosen, other = (first, second) if place == "running" else (second, first)
        began = time.monotonic()
        assert len(chosen.cancel().goals_canceling) == 1
        ending = chosen.ending()
        took = time.monotonic() - began
        assert (ending.status, ending.result.error_code) == (GoalStatus.STATUS_CANCELED, Result.CANCELLED)
        assert took < 1.0
        assert other.ending().result.error_code == 0


def test_deactivating_ends_jobs_and_refuses_goals_with_a_reason(world: World) -> None:
    with Camera(world):
        sent = world.send()
        world.wait_for(lambda: any(feedback.stage == "flow" for feedback in sent.feedback))
        assert world.change_state(Transition.TRANSITION_DEACTIVATE)
        assert sent.ending().result.error_code == Result.NOT_ACTIVE
        refused = world.goal()
        assert (refused.status, refused.result.error_code) == (GoalStatus.STATUS_ABORTED, Result.NOT_ACTIVE)
        assert world.change_state(Transition.TRANSITION_ACTIVATE)
        assert world.goal().result.error_code == 0


def test_a_bag_that_begins_again_is_followed(world: World) -> None:
    base = [1_600_000_000 * 10**9]
    with Camera(world) as camera:

        def stamp_ns() -> int:
            base[0] += 50_000_000
            return base[0]

        camera.stamp_ns = stamp_ns
        late = to_ns(world.goal().result.reconstruction.header.stamp)
        base[0] -= 3600 * 10**9
        again = world.goal()
    assert again.result.error_code == 0
    assert to_ns(again.result.reconstruction.header.stamp) < late


def test_unsynchronised_depth_is_said_with_how_far_it_is_off() -> None:
    with world_with_node(use_depth=True, frame_timeout=2.0) as world, Camera(world, depth=True) as camera:
        assert world.goal().result.error_code == 0
        camera.depth_shift_ns = -30 * 10**9
        time.sleep(0.5)
        result = world.goal().result
        assert result.error_code == Result.SYNCHRONISATION and "sync_slop" in result.error_text
        assert " ms apart" in result.error_text
        camera.depth = None
        result = world.goal().result
        assert result.error_code == Result.SYNCHRONISATION and "/depth" in result.error_text


def test_a_publisher_whose_quality_of_service_does_not_match_is_named() -> None:
    with world_with_node(image_reliability="reliable", frame_timeout=2.0) as world, Camera(world):
        status = input_status(world, lambda s: s.level == DiagnosticStatus.ERROR)
        assert "QoS" in status.message and "reliab" in status.message.lower()
        assert world.goal().result.error_code == Result.NO_IMAGE


def test_a_publisher_whose_images_do_not_arrive_gets_the_hint_of_the_shared_memory() -> None:
    with world_with_node(frame_timeout=1.0) as world:
        qos = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
        world.node.create_publisher(Image, "/image", qos)  # says nothing
        world.node.create_publisher(CameraInfo, "/camera_info", qos)
        status = input_status(world, lambda s: s.level == DiagnosticStatus.ERROR)
        assert "fastdds_shm.xml" in status.message
        assert "fastdds_shm.xml" in world.goal().result.error_text


def test_time_that_jumps_back_cancels_the_job_and_the_next_goal_works() -> None:
    with world_with_node(use_sim_time=True, job_s=3.0) as world, Camera(world) as camera:
        now = [1000 * 10**9]
        publisher = world.node.create_publisher(Clock, "/clock", 10)
        timer = world.node.create_timer(0.02, lambda: tick(now, publisher))
        camera.stamp_ns = lambda: now[0]
        world.wait_for(lambda: now[0] > 1001 * 10**9)
        sent = world.send()
        world.wait_for(lambda: any(feedback.stage == "flow" for feedback in sent.feedback))
        now[0] = 500 * 10**9
        ending = sent.ending()
        assert ending.result.error_code == Result.CLOCK_JUMP
        after = world.goal()
        assert after.result.error_code == 0
        assert to_ns(after.result.reconstruction.header.stamp) < 900 * 10**9
        timer.cancel()


def tick(now: list[int], publisher: object) -> None:
    now[0] += 20_000_000
    publisher.publish(Clock(clock=to_time(now[0])))  # type: ignore[attr-defined]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ending_the_process_during_a_job_leaves_nothing_behind(number: signal.Signals) -> None:
    photo = cv2.cvtColor(cv2.imread(str(ROOT / "fmh_ros/assets/example/rgb.png")), cv2.COLOR_BGR2RGB)
    with World() as world, Camera(world, size=(photo.shape[1], photo.shape[0])) as camera:
        camera.image = make_image(photo, "rgb8")  # a hand is seen: the job takes many seconds
        process = world.start(scripted=False)
        world.wait_until_active()
        world.wait_for(lambda: bool(children(process.pid)))
        worker = children(process.pid)
        sent = world.send()
        world.wait_for(lambda: bool(sent.feedback))
        process.send_signal(number)
        assert sent.ending().result.error_code == Result.NOT_ACTIVE
        assert process.wait(20) == 0, world.log()
        assert not [pid for pid in worker if is_running(pid)]
        assert "Traceback" not in world.log()


def test_a_process_told_to_end_over_and_over_ends_once() -> None:
    with world_with_node() as world:
        (process,) = world.processes
        for _ in range(500):  # a signal may come at any instruction, that of the handler included
            process.send_signal(signal.SIGINT)
            process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0, world.log()
        assert "Traceback" not in world.log()


def is_running(pid: int) -> bool:
    from pathlib import Path

    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def input_status(world: World, condition: Callable[[DiagnosticStatus], bool]) -> DiagnosticStatus:
    """Wait for a status of the input that fulfils a condition."""
    return wait_for_status(world, "input", condition)
