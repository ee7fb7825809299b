# SPDX-License-Identifier: Apache-2.0
"""The thread that starts the worker process, talks to it, watches it and replaces it."""

from __future__ import annotations

import contextlib
import logging
import os
import selectors
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from fmh_ros import __version__
from fmh_ros.core.cues.types import SeenHand
from fmh_ros.core.errors import CancelledError, EngineStoppedError, FmhError, WorkerDiedError
from fmh_ros.core.reconstruction.types import Reconstruction
from fmh_ros.engines import failures, wire
from fmh_ros.engines.desk import Desk
from fmh_ros.engines.process import ProcessSettings, WorkerProcess
from fmh_ros.engines.types import EngineState, EngineStatus

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Limits:
    """How patient an engine is, seconds.

    cancel_s : a cancelled job that has not ended by then is given up. budget_s, budget_share : the same past the time
    budget, so long and so much of the budget: a result that is a little late is better than none.
    drain_s : a job that was given up may still take this long to end by itself, so that loaded models are kept; then
    its process is killed. No other job runs meanwhile.
    load_s : a process must be up, and models loaded, within this. heartbeat_s : a process is silent at most this long.
    stall_s : a job reports at least this often. stop_s : an idle process may take this long to end.
    backoff_s, longest_backoff_s : wait before a process is started again that died before it was of any use; doubled
    each time.
    """

    cancel_s: float = 0.7
    budget_s: float = 2.0
    budget_share: float = 0.25
    drain_s: float = 5.0
    load_s: float = 300.0
    heartbeat_s: float = 10.0
    stall_s: float = 180.0
    stop_s: float = 0.5
    backoff_s: float = 0.5
    longest_backoff_s: float = 30.0


class Supervisor:
    """Runs in one thread for as long as its engine is started."""

    def __init__(self, desk: Desk, process: ProcessSettings, limits: Limits) -> None:
        self._desk, self._settings, self._limits = desk, process, limits
        self._selector = selectors.DefaultSelector()
        self._worker: WorkerProcess | None = None
        self._up = False
        self._loaded = ""
        self._loading = ""
        self._reload = ""
        self._given_up: tuple[int, float] | None = None
        self._since = self._heard = time.monotonic()
        self._failures = self._restarts = 0
        self._next_start = 0.0
        self._last_error: FmhError | None = None
        self._memory_bytes = 0

    def run(self) -> None:
        """Work until the desk closes."""
        self._selector.register(self._desk.bell, selectors.EVENT_READ)
        try:
            while not self._desk.closed:
                self._turn()
        except Exception:
            LOG.exception("The engine failed")
            raise
        finally:
            self._finish()

    def _turn(self) -> None:
        """Act on what is wanted, wait for something to happen, and act on that."""
        if self._worker is None and time.monotonic() >= self._next_start:
            self._start()
        self._dispatch()
        self._tell()
        self._wait()
        self._watch(time.monotonic())

    def _start(self) -> None:
        try:
            self._worker = WorkerProcess(self._settings)
        except OSError as error:
            self._plan_start(useful=False, configuring=False, loading="")
            self._last_error = error_ = WorkerDiedError(
                f"The worker process could not be started ({error})",
                expected=f"the interpreter {self._settings.python} to start",
                change="Check its path and the memory and processes that are free",
            )
            configuration = self._desk.release_configuration()
            if configuration is not None:
                configuration.end(error_)
            self._end_job(None, error_)
            self._end_look((), error_)
            return
        self._up, self._loaded, self._loading = False, "", ""
        self._since = self._heard = time.monotonic()
        self._selector.register(self._worker.connection, selectors.EVENT_READ)
        self._selector.register(self._worker.output, selectors.EVENT_READ)
        LOG.info("Worker process %d started", self._worker.pid)

    def _dispatch(self) -> None:
        """Tell the worker what there is to do, when it has nothing to do."""
        job, look, configuration, worker = self._desk.job, self._desk.look, self._desk.configuration, self._worker
        if job is not None and look is not None and look.sent is None:
            self._end_look((), failures.overtaken())
        if job is not None and job.cancelled is not None and job.sent is None:
            self._end_job(None, CancelledError("The job was cancelled before it began"))
            return
        if worker is None or not self._up or self._loading or self._given_up is not None:
            return
        if job is not None and job.sent is not None:
            if job.cancelled is not None and not job.told:
                job.told = True
                worker.outbox.put(wire.Cancel(job.id))
            return
        asked = (configuration and configuration.profile, job and job.request.profile, look and look.profile)
        wanted = next((profile for profile in asked if profile), self._reload)
        if configuration is not None or (wanted and wanted != self._loaded):
            self._loading, self._reload, self._since = wanted, "", time.monotonic()
            worker.outbox.put(wire.Load(wanted))
        elif job is not None:
            now = time.monotonic()
            job.sent = job.heard = now
            worker.forget_output()
            worker.outbox.put(wire.Run(job.id, job.request, job.remaining(now)))
        elif look is not None and look.sent is None:
            look.sent = time.monotonic()
            worker.outbox.put(wire.Look(look.id, look.image))

    def _wait(self) -> None:
        """Wait until there is something to read, or to look at again, and handle what came."""
        worker = self._worker
        if worker is not None:
            try:
                worker.outbox.flush()
            except OSError:
                LOG.debug("The worker no longer reads")  # its end is seen when it is read from
            events = selectors.EVENT_READ | (selectors.EVENT_WRITE if worker.outbox else 0)
            self._selector.modify(worker.connection, events)
        for key, mask in self._selector.select(self._patience(time.monotonic())):
            if key.fileobj == self._desk.bell:
                with contextlib.suppress(BlockingIOError):
                    os.eventfd_read(self._desk.bell)
            elif worker is None or worker is not self._worker:
                continue
            elif key.fileobj is worker.output:
                if not worker.read_output():
                    self._selector.unregister(worker.output)
            elif mask & selectors.EVENT_READ:
                self._read(worker)

    def _read(self, worker: WorkerProcess) -> None:
        try:
            for message in worker.messages():
                self._heard = time.monotonic()
                self._handle(message)
                if worker is not self._worker:
                    return
        except (EOFError, OSError):
            self._lose(None)
        except Exception as error:  # noqa: BLE001 - a message that cannot be understood is as bad as none
            self._lose(WorkerDiedError(f"The worker process sent something broken ({type(error).__name__}: {error})"))

    def _handle(self, message: object) -> None:
        job = self._desk.job
        if isinstance(message, wire.Heartbeat):
            self._memory_bytes = message.memory_bytes
        elif isinstance(message, wire.Reported):
            if job is not None and job.id == message.job_id:
                job.report(message.progress, self._heard)
        elif isinstance(message, wire.Logged):
            logging.getLogger(message.name).log(message.level, "%s", message.text)
        elif isinstance(message, wire.Ended):
            if self._given_up is not None and self._given_up[0] == message.job_id:
                self._given_up = None
            elif job is not None and job.id == message.job_id:
                self._end_job(message.reconstruction, message.error)
        elif isinstance(message, wire.Looked):
            look = self._desk.look
            if look is not None and look.id == message.look_id:
                self._end_look(message.hands, message.error)
        elif isinstance(message, wire.Loaded):
            self._after_loading(message)
        elif isinstance(message, wire.Hello):
            self._greet(message)

    def _greet(self, hello: wire.Hello) -> None:
        if hello.version != __version__:
            self._lose(failures.other_version(self._settings.python, hello.version, __version__))
            return
        self._up = True

    def _after_loading(self, loaded: wire.Loaded) -> None:
        self._loading = ""
        self._failures = 0
        if loaded.error is None:
            self._loaded = loaded.profile
        else:
            self._loaded, self._last_error = "", loaded.error
            LOG.error("Profile %s could not be loaded: %s", loaded.profile, loaded.error)
        configuration, job = self._desk.configuration, self._desk.job
        if configuration is not None and configuration.profile == loaded.profile:
            self._desk.release_configuration()
            self._tell()  # whoever waits for the end may ask for the state at once
            configuration.end(loaded.error)
        if loaded.error is not None and job is not None and job.request.profile == loaded.profile:
            self._end_job(None, loaded.error)
        look = self._desk.look
        if loaded.error is not None and look is not None and look.profile == loaded.profile:
            self._end_look((), loaded.error)

    def _alarms(self) -> Iterator[_Alarm]:
        """What happens, and when, unless something else happens before."""
        limits, job, look, worker = self._limits, self._desk.job, self._desk.look, self._worker
        stalls = partial(failures.stalls, limits.stall_s)
        left = None if job is None else job.remaining(0.0)
        if job is not None and left is not None and job.sent is None:
            yield _Alarm(left, failures.out_of_time, kills=False)
        if worker is None:
            yield _Alarm(self._next_start, None, kills=False)
        elif not self._up or self._loading:
            yield _Alarm(self._since + limits.load_s, partial(failures.loads_too_long, limits.load_s))
        else:
            yield _Alarm(self._heard + limits.heartbeat_s, partial(failures.is_silent, limits.heartbeat_s))
        if self._given_up is not None:
            yield _Alarm(self._given_up[1] + limits.drain_s, partial(failures.does_not_end, limits.drain_s))
        if look is not None and look.sent is not None:
            yield _Alarm(look.sent + limits.stall_s, stalls)
        if worker is not None and job is not None and job.sent is not None:
            yield _Alarm(job.heard + limits.stall_s, stalls)
            if left is not None:
                late = limits.budget_s + limits.budget_share * (left - job.submitted)
                yield _Alarm(left + late, failures.out_of_time, kills=False)
            if job.cancelled is not None:
                yield _Alarm(job.cancelled + limits.cancel_s, failures.cancelled, kills=False)

    def _patience(self, now: float) -> float | None:
        """Seconds until something must be looked at again."""
        return max(0.0, min((alarm.at for alarm in self._alarms()), default=now) - now)

    def _watch(self, now: float) -> None:
        """Act on the alarms that are due."""
        for alarm in list(self._alarms()):
            if alarm.at > now or alarm.error is None:
                continue
            if alarm.kills:
                self._lose(alarm.error())
            else:
                self._give_up(alarm.error(), now)
            return

    def _give_up(self, error: FmhError, now: float) -> None:
        """End a job for its owner; the worker, which may be in the middle of something, gets some time to notice."""
        job = self._desk.job
        if job is not None and job.sent is not None and self._worker is not None:
            self._given_up = (job.id, now)
            self._worker.outbox.put(wire.Cancel(job.id))
        self._end_job(None, error)

    def _lose(self, error: FmhError | None) -> None:
        """End the worker process, fail what it did with ``error`` (None: with how it ended), plan the next one."""
        worker = self._worker
        if worker is None:
            return
        for file in (worker.connection, worker.output):
            with contextlib.suppress(KeyError):
                self._selector.unregister(file)
        worker.end()
        error = error or worker.describe_end()
        useful, loading = bool(self._loaded), self._loading
        self._worker, self._up, self._loading, self._memory_bytes, self._given_up = None, False, "", 0, None
        self._plan_start(useful=useful, configuring=self._desk.configuration is not None, loading=loading)
        self._last_error = error
        LOG.error("Worker process %d was lost: %s", worker.pid, error)
        configuration, job = self._desk.configuration, self._desk.job
        if configuration is not None and (loading or not useful):
            self._desk.release_configuration()
            configuration.end(error)
        if job is not None and (job.sent is not None or not useful):
            self._end_job(None, error if job.cancelled is None else failures.cancelled())
        look = self._desk.look
        if look is not None and (look.sent is not None or not useful):
            self._end_look((), error)

    def _plan_start(self, *, useful: bool, configuring: bool, loading: str) -> None:
        """Say when the next process starts and what it loads: what this one had, unless that never worked."""
        self._reload = self._loaded or ("" if configuring else loading) or self._reload
        self._loaded = ""
        self._restarts += 1
        self._failures = 0 if useful else self._failures + 1
        delay = 0.0
        if self._failures:
            delay = min(self._limits.backoff_s * 2 ** (self._failures - 1), self._limits.longest_backoff_s)
        self._next_start = time.monotonic() + delay

    def _end_job(self, reconstruction: Reconstruction | None, error: FmhError | None) -> None:
        job = self._desk.release_job()
        if job is not None:
            self._tell()
            job.end(reconstruction, error)

    def _end_look(self, hands: tuple[SeenHand, ...], error: FmhError | None) -> None:
        look = self._desk.release_look()
        if look is not None:
            self._tell()
            look.end(hands, error)

    def _tell(self) -> None:
        worker = self._worker
        if worker is None or self._given_up is not None:
            state = EngineState.RECOVERING
        elif not self._up:
            state = EngineState.STARTING
        else:
            state = EngineState.LOADING if self._loading else EngineState.READY
        status = EngineStatus(
            state,
            profile=self._loaded,
            pid=None if worker is None else worker.pid,
            restarts=self._restarts,
            last_error=self._last_error,
            memory_bytes=self._memory_bytes,
        )
        self._desk.tell(status, None if worker is None else self._heard)

    def _finish(self) -> None:
        """End the worker, and whatever still waits."""
        worker = self._worker
        self._selector.close()
        if worker is not None:
            idle = self._up and not self._loading and self._desk.job is None and self._given_up is None
            worker.end(grace_s=self._limits.stop_s if idle else 0.0)
        self._worker, self._up = None, False
        self._desk.shut()
        error = EngineStoppedError("The engine was stopped", change="Start it again first")
        configuration, job = self._desk.release_configuration(), self._desk.release_job()
        if configuration is not None:
            configuration.end(error)
        if job is not None:
            job.end(None, error)
        self._end_look((), error)


@dataclass(frozen=True)
class _Alarm:
    """What is due at a time of the monotonic clock: an error that ``kills`` the worker, or one only for the job that
    is given up; no error only means to look again."""

    at: float
    error: Callable[[], FmhError] | None
    kills: bool = True
