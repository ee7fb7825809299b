# SPDX-License-Identifier: Apache-2.0
"""Warp kernels of the ray tracer: one source, compiled for CPU and CUDA. Only ``trace`` launches them.

Annotations are evaluated by Warp, so this file does not postpone them.
"""
# ruff: noqa: UP018, RUF046 - in a Warp kernel a literal is a constant, and float(0.0) a variable a loop may change

import math
from typing import TYPE_CHECKING, Any

import warp as wp

if TYPE_CHECKING:
    Grid = Any
    Floats = Any
    Vectors = Any
else:
    Grid = wp.array(dtype=float, ndim=3)
    Floats = wp.array(dtype=float)
    Vectors = wp.array(dtype=wp.vec3)

NAN = wp.constant(math.nan)


@wp.func
def field_value(grid: Grid, bounds: float, p: wp.vec3) -> float:
    """Trilinear value at p inside the cube."""
    n = grid.shape[0]
    scale = float(n - 1) / (2.0 * bounds)
    last = float(n) - 1.0001
    x = wp.clamp((p[0] + bounds) * scale, 0.0, last)
    y = wp.clamp((p[1] + bounds) * scale, 0.0, last)
    z = wp.clamp((p[2] + bounds) * scale, 0.0, last)
    i = int(x)
    j = int(y)
    k = int(z)
    u = x - float(i)
    v = y - float(j)
    w = z - float(k)
    c00 = grid[i, j, k] * (1.0 - w) + grid[i, j, k + 1] * w
    c01 = grid[i, j + 1, k] * (1.0 - w) + grid[i, j + 1, k + 1] * w
    c10 = grid[i + 1, j, k] * (1.0 - w) + grid[i + 1, j, k + 1] * w
    c11 = grid[i + 1, j + 1, k] * (1.0 - w) + grid[i + 1, j + 1, k + 1] * w
    return (c00 * (1.0 - v) + c01 * v) * (1.0 - u) + (c10 * (1.0 - v) + c11 * v) * u


@wp.func
def clip_to_cube(origin: wp.vec3, d: wp.vec3, bounds: float) -> wp.vec2:
    """Return the ray parameters where the ray enters and leaves the cube; the first is larger when it misses."""
    near = float(0.0)
    far = float(1.0e9)
    for axis in range(3):
        if wp.abs(d[axis]) < 1.0e-12:
            if wp.abs(origin[axis]) > bounds:
                far = -1.0
        else:
            a = (-bounds - origin[axis]) / d[axis]
            b = (bounds - origin[axis]) / d[axis]
            near = wp.max(near, wp.min(a, b))
            far = wp.min(far, wp.max(a, b))
    return wp.vec2(near, far)


@wp.func
def refine_hit(
    grid: Grid,
    bounds: float,
    origin: wp.vec3,
    d: wp.vec3,
    outside: float,
    inside: float,
) -> float:
    """Secant steps kept in the bracket (Illinois rule) on the first zero between two parameters."""
    a = outside
    b = inside
    fa = field_value(grid, bounds, origin + a * d)
    fb = field_value(grid, bounds, origin + b * d)
    side = int(0)
    t = b
    for _ in range(12):
        if wp.abs(fb - fa) > 1.0e-12:
            t = (a * fb - b * fa) / (fb - fa)
        f = field_value(grid, bounds, origin + t * d)
        if f > 0.0:
            a = t
            fa = f
            if side == 1:
                fb = 0.5 * fb
            side = 1
        else:
            b = t
            fb = f
            if side == 2:
                fa = 0.5 * fa
            side = 2
    return t


@wp.func
def refine_minimum(
    grid: Grid,
    bounds: float,
    origin: wp.vec3,
    d: wp.vec3,
    left: float,
    right: float,
) -> float:
    """Golden-section search of the smallest value between two parameters."""
    ratio = float(0.61803399)
    a = left
    b = right
    c = b - ratio * (b - a)
    e = a + ratio * (b - a)
    fc = field_value(grid, bounds, origin + c * d)
    fe = field_value(grid, bounds, origin + e * d)
    for _ in range(14):
        if fc < fe:
            b = e
            e = c
            fe = fc
            c = b - ratio * (b - a)
            fc = field_value(grid, bounds, origin + c * d)
        else:
            a = c
            c = e
            fc = fe
            e = a + ratio * (b - a)
            fe = field_value(grid, bounds, origin + e * d)
    return 0.5 * (a + b)


@wp.func
def near_side_weight(grid: Grid, bounds: float, origin: wp.vec3, d: wp.vec3, t: float, e: float) -> float:
    """Share of the near side in the derivative of the minimum at t.

    A trilinear field often has its minimum on a cell face, where the slope jumps from a < 0 to b > 0. The derivative
    of the minimum is then the mean of both sides' derivatives, weighted b and -a.
    """
    near = field_value(grid, bounds, origin + (t - e) * d) - field_value(grid, bounds, origin + (t - 2.0 * e) * d)
    far = field_value(grid, bounds, origin + (t + 2.0 * e) * d) - field_value(grid, bounds, origin + (t + e) * d)
    if far > 0.0 and near < 0.0:
        return far / (far - near)
    return 0.5


@wp.kernel(enable_backward=False)
def trace_rays(
    grid: Grid,
    bounds: float,
    origin: wp.vec3,
    directions: Vectors,
    saturation: float,
    hit: Floats,
    slope: Floats,
    lowest: Floats,
    lowest_value: Floats,
    weight: Floats,
) -> None:
    """March one ray to its deepest point (or to -saturation): ``trace.trace`` documents the outputs."""
    ray = wp.tid()
    d = directions[ray]
    span = clip_to_cube(origin, d, bounds)
    hit[ray] = NAN
    slope[ray] = 0.0
    lowest[ray] = NAN
    lowest_value[ray] = 1.0e9
    weight[ray] = 0.5
    if span[0] >= span[1]:
        return
    length = wp.length(d)
    voxel = 2.0 * bounds / float(grid.shape[0] - 1) / length
    t = span[0]
    before = t
    f_before = float(1.0e9)
    earlier = t
    f_earlier = float(1.0e9)
    best = float(1.0e9)
    best_t = t
    found = bool(False)
    for _ in range(4096):
        f = field_value(grid, bounds, origin + t * d)
        if f <= 0.0 and not found:
            found = True
            at = refine_hit(grid, bounds, origin, d, before, t)
            hit[ray] = at
            e = 0.02 * voxel
            slope[ray] = (
                field_value(grid, bounds, origin + (at + e) * d) - field_value(grid, bounds, origin + (at - e) * d)
            ) / (2.0 * e)
        # A sample lower than both neighbours brackets a minimum. A ray may have several: each that could be the
        # lowest (a distance changes by at most one per unit length) is refined, so that the choice does not hang on
        # where the samples happened to fall.
        reach = 0.5 * (t - earlier) * length
        if f_before <= f_earlier and f_before < f and f_before < saturation and f_before - reach < best:
            lower = refine_minimum(grid, bounds, origin, d, earlier, t)
            f_lower = field_value(grid, bounds, origin + lower * d)
            if f_lower < best:
                best = f_lower
                best_t = lower
        if f <= -saturation or (t >= span[1] and f < best):
            best = f
            best_t = t
        if f <= -saturation or t >= span[1]:
            break
        earlier = before
        f_earlier = f_before
        before = t
        f_before = f
        # Near the surface half a voxel: a thin wall is never stepped over and the minimum stays bracketed.
        t = wp.min(t + wp.max(0.8 * wp.abs(f) / length, 0.5 * voxel), span[1])
    if wp.abs(best) < saturation:
        weight[ray] = near_side_weight(grid, bounds, origin, d, best_t, 0.02 * voxel)
    lowest[ray] = best_t
    lowest_value[ray] = best
