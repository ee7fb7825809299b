# SPDX-License-Identifier: Apache-2.0
"""Single views of shapes in the view cube: the truncated distance grid to predict and the maps a camera would see.

The view cube is the frame of ``ObjectView``: x right, y down, z along the viewing ray, spanning -1 to 1; the camera
sits at (0, 0, -D). The cube is placed by the same rules as at inference (``fmh_ros.core.cues.completion``), with the
spread that noisy masks and depths cause there.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from fmh_ros.core.cues.completion import FAR_Z, LATERAL_FILL, NEAR_Z
from fmh_ros.core.flow.embedded.layout import GRID, MAP_SIZE, TRUNCATION
from fmh_ros.training.shapes.families import FAMILIES, draw_shape
from fmh_ros.training.shapes.primitives import Distances, Points, Sdf

FAMILY_NAMES = tuple(FAMILIES)
#: Of so many directions half of the wide views take the one that the shape is deepest along.
DEEPEST_OF = 8


@dataclass(frozen=True)
class ShapeView:
    """One training example, noise free.

    tsdf : (GRID,)*3 int8, distance / TRUNCATION * 127, clipped; negative inside; indexed [x, y, z].
    mask : (MAP_SIZE,)*2 bool; depth : same, float16, the surface's cube z, 0 off the mask; normals : (3, MAP_SIZE,
    MAP_SIZE) float16 unit, cube axes, 0 off the mask. Maps are indexed [row (y), column (x)].
    distance : camera distance D in cube units; has_depth : placed as with a depth sensor.
    """

    tsdf: NDArray[np.int8]
    mask: NDArray[np.bool_]
    depth: NDArray[np.float16]
    normals: NDArray[np.float16]
    distance: float
    has_depth: bool
    family: int


def evaluate_grid(shape: Sdf, resolution: int = GRID, truncation: float = TRUNCATION) -> NDArray[np.float32]:
    """Sample a distance function on linspace(-1, 1, resolution)^3, clipped to the truncation.

    Blocks that are certainly further from the surface than the truncation are filled, not evaluated.
    """
    axis = np.linspace(-1, 1, resolution, dtype=np.float32)
    block = 4
    count = resolution // block
    centres = axis.reshape(count, block).mean(1)
    coarse_points = np.stack(np.meshgrid(centres, centres, centres, indexing="ij"), -1).reshape(-1, 3)
    coarse = shape(coarse_points).astype(np.float32)
    reach = 1.3 * (truncation + np.sqrt(3) * (axis[1] - axis[0]) * (block - 1) / 2)
    active = np.flatnonzero(np.abs(coarse) < reach)
    values = np.repeat(np.sign(coarse)[:, None] * truncation, block**3, 1).astype(np.float32)
    offsets = (np.arange(block) - (block - 1) / 2) * (axis[1] - axis[0])
    local = np.stack(np.meshgrid(offsets, offsets, offsets, indexing="ij"), -1).reshape(-1, 3).astype(np.float32)
    if len(active):
        points = (coarse_points[active][:, None] + local[None]).reshape(-1, 3).astype(np.float32)
        values[active] = shape(points).reshape(len(active), -1)
    cube = values.reshape(count, count, count, block, block, block).transpose(0, 3, 1, 4, 2, 5)
    result: NDArray[np.float32] = np.clip(cube.reshape((resolution,) * 3), -truncation, truncation)
    return result


def map_rays(distance: float, size: int = MAP_SIZE) -> NDArray[np.float32]:
    """Directions (size*size, 3) with z = 1 of the view camera: the cube's middle slice fills the map."""
    centre = (np.arange(size, dtype=np.float32) + 0.5) * 2 / size - 1
    x, y = np.meshgrid(centre, centre)
    return np.stack([x / distance, y / distance, np.ones_like(x)], -1).reshape(-1, 3).astype(np.float32)


def trace_maps(shape: Sdf, distance: float) -> tuple[NDArray[np.bool_], Distances, Points]:
    """Sphere-trace the view: mask, cube z of the surface, normals (MAP_SIZE**2 rows)."""
    rays = map_rays(distance)
    length = np.linalg.norm(rays, axis=1)
    directions = rays / length[:, None]
    origin = np.array([0, 0, -distance], np.float32)
    t = (distance - 1.0) * length
    limit = (distance + 1.0) * length
    alive = np.arange(len(rays))
    hit = np.zeros(len(rays), bool)
    for _ in range(48):
        points = origin + directions[alive] * t[alive, None]
        step = shape(points.astype(np.float32))
        t[alive] += 0.85 * step
        close = step < 2e-3
        hit[alive[close]] = True
        alive = alive[~close & (t[alive] < limit[alive])]
        if not len(alive):
            break
    points = (origin + directions * t[:, None]).astype(np.float32)
    normals = np.zeros_like(points)
    index = np.flatnonzero(hit)
    if len(index):
        surface = points[index]
        step_size = np.float32(0.01)
        gradient = np.stack(
            [shape(surface + step_size * e) - shape(surface - step_size * e) for e in np.eye(3, dtype=np.float32)], 1
        )
        normals[index] = gradient / (np.linalg.norm(gradient, axis=1, keepdims=True) + 1e-9)
    return hit, points[:, 2], normals


def _support(shape: Sdf) -> NDArray[np.float64] | None:
    """Points (N, 3) that fill the shape coarsely; None when the shape is too thin to find."""
    axis = np.linspace(-1.6, 1.6, 36, dtype=np.float32)
    points = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)
    inside = points[shape(points) < 0.45 * (axis[1] - axis[0])]
    return None if len(inside) < 12 else inside.astype(np.float64)


def _look_along(rng: np.random.Generator, support: NDArray[np.float64], wide: bool) -> NDArray[np.float64]:
    """Rotation (3, 3) from the shape (N, 3) to the view; half of the wide ones show it much deeper than broad."""
    count = DEEPEST_OF if wide and rng.random() < 0.5 else 1
    rotations = Rotation.random(count, random_state=rng).as_matrix()
    extents = np.stack([np.ptp(support @ rotation.T, axis=0) for rotation in rotations])
    return np.asarray(rotations[np.argmax(extents[:, 2] / extents[:, :2].max(1))], np.float64)


def draw_view(rng: np.random.Generator, family: str | None = None, *, wide: bool = False) -> ShapeView:
    """Draw a shape and a view of it; views in which the shape would leave the cube are drawn again.

    ``wide`` views are of cubes that depth has made larger than the outline asks for, and of outlines of which the hand
    hides an end: what reaches far along the viewing ray, or beyond the hand. Other views lack both, and a generator
    trained on them alone makes a plate that is seen from its edge as narrow as its outline.
    """
    while True:
        name, shape = draw_shape(rng, family)
        for _ in range(3):
            view = _try_view(rng, name, shape, wide)
            if view is not None:
                return view


@dataclass(frozen=True)
class _Cube:
    """Where the view cube is: its middle (3,) and half side in the shape's units, seen from the camera's side."""

    centre: NDArray[np.float64]
    scale: float

    def holds(self, low: NDArray[np.float64], high: NDArray[np.float64]) -> bool:
        return bool((np.abs(np.stack([low, high]) - self.centre) <= 0.97 * self.scale).all())


def _draw_cube(
    rng: np.random.Generator, low: NDArray[np.float64], high: NDArray[np.float64], has_depth: bool, wide: bool
) -> _Cube:
    """Place the cube round a shape with these bounds (3,) as inference does, with its errors."""
    # Of a wide view's outline one end may be hidden: the shape then fills more of the cube, and is beside its middle.
    partly = wide and rng.random() < 0.5
    fill = np.clip(rng.normal(0.76 if partly else LATERAL_FILL, 0.08), 0.45, 0.94 if partly else 0.88)
    length = high[2] - low[2]
    scale = 0.5 * max(high[0] - low[0], high[1] - low[1]) / fill
    if wide and has_depth:
        # The seen part of the length, which inference lays between NEAR_Z and FAR_Z.
        scale = max(scale, length * rng.uniform(0.65, 1.0) / (FAR_Z - NEAR_Z))
    centre = (low + high) / 2 + scale * np.array([*rng.normal(0, 0.16 if partly else 0.06, 2), 0.0])
    if has_depth:
        # A tenth of the visible surface is nearer than the reference: roughly a tenth of the depth extent. A grasp
        # before it moves the shape further into the cube.
        near = NEAR_Z + rng.normal(0, 0.06) + (rng.uniform(0, 0.4) if wide and rng.random() < 0.25 else 0.0)
        centre[2] = low[2] + 0.1 * length - scale * near
    else:
        centre[2] += scale * rng.normal(0, 0.08)
    return _Cube(centre, float(scale))


def _try_view(rng: np.random.Generator, name: str, shape: Sdf, wide: bool) -> ShapeView | None:
    support = _support(shape)
    if support is None:
        return None
    rotation = _look_along(rng, support, wide)
    turned = support @ rotation.T
    low, high = turned.min(0), turned.max(0)
    has_depth = bool(rng.random() < (0.8 if wide else 0.6))
    cube = _draw_cube(rng, low, high, has_depth, wide)
    if not cube.holds(low, high):
        return None
    centre, scale = cube.centre, cube.scale
    to_object = (rotation.T * scale).astype(np.float32)
    offset = (rotation.T @ centre).astype(np.float32)

    def in_cube(points: Points) -> Distances:
        return (shape(np.ascontiguousarray(points @ to_object.T + offset)) / scale).astype(np.float32)

    distance = float(np.exp(rng.uniform(np.log(1.6 if wide else 2.2), np.log(20.0))))
    hit, z, normals = trace_maps(in_cube, distance)
    if hit.sum() < 25:
        return None
    grid = evaluate_grid(in_cube)
    if (grid < 0).sum() < 60:
        return None
    size = (MAP_SIZE, MAP_SIZE)
    return ShapeView(
        tsdf=np.round(grid / TRUNCATION * 127).astype(np.int8),
        mask=hit.reshape(size),
        depth=np.where(hit, z, 0).reshape(size).astype(np.float16),
        normals=normals.T.reshape(3, *size).astype(np.float16),
        distance=distance,
        has_depth=has_depth,
        family=FAMILY_NAMES.index(name),
    )
