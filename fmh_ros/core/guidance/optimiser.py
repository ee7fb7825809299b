# SPDX-License-Identifier: Apache-2.0
"""Moves the leaves of a phase: Adam without decay for poses, and a bounded step for the velocity."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fmh_ros.core.fields.pose import PoseParameters
from fmh_ros.core.guidance.config import OptimiserConfig, Rates


class VelocityLeaf:
    """The change added to one flow step's velocity, float32, with its own optimiser.

    "normalised" works on what the change does to the clean estimate, ``remaining`` times it: one step is ``rate`` times
    the estimate's root mean square, along the gradient over a running root mean square of its whole, not of each
    entry, so that the direction is kept and entries that do not matter do not drift. The trust region bounds the shift
    of the clean estimate too: a bound on the change itself would take all authority from the last steps.

    shift : shift of the clean estimate carried from the step before, or None to start from nothing.
    """

    def __init__(
        self, velocity: Tensor, clean: Tensor, remaining: float, config: OptimiserConfig, shift: Tensor | None = None
    ) -> None:
        self.velocity = velocity.detach().float()
        self.config = config
        self.remaining = remaining
        self.clean_norm = clean.detach().norm().clamp_min(1e-6)
        start = torch.zeros_like(self.velocity) if shift is None else shift.detach() / remaining
        self.change = start.requires_grad_()
        self.first = torch.zeros_like(self.velocity)
        self.second = torch.zeros_like(self.velocity if config.velocity == "adam" else self.velocity.new_zeros(()))
        self.steps = 0
        self.bound()

    def relative_shift(self) -> Tensor:
        """Norm of the clean estimate's shift over its norm, (); differentiable, also at zero."""
        return torch.sqrt(((self.remaining * self.change) ** 2).sum() / self.clean_norm**2 + 1e-12)

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """Take one step against the gradient of ``change``."""
        if self.change.grad is None:
            return
        gradient, (b1, b2) = self.change.grad, self.config.betas
        whole = self.config.velocity == "normalised"
        self.steps += 1
        self.first.lerp_(gradient, 1 - b1)
        self.second.lerp_((gradient**2).mean() if whole else gradient**2, 1 - b2)
        mean = self.first / (1 - b1**self.steps)
        deviation = (self.second / (1 - b2**self.steps)).sqrt() + self.config.eps
        unit = self.clean_norm / math.sqrt(self.change.numel()) / self.remaining if whole else 1.0
        self.change -= rate * unit * mean / deviation
        self.bound()

    @torch.no_grad()
    def bound(self) -> None:
        """Shrink the change into the trust region."""
        radius = self.config.trust_radius
        if radius is not None:
            limit = radius * self.clean_norm / self.remaining
            self.change *= (limit / self.change.norm().clamp_min(1e-12)).clamp_max(1.0)


class PoseOptimiser:
    """Adam over the poses that have rates."""

    def __init__(self, config: OptimiserConfig, bodies: list[tuple[PoseParameters, Rates]]) -> None:
        groups = []
        self.rates = []
        for parameters, rates in bodies:
            for leaf, rate in zip(
                parameters.leaves(), (rates.log_scale, rates.rotation, rates.translation), strict=True
            ):
                if rate > 0:
                    groups.append({"params": [leaf], "lr": rate})
                    self.rates.append(rate)
        self.adam = torch.optim.Adam(groups, betas=config.betas, eps=config.eps) if groups else None

    def zero(self) -> None:
        """Forget the last gradient."""
        if self.adam is not None:
            self.adam.zero_grad(set_to_none=True)

    def step(self, share: float) -> None:
        """Take one step at ``share`` of the rates."""
        if self.adam is None:
            return
        for group, rate in zip(self.adam.param_groups, self.rates, strict=True):
            group["lr"] = rate * share
        self.adam.step()
