# SPDX-License-Identifier: Apache-2.0
"""The worker process: holds the models and runs the jobs that its engine sends.

It never outlives its engine: the kernel kills it with the thread that started it, and the end of the socket ends it.
"""

from __future__ import annotations

import ctypes
import faulthandler
import gc
import logging
import os
import queue
import resource
import signal
import socket
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from fmh_ros import __version__
from fmh_ros.core.errors import FmhError, OutOfMemoryError, UnexpectedError
from fmh_ros.core.progress import Progress
from fmh_ros.core.reconstruction.installed import check_installed
from fmh_ros.core.reconstruction.profile import load_profile
from fmh_ros.engines.channel import Inbox, Outbox
from fmh_ros.engines.wire import (
    HEARTBEAT_S,
    Cancel,
    Ended,
    Heartbeat,
    Hello,
    Load,
    Loaded,
    Logged,
    Look,
    Looked,
    Reported,
    Run,
)

if TYPE_CHECKING:  # imported when the first models are loaded: torch takes seconds, in which heartbeats must flow
    from fmh_ros.core.reconstruction.loading import ModelCache
    from fmh_ros.core.reconstruction.reconstructor import Reconstructor

LOG = logging.getLogger("fmh_ros.worker")
_PR_SET_PDEATHSIG = 1
#: The last is Python's of a library whose C code found no memory and did not say so.
_SMALL_MEMORY_WORDS = (
    "allocate memory",
    "out of memory",
    "insufficient memory",
    "failed to map segment",
    "error return without exception set",
)


class Worker:
    """Main loop and state of the process."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._outbox = Outbox(connection)
        self._sending = threading.RLock()
        self._work: queue.SimpleQueue[Load | Look | Run] = queue.SimpleQueue()
        self._cancelled: set[int] = set()
        self._reconstructor: Reconstructor | None = None
        self._cache: ModelCache | None = None

    def run(self) -> None:
        """Work until the engine closes the connection; does not return."""
        for target in (self._listen, self._beat):
            threading.Thread(target=target, daemon=True, name=target.__name__).start()
        self.send(Hello(__version__))
        while True:
            work = self._work.get()
            if isinstance(work, Load):
                self.send(Loaded(work.profile, self._load(work.profile)))
            elif isinstance(work, Look):
                self.send(self._look(work))
            else:
                self.send(self._job(work))

    def send(self, message: object) -> None:
        """Send a message whole; the process ends when nobody is there to read it."""
        try:
            with self._sending:
                self._outbox.put(message)
                self._outbox.flush()
        except OSError:
            os._exit(0)

    def _listen(self) -> None:
        """Read the engine's messages; its end is this process's end, whatever runs."""
        try:
            for message in Inbox(self._connection).messages():
                if isinstance(message, Cancel):
                    self._cancelled.add(message.job_id)
                else:
                    self._work.put(message)
        except (EOFError, OSError):
            os._exit(0)

    def _beat(self) -> None:
        while True:
            self.send(Heartbeat(_resident_bytes()))
            time.sleep(HEARTBEAT_S)

    def _load(self, profile: str) -> FmhError | None:
        """Load a profile in place of the one that is loaded; returns the error when that fails.

        What is missing is said before torch is imported. Models that both profiles use are not loaded again.
        """
        try:
            if self._reconstructor is not None and self._reconstructor.profile == profile:
                return None
            self._reconstructor = None
            check_installed(load_profile(profile))
            from fmh_ros.core.reconstruction.loading import ModelCache
            from fmh_ros.core.reconstruction.reconstructor import Reconstructor

            _free_memory()
            self._cache = self._cache or ModelCache()
            reconstructor = Reconstructor(profile, cache=self._cache)
            try:
                reconstructor.load()
            except (MemoryError, RuntimeError) as error:
                if not _is_small_memory(error):
                    raise
                self._cache.clear()  # perhaps what other profiles left takes the room
                _free_memory()
                reconstructor.load()
        except Exception as error:  # noqa: BLE001 - everything goes back to the engine as a typed error
            return typed(error)
        self._reconstructor = reconstructor
        return None

    def _look(self, look: Look) -> Looked:
        """Look for hands; whatever goes wrong is part of what is returned."""
        try:
            if self._reconstructor is None:
                raise UnexpectedError("A look came before its models")
            return Looked(look.look_id, self._reconstructor.watch(look.image), None)
        except Exception as error:  # noqa: BLE001 - everything goes back to the engine as a typed error
            return Looked(look.look_id, (), typed(error))

    def _job(self, run: Run) -> Ended:
        """Run a job; whatever goes wrong is part of what is returned."""
        request, reconstructor = run.request, self._reconstructor
        if reconstructor is None:
            return Ended(run.job_id, None, UnexpectedError("A job came before its models"))
        reconstructor.preset = request.preset

        def report(progress: Progress) -> None:
            self.send(Reported(run.job_id, progress))

        try:
            result = reconstructor.reconstruct(
                request.frame,
                prompt=request.prompt,
                hand=request.side,
                seed=request.seed,
                samples=request.samples,
                guidance=request.guidance,
                time_budget_s=run.time_budget_s,
                previews=request.previews,
                progress=report,
                cancelled=lambda: run.job_id in self._cancelled,
            )
        except Exception as error:  # noqa: BLE001 - everything goes back to the engine as a typed error
            return Ended(run.job_id, None, typed(error))
        finally:
            self._cancelled.discard(run.job_id)
        return Ended(run.job_id, result, None)


class _Passing(logging.Handler):
    """Passes log records on to the engine's process."""

    def __init__(self, worker: Worker) -> None:
        super().__init__()
        self._worker = worker

    def emit(self, record: logging.LogRecord) -> None:
        self._worker.send(Logged(record.name, record.levelno, self.format(record)))


def typed(error: Exception) -> FmhError:
    """Return the typed error for whatever a job raised; frees memory when it was that."""
    # A library that found no room to be loaded is reported as missing.
    origin = error.__cause__ if isinstance(error.__cause__, ImportError) else error
    if isinstance(origin, FmhError):
        return origin
    text = f"{type(origin).__name__}: {origin}"
    if _is_small_memory(origin):
        error.__traceback__ = None
        _free_memory()
        return OutOfMemoryError(
            f"A job got no more memory ({text.splitlines()[0][:300]})",
            change="Use fewer samples or a smaller image, or give the worker more memory",
        )
    if isinstance(error, FmhError):
        return error
    LOG.error("Unexpected error in a job", exc_info=error)
    return UnexpectedError(f"A fault of this program: {text}", change="Report it with the log, which has the traceback")


def _is_small_memory(error: BaseException) -> bool:
    text = f"{type(error).__name__}: {error}".lower()
    return isinstance(error, MemoryError) or any(words in text for words in _SMALL_MEMORY_WORDS)


def _free_memory() -> None:
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()


def _resident_bytes() -> int:
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except (OSError, ValueError, IndexError):
        return 0
    return pages * resource.getpagesize()


def _harden(memory_limit_bytes: int) -> None:
    """Tie the process to its engine, and let it be the one that goes when memory runs out."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    faulthandler.enable()
    try:
        Path("/proc/self/oom_score_adj").write_text("500", encoding="ascii")
    except OSError as error:
        LOG.debug("oom_score_adj could not be set: %s", error)
    if memory_limit_bytes:
        resource.setrlimit(resource.RLIMIT_AS, (memory_limit_bytes, memory_limit_bytes))


def main() -> None:
    """Entry point: descriptor of the socket, log level and memory limit (bytes, 0 for none) are the arguments."""
    descriptor, level, limit = (int(value) for value in sys.argv[1:4])
    _harden(limit)
    worker = Worker(socket.socket(fileno=descriptor))
    os.set_inheritable(descriptor, False)
    logging.basicConfig(level=level, handlers=[_Passing(worker)], format="%(message)s")
    logging.captureWarnings(capture=True)
    worker.run()
