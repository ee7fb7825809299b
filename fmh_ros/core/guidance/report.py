# SPDX-License-Identifier: Apache-2.0
"""What a guidance phase says of itself."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PhaseReport:
    """What one guidance phase did."""

    name: str
    flow_steps: tuple[int, ...]
    iterations: int
    loss_first: float
    loss_last: float
    rolled_back: bool = False
