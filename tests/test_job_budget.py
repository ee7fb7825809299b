# SPDX-License-Identifier: Apache-2.0
"""The time budget of a job, with a clock that the test moves."""

from __future__ import annotations

import pytest

from fmh_ros.core.errors import CancelledError, TimeBudgetError
from fmh_ros.core.progress import Progress
from fmh_ros.core.reconstruction import job as module
from fmh_ros.core.reconstruction.job import Job


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(module, "time", made)
    return made


def at_the_flow(clock: Clock, budget_s: float) -> Job:
    """A job that took 2 s for its cues and 0.1 s for each of three plain flow steps."""
    job = Job(time_budget_s=budget_s)
    job.enter("detect")
    clock.now += 2.0
    job.enter("flow")
    report = job.flow_reporter(0, 1)
    for step in range(4):
        report(Progress("flow", "", step))
        clock.now += 0.1
    return job


def test_without_a_budget_nothing_is_hurried(clock: Clock) -> None:
    job = Job()
    job.enter("flow")
    clock.now += 1e6
    assert not job.must_hurry(20)
    assert not job.must_end()


def test_guidance_ends_while_there_is_time_for_the_rest(clock: Clock) -> None:
    job = at_the_flow(clock, 60.0)
    assert not job.must_hurry(16)
    assert not job.hurried
    clock.now += 60.0 - job.elapsed() - 5.0
    assert job.must_hurry(16)
    assert job.hurried
    assert not job.must_end()
    assert not job.must_hurry(1)


def test_a_slower_machine_is_allowed_more(clock: Clock) -> None:
    slow, fast = Job(time_budget_s=60.0), Job(time_budget_s=60.0)
    for job, seconds in ((slow, 20.0), (fast, 1.0)):
        job.started = clock.now
        job.enter("detect")
        clock.now += seconds
        job.enter("flow")
        clock.now = job.started + 50.0
    assert not fast.must_hurry(1)
    clock.now = slow.started + 50.0
    assert slow.must_hurry(1)


def test_a_spent_budget_ends_a_job_anywhere_but_at_its_finish(clock: Clock) -> None:
    job = at_the_flow(clock, 5.0)
    clock.now += 5.0
    assert job.must_end()
    with pytest.raises(TimeBudgetError, match=r"5\.0 s ran out in stage flow"):
        job.check()
    job.enter("finish")
    job.enter("")


def test_cancelling_is_said_before_the_budget() -> None:
    job = Job(cancelled=lambda: True, time_budget_s=0.0)
    with pytest.raises(CancelledError):
        job.enter("detect")
