# SPDX-License-Identifier: Apache-2.0
"""Signed distance functions and their combinations; negative inside, in the shape's own units.

Every function here builds an ``Sdf``: points (N, 3) float32 in, distances (N,) float32 out. Unions are exact outside,
intersections and differences are lower bounds; all have slope at most one, which the block-wise evaluation relies on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

Points = NDArray[np.float32]
Distances = NDArray[np.float32]
Sdf = Callable[[Points], Distances]


def _norm(points: Points) -> Distances:
    result: Distances = np.sqrt(np.einsum("ij,ij->i", points, points))
    return result


def sphere(radius: float) -> Sdf:
    """Sphere at the origin."""
    return lambda p: _norm(p) - radius


def ellipsoid(radii: ArrayLike) -> Sdf:
    """Ellipsoid at the origin; first-order distance, limited to slope one."""
    r = np.asarray(radii, np.float32)
    smallest = float(r.min())

    def distance(p: Points) -> Distances:
        scaled = p / r
        k0 = _norm(scaled)
        k1 = _norm(scaled / r) + 1e-9
        estimate = np.where(k0 < 1e-3, -smallest, k0 * (k0 - 1) / k1)
        return np.maximum(estimate, (k0 - 1) * smallest).astype(np.float32)

    return distance


def box(half: ArrayLike, rounding: float = 0.0) -> Sdf:
    """Box at the origin with half sizes ``half`` (outer), edges rounded."""
    h = np.maximum(np.asarray(half, np.float32) - rounding, 1e-4)

    def distance(p: Points) -> Distances:
        q = np.abs(p) - h
        outside = _norm(np.maximum(q, 0))
        return outside + np.minimum(q.max(1), 0) - rounding

    return distance


def capsule(a: ArrayLike, b: ArrayLike, radius_a: float, radius_b: float | None = None) -> Sdf:
    """Capsule from a to b whose radius goes linearly from radius_a to radius_b."""
    start = np.asarray(a, np.float32)
    axis = np.asarray(b, np.float32) - start
    length2 = float(axis @ axis) + 1e-12
    end_radius = radius_a if radius_b is None else radius_b
    slope = abs(end_radius - radius_a) / np.sqrt(length2)
    shrink = float(1 / np.sqrt(1 + slope * slope))

    def distance(p: Points) -> Distances:
        d = p - start
        t = np.clip(d @ axis / length2, 0, 1)
        radial = _norm(d - t[:, None] * axis)
        return ((radial - (radius_a + (end_radius - radius_a) * t)) * shrink).astype(np.float32)

    return distance


def cylinder(radius: float, half_height: float, rounding: float = 0.0) -> Sdf:
    """Cylinder along y at the origin with rounded rims."""
    r, h = max(radius - rounding, 1e-4), max(half_height - rounding, 1e-4)

    def distance(p: Points) -> Distances:
        dr = np.hypot(p[:, 0], p[:, 2]) - r
        dy = np.abs(p[:, 1]) - h
        outside = np.hypot(np.maximum(dr, 0), np.maximum(dy, 0))
        return (outside + np.minimum(np.maximum(dr, dy), 0) - rounding).astype(np.float32)

    return distance


def torus(major: float, minor: float, stretch: float = 0.0) -> Sdf:
    """Torus in the xy plane, elongated by ``stretch`` along y on both sides."""

    def distance(p: Points) -> Distances:
        y = p[:, 1] - np.clip(p[:, 1], -stretch, stretch)
        ring = np.hypot(p[:, 0], y) - major
        return (np.hypot(ring, p[:, 2]) - minor).astype(np.float32)

    return distance


def superquadric(radii: ArrayLike, e1: float, e2: float) -> Sdf:
    """Superquadric (exponents e1 vertical, e2 horizontal, 0.2 boxy to 1 round); slope kept below one."""
    r = np.asarray(radii, np.float32)
    smallest = float(r.min())

    def distance(p: Points) -> Distances:
        q = np.abs(p / r) + 1e-6
        horizontal = (q[:, 0] ** (2 / e2) + q[:, 2] ** (2 / e2)) ** (e2 / e1)
        radial = (horizontal + q[:, 1] ** (2 / e1)) ** (e1 / 2)
        estimate = np.where(radial < 1e-3, -smallest, _norm(p) * (1 - 1 / np.maximum(radial, 1e-6)))
        return np.clip(estimate, -smallest, None).astype(np.float32) * np.float32(0.5)

    return distance


class _Profile:
    """Distance to a closed 2D polygon, tabulated once and looked up bilinearly."""

    RESOLUTION = 192

    def __init__(self, polygon: NDArray[np.floating], margin: float = 0.35) -> None:
        low, high = polygon.min(0) - margin, polygon.max(0) + margin
        self.low = low.astype(np.float32)
        self.step = np.float32((high - low).max() / (self.RESOLUTION - 1))
        size = np.ceil((high - low) / self.step).astype(int) + 1
        u = self.low[0] + self.step * np.arange(size[0], dtype=np.float32)
        v = self.low[1] + self.step * np.arange(size[1], dtype=np.float32)
        self.size = size
        self.table = self._distances(polygon, u, v)

    @staticmethod
    def _distances(polygon: NDArray[np.floating], u: Distances, v: Distances) -> NDArray[np.float32]:
        x, y = np.meshgrid(u, v)
        best = np.full(x.shape, np.inf)
        inside = np.zeros(x.shape, bool)
        for (x0, y0), (x1, y1) in zip(polygon, np.roll(polygon, -1, 0), strict=True):
            ex, ey = x1 - x0, y1 - y0
            t = np.clip(((x - x0) * ex + (y - y0) * ey) / (ex * ex + ey * ey + 1e-12), 0, 1)
            best = np.minimum(best, (x - x0 - t * ex) ** 2 + (y - y0 - t * ey) ** 2)
            crosses = (y0 > y) != (y1 > y)
            with np.errstate(divide="ignore", invalid="ignore"):
                inside ^= crosses & (x < x0 + (y - y0) * ex / (y1 - y0))
        return (np.sqrt(best) * np.where(inside, -1, 1)).astype(np.float32)

    def __call__(self, a: Distances, b: Distances) -> Distances:
        """Look up at 2D points (a, b); outside the table the distance to it is added."""
        i = (a - self.low[0]) / self.step
        j = (b - self.low[1]) / self.step
        ci, cj = np.clip(i, 0, self.size[0] - 1.001), np.clip(j, 0, self.size[1] - 1.001)
        # cv2.remap limits the row count of its maps, so long point lists are folded into rows.
        n = len(a)
        rows = -(-n // 4096)
        map_x = np.zeros(rows * 4096, np.float32)
        map_y = np.zeros(rows * 4096, np.float32)
        map_x[:n], map_y[:n] = ci, cj
        values = cv2.remap(self.table, map_x.reshape(rows, -1), map_y.reshape(rows, -1), cv2.INTER_LINEAR)
        outside = np.hypot(i - ci, j - cj) * self.step
        result: Distances = values.reshape(-1)[:n] + outside.astype(np.float32)
        return result


def revolution(polygon: NDArray[np.floating]) -> Sdf:
    """Solid of revolution about y of a closed polygon of (radius, y); mirrored at the axis."""
    mirrored = np.concatenate([polygon, (polygon * [-1, 1])[::-1]]) if (polygon[:, 0] < 1e-3).any() else polygon
    profile = _Profile(mirrored)
    return lambda p: profile(np.hypot(p[:, 0], p[:, 2]), p[:, 1])


def extrusion(polygon: NDArray[np.floating], half_depth: float, rounding: float = 0.0) -> Sdf:
    """Extrusion along z of a closed polygon of (x, y)."""
    profile = _Profile(np.asarray(polygon))
    h = max(half_depth - rounding, 1e-4)

    def distance(p: Points) -> Distances:
        d = profile(np.ascontiguousarray(p[:, 0]), np.ascontiguousarray(p[:, 1])) + rounding
        w = np.abs(p[:, 2]) - h
        outside = np.hypot(np.maximum(d, 0), np.maximum(w, 0))
        return (outside + np.minimum(np.maximum(d, w), 0) - rounding).astype(np.float32)

    return distance


def arc(radius: float, angle: float, thickness: float, end_thickness: float) -> Sdf:
    """A bent rod in the xy plane: a circle arc of +-``angle`` whose thickness narrows towards both ends."""

    def distance(p: Points) -> Distances:
        theta = np.clip(np.arctan2(p[:, 0], p[:, 1] + radius), -angle, angle)
        centre = np.stack([radius * np.sin(theta), radius * np.cos(theta) - radius, np.zeros_like(theta)], 1)
        t = np.abs(theta) / angle
        width = thickness + (end_thickness - thickness) * t**3
        return ((_norm(p - centre.astype(np.float32)) - width) * 0.9).astype(np.float32)

    return distance


def moved(shape: Sdf, offset: ArrayLike, rotation: NDArray[np.floating] | None = None) -> Sdf:
    """Shape whose origin sits at ``offset``, its axes turned by ``rotation`` (3, 3)."""
    o = np.asarray(offset, np.float32)
    R = None if rotation is None else np.asarray(rotation, np.float32)
    return lambda p: shape(np.ascontiguousarray(p - o if R is None else (p - o) @ R))


def union(*shapes: Sdf) -> Sdf:
    """Everything that is in any of the shapes."""
    return lambda p: np.minimum.reduce([s(p) for s in shapes])


def smooth_union(shapes: Sequence[Sdf], radius: float) -> Sdf:
    """Union whose seams are filled with a fillet of about ``radius`` (polynomial smooth minimum)."""

    def distance(p: Points) -> Distances:
        result = shapes[0](p)
        for shape in shapes[1:]:
            other = shape(p)
            h = np.clip(0.5 + 0.5 * (other - result) / radius, 0, 1)
            result = other + (result - other) * h - radius * h * (1 - h)
        return result.astype(np.float32)

    return distance


def difference(shape: Sdf, *cuts: Sdf) -> Sdf:
    """The shape without the cuts."""
    return lambda p: np.maximum.reduce([shape(p), *[-c(p) for c in cuts]])


def intersection(*shapes: Sdf) -> Sdf:
    """What is in all of the shapes."""
    return lambda p: np.maximum.reduce([s(p) for s in shapes])


def rotation_about(axis: int, angle: float) -> NDArray[np.float64]:
    """Rotation matrix (3, 3) about a coordinate axis, radians."""
    c, s = np.cos(angle), np.sin(angle)
    i, j = [(1, 2), (2, 0), (0, 1)][axis]
    R = np.eye(3)
    R[i, i] = R[j, j] = c
    R[i, j], R[j, i] = -s, s
    return R
