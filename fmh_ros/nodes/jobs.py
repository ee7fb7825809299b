# SPDX-License-Identifier: Apache-2.0
"""One job from order to published result; the same for goals and for mode continuous."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

from fmh_ros.core.errors import EngineStoppedError, FmhError, TimeBudgetError
from fmh_ros.core.frame.frame import Frame
from fmh_ros.core.progress import Progress
from fmh_ros.core.reconstruction.types import Reconstruction
from fmh_ros.engines.protocol import Engine
from fmh_ros.engines.types import JobFeedback, JobOutcome, JobRequest
from fmh_ros.messages.inputs import MessageSet, Names, build_frame, build_prompt
from fmh_ros.messages.result import Made, to_hand_object
from fmh_ros.nodes.input import CAMERA_INFO, DEPTH, IMAGE, FrameSource
from fmh_ros.nodes.orders import Order
from fmh_ros.nodes.results import Entry, Parent
from fmh_ros.nodes.waiting import Line, Waiter

#: A cancelled job ends within a second; beyond this its outcome is not waited for.
SETTLE_S = 2.0
GOAL_NAMES = Names("the goal's image", "the goal's camera_info", "the goal's depth")


class Listener(Protocol):
    """Who wants to know how a job goes on. Called from the threads of the job and of the engine; must not block."""

    def progress(self, progress: Progress) -> None:
        """Take a report."""
        ...

    def image(self, frame: Frame) -> None:
        """Learn which image is worked on."""
        ...


@dataclass(frozen=True)
class JobSettings:
    """What of the parameters concerns a job."""

    queue_size: int
    frame_timeout_s: float
    rectified: bool


@dataclass
class JobCounts:
    """How many jobs ended how; ``last_error`` is that of the latest job, None when it succeeded."""

    succeeded: int = 0
    failed: int = 0
    refused: int = 0
    last_error: FmhError | None = None


class JobRunner:
    """Runs one job after the other on an engine.

    find_parent : called with a frame, before the job waits for its turn: tf2 forgets. publish : takes what succeeded.
    """

    def __init__(
        self,
        source: FrameSource,
        find_parent: Callable[[Frame, Waiter], tuple[Parent, str]],
        publish: Callable[[Entry], None],
    ) -> None:
        self._source, self._find_parent, self._publish = source, find_parent, publish
        self._lock = threading.Lock()
        self.engine: Engine | None = None
        self.line = Line()
        self.counts = JobCounts()

    def run(self, waiter: Waiter, order: Order, settings: JobSettings, listener: Listener) -> Entry:
        """Do a job and return its published result; blocks until then. Raises the FmhError that ended it."""
        try:
            self.line.enter(waiter, settings.queue_size)
        except FmhError:
            self.counts.refused += 1
            raise
        try:
            entry = self._run(waiter, order, settings, listener)
        except FmhError as error:
            self._count(error)
            raise
        finally:
            self.line.leave(waiter)
        self._count(None)
        return entry

    def next_frame(self, waiter: Waiter, stamp_ns: int | None, timeout_s: float) -> MessageSet:
        """Wait for messages that belong together. Raises the error that says why none came."""
        request = self._source.ask(stamp_ns, waiter.poke)
        try:
            if not waiter.wait_for(lambda: request.done, timeout_s):
                raise self._source.explain(request, timeout_s)
        finally:
            self._source.give_up(request)
        if request.error is not None:
            raise request.error
        assert request.result is not None
        return request.result

    def names(self) -> Names:
        """What the topics are called."""
        topics = {kind: state.topic for kind, state in self._source.topics.items()}
        return Names(*(topics.get(kind, kind) for kind in (IMAGE, CAMERA_INFO, DEPTH)))

    def _run(self, waiter: Waiter, order: Order, settings: JobSettings, listener: Listener) -> Entry:
        messages, names = order.images, GOAL_NAMES
        if messages is None:
            timeout_s = min(settings.frame_timeout_s, _left(waiter, order) or settings.frame_timeout_s)
            messages, names = self.next_frame(waiter, order.stamp_ns, timeout_s), self.names()
        frame = build_frame(messages, names, rectified=settings.rectified and order.images is None)
        listener.image(frame)
        said = order.prompt
        prompt = build_prompt(frame, said.box, said.points, said.labels, said.mask, said.text, order.profile)
        parent, warning = self._find_parent(frame, waiter)
        if not self.line.wait_for_turn(waiter, _left(waiter, order)):
            raise TimeBudgetError("The time budget ran out while other jobs ran", change="Allow more time")
        request = JobRequest(
            frame=frame,
            prompt=prompt,
            side=order.side,
            profile=order.profile,
            preset=order.preset,
            seed=order.seed,
            samples=order.samples,
            guidance=order.guidance,
            time_budget_s=_left(waiter, order),
            previews=order.previews,
        )
        result = self._reconstruct(waiter, request, listener)
        made = Made(uuid.uuid4().hex[:16], order.samples, order.guidance, (warning,) if warning else ())
        entry = Entry(result, made, to_hand_object(result, made), parent)
        waiter.check()
        self._publish(entry)
        return entry

    def _reconstruct(self, waiter: Waiter, request: JobRequest, listener: Listener) -> Reconstruction:
        """Have the engine do the work; when the job is interrupted, so is the engine's."""
        outcomes: list[JobOutcome] = []

        def heard(feedback: JobFeedback) -> None:
            listener.progress(replace(feedback.progress, elapsed_s=waiter.elapsed()))

        def ended(outcome: JobOutcome) -> None:
            outcomes.append(outcome)
            waiter.poke()

        engine = self.engine
        if engine is None:
            raise EngineStoppedError("There is no engine", change="Configure the node")
        waiter.check()
        job_id = engine.submit(request, heard, ended)
        try:
            waiter.wait_for(lambda: bool(outcomes))
        except FmhError:
            engine.cancel(job_id)
            waiter.settle(lambda: bool(outcomes), SETTLE_S)
            raise
        (outcome,) = outcomes
        if outcome.error is not None:
            raise outcome.error
        assert outcome.reconstruction is not None
        return outcome.reconstruction

    def _count(self, error: FmhError | None) -> None:
        with self._lock:
            self.counts.last_error = error
            if error is None:
                self.counts.succeeded += 1
            else:
                self.counts.failed += 1


def _left(waiter: Waiter, order: Order) -> float | None:
    """Seconds of the time budget that are left, None without one. Raises TimeBudgetError when there are none."""
    if order.time_budget_s is None:
        return None
    left = order.time_budget_s - waiter.elapsed()
    if left <= 0:
        raise TimeBudgetError("The time budget ran out before the job began", change="Allow more time")
    return left
