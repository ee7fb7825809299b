# SPDX-License-Identifier: Apache-2.0
"""Distances to simple solids in closed form, and grids of them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def sample_grid(
    function: Callable[[Tensor], Tensor], resolution: int, bounds: float = 1.0, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Evaluate ``function`` ((..., 3) points to (...) values) on the grid of a field; returns (R, R, R)."""
    axis = torch.linspace(-bounds, bounds, resolution, dtype=dtype)
    return function(torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1))


def sphere_distance(points: Tensor, centre: Tensor | tuple[float, float, float], radius: float | Tensor) -> Tensor:
    """Signed distance (...) of points (..., 3) to a sphere."""
    return torch.linalg.vector_norm(points - torch.as_tensor(centre, dtype=points.dtype), dim=-1) - radius


def box_distance(points: Tensor, half_sides: Tensor | tuple[float, float, float]) -> Tensor:
    """Signed distance (...) of points (..., 3) to an axis-aligned box centred on the origin."""
    q = points.abs() - torch.as_tensor(half_sides, dtype=points.dtype)
    return torch.linalg.vector_norm(q.clamp_min(0.0), dim=-1) + q.amax(-1).clamp_max(0.0)
