# SPDX-License-Identifier: Apache-2.0
"""Waiting that can be ended from outside, and the queue of those who wait for the engine; no ROS in here."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import NoReturn

from fmh_ros.core.errors import BusyError, CancelledError, FmhError


class Waiter:
    """What a thread waits on for whatever concerns its job: new facts, or an error that ends the job.

    All times are of the steady clock, so that a clock that jumps does not matter.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._interruption: FmhError | None = None
        self.began = time.monotonic()

    @property
    def interruption(self) -> FmhError | None:
        """Why the job must end, None while it need not."""
        return self._interruption

    def elapsed(self) -> float:
        """Seconds since the job came."""
        return time.monotonic() - self.began

    def interrupt(self, error: FmhError) -> None:
        """End the job; the first error is the one that counts. From any thread."""
        with self._changed:
            self._interruption = self._interruption or error
            self._changed.notify_all()

    def poke(self) -> None:
        """Have conditions looked at again. From any thread."""
        with self._changed:
            self._changed.notify_all()

    def wait_for(self, condition: Callable[[], bool], timeout_s: float | None = None) -> bool:
        """Wait until the condition holds, True, or the time is over, False. Raises the error that ends the job."""
        with self._changed:
            held = self._changed.wait_for(lambda: self._interruption is not None or condition(), timeout_s)
        self.check()
        return held

    def settle(self, condition: Callable[[], bool], timeout_s: float) -> bool:
        """Wait like ``wait_for``, interrupted or not."""
        with self._changed:
            return self._changed.wait_for(condition, timeout_s)

    def check(self) -> None:
        """Raise the error that ends the job, when there is one."""
        if self._interruption is not None:
            self._raise(self._interruption)

    @staticmethod
    def _raise(error: FmhError) -> NoReturn:
        raise error


class Line:
    """Who runs, and who waits in which order."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiters: list[Waiter] = []

    def __len__(self) -> int:
        """How many run or wait."""
        return len(self._waiters)

    def enter(self, waiter: Waiter, most_waiting: int) -> None:
        """Join at the end. Raises BusyError when one runs and ``most_waiting`` wait already."""
        with self._lock:
            if len(self._waiters) > most_waiting:
                raise BusyError(
                    f"One job runs and {len(self._waiters) - 1} wait",
                    expected=f"at most {most_waiting} waiting",
                    change="Wait for a result, cancel a goal, or raise the parameter queue_size",
                )
            self._waiters.append(waiter)

    def wait_for_turn(self, waiter: Waiter, timeout_s: float | None = None) -> bool:
        """Wait until the waiter is the first. Raises the error that ends its job."""
        return waiter.wait_for(lambda: self._waiters[0] is waiter, timeout_s)

    def place(self, waiter: Waiter) -> int:
        """How many are before the waiter."""
        with self._lock:
            return self._waiters.index(waiter)

    def leave(self, waiter: Waiter) -> None:
        """Leave, from wherever in the line; does nothing for one who is not in it."""
        with self._lock:
            if waiter in self._waiters:
                self._waiters.remove(waiter)
            others = list(self._waiters)
        for other in others:
            other.poke()

    def interrupt_all(self, make_error: Callable[[], FmhError]) -> None:
        """End every job."""
        with self._lock:
            others = list(self._waiters)
        for other in others:
            other.interrupt(make_error())


def cancelled() -> FmhError:
    """The error of a job whose goal was cancelled."""
    return CancelledError("The goal was cancelled")
