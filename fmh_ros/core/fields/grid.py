# SPDX-License-Identifier: Apache-2.0
"""A field given by values on a grid, and what is asked of grids and fields alike."""

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


def grid_points(resolution: int, bounds: float = 1.0, device: torch.device | str = "cpu") -> Tensor:
    """Points (R^3, 3) float32 of a field's grid, x slowest."""
    axis = torch.linspace(-bounds, bounds, resolution, device=device)
    return torch.cartesian_prod(axis, axis, axis)


def crossed_edges(values: Tensor) -> tuple[Tensor, Tensor]:
    """Edges of a grid (R, R, R) on which the sign changes, first all along x: indices (M, 3) int64 of their lower and
    of their upper ends."""
    inside, count = values < 0, values.shape[0] - 1
    lower, upper = [], []
    for axis in range(3):
        first = torch.nonzero(inside.narrow(axis, 0, count) != inside.narrow(axis, 1, count))
        second = first.clone()
        second[:, axis] += 1
        lower.append(first)
        upper.append(second)
    return torch.cat(lower), torch.cat(upper)


def central_differences(function: Callable[[Tensor], Tensor], points: Tensor, step: float) -> Tensor:
    """What a function of points ((K, 3) to (K,)) gains from a step behind points (N, 3) to a step ahead of them, along
    each axis: (N, 3); over twice the step it is the gradient."""
    offsets = step * torch.eye(3, dtype=points.dtype, device=points.device)
    around = torch.cat([points[None] + offsets[:, None], points[None] - offsets[:, None]])
    ahead, behind = function(around.reshape(-1, 3)).view(2, 3, -1)
    return (ahead - behind).T
