# SPDX-License-Identifier: Apache-2.0
"""What a running reconstruction says about itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class PreviewMesh:
    """A coarse mesh of the object as it is estimated at the moment; not closed, not smoothed, not measured.

    vertices : (V, 3) float32 metres, camera optical frame; faces : (F, 3) int32, outward winding.
    """

    vertices: NDArray[np.float32]
    faces: NDArray[np.int32]


@dataclass(frozen=True)
class Progress:
    """One report of a running job; a later report never has a smaller ``fraction``.

    stage : what runs, one of "load", "frame", "detect", "segment", "points", "fit", "complete", "register", "flow",
        "finish" or whatever a profile adds; shown to people as it is.
    phase : guidance phase inside the flow ("hand", "object", "joint"), empty outside it.
    flow_step : index of the flow step, 0 outside the flow; iteration : index inside that step's optimisation.
    fraction : share of the whole job that is done, 0 to 1.
    elapsed_s : seconds since the job began; loss : latest loss, None where nothing is optimised.
    preview : the estimate so far, in a report of its own now and then, for whoever asked for it; None otherwise.
    """

    stage: str
    phase: str = ""
    flow_step: int = 0
    iteration: int = 0
    fraction: float = 0.0
    elapsed_s: float = 0.0
    loss: float | None = None
    preview: PreviewMesh | None = None


ProgressCallback = Callable[[Progress], None]
CancelCheck = Callable[[], bool]
