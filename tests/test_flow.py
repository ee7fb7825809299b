# SPDX-License-Identifier: Apache-2.0
"""The sampler's arithmetic, and the contract of a LatentShapeModel on the embedded one with its shipped weights."""

from __future__ import annotations

from copy import deepcopy
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from fmh_ros.core.cues.completion import LATERAL_FILL
from fmh_ros.core.cues.types import ObjectView
from fmh_ros.core.errors import ModelMissingError
from fmh_ros.core.flow.embedded.condition import DEPTH_REACH, VOLUME, lift_maps
from fmh_ros.core.flow.embedded.layout import MAP_CHANNELS, MAP_SIZE
from fmh_ros.core.flow.embedded.model import WEIGHTS, EmbeddedShapeModel, condition_maps
from fmh_ros.core.flow.sampler import clean_estimate, euler_step, initial_noise, sigmas
from fmh_ros.core.frame.camera import CameraModel
from fmh_ros.core.registration.place import canonical_pose, preview
from fmh_ros.core.transforms import Similarity

SIZE, DISTANCE, SCALE = 128, 6.0, 0.08


def sphere_view(with_depth: bool = True) -> ObjectView:
    """A ball of radius LATERAL_FILL at (0, 0, 0.1) of the cube, its right part hidden by a hand."""
    K = np.array([[SIZE / 2 * DISTANCE, 0, 63.5], [0, SIZE / 2 * DISTANCE, 63.5], [0, 0, 1.0]])
    camera = CameraModel(SIZE, SIZE, K)
    rays = camera.rays(camera.pixel_grid())
    centre = np.array([0, 0, DISTANCE + 0.1])
    a, b = (rays**2).sum(-1), rays @ centre
    root = b**2 - a * (centre @ centre - LATERAL_FILL**2)
    hit = root > 0
    z = (b - np.sqrt(np.maximum(root, 0))) / a
    unknown = np.zeros((SIZE, SIZE), bool)
    unknown[:, 84:] = True
    mask = (hit & ~unknown).astype(np.float32)
    normals = (rays * z[..., None] - centre) / LATERAL_FILL
    depth = np.where(mask > 0, z * SCALE, np.nan).astype(np.float32)
    seen = np.where(mask[..., None] > 0, normals, np.nan).astype(np.float32)
    pose = Similarity(np.eye(3), np.array([0, 0, DISTANCE * SCALE]), SCALE)
    image = np.full((SIZE, SIZE, 3), 255, np.uint8)
    return ObjectView(camera, mask, unknown, depth if with_depth else None, seen if with_depth else None, image, pose)


@pytest.fixture(scope="module")
def model() -> EmbeddedShapeModel:
    made = EmbeddedShapeModel()
    made.load()
    return made


def test_sampler_follows_a_straight_path_exactly() -> None:
    """With the exact velocity data - noise, Euler reaches the data, and every clean estimate is the data."""
    generator = torch.Generator().manual_seed(0)
    noise = initial_noise((3, 2, 2), generator)
    data = torch.randn((1, 3, 2, 2), generator=generator)
    x, levels = noise, sigmas(7)
    assert levels[0] == 0
    assert levels[-1] == 1
    for now, after in pairwise(levels):
        assert after > now
        assert torch.allclose(clean_estimate(x, data - noise, now), data, atol=1e-5)
        x = euler_step(x, data - noise, now, after)
    assert torch.allclose(x, data, atol=1e-5)


def test_initial_noise_depends_only_on_the_seed() -> None:
    first, again = (initial_noise((4, 2), torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, initial_noise((4, 2), torch.Generator().manual_seed(4)))


def test_velocity_keeps_shape_and_is_deterministic(model: EmbeddedShapeModel) -> None:
    condition = model.encode_condition(sphere_view())
    x = initial_noise(model.latent_shape, torch.Generator().manual_seed(0))
    velocity = model.velocity(x, 0.3, condition)
    assert velocity.shape == x.shape
    assert velocity.dtype == torch.float32
    assert not velocity.requires_grad
    assert torch.equal(velocity, model.velocity(x, 0.3, condition))


def test_field_grid_and_query_agree(model: EmbeddedShapeModel) -> None:
    latent = initial_noise(model.latent_shape, torch.Generator().manual_seed(1))
    field = model.decode(latent)
    grid = field.grid(64)
    axis = torch.linspace(-field.bounds, field.bounds, 64)
    index = torch.tensor([[3, 40, 20], [60, 5, 33], [31, 31, 31]])
    assert torch.allclose(field.query(axis[index]), grid[tuple(index.T)], atol=1e-5)


def test_decoding_has_the_gradient_of_finite_differences(model: EmbeddedShapeModel) -> None:
    single = EmbeddedShapeModel()
    single.load()
    single.bfloat16 = False
    latent = 0.5 * initial_noise(model.latent_shape, torch.Generator().manual_seed(2))
    points = torch.rand((200, 3), generator=torch.Generator().manual_seed(3)) * 1.6 - 0.8
    direction = initial_noise(model.latent_shape, torch.Generator().manual_seed(4))

    def value(at: torch.Tensor) -> torch.Tensor:
        return single.decode(at).query(points).sum()

    leaf = latent.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(value(leaf), leaf)
    step = 2e-3
    with torch.no_grad():
        slope = (value(latent + step * direction) - value(latent - step * direction)) / (2 * step)
    assert float((gradient * direction).sum()) == pytest.approx(float(slope), rel=0.02)


def test_a_frozen_decoder_gives_what_torch_does(model: EmbeddedShapeModel) -> None:
    """Value and gradient of the way that oneDNN takes for one shape, against torch's own, which training takes."""
    trained = deepcopy(model.decoder).requires_grad_(True)
    generator = torch.Generator().manual_seed(3)
    start = torch.randn((1, *model.latent_shape), generator=generator)
    weights = torch.randn((1, 1, 64, 64, 64), generator=generator)
    results = []
    for decoder in (model.decoder, trained):
        latent = start.clone().requires_grad_(True)
        grid = decoder(latent)
        (grid * weights).sum().backward()
        assert latent.grad is not None
        results.append((grid.detach(), latent.grad))
    (grid, gradient), (expected, expected_gradient) = results
    assert float((grid - expected).abs().max()) < 1e-4
    assert float((gradient - expected_gradient).abs().max()) < 1e-5 * float(expected_gradient.abs().max())


def test_canonical_frame_is_the_view_cube(model: EmbeddedShapeModel) -> None:
    view = sphere_view()
    assert canonical_pose(model, model.encode_condition(view), view, 0) is view.T_camera_view


@pytest.mark.parametrize(("with_depth", "least"), [(True, 0.6), (False, 0.5)])
def test_a_half_hidden_ball_is_completed(model: EmbeddedShapeModel, with_depth: bool, least: float) -> None:
    axis = np.linspace(-1, 1, 64)
    x, y, z = np.meshgrid(axis, axis, axis, indexing="ij")
    ball = x**2 + y**2 + (z - 0.1) ** 2 < LATERAL_FILL**2
    condition = model.encode_condition(sphere_view(with_depth))
    scores = []
    for seed in range(3):
        grid = preview(model, condition, seed).grid(64).numpy() < 0
        scores.append((grid & ball).sum() / (grid | ball).sum())
    assert np.median(scores) > least


def test_missing_weights_are_a_typed_error_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(ModelMissingError, match="make train-embedded"):
        EmbeddedShapeModel(tmp_path / "none.safetensors").load()


def test_shipped_weights_are_small_and_have_a_card() -> None:
    assert WEIGHTS.stat().st_size < 20e6
    card = (WEIGHTS.parent / "MODEL_CARD.md").read_text()
    assert "IoU" in card
    assert "Data" in card


def test_the_view_is_lifted_to_what_each_voxel_is_before_or_behind() -> None:
    """Against the ball itself: seen or not, and how far a voxel lies in front of the ball's near side on its ray."""
    maps, distance = condition_maps(sphere_view())
    assert maps.shape == (MAP_CHANNELS, MAP_SIZE, MAP_SIZE) and distance == pytest.approx(DISTANCE)
    mask, unknown, known, ahead, own = lift_maps(torch.tensor(maps)[None], torch.tensor([distance]))[0].double().numpy()
    axis = np.linspace(-1, 1, VOLUME)
    x, y, z = np.meshgrid(axis, axis, axis, indexing="ij")
    np.testing.assert_allclose(own, z, atol=1e-6)
    rays = np.stack([x, y, z + DISTANCE], -1) / (z + DISTANCE)[..., None]
    centre = np.array([0, 0, DISTANCE + 0.1])
    a, b = (rays**2).sum(-1), rays @ centre
    root = b**2 - a * (centre @ centre - LATERAL_FILL**2)
    column, row = ((rays[..., i] * DISTANCE + 1) * SIZE / 2 - 0.5 for i in (0, 1))
    seen = (column >= 2) & (column < 80) & (row >= 2) & (row < SIZE - 3)
    inner, outer = (root > 0.1) & seen, (root < -0.1) & seen
    beyond = (column < -2) | (row < -2) | (row > SIZE + 1)
    assert min(inner.sum(), outer.sum(), beyond.sum()) > 1000
    for where, values in ((inner, (1, 0, 1)), (outer, (0, 0, 0)), (beyond, (0, 1, 0)), (column > 88, (0, 1, 0))):
        found = np.stack([mask, unknown, known], -1)[where]
        np.testing.assert_allclose(found, np.broadcast_to(values, found.shape), atol=1e-6)
    assert (ahead[outer] == 0).all()
    expected = ((b - np.sqrt(np.maximum(root, 0))) / a - DISTANCE - z) / DEPTH_REACH
    np.testing.assert_allclose(ahead[inner], np.clip(expected, -1, 1)[inner], atol=0.01)
