# SPDX-License-Identifier: Apache-2.0
"""Mode continuous: which looks lead to a job, what is said meanwhile, and the same with the real models."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed here")
pytest.importorskip("follow_my_hold.msg", reason="the interfaces are not built here")

from follow_my_hold.msg import HandObject
from rcl_interfaces.msg import ParameterType, ParameterValue
from ros_world import ROOT, Camera, World, make_image, wait_for_status, world_with_node

from fmh_ros.core.frame.image import read_photo

Script = Callable[[str], None]


@contextmanager
def watching(tmp_path: Path, **arguments: Any) -> Iterator[tuple[World, list[HandObject], Script]]:
    """A node in mode continuous whose looks see what the test says, a camera, and what the node publishes."""
    path = tmp_path / "hands"

    def script(hands: str) -> None:
        (tmp_path / "next").write_text(hands)
        (tmp_path / "next").replace(path)  # a look reads all of it or nothing

    script("")
    settings = {"continuous__rate": 20.0, "continuous__min_period": 0.0, "continuous__still_frames": 3, **arguments}
    environment = {"FMH_TEST_HANDS": str(path)}
    with world_with_node(mode="continuous", environment=environment, **settings) as world:
        heard = world.listen(HandObject, "~/reconstruction")
        with Camera(world, rate=30.0):
            yield world, heard, script


def says(world: World, text: str) -> None:
    wait_for_status(world, "node", lambda status: text in status.message)


def test_a_still_hand_that_holds_something_is_reconstructed_once_until_it_moves_or_lets_go(tmp_path: Path) -> None:
    with watching(tmp_path) as (world, heard, script):
        says(world, "Watches: no hand")
        script("right 0 0.1")
        says(world, "right hand empty (holds 0.10, wanted 0.35)")
        assert not heard
        script("right 0 0.9")
        says(world, "right hand reconstructed, waits until it moves or lets go")
        assert len(heard) == 1
        script("right 40 0.9")
        world.wait_for(lambda: len(heard) == 2)
        script("right 40 0.0")
        says(world, "empty")
        script("right 40 0.9")
        world.wait_for(lambda: len(heard) == 3)
        script("")
        says(world, "no hand")
        time.sleep(0.5)
        assert len(heard) == 3


def test_a_hand_that_moves_is_not_reconstructed_and_how_far_it_moves_is_said(tmp_path: Path) -> None:
    with watching(tmp_path, continuous__rate=5.0) as (world, heard, script):
        ended = time.monotonic() + 3.0
        place = 0
        while time.monotonic() < ended:
            place += 20
            script(f"right {place} 0.9")
            time.sleep(0.1)
        assert not heard
        script("right 0 0.9\nleft 300 0.1")
        world.wait_for(lambda: len(heard) == 1)


def test_the_count_and_the_wait_are_said_and_the_shortest_period_is_kept(tmp_path: Path) -> None:
    with watching(tmp_path, continuous__still_frames=100, continuous__min_period=4.0) as (world, heard, script):
        script("left 0 0.9")
        says(world, "left hand still ")
        three = ParameterValue(type=ParameterType.PARAMETER_INTEGER, integer_value=3)
        assert world.set_parameter("continuous.still_frames", three).successful
        world.wait_for(lambda: len(heard) == 1)
        first = time.monotonic()
        script("left 50 0.9")
        says(world, "the next reconstruction may begin in")
        world.wait_for(lambda: len(heard) == 2)
        assert time.monotonic() - first > 3.0


def test_goals_come_first_and_nothing_is_looked_at_in_mode_on_request(tmp_path: Path) -> None:
    with watching(tmp_path, job_s=2.0) as (world, heard, script):
        sent = world.send()
        world.wait_for(lambda: any(feedback.stage == "flow" for feedback in sent.feedback))
        script("right 0 0.9")
        time.sleep(0.5)
        assert not heard and sent.ending().result.error_code == 0
        world.wait_for(lambda: len(heard) == 2)
        on_request = ParameterValue(type=ParameterType.PARAMETER_STRING, string_value="on_request")
        assert world.set_parameter("mode", on_request).successful
        script("right 99 0.9")
        says(world, "Waits for a Reconstruct goal")
        time.sleep(1.0)
        assert len(heard) == 2


@pytest.mark.slow
def test_the_real_worker_sees_the_hand_of_the_example_stop_move_and_go() -> None:
    photo = read_photo(ROOT / "fmh_ros" / "assets" / "example" / "rgb.png").pixels
    moved = np.roll(photo, 60, axis=1)
    blank = np.full_like(photo, 120)
    generator = np.random.default_rng(0)
    with (
        world_with_node(
            scripted=False,
            mode="continuous",
            use_camera_info=False,
            continuous__guidance=False,
            continuous__still_frames=3,
        ) as world,
        Camera(world, rate=10.0) as camera,
    ):
        heard = world.listen(HandObject, "~/reconstruction")
        shown = [blank]

        def noisy() -> int:
            pixels = shown[0] + generator.normal(0, 3, photo.shape)
            camera.image = make_image(np.clip(pixels, 0, 255).astype(np.uint8), "rgb8")
            return time.time_ns()

        camera.stamp_ns = noisy
        wait_for_status(world, "node", lambda status: "Watches: no hand" in status.message)
        for count, pixels in enumerate((photo, moved), 1):
            shown[0] = pixels
            world.wait_for(lambda count=count: len(heard) == count, 120)  # type: ignore[misc]
            says(world, "right hand reconstructed, waits until it moves or lets go")
        shown[0] = blank
        says(world, "no hand")
        assert len(heard) == 2
        # 60 pixels to the right in the image are as many to the right in what was reconstructed.
        wrists = [message.hand.wrist_pose.position for message in heard]
        focal = heard[0].provenance.k[0]
        shift = [focal * wrist.x / wrist.z for wrist in wrists]
        assert shift[1] - shift[0] == pytest.approx(60, abs=12)
