# SPDX-License-Identifier: Apache-2.0
"""A field given by values on a grid, and grids of simple solids."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F


class GridField:
    """Trilinear field over values (R, R, R) at ``linspace(-bounds, bounds, R)``, indexed [x, y, z].

    Differentiable to the values and to the points. Outside the cube it is the value at the nearest point of the cube
    plus the distance to it, so it stays a distance bound and has no zero there when the cube's faces have none.
    """

    def __init__(self, values: Tensor, bounds: float = 1.0) -> None:
        self.values = values
        self.bounds = bounds

    @property
    def voxel(self) -> float:
        """Distance of neighbouring samples, field units."""
        return 2.0 * self.bounds / (self.values.shape[0] - 1)

    def grid(self, resolution: int) -> Tensor:
        """Return values (R, R, R) float32 without gradient, resampled when R is not the field's own."""
        values = self.values.detach().float()
        if resolution == values.shape[0]:
            return values
        resized: Tensor = F.interpolate(values[None, None], (resolution,) * 3, mode="trilinear", align_corners=True)
        return resized[0, 0]

    def query(self, points: Tensor) -> Tensor:
        """Return values (N,) at points (N, 3), in the dtype of the points."""
        inside = points.clamp(-self.bounds, self.bounds)
        # grid_sample orders coordinates from the last axis to the first.
        where = (inside / self.bounds).flip(-1).view(1, 1, 1, -1, 3)
        values = self.values.to(points.dtype)[None, None]
        sampled = F.grid_sample(values, where, mode="bilinear", padding_mode="border", align_corners=True).view(-1)
        return sampled + torch.linalg.vector_norm(points - inside, dim=-1)


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
