# SPDX-License-Identifier: Apache-2.0
"""Grids of an expensive function: coarse everywhere, fine only in cells that the surface may pass through."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from fmh_ros.core.fields.grid import crossed_edges, grid_points

Values = Callable[[Tensor], Tensor]
#: Finest grid that is evaluated everywhere.
DENSE = 56
#: A surface in a cell is at most half the cell's diagonal, 0.87 sides, from one of its corners.
CELL_REACH = 1.0


def levels(resolution: int) -> tuple[int, ...]:
    """Grid points a side of each level, the coarsest (at most ``DENSE``) first, each at most twice the one before."""
    found = [resolution]
    while found[0] > DENSE:
        found.insert(0, -(-found[0] // 2))
    return tuple(found)


def dense_grid(values: Values, resolution: int, bounds: float, device: torch.device) -> Tensor:
    """Evaluate everywhere; returns (R, R, R)."""
    return values(grid_points(resolution, bounds, device)).float().view((resolution,) * 3)


def refine_grid(
    values: Values, coarse: Tensor, resolution: int, bounds: float, units_per_value: float, linear_until: float | None
) -> Tensor:
    """Return the grid at a higher resolution (R, R, R): evaluated in the cells of ``coarse`` (r, r, r) that the
    surface may pass through, interpolated elsewhere.

    A cell counts when its corners' signs differ or one of them is, by its value, as near to the surface as the cell is
    long: thin parts between two corners are found as long as the values there are not saturated.
    """
    count = coarse.shape[0]
    cell = 2.0 * bounds / (count - 1)
    near = coarse.abs() * units_per_value < CELL_REACH * cell
    if linear_until is not None:
        near &= coarse.abs() < linear_until
    inside = coarse < 0
    corners = torch.stack([inside.float(), 1.0 - inside.float(), near.float()])[None]
    some_in, some_out, some_near = F.max_pool3d(corners, 2, stride=1)[0] > 0
    wanted = (some_in & some_out) | some_near
    fine: Tensor = F.interpolate(coarse[None, None], (resolution,) * 3, mode="trilinear", align_corners=True)[0, 0]
    steps = torch.arange(resolution, device=coarse.device) * (count - 1) // (resolution - 1)
    cells = steps.clamp_max(count - 2)
    chosen = torch.nonzero(wanted[cells][:, cells][:, :, cells])
    axis = torch.linspace(-bounds, bounds, resolution, device=coarse.device)
    at = tuple(chosen.unbind(-1))
    fine[at] = values(axis[chosen]).to(fine.dtype)
    return fine


def crossings(grid: Tensor, bounds: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Grid edges that cross zero: their ends a and b (M, 3), and the values there (M,)."""
    voxel = 2.0 * bounds / (grid.shape[0] - 1)
    a, b = crossed_edges(grid)
    return (
        a.to(grid.dtype) * voxel - bounds,
        b.to(grid.dtype) * voxel - bounds,
        grid[tuple(a.unbind(-1))],
        grid[tuple(b.unbind(-1))],
    )


def locate(values: Values, edges: tuple[Tensor, Tensor, Tensor, Tensor], evaluations: int) -> Tensor:
    """Points (M, 3) on edges where the function is zero: linear interpolation, then steps of false position.

    A saturated value at an end says nothing of where on the edge the surface is, hence the further evaluations.
    """
    a, b, f_a, f_b = edges
    for _ in range(evaluations):
        middle = a + (f_a / (f_a - f_b))[:, None] * (b - a)
        f_middle = values(middle).to(f_a.dtype)
        same = (f_middle < 0) == (f_a < 0)
        a, f_a = torch.where(same[:, None], middle, a), torch.where(same, f_middle, f_a)
        b, f_b = torch.where(same[:, None], b, middle), torch.where(same, f_b, f_middle)
    return a + (f_a / (f_a - f_b))[:, None] * (b - a)
