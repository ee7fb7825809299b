# SPDX-License-Identifier: Apache-2.0
"""Where callers and the supervising thread meet: what was asked for, and what is known, behind one lock."""

from __future__ import annotations

import os
import threading
import time
from concurrent.futures import Future
from dataclasses import replace

from fmh_ros.core.errors import BusyError, EngineStoppedError
from fmh_ros.engines.job import Configuration, Job, Look
from fmh_ros.engines.types import EngineState, EngineStatus


class Desk:
    """Holds at most one job, one configuration and one look. Methods are quick and may be called from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._job: Job | None = None
        self._configuration: Configuration | None = None
        self._look: Look | None = None
        self._closed = False
        self._status = EngineStatus(EngineState.STARTING)
        self._heard: float | None = None
        #: Becomes readable when somebody has asked for something.
        self.bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    # For callers

    def accept_job(self, job: Job) -> None:
        """Take a job. Raises BusyError when there is one, EngineStoppedError when closed."""
        with self._lock:
            self._refuse_when_closed()
            if self._job is not None:
                raise BusyError(
                    f"Job {self._job.id} is running",
                    expected="one job at a time",
                    change="Wait for its result or cancel it",
                )
            self._job = job
            self._ring()

    def accept_configuration(self, configuration: Configuration) -> Future[None]:
        """Take a configuration. Raises BusyError when there is a job or one, EngineStoppedError when closed."""
        with self._lock:
            self._refuse_when_closed()
            if self._job is not None or self._configuration is not None:
                what = "A job is running" if self._job is not None else "Models are being loaded"
                raise BusyError(what, expected="an idle engine", change="Wait for its end or cancel it")
            self._configuration = configuration
            self._ring()
        return configuration.future

    def accept_look(self, look: Look) -> None:
        """Take a look. Raises BusyError when there is anything else, EngineStoppedError when closed."""
        with self._lock:
            self._refuse_when_closed()
            if self._job is not None or self._configuration is not None or self._look is not None:
                what = "A job is running" if self._job is not None else "Models are being loaded"
                what = "The look before has not ended" if self._look is not None else what
                raise BusyError(what, expected="an idle engine", change="Look again later")
            self._look = look
            self._ring()

    def cancel(self, job_id: int) -> bool:
        """Ask for the end of the job; False when it is not there any more."""
        with self._lock:
            if self._job is None or self._job.id != job_id:
                return False
            if self._job.cancelled is None:
                self._job.cancelled = time.monotonic()
                self._ring()
            return True

    def close(self) -> None:
        """Ask for the end of everything."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._ring()

    def status(self) -> EngineStatus:
        """Return a snapshot."""
        with self._lock:
            job, status = self._job, self._status
            busy = job is not None and status.state is EngineState.READY
            return replace(
                status,
                state=EngineState.BUSY if busy else status.state,
                job_id=None if job is None else job.id,
                progress=None if job is None else job.progress,
                heartbeat_age_s=None if self._heard is None else time.monotonic() - self._heard,
            )

    # For the supervising thread

    @property
    def closed(self) -> bool:
        """Whether everything is to end."""
        return self._closed

    @property
    def job(self) -> Job | None:
        """The accepted job."""
        return self._job

    @property
    def configuration(self) -> Configuration | None:
        """The configuration under way."""
        return self._configuration

    @property
    def look(self) -> Look | None:
        """The look under way."""
        return self._look

    def release_job(self) -> Job | None:
        """Take the job off the desk, so that another can be accepted."""
        with self._lock:
            job, self._job = self._job, None
            return job

    def release_configuration(self) -> Configuration | None:
        """Take the configuration off the desk."""
        with self._lock:
            configuration, self._configuration = self._configuration, None
            return configuration

    def release_look(self) -> Look | None:
        """Take the look off the desk."""
        with self._lock:
            look, self._look = self._look, None
            return look

    def tell(self, status: EngineStatus, heard: float | None) -> None:
        """Say what is known; job and progress are filled in from the desk."""
        with self._lock:
            self._status, self._heard = status, heard

    def shut(self) -> None:
        """Give the bell back at the very end."""
        with self._lock:
            self._closed = True
            os.close(self.bell)
            self.bell = -1

    def _ring(self) -> None:
        if self.bell >= 0:
            os.eventfd_write(self.bell, 1)

    def _refuse_when_closed(self) -> None:
        if self._closed:
            raise EngineStoppedError("The engine is stopping", change="Start it again first")
