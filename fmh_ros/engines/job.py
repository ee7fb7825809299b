# SPDX-License-Identifier: Apache-2.0
"""Jobs, configurations and quick looks on their way through an engine."""

from __future__ import annotations

import logging
import time
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from fmh_ros.core.cues.types import SeenHand
from fmh_ros.core.errors import FmhError
from fmh_ros.core.progress import Progress
from fmh_ros.core.reconstruction.types import Reconstruction
from fmh_ros.engines.types import FeedbackCallback, JobFeedback, JobOutcome, JobRequest, OutcomeCallback

LOG = logging.getLogger(__name__)
T = TypeVar("T")


@dataclass
class Job:
    """An accepted job. Times are of the monotonic clock, seconds.

    sent : when the worker got it, None while it waits; cancelled : when its end was asked for; heard : when the worker
    last reported on it.
    """

    id: int
    request: JobRequest
    on_feedback: FeedbackCallback | None
    on_outcome: OutcomeCallback | None
    submitted: float = field(default_factory=time.monotonic)
    sent: float | None = None
    cancelled: float | None = None
    told: bool = False
    heard: float = 0.0
    progress: Progress | None = None

    def remaining(self, now: float) -> float | None:
        """Seconds left of the time budget, None without one."""
        budget = self.request.time_budget_s
        return None if budget is None else self.submitted + budget - now

    def report(self, progress: Progress, now: float) -> None:
        """Pass a report on."""
        self.progress, self.heard = progress, now
        if self.on_feedback is not None:
            try:
                self.on_feedback(JobFeedback(self.id, progress))
            except Exception:
                LOG.exception("The feedback callback of job %d failed", self.id)

    def end(self, reconstruction: Reconstruction | None, error: FmhError | None) -> None:
        """Pass the outcome on."""
        if self.on_outcome is not None:
            outcome = JobOutcome(self.id, reconstruction, error, time.monotonic() - self.submitted)
            try:
                self.on_outcome(outcome)
            except Exception:
                LOG.exception("The outcome callback of job %d failed", self.id)


@dataclass
class Configuration:
    """A request to load a profile."""

    profile: str
    future: Future[None] = field(default_factory=Future)

    def end(self, error: FmhError | None) -> None:
        """Resolve the future."""
        resolve(self.future, None, error)


@dataclass
class Look:
    """A quick look for hands in an image (H, W, 3) uint8 RGB; ``sent`` : when the worker got it, None before."""

    id: int
    image: NDArray[np.uint8]
    profile: str
    future: Future[tuple[SeenHand, ...]] = field(default_factory=Future)
    sent: float | None = None

    def end(self, hands: tuple[SeenHand, ...], error: FmhError | None) -> None:
        """Resolve the future."""
        resolve(self.future, hands, error)


def resolve(future: Future[T], value: T, error: FmhError | None) -> None:
    """Give a future its value, or its error when there is one, unless its owner has cancelled it."""
    if future.set_running_or_notify_cancel():
        if error is None:
            future.set_result(value)
        else:
            future.set_exception(error)
