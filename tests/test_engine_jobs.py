# SPDX-License-Identifier: Apache-2.0
"""Real jobs in a real worker process: results, feedback, cancelling, and every way in which a worker can fail."""

from __future__ import annotations

import logging
import os
import resource
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import trimesh

import fmh_ros
from fmh_ros.core.errors import (
    BusyError,
    CancelledError,
    EngineStoppedError,
    FmhError,
    OutOfMemoryError,
    TimeBudgetError,
    WorkerDiedError,
    WorkerHungError,
)
from fmh_ros.core.frame.frame import Frame
from fmh_ros.core.frame.load import load_frame
from fmh_ros.core.reconstruction.reconstructor import Reconstructor
from fmh_ros.core.reconstruction.types import Reconstruction
from fmh_ros.engines.local import LocalEngine
from fmh_ros.engines.supervisor import Limits
from fmh_ros.engines.types import EngineState, JobFeedback, JobOutcome, JobRequest

EXAMPLE = Path(fmh_ros.__file__).parent / "assets" / "example"
#: Longest wait for anything, seconds: far beyond what a busy machine needs.
PATIENCE = 400.0


@dataclass
class Running:
    """A submitted job and what was said about it."""

    engine: LocalEngine
    feedback: list[JobFeedback] = field(default_factory=list)
    outcomes: list[JobOutcome] = field(default_factory=list)
    first: threading.Event = field(default_factory=threading.Event)
    ended: threading.Event = field(default_factory=threading.Event)
    id: int = 0

    def submit(self, request: JobRequest) -> Running:
        self.id = self.engine.submit(request, self.on_feedback, self.on_outcome)
        return self

    def on_feedback(self, feedback: JobFeedback) -> None:
        self.feedback.append(feedback)
        self.first.set()

    def on_outcome(self, outcome: JobOutcome) -> None:
        self.outcomes.append(outcome)
        self.ended.set()

    def begun(self) -> Running:
        assert self.first.wait(PATIENCE)
        return self

    def outcome(self) -> JobOutcome:
        assert self.ended.wait(PATIENCE)
        return self.outcomes[0]

    def result(self) -> Reconstruction:
        outcome = self.outcome()
        assert outcome.reconstruction is not None, outcome.error
        assert outcome.error is None
        return outcome.reconstruction

    def error(self) -> FmhError:
        outcome = self.outcome()
        assert outcome.reconstruction is None
        assert outcome.error is not None
        return outcome.error


@pytest.fixture(scope="module")
def frame() -> Frame:
    return load_frame(EXAMPLE / "rgb.png", EXAMPLE / "depth.png", EXAMPLE / "camera.yaml")


@pytest.fixture(scope="module")
def engine() -> Iterator[LocalEngine]:
    made = LocalEngine(limits=Limits(heartbeat_s=5.0))
    made.start()
    made.configure("embedded").result(PATIENCE)
    yield made
    made.stop()


@pytest.fixture(scope="module")
def free(engine: LocalEngine, frame: Frame) -> Running:
    """A job without guidance, to its end."""
    running = Running(engine).submit(JobRequest(frame, guidance=False, seed=3))
    running.result()
    return running


def loaded(engine: LocalEngine) -> int:
    """Wait for models and return the worker's process id."""
    end = time.monotonic() + PATIENCE
    while engine.status().state is not EngineState.READY or not engine.status().profile:
        assert time.monotonic() < end
        time.sleep(0.02)
    pid = engine.status().pid
    assert pid is not None
    return pid


def test_a_job_gives_what_the_library_gives(free: Running, frame: Frame) -> None:
    result = free.result()
    expected = Reconstructor().reconstruct(frame, guidance=False, seed=3)
    assert np.array_equal(result.object.vertices, expected.object.vertices)
    assert np.array_equal(result.object.faces, expected.object.faces)
    assert np.array_equal(result.hand.vertices, expected.hand.vertices)
    assert np.array_equal(result.frame.image, frame.image)
    assert result.quality == expected.quality
    assert (result.profile, result.preset, result.seed) == ("embedded", "default", 3)
    assert trimesh.Trimesh(result.object.vertices, result.object.faces, process=False).is_watertight


def test_feedback_comes_at_once_and_in_order(free: Running) -> None:
    fractions = [f.progress.fraction for f in free.feedback]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0
    assert free.feedback[0].progress.stage == "detect"
    assert {f.job_id for f in free.feedback} == {free.id}
    assert all(f.progress.preview is None for f in free.feedback)
    assert len(free.outcomes) == 1
    assert free.outcomes[0].duration_s >= free.feedback[-1].progress.elapsed_s


def test_a_time_budget_gives_a_guided_result_in_time(engine: LocalEngine, free: Running, frame: Frame) -> None:
    budget = 1.8 * free.outcome().duration_s  # a whole guided run takes more than three times the unguided one
    running = Running(engine).submit(JobRequest(frame, seed=3, time_budget_s=budget, previews=True))
    result = running.result()
    assert running.outcome().duration_s < 1.25 * budget + Limits().budget_s
    assert any("time budget" in warning for warning in result.warnings)
    assert result.phases[0].iterations >= 1
    previews = [f.progress.preview for f in running.feedback if f.progress.preview is not None]
    assert len(previews) == sum(len(phase.flow_steps) for phase in result.phases)
    last = previews[-1]
    mesh = trimesh.Trimesh(last.vertices, last.faces)
    assert mesh.volume > 0
    final = result.object.T_camera_object.apply(result.object.vertices)
    sides = np.ptp(final, axis=0)
    assert np.all(np.abs(last.vertices.min(0) - final.min(0)) < 0.5 * sides.max())
    assert np.all(np.abs(last.vertices.max(0) - final.max(0)) < 0.5 * sides.max())


def test_a_budget_that_cannot_be_kept_is_an_error_soon_after(engine: LocalEngine, frame: Frame) -> None:
    loaded(engine)
    running = Running(engine).submit(JobRequest(frame, time_budget_s=0.02))
    assert isinstance(running.error(), TimeBudgetError)
    assert running.outcome().duration_s < 0.02 + Limits().budget_s + 0.5


def test_cancelling_takes_less_than_a_second_and_the_next_job_may_follow(engine: LocalEngine, frame: Frame) -> None:
    loaded(engine)
    running = Running(engine).submit(JobRequest(frame)).begun()
    with pytest.raises(BusyError, match=f"Job {running.id}"):
        engine.submit(JobRequest(frame))
    assert engine.status().state is EngineState.BUSY
    assert engine.status().job_id == running.id
    began = time.monotonic()
    assert engine.cancel(running.id)
    assert isinstance(running.error(), CancelledError)
    assert time.monotonic() - began < 1.0
    following = Running(engine).submit(JobRequest(frame)).begun()
    assert all(f.job_id == following.id for f in following.feedback)
    engine.cancel(following.id)
    following.error()


def test_a_callback_that_fails_harms_neither_the_job_nor_the_engine(
    engine: LocalEngine, frame: Frame, caplog: pytest.LogCaptureFixture
) -> None:
    loaded(engine)
    running = Running(engine)

    def fail(_: JobFeedback) -> None:
        running.first.set()
        raise RuntimeError("a careless caller")

    job = engine.submit(JobRequest(frame), fail, running.on_outcome)
    running.begun()
    engine.cancel(job)
    assert isinstance(running.error(), CancelledError)
    assert "a careless caller" in caplog.text


def test_memory_that_runs_out_fails_the_job_and_the_worker_serves_on(engine: LocalEngine, frame: Frame) -> None:
    before = loaded(engine)
    os.kill(before, signal.SIGKILL)  # memory that earlier jobs have left could be enough
    end = time.monotonic() + PATIENCE
    while engine.status().pid in (before, None):
        assert time.monotonic() < end
        time.sleep(0.02)
    pid = loaded(engine)
    height, width = frame.image.shape[:2]
    large = replace(
        frame,
        image=cv2.resize(frame.image, None, fx=3, fy=3),
        depth=None,
        camera=frame.camera.crop((0, 0, width, height), 3 * width, 3 * height),
    )
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[0])
    unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    resource.prlimit(pid, resource.RLIMIT_AS, (pages * resource.getpagesize() + (16 << 20), resource.RLIM_INFINITY))
    try:
        error = Running(engine).submit(JobRequest(large, guidance=False)).error()
    finally:
        if engine.status().pid == pid:
            resource.prlimit(pid, resource.RLIMIT_AS, unlimited)
    assert isinstance(error, OutOfMemoryError), error
    running = Running(engine).submit(JobRequest(frame)).begun()
    engine.cancel(running.id)
    running.error()


@pytest.mark.parametrize(
    ("number", "expected"),
    [(signal.SIGKILL, WorkerDiedError), (signal.SIGSEGV, WorkerDiedError), (signal.SIGSTOP, WorkerHungError)],
)
def test_a_worker_that_dies_or_hangs_fails_its_job_and_is_replaced(
    engine: LocalEngine, frame: Frame, number: signal.Signals, expected: type[FmhError]
) -> None:
    pid, before = loaded(engine), engine.status().restarts
    running = Running(engine).submit(JobRequest(frame)).begun()
    os.kill(pid, number)
    error = running.error()
    assert isinstance(error, expected)
    if expected is WorkerDiedError:
        assert number.name in str(error)
    following = Running(engine).submit(JobRequest(frame)).begun()
    assert engine.status().restarts == before + 1
    assert engine.status().pid != pid
    assert not Path(f"/proc/{pid}").exists()
    engine.cancel(following.id)
    following.error()


def test_a_job_without_progress_is_given_up(frame: Frame) -> None:
    engine = LocalEngine(limits=Limits(stall_s=0.05))
    engine.start()
    try:
        error = Running(engine).submit(JobRequest(frame)).error()
        assert isinstance(error, WorkerHungError)
        assert "no progress" in str(error)
    finally:
        engine.stop()


def test_what_the_worker_prints_and_logs_is_logged_here(
    engine: LocalEngine, frame: Frame, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    pid = loaded(engine)
    caplog.set_level(logging.INFO)
    running = Running(engine).submit(JobRequest(frame)).begun()
    os.kill(pid, signal.SIGABRT)  # the fault handler prints where it was
    error = running.error()
    output = [record for record in caplog.records if record.name == "fmh_ros.worker.output"]
    assert any("Fatal Python error: Aborted" in record.message for record in output)
    assert "SIGABRT" in str(error)
    assert capfd.readouterr() == ("", "")


def test_stopping_ends_a_running_job_and_its_process(frame: Frame) -> None:
    engine = LocalEngine()
    engine.start()
    running = Running(engine).submit(JobRequest(frame)).begun()
    pid = engine.status().pid
    began = time.monotonic()
    engine.stop()
    assert time.monotonic() - began < 1.0
    assert isinstance(running.error(), EngineStoppedError)
    assert not Path(f"/proc/{pid}").exists()


def test_the_workers_threads_sleep_while_they_wait(engine: LocalEngine) -> None:
    environment = Path(f"/proc/{loaded(engine)}/environ").read_bytes().split(b"\0")
    assert f"OMP_WAIT_POLICY={os.environ.get('OMP_WAIT_POLICY', 'PASSIVE')}".encode() in environment
