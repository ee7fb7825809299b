# SPDX-License-Identifier: Apache-2.0
"""Rectified-flow sampling as pure functions: state in, state out; no model inside.

sigma = 0 is noise and sigma = 1 is data: x_sigma = (1 - sigma) noise + sigma data and v = data - noise (paper, Eq. 1
and 2; the supplement's section 9.1 states the same direction).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from fmh_ros.core.flow.protocol import LatentShapeModel


def sigmas(steps: int) -> tuple[float, ...]:
    """Return steps + 1 values from 0 to 1, so that every one of the ``steps`` Euler steps moves the state."""
    return tuple(i / steps for i in range(steps + 1))


def schedule(model: LatentShapeModel, steps: int) -> tuple[float, ...]:
    """Return the steps + 1 noise levels, 0 to 1, of a model that has a schedule of its own, or else ``sigmas``."""
    own = getattr(model, "schedule", None)
    return sigmas(steps) if own is None else tuple(own(steps))


def initial_noise(shape: tuple[int, ...], generator: torch.Generator, temperature: float = 1.0) -> Tensor:
    """Draw the state at sigma = 0, (1, *shape) float32, on the CPU so that a seed means the same everywhere."""
    return temperature * torch.randn((1, *shape), generator=generator, dtype=torch.float32)


def euler_step(x: Tensor, velocity: Tensor, sigma: float, sigma_next: float) -> Tensor:
    """Move the state from sigma to sigma_next along the velocity, in float32 and on the velocity's device (Eq. 1)."""
    return x.to(velocity.device, torch.float32) + (sigma_next - sigma) * velocity.float()


def clean_estimate(x: Tensor, velocity: Tensor, sigma: float) -> Tensor:
    """Extrapolate to sigma = 1: the current estimate of the data, on the velocity's device (Eq. 2)."""
    return x.to(velocity.device, torch.float32) + (1.0 - sigma) * velocity.float()
