# SPDX-License-Identifier: Apache-2.0
"""The implicit field that a renderer and a loss can look at, whatever decodes it."""

from __future__ import annotations

from typing import Protocol

import torch


class ImplicitField(Protocol):
    """A signed distance, negative inside, in the field's own units, on the cube [-bounds, bounds]^3.

    The distance may be truncated (constant far from the surface) but is metric near the surface.

    Optional member: ``follow(earlier)``, to take grids from a field of the same kind whose surface is within a voxel.
    """

    bounds: float

    def grid(self, resolution: int) -> torch.Tensor:
        """Return values (R, R, R) float32 without gradient; entry [i, j, k] is at x_i, y_j, z_k of
        ``linspace(-bounds, bounds, R)``."""
        ...

    def query(self, points: torch.Tensor) -> torch.Tensor:
        """Return values (N,) at points (N, 3), differentiable to the points and to whatever made the field."""
        ...
