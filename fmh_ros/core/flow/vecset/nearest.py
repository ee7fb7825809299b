# SPDX-License-Identifier: Apache-2.0
"""The nearest known surface point, looked up in a grid: what stands in for a distance where a network is saturated."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor

from fmh_ros.core.fields.grid import grid_points


@dataclass(frozen=True)
class NearestSurface:
    """Surface points and, for every vertex of a grid, which of them is nearest.

    points, normals : (M, 3), canonical units, the normals outward; index : (R, R, R) int64, -1 farther than the reach
    from all of them.
    """

    points: Tensor
    normals: Tensor
    index: Tensor
    bounds: float

    @property
    def voxel(self) -> float:
        """Spacing of the grid, canonical units."""
        return 2.0 * self.bounds / (self.index.shape[0] - 1)

    def lookup(self, points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Nearest surface points (N, 3) to points (N, 3) of the cube, the side (N,) these are on, -1 inside and 1
        outside, and whether there is surface within reach (N,)."""
        last = self.index.shape[0] - 1
        low = ((points + self.bounds) / self.voxel).floor().long().clamp(0, last - 1)
        best = torch.full(points.shape[:1], torch.inf, dtype=points.dtype, device=points.device)
        nearest = torch.full(points.shape[:1], -1, device=points.device)
        for corner in product((0, 1), repeat=3):
            which = self.index[tuple((low + low.new_tensor(corner)).unbind(-1))]
            distance = torch.linalg.vector_norm(points - self.points.to(points.dtype)[which.clamp_min(0)], dim=-1)
            better = (which >= 0) & (distance < best)
            best = torch.where(better, distance, best)
            nearest = torch.where(better, which, nearest)
        found, side = self._slide(points, nearest.clamp_min(0))
        return found, side, nearest >= 0

    def distances(self) -> Tensor:
        """Unsigned distances (R, R, R) of the grid's vertices to the surface, infinite where none is within reach."""
        count = self.index.shape[0]
        at = grid_points(count, self.bounds, self.points.device)
        found, _ = self._slide(at, self.index.reshape(-1).clamp_min(0))
        distance = torch.linalg.vector_norm(at - found, dim=-1).view(self.index.shape)
        return torch.where(self.index >= 0, distance, torch.inf)

    def _slide(self, points: Tensor, which: Tensor) -> tuple[Tensor, Tensor]:
        """Move surface points towards points (N, 3) in their tangent planes, at most a voxel: they are that sparse."""
        start, normal = self.points.to(points.dtype)[which], self.normals.to(points.dtype)[which]
        offset = points - start
        height = (offset * normal).sum(-1, keepdim=True)
        lateral = offset - height * normal
        length = torch.linalg.vector_norm(lateral, dim=-1, keepdim=True)
        found = start + lateral * (self.voxel / length.clamp_min(1e-12)).clamp_max(1.0)
        return found, torch.where(height[:, 0] < 0, -1.0, 1.0).to(points.dtype)


def index_surface(points: Tensor, normals: Tensor, resolution: int, bounds: float, reach: float) -> NearestSurface:
    """Find for every vertex of a grid the nearest of points (M, 3), M > 0, as far as ``reach``, canonical units.

    Vertices take over their neighbours' points, one voxel further with each round, so the point found may be slightly
    farther than the nearest one, by less than the spacing of the points.
    """
    voxel = 2.0 * bounds / (resolution - 1)
    place = ((points + bounds) / voxel).round().long().clamp(0, resolution - 1)
    flat = (place[:, 0] * resolution + place[:, 1]) * resolution + place[:, 2]
    # The point nearest to its vertex is kept: sorted by distance, then stably by vertex, the first of each.
    order = torch.argsort(torch.linalg.vector_norm(place * voxel - bounds - points, dim=-1))
    order = order[torch.argsort(flat[order], stable=True)]
    sorted_flat = flat[order]
    first = torch.ones_like(sorted_flat, dtype=torch.bool)
    first[1:] = sorted_flat[1:] != sorted_flat[:-1]
    index = torch.full((resolution**3,), -1, dtype=torch.int64, device=points.device)
    index[sorted_flat[first]] = order[first]
    shape = (resolution,) * 3
    nearest = NearestSurface(points, normals, index.view(shape), bounds)
    at = grid_points(resolution, bounds, points.device).view(*shape, 3)
    distance = torch.linalg.vector_norm(at - points[nearest.index.clamp_min(0)], dim=-1)
    distance = torch.where(nearest.index >= 0, distance, torch.inf)
    for _ in range(math.ceil(reach / voxel)):
        for axis, step in product(range(3), (1, -1)):
            _take_over(nearest, distance, at, axis, step)
    nearest.index[distance > reach] = -1
    return nearest


def _take_over(nearest: NearestSurface, distance: Tensor, at: Tensor, axis: int, step: int) -> None:
    """Let each vertex try the point of its neighbour one ``step`` along ``axis``, in place."""
    count = nearest.index.shape[0]
    here, there = (1, 0) if step > 0 else (0, 1)
    theirs = nearest.index.narrow(axis, there, count - 1)
    to = tuple(torch.nonzero(theirs >= 0).unbind(-1))
    which = theirs[to]
    mine, points = distance.narrow(axis, here, count - 1), at.narrow(axis, here, count - 1)
    new = torch.linalg.vector_norm(points[to] - nearest.points[which], dim=-1)
    better = new < mine[to]
    kept = tuple(each[better] for each in to)
    mine[kept] = new[better]
    nearest.index.narrow(axis, here, count - 1)[kept] = which[better]
