# SPDX-License-Identifier: Apache-2.0
"""What every engine can do, wherever its jobs run."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fmh_ros.core.cues.types import SeenHand
from fmh_ros.engines.types import EngineStatus, FeedbackCallback, JobRequest, OutcomeCallback


class Engine(Protocol):
    """Runs one job at a time. Every method returns at once and may be called from any thread.

    Callbacks come from a thread of the engine: they must not block, and may call the engine.
    """

    def start(self) -> None:
        """Begin to come up; does nothing when started."""
        ...

    def configure(self, profile: str) -> Future[None]:
        """Load a profile's models. The future's exception is the typed error when that fails.

        Raises BusyError while a job or another configuration is under way, EngineStoppedError before ``start``.
        """
        ...

    def submit(
        self,
        request: JobRequest,
        on_feedback: FeedbackCallback | None = None,
        on_outcome: OutcomeCallback | None = None,
    ) -> int:
        """Accept a job and return its id; ``on_outcome`` is called exactly once for it, whatever happens.

        The job waits for models that are being loaded, and loads those of its profile when they are not.
        Raises BusyError while another job is accepted, EngineStoppedError before ``start``.
        """
        ...

    def cancel(self, job_id: int) -> bool:
        """Ask for the end of a job: within a second its outcome is CancelledError, or the result if that came first.

        Returns False when the job has ended.
        """
        ...

    def look(self, image: NDArray[np.uint8], profile: str) -> Future[tuple[SeenHand, ...]]:
        """Look quickly for hands in an image (H, W, 3) RGB of a stream, with a profile's models, which are loaded when
        they are not. The future's exception is the typed error when that fails.

        Raises BusyError while a job, a configuration or another look is under way, EngineStoppedError before
        ``start``. A job that comes later does not wait for a look that has not begun: that fails with BusyError.
        """
        ...

    def stop(self) -> None:
        """End everything, the running job included, and leave no process behind. The one method that waits: a second
        at most."""
        ...

    def status(self) -> EngineStatus:
        """Return what the engine does at the moment."""
        ...
