# SPDX-License-Identifier: Apache-2.0
"""The engine that runs its jobs in one process beside its own."""

from __future__ import annotations

import itertools
import threading
from concurrent.futures import Future

import numpy as np
from numpy.typing import NDArray

from fmh_ros.core.cues.types import SeenHand
from fmh_ros.core.errors import EngineStoppedError
from fmh_ros.engines.desk import Desk
from fmh_ros.engines.job import Configuration, Job, Look
from fmh_ros.engines.process import ProcessSettings
from fmh_ros.engines.supervisor import Limits, Supervisor
from fmh_ros.engines.types import EngineState, EngineStatus, FeedbackCallback, JobRequest, OutcomeCallback


class LocalEngine:
    """Implements ``Engine`` with one worker process, which a thread of this class starts, watches and replaces.

    process : how the worker is started; limits : how patient the engine is with it.
    """

    def __init__(self, process: ProcessSettings | None = None, limits: Limits | None = None) -> None:
        self._process = process or ProcessSettings()
        self._limits = limits or Limits()
        self._desk: Desk | None = None
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._ids = itertools.count(1)

    def start(self) -> None:
        """Begin to start the worker; see ``Engine``."""
        with self._lock:
            if self._thread is not None:
                return
            self._desk = Desk()
            supervisor = Supervisor(self._desk, self._process, self._limits)
            # A daemon: when the program ends without stop(), the kernel ends the worker with this thread.
            self._thread = threading.Thread(target=supervisor.run, name="fmh-engine", daemon=True)
            self._thread.start()

    def configure(self, profile: str) -> Future[None]:
        """Load a profile; see ``Engine``."""
        return self._open_desk().accept_configuration(Configuration(profile))

    def submit(
        self,
        request: JobRequest,
        on_feedback: FeedbackCallback | None = None,
        on_outcome: OutcomeCallback | None = None,
    ) -> int:
        """Accept a job; see ``Engine``."""
        job = Job(next(self._ids), request, on_feedback, on_outcome)
        self._open_desk().accept_job(job)
        return job.id

    def cancel(self, job_id: int) -> bool:
        """Ask for the end of a job; see ``Engine``."""
        desk = self._desk
        return desk is not None and desk.cancel(job_id)

    def look(self, image: NDArray[np.uint8], profile: str) -> Future[tuple[SeenHand, ...]]:
        """Look quickly for hands; see ``Engine``."""
        look = Look(next(self._ids), image, profile)
        self._open_desk().accept_look(look)
        return look.future

    def stop(self) -> None:
        """End the worker and wait for that; see ``Engine``. From a callback it does not wait."""
        with self._lock:
            desk, thread = self._desk, self._thread
            if desk is None or thread is None:
                return
            desk.close()
        if thread is not threading.current_thread():
            thread.join()
        with self._lock:
            if self._thread is thread:
                self._desk = self._thread = None

    def status(self) -> EngineStatus:
        """Return what the engine does; see ``Engine``."""
        desk = self._desk
        return EngineStatus(EngineState.STOPPED) if desk is None else desk.status()

    def _open_desk(self) -> Desk:
        desk = self._desk
        if desk is None:
            raise EngineStoppedError(
                "The engine is not running", expected="a started engine", change="Configure and activate the node"
            )
        return desk
