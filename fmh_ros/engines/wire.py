# SPDX-License-Identifier: Apache-2.0
"""The messages between an engine and its worker process."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fmh_ros.core.cues.types import SeenHand
from fmh_ros.core.errors import FmhError
from fmh_ros.core.progress import Progress
from fmh_ros.core.reconstruction.types import Reconstruction
from fmh_ros.engines.types import JobRequest

#: Seconds between two heartbeats.
HEARTBEAT_S = 0.5


@dataclass(frozen=True)
class Load:
    """To the worker: load a profile's models."""

    profile: str


@dataclass(frozen=True)
class Run:
    """To the worker: run a job; ``time_budget_s`` is what is left of the request's."""

    job_id: int
    request: JobRequest
    time_budget_s: float | None


@dataclass(frozen=True)
class Cancel:
    """To the worker: end a job."""

    job_id: int


@dataclass(frozen=True)
class Look:
    """To the worker: look for hands in an image (H, W, 3) uint8 RGB, with the models that are loaded."""

    look_id: int
    image: NDArray[np.uint8]


@dataclass(frozen=True)
class Hello:
    """From the worker: it is up, in this version of the package."""

    version: str


@dataclass(frozen=True)
class Loaded:
    """From the worker: a profile's models are loaded, or why not."""

    profile: str
    error: FmhError | None


@dataclass(frozen=True)
class Heartbeat:
    """From the worker, every HEARTBEAT_S from a thread of its own: resident memory in bytes."""

    memory_bytes: int


@dataclass(frozen=True)
class Reported:
    """From the worker: a job's progress."""

    job_id: int
    progress: Progress


@dataclass(frozen=True)
class Ended:
    """From the worker: a job's result or error."""

    job_id: int
    reconstruction: Reconstruction | None
    error: FmhError | None


@dataclass(frozen=True)
class Looked:
    """From the worker: the hands in an image, or why that is not known."""

    look_id: int
    hands: tuple[SeenHand, ...]
    error: FmhError | None


@dataclass(frozen=True)
class Logged:
    """From the worker: a log record, formatted there."""

    name: str
    level: int
    text: str
