# SPDX-License-Identifier: Apache-2.0
"""The real node with an engine that needs no models, for tests of everything round a job. Run as a process.

The engine reports progress for FMH_TEST_JOB_S seconds and returns the result that is pickled in FMH_TEST_RESULT.
Its looks see the hands that are written in the file FMH_TEST_HANDS, a line each: side, pixels from where it began,
probability of holding. FMH_TEST_FAULT makes a transition raise: "configure" or "activate".
"""

from __future__ import annotations

import os
import pickle
import sys
import threading
import time
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fmh_ros.core.cues.types import SeenHand
from fmh_ros.core.errors import BusyError, CancelledError, EngineStoppedError, FmhError
from fmh_ros.core.progress import PreviewMesh, Progress
from fmh_ros.core.reconstruction.types import Reconstruction
from fmh_ros.engines.types import (
    EngineState,
    EngineStatus,
    FeedbackCallback,
    JobFeedback,
    JobOutcome,
    JobRequest,
    OutcomeCallback,
)
from fmh_ros.nodes.reconstruction_node import ReconstructionNode
from fmh_ros.nodes.running import run


class ScriptedEngine:
    """Implements ``Engine`` in a thread."""

    def __init__(self, result: Reconstruction, job_s: float) -> None:
        self._result, self._job_s = result, job_s
        self._lock = threading.Lock()
        self._started = False
        self._job = 0
        self._running: int | None = None
        self._ended = threading.Event()

    def start(self) -> None:
        self._started = True

    def configure(self, profile: str) -> Future[None]:
        if os.environ.get("FMH_TEST_FAULT") == "configure":
            raise RuntimeError("the disk is on fire")
        future: Future[None] = Future()
        future.set_result(None)
        return future

    def submit(
        self,
        request: JobRequest,
        on_feedback: FeedbackCallback | None = None,
        on_outcome: OutcomeCallback | None = None,
    ) -> int:
        with self._lock:
            if not self._started:
                raise EngineStoppedError("stopped")
            if self._running is not None:
                raise BusyError("one job runs")
            self._job += 1
            self._running = self._job
            self._ended.clear()
        threading.Thread(target=self._run, args=(self._job, request, on_feedback, on_outcome), daemon=True).start()
        return self._job

    def cancel(self, job_id: int) -> bool:
        self._ended.set()
        return True

    def look(self, image: NDArray[np.uint8], profile: str) -> Future[tuple[SeenHand, ...]]:
        with self._lock:
            if self._running is not None:
                raise BusyError("A job is running")
        path = Path(os.environ["FMH_TEST_HANDS"])
        future: Future[tuple[SeenHand, ...]] = Future()
        future.set_result(tuple(scripted_hand(*words.split()) for words in path.read_text().splitlines()))
        return future

    def stop(self) -> None:
        self._started = False
        self._ended.set()

    def status(self) -> EngineStatus:
        return EngineStatus(EngineState.READY if self._started else EngineState.STOPPED, profile="embedded")

    def _run(
        self, job: int, request: JobRequest, feedback: FeedbackCallback | None, outcome: OutcomeCallback | None
    ) -> None:
        began, error = time.monotonic(), None
        while time.monotonic() < began + self._job_s and error is None:
            share = (time.monotonic() - began) / self._job_s
            hand = self._result.hand
            mesh = PreviewMesh(hand.vertices.astype("f4"), hand.faces.astype("i4")) if request.previews else None
            if feedback is not None:
                feedback(JobFeedback(job, Progress("flow", "hand", 1, int(100 * share), share, loss=1.0, preview=mesh)))
            if self._ended.wait(0.05):
                error = CancelledError("cancelled")
        frame = replace(self._result.frame, frame_id=request.frame.frame_id, stamp_ns=request.frame.stamp_ns)
        result = replace(self._result, frame=frame, seed=request.seed)
        with self._lock:
            self._running = None
        if outcome is not None:
            fault: FmhError | None = error
            outcome(JobOutcome(job, None if fault else result, fault, time.monotonic() - began))


def scripted_hand(side: str, shift_px: str, holds: str) -> SeenHand:
    """A hand of 100 pixels, moved to the right."""
    landmarks = np.stack([np.linspace(100, 200, 21) + float(shift_px), np.linspace(80, 160, 21)], 1)
    box = (*landmarks.min(0).tolist(), *landmarks.max(0).tolist())
    return SeenHand("left" if side == "left" else "right", 0.9, box, landmarks, float(holds))  # type: ignore[arg-type]


def broken(_settings: object) -> None:
    raise RuntimeError("the camera is on fire")


def make_node() -> ReconstructionNode:
    result = pickle.loads(Path(os.environ["FMH_TEST_RESULT"]).read_bytes())
    job_s = float(os.environ.get("FMH_TEST_JOB_S", "0.3"))
    node = ReconstructionNode(lambda: ScriptedEngine(result, job_s))
    if os.environ.get("FMH_TEST_FAULT") == "activate":
        node._source.start = broken  # type: ignore[method-assign]
    return node


if __name__ == "__main__":
    sys.exit(run(make_node))
