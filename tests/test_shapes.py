# SPDX-License-Identifier: Apache-2.0
"""The procedural shapes and their views, which the embedded generator is trained on."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fmh_ros.core.flow.embedded.condition import VOLUME, lift_maps
from fmh_ros.core.flow.embedded.layout import GRID, MAP_SIZE, TRUNCATION
from fmh_ros.training.autoencoder import flip_grid, iou, to_grid
from fmh_ros.training.flow import flip_maps
from fmh_ros.training.shapes.dataset import completed, generate, open_arrays
from fmh_ros.training.shapes.degrade import degrade
from fmh_ros.training.shapes.families import FAMILIES, draw_shape
from fmh_ros.training.shapes.primitives import box, capsule, cylinder, revolution, sphere, torus
from fmh_ros.training.shapes.views import ShapeView, draw_view, evaluate_grid


@pytest.fixture(scope="module")
def view() -> ShapeView:
    return draw_view(np.random.default_rng([3, 1]), "mug")


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_every_family_is_a_bounded_solid_with_slope_at_most_one(family: str) -> None:
    _, shape = draw_shape(np.random.default_rng(5), family)
    axis = np.linspace(-2, 2, 41, dtype=np.float32)
    points = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1)
    values = shape(points.reshape(-1, 3)).reshape(41, 41, 41)
    assert np.isfinite(values).all()
    border = np.ones_like(values, bool)
    border[1:-1, 1:-1, 1:-1] = False
    assert values[border].min() > 0
    # Near the surface a distance changes by at most the distance walked; tables and corners leave a little.
    for axis_index in range(3):
        low, high = np.delete(values, -1, axis_index), np.delete(values, 0, axis_index)
        near = np.minimum(np.abs(low), np.abs(high)) < 0.15
        assert (np.abs(high - low)[near] / 0.1).max() < 1.45


def test_primitives_measure_known_distances() -> None:
    p = np.array([[0.0, 2.0, 0.0], [1.5, 0.0, 0.0]], np.float32)
    assert np.allclose(sphere(0.5)(p), [1.5, 1.0])
    assert np.allclose(box([0.5, 1.0, 1.0])(p), [1.0, 1.0])
    assert np.allclose(cylinder(0.5, 1.0)(p), [1.0, 1.0], atol=1e-6)
    assert np.allclose(capsule([0, -1, 0], [0, 1, 0], 0.25)(p), [0.75, 1.25])
    assert np.allclose(torus(1.0, 0.25)(p), [0.75, 0.25])
    profile = revolution(np.array([[0.0, -1.0], [0.5, -1.0], [0.5, 1.0], [0.0, 1.0]]))
    assert np.allclose(profile(p), [1.0, 1.0], atol=0.02)


def test_blockwise_grid_equals_direct_evaluation() -> None:
    _, shape = draw_shape(np.random.default_rng(0), "drill")
    axis = np.linspace(-1, 1, GRID, dtype=np.float32)
    points = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)
    direct = np.clip(shape(points), -TRUNCATION, TRUNCATION).reshape((GRID,) * 3)
    assert np.allclose(evaluate_grid(shape), direct, atol=1e-5)


def test_maps_show_the_surface_of_the_grid(view: ShapeView) -> None:
    rows, columns = np.nonzero(view.mask)
    z = view.depth[rows, columns].astype(np.float64)
    spread = (z + view.distance) / view.distance
    x = ((columns + 0.5) * 2 / MAP_SIZE - 1) * spread
    y = ((rows + 0.5) * 2 / MAP_SIZE - 1) * spread
    index = np.round((np.stack([x, y, z], 1) + 1) / 2 * (GRID - 1)).astype(int)
    values = view.tsdf[tuple(index.T)].astype(float) / 127 * TRUNCATION
    assert np.abs(values).mean() < 0.02
    assert view.normals[2][view.mask].max() < 0.2


def test_views_depend_only_on_their_seed() -> None:
    first, again = (draw_view(np.random.default_rng([9, 4])) for _ in range(2))
    assert first.family == again.family
    assert np.array_equal(first.tsdf, again.tsdf)
    assert np.array_equal(first.normals, again.normals)


@pytest.mark.parametrize("code", range(8))
def test_symmetries_turn_grid_and_maps_alike(code: int, view: ShapeView) -> None:
    """The lifted, flipped maps are the flipped, lifted maps: what conditions and what is predicted stay aligned."""
    rng = np.random.default_rng(1)
    maps = degrade(rng, view.mask, view.depth.astype(np.float32), view.normals.astype(np.float32), True)
    distance = torch.tensor([view.distance])
    lifted = lift_maps(torch.from_numpy(maps)[None], distance)
    flipped = lift_maps(torch.from_numpy(flip_maps(maps, code).copy())[None], distance)
    assert torch.allclose(flip_grid(lifted, code)[:, :4], flipped[:, :4], atol=1e-4)
    grid = to_grid(view.tsdf[None])
    assert float(iou(flip_grid(flip_grid(grid, 1), 1), grid)) == 1.0


def test_lifted_mask_contains_the_shape(view: ShapeView) -> None:
    maps = np.zeros((8, MAP_SIZE, MAP_SIZE), np.float32)
    maps[0] = view.mask
    lifted = lift_maps(torch.from_numpy(maps)[None], torch.tensor([view.distance]))[0, 0].numpy()
    step = (GRID - 1) / (VOLUME - 1)
    index = np.round(np.arange(VOLUME) * step).astype(int)
    inside = view.tsdf[np.ix_(index, index, index)] < -20
    assert inside.sum() > 50
    assert lifted[inside].min() > 0.3


def test_degraded_views_never_call_hidden_pixels_background(view: ShapeView) -> None:
    rng = np.random.default_rng(0)
    hidden = []
    for _ in range(30):
        maps = degrade(rng, view.mask, view.depth.astype(np.float32), view.normals.astype(np.float32), True)
        assert not (maps[0] * maps[1]).any()
        assert not (maps[3] * (1 - maps[0])).any()
        assert np.isfinite(maps).all()
        hidden.append((maps[1] * view.mask).sum() / view.mask.sum())
    assert max(hidden) > 0.25
    assert min(hidden) < 0.05


def test_data_set_round_trip(tmp_path) -> None:  # type: ignore[no-untyped-def]
    generate(tmp_path, 3, seed=2, processes=2)
    arrays = open_arrays(tmp_path)
    assert completed(tmp_path) == 3
    expected = draw_view(np.random.default_rng([2, 1]))
    assert np.array_equal(arrays["tsdf"][1], expected.tsdf)
    assert int(arrays["family"][1]) == expected.family


def _size(view: ShapeView) -> np.ndarray:
    """Extents (3,) of the shape, cells; it touches no wall of the cube."""
    inside = view.tsdf < 0
    walls = np.ones_like(inside)
    walls[1:-1, 1:-1, 1:-1] = False
    assert not (inside & walls).any()
    cells = np.argwhere(inside)
    return np.asarray(np.ptp(cells, axis=0) + 1)


def test_wide_views_show_things_deeper_than_broad_in_a_cube_that_holds_them() -> None:
    seeds = [np.random.default_rng([11, index]) for index in range(16)]
    families = ("stick", "hammer", "slab", "bottle")
    wide = [_size(draw_view(rng, families[k % 4], wide=True)) for k, rng in enumerate(seeds)]
    others = [_size(draw_view(np.random.default_rng([11, k]), families[k % 4])) for k in range(16)]
    ratios, usual = ([size[2] / size[:2].max() for size in sizes] for sizes in (wide, others))
    assert max(ratios) > 2
    assert max(usual) < 1.6
    # What an outline leaves to depth is less than half of the cube's breadth, which no other view has.
    narrowest, usual_narrowest = (min(size[:2].max() for size in sizes) for sizes in (wide, others))
    assert narrowest < 0.45 * GRID < usual_narrowest


def test_data_set_spreads_its_wide_views(tmp_path) -> None:  # type: ignore[no-untyped-def]
    generate(tmp_path, 4, seed=2, wide=0.5)
    arrays = open_arrays(tmp_path)
    for index in range(4):
        expected = draw_view(np.random.default_rng([2, index]), wide=index % 2 == 1)
        assert np.array_equal(arrays["depth"][index], expected.depth)
