# SPDX-License-Identifier: Apache-2.0
"""The clock of one reconstruction: timings, progress, cancellation and the time budget."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from fmh_ros.core.errors import CancelledError, TimeBudgetError
from fmh_ros.core.progress import CancelCheck, PreviewMesh, Progress, ProgressCallback

#: Share of the job that is done when each stage begins (measured on two CPU cores).
_BEGINS = {"detect": 0.0, "points": 0.12, "fit": 0.14, "complete": 0.18, "register": 0.19, "flow": 0.2, "finish": 0.93}
#: What is left to do, from what was measured in this job, so that a slow machine is allowed for: a flow step whose
#: guidance is cut short costs so many plain ones, and the finish this share of all stages before the flow.
_PLAIN_STEPS = 6.0
_FINISH_SHARE = 0.6


class Job:
    """Clock, progress, cancellation and time budget of one reconstruction.

    time_budget_s : seconds from now in which a result is wanted, None for no limit.
    """

    def __init__(
        self,
        progress: ProgressCallback | None = None,
        cancelled: CancelCheck | None = None,
        time_budget_s: float | None = None,
    ) -> None:
        self._progress, self._cancelled, self._budget_s = progress, cancelled, time_budget_s
        self.started = time.perf_counter()
        self.timings: dict[str, float] = {}
        self.hurried = False
        self._stage, self._since = "", self.started
        self._last = Progress("")
        self._plain_s, self._plain_count, self._plain_at = 0.0, 0, 0.0

    def elapsed(self) -> float:
        """Seconds since the job began."""
        return time.perf_counter() - self.started

    def remaining(self) -> float:
        """Seconds left of the budget, infinite without one."""
        return float("inf") if self._budget_s is None else self._budget_s - self.elapsed()

    def enter(self, stage: str, *, announce: bool = True) -> None:
        """Close the running stage's clock and begin another.

        Raises CancelledError between stages, and TimeBudgetError when the budget is spent; a job that has come as far
        as its finish is let through.
        """
        now = time.perf_counter()
        if self._stage:
            self.timings[self._stage] = self.timings.get(self._stage, 0.0) + now - self._since
        self._stage, self._since = stage, now
        self.check()
        if announce and stage in _BEGINS:
            self.report(Progress(stage, fraction=_BEGINS[stage]))

    def check(self) -> None:
        """Raise CancelledError or TimeBudgetError when the job must end where it is."""
        if self.cancelled():
            raise CancelledError(f"The job was cancelled in stage {self._stage or 'finish'}")
        if self._stage not in ("finish", "") and self.remaining() <= 0:
            raise self.out_of_time()

    def out_of_time(self) -> TimeBudgetError:
        """Return the error for a budget that ran out in the running stage."""
        return TimeBudgetError(
            f"The time budget of {self._budget_s:.1f} s ran out in stage {self._stage}",
            expected="time for at least one shape without guidance",
            change="Allow more time, or switch guidance off",
        )

    def cancelled(self) -> bool:
        """Whether whoever wanted the job wants it no more."""
        return self._cancelled is not None and self._cancelled()

    def must_end(self) -> bool:
        """Whether the flow must stop: cancelled, or the budget is spent."""
        return self.cancelled() or self.remaining() <= 0

    def must_hurry(self, flow_steps: int) -> bool:
        """Whether the budget leaves time for no more than the finish and so many flow steps without guidance."""
        if self._budget_s is None:
            return False
        before = sum(spent for stage, spent in self.timings.items() if stage not in ("load", "flow", "finish"))
        step = self._plain_s / self._plain_count if self._plain_count else 0.0
        finish = max(_FINISH_SHARE * before, self.timings.get("finish", 0.0))
        hurry = self.remaining() < finish + _PLAIN_STEPS * step * flow_steps
        self.hurried = self.hurried or hurry
        return hurry

    def report(self, progress: Progress) -> None:
        """Pass a report on, with the time since the job began."""
        self._last = progress
        if self._progress is not None:
            self._progress(replace(progress, elapsed_s=self.elapsed()))

    def show(self, preview: PreviewMesh) -> None:
        """Report again where the job is, with a preview."""
        if self._progress is not None:
            self._progress(replace(self._last, preview=preview, elapsed_s=self.elapsed()))

    def flow_reporter(self, index: int, count: int) -> Callable[[Progress], None]:
        """Map a sample's own fraction into the job's, and measure what plain flow steps cost."""
        begin, end = _BEGINS["flow"], _BEGINS["finish"]
        self._plain_at = 0.0

        def report(inner: Progress) -> None:
            now = time.perf_counter()
            if self._plain_at:
                self._plain_s, self._plain_count = self._plain_s + now - self._plain_at, self._plain_count + 1
            self._plain_at = 0.0 if inner.loss is not None or inner.phase in ("hand", "object", "joint") else now
            share = (index + inner.fraction) / count
            self.report(replace(inner, stage="flow", fraction=begin + (end - begin) * share))

        return report
