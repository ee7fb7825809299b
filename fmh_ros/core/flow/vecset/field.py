# SPDX-License-Identifier: Apache-2.0
"""The implicit field of a vector-set latent: tokens decoded once, points evaluated where somebody looks.

Networks give a value that is zero on the surface and proportional to the distance near it, often truncated; what the
renderer and the losses read is a distance. ``VecsetField`` turns the one into the other:
- near the surface, the value times the canonical units per unit of it, measured on the decoded surface itself;
- where the value is saturated, the distance to the nearest surface point, plus the (small) value there, so that it
  moves with the surface: gradients reach the latent and the point from as far as ``REACH``.
"""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor

from fmh_ros.core.fields.grid import central_differences
from fmh_ros.core.flow.vecset.decoder import DecodeSettings, Memory, TokenDecoder, evaluate
from fmh_ros.core.flow.vecset.nearest import NearestSurface, index_surface
from fmh_ros.core.flow.vecset.refine import crossings, dense_grid, levels, locate, refine_grid

#: Distance, as a share of the bounds, up to which the field is a distance: three voxels of the renderer's silhouettes
#: and a little more. Beyond, a saturated network's field is constant.
REACH = 0.12
#: Grid of the nearest surface points, and the finest one whose saturated values are replaced: finer are for meshes.
INDEX_RESOLUTION, FINEST_DISTANCE = 64, 128
#: Points on the surface that the units per value are measured at, and the half step of their differences in bounds.
SLOPE_POINTS, SLOPE_STEP = 256, 0.004
#: Evaluations that find the surface on a grid edge with saturated ends.
EDGE_EVALUATIONS = 2


class VecsetField:
    """Signed distance, negative inside, canonical units; satisfies ``ImplicitField``.

    Differentiable to the points and, through the memory, to the latent. Measured scale and surface points are
    constants to autograd: they change what a loss is at most in second order at the surface.
    """

    def __init__(self, decoder: TokenDecoder, memory: Memory, settings: DecodeSettings) -> None:
        self.decoder = decoder
        self.memory = memory
        self.settings = settings
        self.bounds = decoder.bounds
        self.mesh_resolution = settings.mesh_resolution
        self._raw: dict[int, Tensor] = {}
        self._grids: dict[int, Tensor] = {}

    def values(self, points: Tensor) -> Tensor:
        """The network's own values (N,) at points (N, 3) on its device, negative inside; chunked by memory."""
        return evaluate(self.decoder, self.memory, points, self.settings.memory_mb)

    @torch.no_grad()
    def grid(self, resolution: int) -> Tensor:
        """Return distances (R, R, R) float32 without gradient; evaluated near the surface, interpolated elsewhere."""
        if resolution not in self._grids:
            values = self._raw_grid(resolution) * self.units_per_value
            if self._saturates and resolution <= FINEST_DISTANCE:
                values = self._replace_saturated(values)
            self._grids[resolution] = values
        return self._grids[resolution]

    def query(self, points: Tensor) -> Tensor:
        """Return distances (N,) at points (N, 3), in their dtype and on their device.

        Outside the cube: the value at the nearest point of the cube plus the distance to it.
        """
        at = points if points.dtype == torch.float64 else points.float()
        at = at.to(self.decoder.device)
        inside = at.clamp(-self.bounds, self.bounds)
        where, units, offset = self._where_to_look(inside)
        distance = units * self.values(where) + offset
        return (distance + torch.linalg.vector_norm(at - inside, dim=-1)).to(points)

    def follow(self, earlier: VecsetField) -> None:
        """Look for the surface where a field of nearly the same latent has it, in place of searching for it again.

        Grids, units and nearest surface points are then the earlier field's; whatever is queried is this one's. A
        renderer that finds points on the grid and attaches them to queries by a Newton step, as ``render`` and
        ``surface_points`` do, sees this surface while it is within a voxel of the earlier one.
        """
        self._raw, self._grids = earlier._raw, earlier._grids
        for name in ("units_per_value", "_saturates", "_nearest"):
            if name in earlier.__dict__:
                self.__dict__[name] = earlier.__dict__[name]

    @cached_property
    def units_per_value(self) -> float:
        """Canonical units per unit of the network's value at the surface: one over the median of its slopes there."""
        if self.settings.units_per_value is not None:
            return self.settings.units_per_value
        with torch.no_grad():
            a, b, f_a, f_b = crossings(self._raw_grid(levels(INDEX_RESOLUTION)[0]), self.bounds)
            some = slice(None, None, max(len(a) // SLOPE_POINTS, 1))
            found = locate(self.values, (a[some], b[some], f_a[some], f_b[some]), EDGE_EVALUATIONS + 1)
            step = SLOPE_STEP * self.bounds
            slopes = torch.linalg.vector_norm(central_differences(self.values, found, step), dim=-1) / (2.0 * step)
            slope = float(slopes.median()) if len(slopes) else 0.0
        return 1.0 / slope if slope > 1e-6 else 1.0

    @property
    def _reach(self) -> float:
        return REACH * self.bounds

    @cached_property
    def _saturates(self) -> bool:
        """Whether the value stops being a distance before the reach."""
        limit = self.decoder.linear_until
        return limit is not None and limit * self.units_per_value < self._reach

    def _raw_grid(self, resolution: int) -> Tensor:
        """The network's values (R, R, R), from the coarsest level up; kept, since levels are shared."""
        if resolution not in self._raw:
            below = levels(resolution)[:-1]
            if not below:
                self._raw[resolution] = dense_grid(self.values, resolution, self.bounds, self.decoder.device)
            else:
                units, limit = self.units_per_value, self.decoder.linear_until
                coarse = self._raw_grid(below[-1])
                self._raw[resolution] = refine_grid(self.values, coarse, resolution, self.bounds, units, limit)
        return self._raw[resolution]

    @cached_property
    def _nearest(self) -> NearestSurface | None:
        """The surface points of a saturated field, None when it has no surface."""
        with torch.no_grad():
            edges = crossings(self._raw_grid(INDEX_RESOLUTION), self.bounds)
            if len(edges[0]) == 0:
                return None
            found = locate(self.values, edges, EDGE_EVALUATIONS)
            return index_surface(found, self._normals(found), INDEX_RESOLUTION, self.bounds, self._reach)

    def _normals(self, points: Tensor) -> Tensor:
        """Outward unit normals (N, 3) at surface points, without gradient."""
        memory = tuple(each.detach() for each in self.memory)
        with torch.enable_grad():
            leaf = points.detach().requires_grad_()
            values = evaluate(self.decoder, memory, leaf, self.settings.memory_mb)
            (gradient,) = torch.autograd.grad(values.sum(), leaf)
        return torch.nn.functional.normalize(gradient, dim=-1)

    def _where_to_look(self, points: Tensor) -> tuple[Tensor, Tensor | float, Tensor | float]:
        """Where to evaluate the network for distances at points (N, 3), what to multiply its values (N,) with, and
        what to add."""
        units = self.units_per_value
        if not self._saturates:
            return points, units, 0.0
        assert self.decoder.linear_until is not None
        beyond = self._signs(points.detach()) * self._reach
        if self._nearest is None:
            return points, 0.0, beyond
        surface, side, known = self._nearest.lookup(points.detach())
        away = torch.linalg.vector_norm(points - surface, dim=-1)
        far = known & (away.detach() > self.decoder.linear_until * units)
        where = torch.where(far[:, None], surface, points)
        offset = torch.where(far, side * away, torch.where(known, 0.0, beyond))
        return where, units * known.to(points.dtype), offset

    def _signs(self, points: Tensor) -> Tensor:
        """Sign (N,) of the decoded grid's nearest vertex, which far from the surface is the point's own."""
        grid = self._raw_grid(INDEX_RESOLUTION)
        last = INDEX_RESOLUTION - 1
        at = ((points + self.bounds) * (last / (2.0 * self.bounds))).round().long().clamp(0, last)
        return torch.where(grid[tuple(at.unbind(-1))] < 0, -1.0, 1.0).to(points.dtype)

    def _replace_saturated(self, values: Tensor) -> Tensor:
        """Put distances to the nearest surface point in place of scaled values (R, R, R) that are saturated."""
        assert self.decoder.linear_until is not None
        if self._nearest is None:
            return torch.where(values < 0, -self._reach, self._reach)
        limit = self.decoder.linear_until * self.units_per_value
        nearest = self._nearest
        if values.shape[0] != INDEX_RESOLUTION:
            points, normals = nearest.points, nearest.normals
            nearest = index_surface(points, normals, values.shape[0], self.bounds, self._reach)
        away = nearest.distances().clamp(limit, self._reach)
        return torch.where(values.abs() > limit, torch.where(values < 0, -away, away), values)
