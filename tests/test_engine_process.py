# SPDX-License-Identifier: Apache-2.0
"""Worker processes come up, end with their engine, and are replaced with patience; no models are loaded here."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

import fmh_ros
from fmh_ros.core.errors import (
    BusyError,
    CancelledError,
    EngineStoppedError,
    ModelMissingError,
    ProfileError,
    TimeBudgetError,
    WorkerDiedError,
)
from fmh_ros.core.frame.camera import camera_from_field_of_view
from fmh_ros.core.frame.frame import Frame
from fmh_ros.engines import supervisor
from fmh_ros.engines.local import LocalEngine
from fmh_ros.engines.process import ProcessSettings
from fmh_ros.engines.supervisor import Limits
from fmh_ros.engines.types import EngineState, JobOutcome, JobRequest

FRAME = Frame(np.zeros((48, 64, 3), np.uint8), camera_from_field_of_view(64, 48))

HOLD = """
import sys, time
from fmh_ros.engines.local import LocalEngine
engine = LocalEngine()
engine.start()
while engine.status().pid is None or engine.status().state.value != "ready":
    time.sleep(0.01)
if {configure}:
    engine.configure("embedded")
print(engine.status().pid, flush=True)
{then}
"""


def wait_for(condition: Callable[[], object], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "nothing happened in time"
        time.sleep(0.01)


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


@pytest.fixture
def engine() -> Iterator[LocalEngine]:
    made = LocalEngine()
    made.start()
    yield made
    made.stop()


@pytest.mark.parametrize("configure", [False, True], ids=["idle", "loading"])
def test_a_worker_dies_with_its_parent_even_when_that_is_killed(configure: bool) -> None:
    code = HOLD.format(configure=configure, then="time.sleep(600)")
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert is_running(pid)
        parent.kill()
    wait_for(lambda: not is_running(pid), 5)


def test_a_program_that_forgets_to_stop_its_engine_ends_and_leaves_no_worker() -> None:
    code = HOLD.format(configure=False, then="")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    wait_for(lambda: not is_running(int(done.stdout)), 5)
    assert done.stderr == ""


def test_stopping_leaves_nothing_and_starting_again_works(engine: LocalEngine) -> None:
    for _ in range(2):
        wait_for(lambda: engine.status().state is EngineState.READY)
        pid = engine.status().pid
        assert pid is not None
        engine.stop()
        engine.stop()
        assert not is_running(pid)
        assert engine.status().state is EngineState.STOPPED
        with pytest.raises(EngineStoppedError):
            engine.submit(JobRequest(FRAME))
        with pytest.raises(EngineStoppedError):
            engine.configure("embedded")
        engine.start()


def test_an_idle_worker_that_is_killed_is_replaced(engine: LocalEngine) -> None:
    wait_for(lambda: engine.status().state is EngineState.READY)
    first = engine.status().pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    wait_for(lambda: engine.status().restarts == 1 and engine.status().state is EngineState.READY)
    assert engine.status().pid not in (first, None)
    assert isinstance(engine.status().last_error, WorkerDiedError)
    assert "SIGKILL" in str(engine.status().last_error)


def test_the_profile_is_checked(engine: LocalEngine) -> None:
    assert isinstance(engine.configure("none").exception(300), ProfileError)
    outcomes: list[JobOutcome] = []
    engine.submit(JobRequest(FRAME, profile="other"), on_outcome=outcomes.append)
    wait_for(lambda: outcomes, 300)
    assert isinstance(outcomes[0].error, ProfileError)
    assert outcomes[0].reconstruction is None
    assert engine.status().restarts == 0


def test_a_waiting_job_is_cancelled_runs_out_of_time_or_ends_with_the_engine(engine: LocalEngine) -> None:
    outcomes: list[JobOutcome] = []
    job = engine.submit(JobRequest(FRAME), on_outcome=outcomes.append)
    with pytest.raises(BusyError, match=str(job)):
        engine.submit(JobRequest(FRAME))
    with pytest.raises(BusyError):
        engine.configure("embedded")
    assert not engine.cancel(job + 1)
    assert engine.cancel(job)
    wait_for(lambda: len(outcomes) == 1, 1)
    assert not engine.cancel(job)
    second = engine.submit(JobRequest(FRAME, time_budget_s=0.05), on_outcome=outcomes.append)
    wait_for(lambda: len(outcomes) == 2, 1)
    last = engine.submit(JobRequest(FRAME), on_outcome=outcomes.append)
    engine.stop()
    assert [type(o.error) for o in outcomes] == [CancelledError, TimeBudgetError, EngineStoppedError]
    assert [o.job_id for o in outcomes] == [job, second, last]


@pytest.mark.parametrize("python", ["/bin/false", "/no/such/python"])
def test_a_worker_that_cannot_start_fails_what_waits_and_is_tried_ever_more_rarely(python: str) -> None:
    engine = LocalEngine(ProcessSettings(python=python), Limits(backoff_s=0.1, longest_backoff_s=0.4))
    engine.start()
    try:
        assert isinstance(engine.configure("embedded").exception(10), WorkerDiedError)
        outcomes: list[JobOutcome] = []
        engine.submit(JobRequest(FRAME), on_outcome=outcomes.append)
        wait_for(lambda: outcomes, 10)
        assert isinstance(outcomes[0].error, WorkerDiedError)
        wait_for(lambda: engine.status().restarts >= 4, 20)
        before = engine.status().restarts
        time.sleep(1.0)
        assert 1 <= engine.status().restarts - before <= 3
    finally:
        engine.stop()


def test_a_worker_of_another_version_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "__version__", "0.0.0")
    engine = LocalEngine()
    engine.start()
    try:
        error = engine.configure("embedded").exception(60)
        assert isinstance(error, ModelMissingError)
        assert "0.0.0" in str(error)
    finally:
        engine.stop()


def test_missing_weights_are_a_typed_error_and_the_worker_stays(tmp_path: Path) -> None:
    package = Path(fmh_ros.__file__).parent
    shutil.copytree(package, tmp_path / "fmh_ros", ignore=shutil.ignore_patterns("assets", "__pycache__"))
    (tmp_path / "fmh_ros" / "assets").mkdir()
    for name in ("hand", "masks", "mediapipe", "schema"):
        (tmp_path / "fmh_ros" / "assets" / name).symlink_to(package / "assets" / name)
    code = (
        "from fmh_ros.engines.local import LocalEngine\n"
        "engine = LocalEngine(); engine.start()\n"
        "error = engine.configure('embedded').exception(300)\n"
        "print(type(error).__name__, engine.status().state.value, engine.status().restarts); engine.stop()\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, cwd=tmp_path, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["ModelMissingError", "ready", "0"], done.stderr
