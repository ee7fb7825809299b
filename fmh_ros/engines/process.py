# SPDX-License-Identifier: Apache-2.0
"""The worker process seen from outside: how it is started, ended, and what its end means."""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import fmh_ros
from fmh_ros.core.errors import FmhError, OutOfMemoryError, WorkerDiedError
from fmh_ros.core.threads import wait_without_spinning
from fmh_ros.engines.channel import Inbox, Outbox

LOG = logging.getLogger(__name__)
#: What the process prints is logged here, line by line.
OUTPUT_LOG = logging.getLogger("fmh_ros.worker.output")
#: Lines of output that are quoted when the process ends.
_QUOTED_LINES = 8
_LONGEST_LINE = 2000
_SMALL_MEMORY_WORDS = ("bad_alloc", "MemoryError", "Cannot allocate memory", "can't allocate memory")
# The folder of this very package goes where the interpreter would look for scripts, and the working directory, which
# may hold anything, is not searched.
_START = (
    "import sys; root = sys.argv.pop(1); sys.path[:] = [p for p in sys.path if p]; "
    "root in sys.path or sys.path.insert(0, root); "
    "from fmh_ros.engines.worker import main; main()"
)


@dataclass(frozen=True)
class ProcessSettings:
    """How the worker process is started.

    python : its interpreter; another one than this process's may have torch where this one has not.
    memory_limit_bytes : limit of its address space, None for none; for processors only, CUDA reserves far more.
    log_level : records below it are not passed on.
    """

    python: str = sys.executable
    memory_limit_bytes: int | None = None
    log_level: int = logging.INFO


class WorkerProcess:
    """One worker process with its socket and its output pipe, both non-blocking on this side.

    Must be made in a thread that lives as long as the process may: the kernel ends the process with that thread.
    """

    def __init__(self, settings: ProcessSettings) -> None:
        ours, theirs = socket.socketpair()
        self._oom_kills = kernel_oom_kills()
        try:
            with theirs:
                self._popen = _spawn(settings, theirs.fileno())
        except BaseException:
            ours.close()
            raise
        ours.setblocking(False)
        self.connection = ours
        self.inbox, self.outbox = Inbox(ours), Outbox(ours)
        assert self._popen.stdout is not None
        self.output: IO[bytes] = self._popen.stdout
        os.set_blocking(self.output.fileno(), False)
        self._line = b""
        self._last_lines: deque[str] = deque(maxlen=_QUOTED_LINES)

    @property
    def pid(self) -> int:
        """Process id."""
        return self._popen.pid

    def messages(self) -> Iterator[Any]:
        """Yield what has arrived. Raises EOFError or OSError when the process is gone."""
        return self.inbox.messages()

    def read_output(self) -> bool:
        """Log what the process printed; False when it has closed its output."""
        while True:
            try:
                chunk = os.read(self.output.fileno(), 65536)
            except BlockingIOError:
                return True
            if not chunk:
                self._log_line(self._line)
                self._line = b""
                return False
            *lines, self._line = (self._line + chunk).split(b"\n")
            for line in lines:
                self._log_line(line)
            if len(self._line) > _LONGEST_LINE:
                self._log_line(self._line)
                self._line = b""

    def _log_line(self, line: bytes) -> None:
        text = line.decode(errors="replace").rstrip()[:_LONGEST_LINE]
        if text:
            self._last_lines.append(text)
            OUTPUT_LOG.info("%s", text)

    def forget_output(self) -> None:
        """Do not quote what was printed so far: something new begins."""
        self._last_lines.clear()

    def end(self, *, grace_s: float = 0.0) -> None:
        """Close the connection, wait for the process at most ``grace_s`` seconds, kill it if need be, and reap it."""
        self.connection.close()
        try:
            self._popen.wait(grace_s)
        except subprocess.TimeoutExpired:
            self._popen.kill()
            self._popen.wait()
        self.read_output()
        self.output.close()

    def describe_end(self) -> FmhError:
        """Return why the process, which was not told to, ended. Call it after ``end``."""
        code = self._popen.returncode
        printed = "" if code == -signal.SIGKILL else " | ".join(self._last_lines)
        if code == -signal.SIGKILL and kernel_oom_kills() > self._oom_kills:
            return OutOfMemoryError(
                "The kernel ended the worker process because the machine ran out of memory",
                change="Close other programs, use fewer samples or a smaller image",
            )
        if any(words in printed for words in _SMALL_MEMORY_WORDS):
            return OutOfMemoryError(
                f"The worker process ended when it got no more memory ({printed})",
                change="Close other programs, raise the worker's memory limit, or use a smaller image",
            )
        how = f"was killed by {_signal_name(-code)}" if code < 0 else f"ended with exit code {code}"
        return WorkerDiedError(
            f"The worker process {how}" + (f"; it printed last: {printed}" if printed else ""),
            expected="it to run until it is told to end",
            change="Send the goal again, a new worker is being started; if this repeats, report it with the log",
        )


def kernel_oom_kills() -> int:
    """Return how many processes the kernel has killed for want of memory since it started, 0 when it does not say."""
    try:
        lines = Path("/proc/vmstat").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))


def _spawn(settings: ProcessSettings, descriptor: int) -> subprocess.Popen[bytes]:
    root = str(Path(fmh_ros.__file__).resolve().parents[1])
    limit = str(settings.memory_limit_bytes or 0)
    command = [settings.python, "-c", _START, root, str(descriptor), str(settings.log_level), limit]
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        bufsize=0,
        pass_fds=(descriptor,),
        env=_environment(settings.python),
        # Its own session: Ctrl-C in the terminal is this process's to answer.
        start_new_session=True,
    )


def _environment(python: str) -> dict[str, str]:
    """The environment for the worker; another interpreter does not get what was set up for this one's libraries."""
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    wait_without_spinning(environment)
    if Path(python) != Path(sys.executable) and "_ROS_WHEELS_BOOTSTRAP_COMPLETE" in environment:
        del environment["_ROS_WHEELS_BOOTSTRAP_COMPLETE"]
        environment.pop("LD_LIBRARY_PATH", None)
    return environment


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
