# SPDX-License-Identifier: Apache-2.0
"""Rectified-flow sampling as pure functions: state in, state out; no model inside.

sigma = 0 is noise and sigma = 1 is data: x_sigma = (1 - sigma) noise + sigma data and v = data - noise (paper, Eq. 1
and 2; the supplement's section 9.1 states the same direction).
"""

from __future__ import annotations

import torch
from torch import Tensor


def sigmas(steps: int) -> tuple[float, ...]:
    """Return steps + 1 values from 0 to 1, so that every one of the ``steps`` Euler steps moves the state."""
    return tuple(i / steps for i in range(steps + 1))


def initial_noise(shape: tuple[int, ...], generator: torch.Generator, temperature: float = 1.0) -> Tensor:
    """Draw the state at sigma = 0, (1, *shape) float32, on the CPU so that a seed means the same everywhere."""
    return temperature * torch.randn((1, *shape), generator=generator, dtype=torch.float32)


def euler_step(x: Tensor, velocity: Tensor, sigma: float, sigma_next: float) -> Tensor:
    """Move the state from sigma to sigma_next along the velocity, in float32 (Eq. 1)."""
    return x.float() + (sigma_next - sigma) * velocity.float()


def clean_estimate(x: Tensor, velocity: Tensor, sigma: float) -> Tensor:
    """Extrapolate to sigma = 1: the current estimate of the data (Eq. 2)."""
    return x.float() + (1.0 - sigma) * velocity.float()
