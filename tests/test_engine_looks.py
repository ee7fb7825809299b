# SPDX-License-Identifier: Apache-2.0
"""Quick looks for hands in a real worker process: what they see, and how they get out of a job's way."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from test_masks import free_hand

import fmh_ros
from fmh_ros.core.cues.hand_detector import MediaPipeHandDetector
from fmh_ros.core.cues.types import keypoint_distance
from fmh_ros.core.errors import BusyError, EngineStoppedError, ProfileError, WorkerDiedError, WorkerHungError
from fmh_ros.core.frame.frame import Frame
from fmh_ros.core.frame.load import load_frame
from fmh_ros.engines.local import LocalEngine
from fmh_ros.engines.supervisor import Limits
from fmh_ros.engines.types import EngineState, JobOutcome, JobRequest

EXAMPLE = Path(fmh_ros.__file__).parent / "assets" / "example"
PATIENCE = 300.0


def wait_for(condition: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "nothing happened in time"
        time.sleep(0.01)


@pytest.fixture(scope="module")
def frame() -> Frame:
    return load_frame(EXAMPLE / "rgb.png")


@pytest.fixture(scope="module")
def engine() -> Iterator[LocalEngine]:
    made = LocalEngine(limits=Limits(heartbeat_s=5.0))
    made.start()
    made.configure("embedded").result(PATIENCE)
    yield made
    made.stop()


def test_a_look_sees_the_hand_that_a_job_sees_and_that_it_holds_something(engine: LocalEngine, frame: Frame) -> None:
    (expected,) = MediaPipeHandDetector().detect(frame)
    for image in (frame.image, frame.image):  # found, then followed
        (hand,) = engine.look(image, "embedded").result(PATIENCE)
        assert hand.side == "right" and hand.score > 0.8 and hand.holds > 0.7
        assert keypoint_distance(hand.landmarks, expected.keypoints_2d) < 0.05
        np.testing.assert_allclose(hand.box, [*hand.landmarks.min(0), *hand.landmarks.max(0)])


def test_a_left_hand_is_seen_as_one_that_holds_the_same(engine: LocalEngine, frame: Frame) -> None:
    (right,) = engine.look(frame.image, "embedded").result(PATIENCE)
    assert engine.look(np.full_like(frame.image, 90), "embedded").result(PATIENCE) == ()
    (left,) = engine.look(frame.mirrored().image, "embedded").result(PATIENCE)
    assert left.side == "left" and left.holds == pytest.approx(right.holds, abs=0.1)
    middle = frame.camera.width - 1 - right.landmarks[:, 0].mean(), right.landmarks[:, 1].mean()
    np.testing.assert_allclose(left.landmarks.mean(0), middle, atol=5)


def test_hands_that_hold_nothing_are_told_apart(engine: LocalEngine) -> None:
    found = []
    for seed in range(8):
        found += engine.look(free_hand(seed)[0].image, "embedded").result(PATIENCE)
        engine.look(np.full((256, 256, 3), 90, np.uint8), "embedded").result(PATIENCE)
    assert len(found) >= 3
    assert np.mean([hand.holds < 0.35 for hand in found]) > 0.6, [round(hand.holds, 2) for hand in found]


def test_a_look_gives_way_to_jobs_and_comes_one_at_a_time(engine: LocalEngine, frame: Frame) -> None:
    outcomes: list[JobOutcome] = []
    first = engine.look(frame.image, "embedded")
    with pytest.raises(BusyError, match="look before"):
        engine.look(frame.image, "embedded")
    job = engine.submit(JobRequest(frame, guidance=False), on_outcome=outcomes.append)
    with pytest.raises(BusyError):
        engine.look(frame.image, "embedded")
    error = first.exception(PATIENCE)
    assert error is None or isinstance(error, BusyError)
    engine.cancel(job)
    wait_for(lambda: outcomes)
    wait_for(lambda: engine.status().state is EngineState.READY)
    assert len(engine.look(frame.image, "embedded").result(PATIENCE)) == 1
    pid = engine.status().pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)  # or it says that they are loaded already, before anybody looks
    try:
        engine.configure("embedded")
        with pytest.raises(BusyError, match="Models"):
            engine.look(frame.image, "embedded")
    finally:
        os.kill(pid, signal.SIGCONT)
    wait_for(lambda: engine.status().state is EngineState.READY)


def test_a_look_without_models_says_so(frame: Frame) -> None:
    engine = LocalEngine()
    with pytest.raises(EngineStoppedError):
        engine.look(frame.image, "embedded")
    engine.start()
    try:
        assert isinstance(engine.look(frame.image, "none").exception(PATIENCE), ProfileError)
        assert engine.status().restarts == 0
        last = engine.look(frame.image, "embedded")
    finally:
        engine.stop()
    assert isinstance(last.exception(1), EngineStoppedError)


@pytest.mark.parametrize(("number", "kind"), [(signal.SIGKILL, WorkerDiedError), (signal.SIGSTOP, WorkerHungError)])
def test_a_worker_that_fails_during_a_look_is_replaced(
    engine: LocalEngine, frame: Frame, number: signal.Signals, kind: type[Exception]
) -> None:
    wait_for(lambda: engine.status().state is EngineState.READY and engine.status().profile)
    pid = engine.status().pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    look = engine.look(frame.image, "embedded")
    time.sleep(0.1)
    os.kill(pid, number)
    assert isinstance(look.exception(PATIENCE), kind)
    assert len(engine.look(frame.image, "embedded").result(PATIENCE)) == 1
    assert engine.status().pid != pid
