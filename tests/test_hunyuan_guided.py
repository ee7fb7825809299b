# SPDX-License-Identifier: Apache-2.0
"""Decoding, registration and guidance with a tiny Hunyuan3D: the publisher's real networks, fitted to known bodies."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from guidance_scene import moved, observe, slab_hand
from tiny_hunyuan import fitted_model, needs_hunyuan, shape_distance, tokens_of
from tiny_vecset import flag_view
from torch import Tensor

from fmh_ros.core.cues.types import ObjectView
from fmh_ros.core.fields.pose import torch_pose
from fmh_ros.core.fields.render import RenderSettings, camera_rays, render
from fmh_ros.core.flow.hunyuan.decoder import BOUNDS
from fmh_ros.core.frame.camera import CameraModel
from fmh_ros.core.guidance.config import preset
from fmh_ros.core.guidance.guide import guide
from fmh_ros.core.registration.place import canonical_pose, preview
from fmh_ros.core.transforms import Similarity

pytestmark = needs_hunyuan

SHAPE = torch.tensor([[0.4, -0.3, 0.2, 0.9, -0.5, 0.1]])


def overlap(a: Tensor, b: Tensor) -> float:
    return float((a & b).sum() / (a | b).sum())


def test_a_known_shape_is_decoded_inside_out_of_nothing() -> None:
    """Sign, axes and units at once: a fitted autoencoder gives back the very body that it was fitted to."""
    field = fitted_model().decode(tokens_of(SHAPE))
    axis = torch.linspace(-BOUNDS, BOUNDS, 64)
    points = torch.cartesian_prod(axis, axis, axis)
    truth = shape_distance(SHAPE, points[None]).view(64, 64, 64)
    grid = field.grid(64)
    assert overlap(grid < 0, truth < 0) > 0.85
    assert float(grid[0, 0, 0]) > 0.1
    near = truth.abs() < 0.1
    assert float((grid - truth)[near].abs().mean()) < 0.025


def test_registration_finds_the_frame_that_the_generator_keeps_to_itself() -> None:
    model = fitted_model()
    condition = model.encode_condition(flag_view())
    shape = preview(model, condition, seed=4)
    turn = np.array([[0.36, 0.48, -0.8], [-0.8, 0.6, 0.0], [0.48, 0.64, 0.6]])
    truth = Similarity(turn, np.array([0.004, -0.003, 0.6]), 0.075)
    K = np.array([[900.0, 0, 63.5], [0, 900.0, 63.5], [0, 0, 1]])
    camera = CameraModel(128, 128, K)
    image = render(shape, torch_pose(truth), camera_rays(camera), RenderSettings())
    hit = image.hit.numpy()
    view = ObjectView(
        camera,
        hit.astype(np.float32),
        np.zeros_like(hit),
        image.depth.detach().numpy(),
        image.normals.detach().numpy(),
        np.where(hit[..., None], 90, 255).astype(np.uint8).repeat(3, -1),
        Similarity(np.eye(3), np.array([0, 0, 0.6]), 0.1),
    )
    assert model.canonical_to_view(view) is None
    found = canonical_pose(model, condition, view, seed=4)
    axis = torch.linspace(-BOUNDS, BOUNDS, 48)
    points = torch.cartesian_prod(axis, axis, axis)
    there = torch.as_tensor(found.inverse().apply(truth.apply(points.double().numpy())), dtype=torch.float32)
    assert overlap(shape.query(points) < 0, shape.query(there) < 0) > 0.9
    assert found.scale == pytest.approx(truth.scale, rel=0.06)


def test_all_three_phases_steer_the_publishers_networks_and_lower_their_losses() -> None:
    model = fitted_model(memory_mb=512)
    hand = slab_hand()
    pose = Similarity(np.eye(3), np.array([0.01, -0.01, 0.5]), 0.07)
    scene = observe(SHAPE[0], pose, hand, True)
    shaken = replace(hand, T_camera_hand=moved(hand.T_camera_hand, (0.005, -0.004, 0.006)))
    full = preset("default")
    weak = {"translation": 0.02, "rotation": 0.02, "scale": 0.02}
    config = replace(
        full,
        flow_steps=9,
        first_guided_step=4,
        hand=replace(full.hand, iterations=15, hand=replace(full.hand.hand, **weak)),
        object=replace(full.object, iterations=14),
        joint=replace(full.joint, iterations=5, hand=replace(full.joint.hand, **weak)),
        pose_prior_with_depth=1.0,
    )
    sample = guide(
        model,
        model.encode_condition(flag_view()),
        moved(pose, (0.004, -0.005, 0.008), 1.05),
        shaken,
        scene.hand_field,
        scene.supervision,
        config,
        generator=torch.Generator().manual_seed(0),
    )
    assert [p.name for p in sample.phases] == ["hand", "object", "joint"]
    for phase in sample.phases:
        assert phase.loss_last < phase.loss_first and not phase.rolled_back, phase
    assert sample.phases[1].loss_last < 0.7 * sample.phases[1].loss_first
    assert not sample.field.grid(48).requires_grad
    assert all(p.grad is None for module in model.networks.modules() for p in module.parameters())
