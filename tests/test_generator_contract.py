# SPDX-License-Identifier: Apache-2.0
"""What every shape generator must hold, the embedded one and those on foundation models alike."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
import trimesh
from guidance_scene import Scene, moved, observe, slab_hand
from tiny_hunyuan import needs_hunyuan
from tiny_hunyuan import random_model as random_hunyuan
from tiny_triposg import needs_triposg
from tiny_triposg import random_model as random_triposg
from tiny_vecset import flag_view
from torch import Tensor

from fmh_ros.core.errors import CancelledError
from fmh_ros.core.fields.dense import dense_values, extract_mesh
from fmh_ros.core.flow.embedded.model import EmbeddedShapeModel
from fmh_ros.core.flow.protocol import LatentShapeModel
from fmh_ros.core.flow.sampler import euler_step, initial_noise, schedule
from fmh_ros.core.guidance.config import GuidanceConfig, preset
from fmh_ros.core.guidance.guide import GuidedSample, guide
from fmh_ros.core.progress import Progress
from fmh_ros.core.transforms import Similarity


@cache
def _embedded() -> EmbeddedShapeModel:
    model = EmbeddedShapeModel()
    model.load()
    model.bfloat16 = False
    return model


#: Each makes a generator; the foundation ones are the real networks at a tiny size, with random weights.
GENERATORS: dict[str, Callable[[], Any]] = {
    "embedded": _embedded,
    "hunyuan": random_hunyuan,
    "triposg": random_triposg,
}
EACH = [
    pytest.param("embedded"),
    pytest.param("hunyuan", marks=needs_hunyuan),
    pytest.param("triposg", marks=needs_triposg),
]
each = pytest.mark.parametrize("name", EACH)


@cache
def _generator(name: str) -> LatentShapeModel:
    """One of each for all tests: nothing here may change it."""
    model: LatentShapeModel = GENERATORS[name]()
    return model


def _noise(model: LatentShapeModel, seed: int = 0) -> Tensor:
    return initial_noise(model.latent_shape, torch.Generator().manual_seed(seed), model.temperature)


@cache
def _latent(name: str) -> Tensor:
    """A latent whose shape has a surface."""
    model = _generator(name)
    x = _noise(model)
    if name != "embedded":
        return x
    condition, levels = model.encode_condition(flag_view()), schedule(model, 4)
    for here, there in pairwise(levels):
        x = euler_step(x, model.velocity(x, here, condition), here, there)
    return x


@each
def test_noise_levels_rise_from_zero_to_one(name: str) -> None:
    model = _generator(name)
    for steps in (1, 5, 20):
        levels = schedule(model, steps)
        assert len(levels) == steps + 1
        assert (levels[0], levels[-1]) == pytest.approx((0.0, 1.0), abs=1e-12)
        assert all(b > a for a, b in pairwise(levels))


@each
def test_velocities_are_float32_without_gradient_and_the_same_for_the_same_question(name: str) -> None:
    model, view = _generator(name), flag_view()
    before = copy.deepcopy(view)
    condition = model.encode_condition(view)
    x = _noise(model).requires_grad_()
    velocity = model.velocity(x, 0.3, condition)
    assert velocity.shape == (1, *model.latent_shape) and velocity.dtype == torch.float32
    assert not velocity.requires_grad and bool(velocity.isfinite().all())
    torch.manual_seed(77)
    again = model.velocity(x, 0.3, model.encode_condition(view))
    assert torch.equal(velocity, again)
    assert np.array_equal(view.image, before.image) and np.array_equal(view.mask, before.mask)
    assert float((model.velocity(x, 0.8, condition) - velocity).abs().max()) > 1e-5


@each
def test_what_is_seen_matters(name: str) -> None:
    model, view = _generator(name), flag_view()
    turned = replace(view, mask=view.mask[::-1].copy(), image=view.image[::-1].copy())
    velocities = [model.velocity(_noise(model), 0.5, model.encode_condition(v)) for v in (view, turned)]
    assert float((velocities[0] - velocities[1]).abs().max()) > 1e-4


@each
def test_the_field_is_a_distance_on_its_cube_by_grid_and_by_query(name: str) -> None:
    model = _generator(name)
    field = model.decode(_latent(name))
    assert field.bounds == model.bounds
    grid = field.grid(64)
    assert grid.shape == (64, 64, 64) and grid.dtype == torch.float32 and not grid.requires_grad
    assert bool((grid < 0).any()) and bool((grid > 0).any())
    # Entry [i, j, k] is at x_i, y_j, z_k: no two axes may be exchanged, none turned.
    axis = torch.linspace(-field.bounds, field.bounds, 64)
    near = torch.nonzero(grid.abs() < 0.03)[::37]
    values = field.query(axis[near])
    assert values.dtype == torch.float32 and len(near) > 20
    stored = grid[tuple(near.unbind(-1))]
    # A point on the cube's wall is beyond nothing.
    assert float((values - stored).abs().mean()) < 0.004
    swapped = field.query(axis[near.flip(-1)])
    assert float((swapped - stored).abs().mean()) > 3 * float((values - stored).abs().mean())
    corner = torch.full((1, 3), field.bounds)
    beyond = field.query(corner + 0.3) - field.query(corner)
    assert float(beyond) == pytest.approx(0.3 * 3**0.5, abs=1e-4)
    wide = field.query(corner.double())
    assert wide.dtype == torch.float64


@each
def test_slopes_at_the_surface_are_those_of_a_distance(name: str) -> None:
    field = _generator(name).decode(_latent(name))
    mesh = extract_mesh(field.grid(64), field.bounds)
    points = mesh.vertices[:: max(len(mesh.vertices) // 200, 1)].requires_grad_()
    (gradient,) = torch.autograd.grad(field.query(points).sum(), points)
    assert float(gradient.norm(dim=-1).median()) == pytest.approx(1.0, abs=0.25)


@each
def test_the_surface_follows_the_latent(name: str) -> None:
    """Moving along the gradient of the values at some points changes them by what the gradient says."""
    model = _generator(name)
    latent = _latent(name).clone().requires_grad_()
    field = model.decode(latent)
    mesh = extract_mesh(field.grid(64), field.bounds)
    points = mesh.vertices[:: max(len(mesh.vertices) // 100, 1)].detach()
    (gradient,) = torch.autograd.grad(field.query(points).sum(), latent)
    assert gradient.shape == latent.shape and bool(gradient.isfinite().all())
    length = 0.02 / float(gradient.norm())
    ends = []
    with torch.no_grad():
        for sign in (1, -1):
            moved_field: Any = model.decode(latent + sign * length * gradient)
            # The measured units of a vector set are constants to autograd.
            if hasattr(moved_field, "follow"):
                moved_field.follow(field)
            ends.append(float(moved_field.query(points).sum()))
    assert (ends[0] - ends[1]) / 2 == pytest.approx(length * float(gradient.square().sum()), rel=0.05)


@each
def test_the_dense_mesh_is_that_of_the_grid_and_follows_the_latent(name: str) -> None:
    model = _generator(name)
    latent = _latent(name).clone().requires_grad_()
    field = model.decode(latent)
    mesh = extract_mesh(dense_values(field, 33), field.bounds)
    surface = trimesh.Trimesh(mesh.vertices.detach().numpy(), mesh.faces.numpy(), process=False)
    assert len(surface.faces) > 50 and surface.is_winding_consistent
    assert float(field.query(mesh.vertices.detach()).detach().abs().mean()) < 0.03
    (gradient,) = torch.autograd.grad(mesh.vertices.square().sum(), latent)
    assert float(gradient.abs().max()) > 0


@each
def test_the_pose_of_the_canonical_frame_is_a_similarity_or_unknown(name: str) -> None:
    view = flag_view()
    pose = _generator(name).canonical_to_view(view)
    if pose is None:
        return
    assert isinstance(pose, Similarity)
    # The cube stands round the object: what is seen of it lies inside.
    centre = view.camera.project(pose.apply(np.zeros((1, 3))))[0]
    assert np.all(np.abs(centre - (view.camera.width - 1) / 2) < view.camera.width / 4)


@cache
def _scene() -> Scene:
    pose = Similarity(np.eye(3), np.array([0.01, -0.01, 0.5]), 0.07)
    return observe(torch.tensor([0.3, -0.2, 0.1, 0.3, -0.2, 0.4]), pose, slab_hand(), True)


def _short() -> GuidanceConfig:
    config = preset("default")
    counts = {"hand": 1, "object": 2, "joint": 1}
    phases = {name: replace(getattr(config, name), iterations=count) for name, count in counts.items()}
    return replace(config, flow_steps=4, first_guided_step=1, render_size=32, **phases)


def _guided(name: str, **more: Any) -> GuidedSample:
    scene, model = _scene(), _generator(name)
    start = moved(scene.T_camera_object, (0.004, 0.0, 0.0))
    arguments = (model, model.encode_condition(flag_view()), start, scene.hand, scene.hand_field, scene.supervision)
    return guide(*arguments, _short(), generator=torch.Generator().manual_seed(0), **more)


@each
def test_a_guided_sample_depends_on_its_own_generator_of_noise_and_on_no_other(name: str) -> None:
    first = _guided(name)
    torch.manual_seed(5)
    second = _guided(name)
    assert torch.equal(first.latent, second.latent)
    assert np.array_equal(first.T_camera_canonical.matrix(), second.T_camera_canonical.matrix())
    assert first.latent.shape == (1, *_generator(name).latent_shape) and first.latent.dtype == torch.float32
    assert torch.equal(first.field.grid(32), second.field.grid(32))


@each
def test_cancelling_ends_a_guided_sample_within_an_iteration(name: str) -> None:
    seen: list[Progress] = []
    with pytest.raises(CancelledError):
        _guided(name, progress=seen.append, cancelled=lambda: len(seen) >= 5)
    assert len(seen) == 5


@pytest.mark.parametrize("name", EACH[1:])
def test_a_generator_moves_to_another_precision_and_keeps_float32_outside(name: str) -> None:
    model = GENERATORS[name]()
    latent, view = _latent(name), flag_view()
    exact = model.velocity(latent, 0.4, model.encode_condition(view)), model.decode(latent).grid(24)
    assert model.to("cpu", torch.bfloat16) is model and model.dtype == torch.bfloat16
    assert model.device == torch.device("cpu")
    coarse = model.velocity(latent, 0.4, model.encode_condition(view)), model.decode(latent).grid(24)
    for a, b in zip(exact, coarse, strict=True):
        assert b.dtype == torch.float32
        assert 0 < float((a - b).abs().mean()) < 0.3 * float(a.abs().mean())
    leaf = latent.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(model.decode(leaf).query(torch.zeros(1, 3)).sum(), leaf)
    assert gradient.dtype == torch.float32
