# SPDX-License-Identifier: Apache-2.0
"""The errors by which an engine says how a worker or a job failed."""

from __future__ import annotations

from fmh_ros.core.errors import BusyError, CancelledError, FmhError, ModelMissingError, TimeBudgetError, WorkerHungError
from fmh_ros.engines.wire import HEARTBEAT_S


def other_version(python: str, found: str, here: str) -> FmhError:
    """The worker's interpreter has another version of this package."""
    return ModelMissingError(
        f"The worker's interpreter {python} has fmh_ros {found}",
        expected=f"version {here}, the one that runs here",
        change="Install the same version for both interpreters",
    )


def does_not_end(limit_s: float) -> FmhError:
    """A job that nobody waits for any more blocks the worker."""
    return WorkerHungError(
        f"A job that was given up had not ended {limit_s:.0f} s later", expected="it to end between two iterations"
    )


def is_silent(limit_s: float) -> FmhError:
    """No heartbeats come."""
    return WorkerHungError(
        f"The worker process said nothing for {limit_s:.0f} s",
        expected=f"a sign of life every {HEARTBEAT_S} s",
        change="Send the goal again, a new worker is being started; check that nothing has stopped or starves it",
    )


def stalls(limit_s: float) -> FmhError:
    """Heartbeats come, but a job does not go on."""
    return WorkerHungError(
        f"The job made no progress for {limit_s:.0f} s",
        expected="a report of progress within that time",
        change="Send the goal again, a new worker is being started; on a very slow machine raise the stall limit",
    )


def loads_too_long(limit_s: float) -> FmhError:
    """The worker does not become ready."""
    return WorkerHungError(
        f"The worker process was not ready after {limit_s:.0f} s",
        expected="models to be loaded within that time",
        change="Check the disk and the machine's load, or raise the load limit",
    )


def out_of_time() -> FmhError:
    """A job's time budget is spent."""
    return TimeBudgetError(
        "The time budget ran out before there was a result",
        expected="time for at least one shape without guidance",
        change="Allow more time, or switch guidance off",
    )


def cancelled() -> FmhError:
    """Whoever wanted the job wants it no more."""
    return CancelledError("The job was cancelled")


def overtaken() -> FmhError:
    """A job came before a look had begun."""
    return BusyError("A job came first", expected="an idle engine", change="Look again after the job")
