# SPDX-License-Identifier: Apache-2.0
"""What is said to an engine, and what it says back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Literal

from fmh_ros.core.errors import FmhError
from fmh_ros.core.frame.frame import Frame, ObjectPrompt
from fmh_ros.core.progress import Progress
from fmh_ros.core.reconstruction.types import Reconstruction


@dataclass(frozen=True)
class JobRequest:
    """One reconstruction.

    frame : the image with its camera and optional depth; prompt : what the user pointed at, in pixels of the frame.
    side : which hand, "auto" for the one that holds something.
    profile : which models; preset : guidance settings; guidance : False only generates and registers.
    seed : of the flow's noise; samples : how many shapes to draw, the best is returned.
    time_budget_s : seconds from the submission in which a result is wanted, None for as long as it takes; when they
    run short, guidance ends early and no further samples are drawn.
    previews : whether feedback carries a coarse mesh of the current estimate now and then.
    """

    frame: Frame
    prompt: ObjectPrompt = field(default_factory=ObjectPrompt)
    side: Literal["auto", "left", "right"] = "auto"
    profile: str = "embedded"
    preset: str = "default"
    seed: int = 0
    samples: int = 1
    guidance: bool = True
    time_budget_s: float | None = None
    previews: bool = False


@dataclass(frozen=True)
class JobFeedback:
    """A report of a running job."""

    job_id: int
    progress: Progress


@dataclass(frozen=True)
class JobOutcome:
    """How a job ended: exactly one of ``reconstruction`` and ``error`` is there.

    duration_s : seconds from the submission to the end.
    """

    job_id: int
    reconstruction: Reconstruction | None
    error: FmhError | None
    duration_s: float


FeedbackCallback = Callable[[JobFeedback], None]
OutcomeCallback = Callable[[JobOutcome], None]


class EngineState(Enum):
    """What an engine does at the moment."""

    STOPPED = "stopped"
    STARTING = "starting"  # its process comes up
    LOADING = "loading"  # models are loaded
    READY = "ready"  # waits for a job; see EngineStatus.profile for what is loaded
    BUSY = "busy"  # runs a job
    RECOVERING = "recovering"  # waits before it starts its process once more, or for a given-up job to end


@dataclass(frozen=True)
class EngineStatus:
    """A snapshot for diagnostics.

    profile : loaded profile, empty for none; job_id : the accepted job, None for none; progress : its latest report.
    restarts : how often the process had to be replaced; last_error : why, or why models could not be loaded.
    heartbeat_age_s : seconds since the process last said anything, None without a process; memory_bytes : its resident
    memory, 0 when unknown.
    """

    state: EngineState
    profile: str = ""
    pid: int | None = None
    job_id: int | None = None
    progress: Progress | None = None
    restarts: int = 0
    last_error: FmhError | None = None
    heartbeat_age_s: float | None = None
    memory_bytes: int = 0
