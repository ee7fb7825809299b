# SPDX-License-Identifier: Apache-2.0
"""What a running reconstruction says about itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """One report of a running job; a later report never has a smaller ``fraction``.

    stage : what runs, one of "load", "frame", "detect", "segment", "points", "fit", "complete", "register", "flow",
        "finish" or whatever a profile adds; shown to people as it is.
    phase : guidance phase inside the flow ("hand", "object", "joint"), empty outside it.
    flow_step : index of the flow step, 0 outside the flow; iteration : index inside that step's optimisation.
    fraction : share of the whole job that is done, 0 to 1.
    elapsed_s : seconds since the job began; loss : latest loss, None where nothing is optimised.
    """

    stage: str
    phase: str = ""
    flow_step: int = 0
    iteration: int = 0
    fraction: float = 0.0
    elapsed_s: float = 0.0
    loss: float | None = None


ProgressCallback = Callable[[Progress], None]
CancelCheck = Callable[[], bool]
