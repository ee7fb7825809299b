# SPDX-License-Identifier: Apache-2.0
"""A bar that shows the stage, the guidance phase and the latest loss of a running reconstruction."""

from __future__ import annotations

import sys
from types import TracebackType

from tqdm import tqdm

from fmh_ros.core.progress import Progress

_FORMAT = "{desc:<26}{percentage:3.0f}%|{bar}| {elapsed}<{remaining}{postfix}"


class ProgressBar:
    """A progress callback that draws on standard error; a context manager, silent unless ``enabled``."""

    def __init__(self, enabled: bool = True) -> None:
        self._bar = tqdm(total=1.0, disable=not enabled, file=sys.stderr, bar_format=_FORMAT, leave=False)
        self.fraction = 0.0
        self._shown = ""

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()

    def stage(self, name: str) -> None:
        """Show a stage that reports nothing itself."""
        self._bar.set_description_str(name)

    def __call__(self, progress: Progress) -> None:
        """Show one report: at once when the stage or phase is new, else as often as a terminal can follow."""
        text = f"{progress.stage}: {progress.phase}" if progress.phase else progress.stage
        new = text != self._shown
        self._shown = text
        if progress.phase:
            text += f" {progress.flow_step}.{progress.iteration}"
        self._bar.set_description_str(text, refresh=False)
        self._bar.set_postfix_str("" if progress.loss is None else f"loss {progress.loss:.4g}", refresh=False)
        done = min(1.0, progress.fraction)
        self._bar.update(max(0.0, done - self.fraction))
        self.fraction = max(self.fraction, done)
        if new:
            self._bar.refresh()
