# SPDX-License-Identifier: Apache-2.0
"""What the renders are compared with, and each loss on images small enough to know the answer."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import trimesh
from solids import sample_grid, sphere_distance

from fmh_ros.core.cues.types import HandObservation, PointMap, SceneMasks
from fmh_ros.core.fields.grid import GridField
from fmh_ros.core.fields.mesh import mesh_field
from fmh_ros.core.fields.pose import torch_pose
from fmh_ros.core.frame.camera import CameraModel, camera_from_field_of_view
from fmh_ros.core.frame.frame import Frame
from fmh_ros.core.guidance import losses
from fmh_ros.core.guidance.supervision import build_supervision, make_supervision
from fmh_ros.core.transforms import Similarity

CAMERA = camera_from_field_of_view(320, 240, 50.0)


def _observation() -> HandObservation:
    """A hand pointing right: wrist at (100, 125), fingertips near x = 190."""
    keypoints = np.zeros((21, 2))
    keypoints[0] = (100, 125)
    for finger in range(5):
        for joint in range(4):
            keypoints[1 + 4 * finger + joint] = (130 + 20 * joint, 100 + 10 * finger)
    box = (*keypoints.min(0), *keypoints.max(0))
    return HandObservation("right", 1.0, 1.0, tuple(float(b) for b in box), keypoints, np.zeros((21, 3)))


def _masks() -> SceneMasks:
    hand = np.zeros((240, 320), np.bool_)
    hand[95:145, 20:195] = True
    held = np.zeros_like(hand)
    held[100:180, 150:190] = True
    hand &= ~held
    return SceneMasks(hand, held, held.astype(np.float32), None, 1.0)


def _frame() -> Frame:
    return Frame(np.zeros((240, 320, 3), np.uint8), CAMERA)


def test_the_crop_holds_hand_and_object_and_its_camera_sees_the_same_rays() -> None:
    depth = np.full((240, 320), 0.5, np.float32)
    normals = np.broadcast_to(np.float32([0, 0, -1]), (240, 320, 3)).copy()
    points = PointMap(depth, normals, "sensor", 0.0)
    observation = _observation()
    seen = build_supervision(_frame(), _masks(), points, observation, 96)
    original = CAMERA.rays(observation.keypoints_2d)
    cropped = seen.camera.rays(seen.keypoints_2d.numpy())
    assert np.allclose(original, cropped, atol=1e-6)
    inside = (seen.keypoints_2d > 0).all() and (seen.keypoints_2d < 95).all()
    assert inside
    pixels = np.argwhere(seen.object.visible.numpy())[:, ::-1]
    at = CAMERA.project(seen.camera.rays(pixels.astype(float)))
    assert at[:, 0].min() == pytest.approx(150, abs=1.5) and at[:, 0].max() == pytest.approx(189, abs=1.5)
    assert at[:, 1].min() == pytest.approx(100, abs=1.5) and at[:, 1].max() == pytest.approx(179, abs=1.5)
    assert seen.depth_weight == 1.0
    assert seen.object.known.sum() > 100 and (seen.object.known & ~seen.object.visible).sum() == 0


def test_the_forearm_says_nothing_about_the_hand() -> None:
    seen = build_supervision(_frame(), _masks(), None, _observation(), 96)
    wrist = seen.keypoints_2d[0, 0]
    columns = torch.arange(96)[None, :].expand(96, 96)
    assert not seen.hand.visible[columns < wrist - 1].any()
    assert seen.hand.dont_care[columns < wrist - 1].all()
    assert seen.hand.visible[columns > wrist + 8].any()
    assert seen.depth is None and seen.normals is None


def test_beside_the_hand_the_object_may_go_on_unseen() -> None:
    seen = build_supervision(_frame(), _masks(), None, _observation(), 96)
    # Above the hand, which ends at row 95: its box is 90 px long, of which 8 % are 7 px.
    near, far, on_object = (
        torch.as_tensor(np.round(seen.camera.project(CAMERA.rays(np.array([pixel], float)))[0]).astype(int))
        for pixel in ((120, 91), (120, 82), (170, 160))
    )
    free = seen.object.dont_care
    assert free[near[1], near[0]] and not free[far[1], far[0]]
    assert seen.object.visible[on_object[1], on_object[0]] and not free[on_object[1], on_object[0]]


def test_what_the_other_hides_and_what_is_outside_the_image_is_not_judged() -> None:
    masks = _masks()
    shifted = SceneMasks(np.roll(masks.hand, 60, 0), np.roll(masks.object, 60, 0), masks.object_probability, None, 1.0)
    observation = _observation()
    moved = HandObservation(
        "right",
        1.0,
        1.0,
        (observation.box[0], observation.box[1] + 60, observation.box[2], observation.box[3] + 60),
        observation.keypoints_2d + [0, 60],
        np.zeros((21, 3)),
    )
    seen = build_supervision(_frame(), shifted, None, moved, 96)
    below = np.asarray(seen.camera.rays(seen.camera.pixel_grid()))
    outside = torch.from_numpy(CAMERA.project(below)[..., 1] > 241)
    assert outside.any()
    assert seen.object.dont_care[outside].all() and seen.hand.dont_care[outside].all()
    assert seen.object.dont_care[seen.hand.visible].all()
    assert seen.hand.dont_care[seen.object.visible].all()
    assert not (seen.object.dont_care & seen.object.visible).any()


def test_everything_that_is_compared_moves_to_the_generators_device() -> None:
    """The meta device stands for a graphics card: it is another one, and there is always one."""
    device = torch.device("meta")
    depth = np.full((240, 320), 0.5, np.float32)
    points = PointMap(depth, np.zeros((240, 320, 3), np.float32), "sensor", 0.0)
    seen = build_supervision(Frame(np.zeros((240, 320, 3), np.uint8), CAMERA), _masks(), points, _observation(), 32)
    moved = seen.to(device)
    for whole in (moved, moved.hand, moved.object):
        tensors = [value for value in vars(whole).values() if isinstance(value, torch.Tensor)]
        assert tensors and all(tensor.device == device for tensor in tensors)
    assert moved.depth is not None and moved.hand_px == seen.hand_px and moved.camera is seen.camera
    mesh = trimesh.creation.icosphere(1, 0.02)
    field = mesh_field(np.asarray(mesh.vertices), np.asarray(mesh.faces), 0.004)
    assert field.to(device).field.values.device == device
    assert field.to(device).T_mesh_field is field.T_mesh_field


def test_an_uncertain_depth_counts_less() -> None:
    depth = np.full((240, 320), 0.5, np.float32)
    weak = build_supervision(_frame(), _masks(), PointMap(depth, None, "network", 0.08), _observation(), 64)
    assert weak.depth_weight == pytest.approx(0.5)
    assert weak.depth_sigma == 0.08


def _half_plane(edge: float, size: int = 40) -> np.ndarray:
    return np.broadcast_to(np.arange(size)[None, :] < edge, (size, size)).copy()


def test_the_silhouette_loss_is_least_when_the_outlines_agree_and_ignores_dont_care() -> None:
    nothing = np.zeros((40, 40), np.bool_)
    camera = CameraModel(40, 40, np.array([[40.0, 0, 19.5], [0, 40.0, 19.5], [0, 0, 1]]))
    arrays = {"hand_visible": nothing, "hand_dont_care": nothing, "depth": None, "normals": None}
    more = {"keypoints_2d": np.zeros((21, 2)), "hand_px": 10.0}
    dont_care = nothing.copy()
    dont_care[20:] = True
    visible = _half_plane(20) & ~dont_care
    target = make_supervision(camera, object_visible=visible, object_dont_care=dont_care, **arrays, **more).object

    def loss(edge: float, lower: float) -> float:
        u = torch.arange(40.0).expand(40, 40)
        rows = torch.arange(40)[:, None].expand(40, 40)
        silhouette = torch.sigmoid(-(u - torch.where(rows < 20, edge, lower)) / 1.5)
        return float(losses.silhouette_loss(silhouette, target.signed_px, target.visible, target.dont_care, 1.5, 3.0))

    edges = np.arange(16.0, 24.0, 0.25)
    best = edges[int(np.argmin([loss(e, 20.0) for e in edges]))]
    # The boundary of pixels 19 and 20 is at 19.5.
    assert best == pytest.approx(19.5, abs=0.3)
    assert loss(19.5, 2.0) == pytest.approx(loss(19.5, 38.0), abs=1e-6)


def test_depth_loss_is_metric_robust_and_forgives_a_common_offset_within_its_uncertainty() -> None:
    known = torch.ones((10, 10), dtype=torch.bool)
    target = torch.full((10, 10), 0.5)
    shifted = target + 0.02
    plain = losses.depth_loss(shifted, target, known, 0.1, 0.0)
    assert float(plain) == pytest.approx(0.02 * (np.sqrt(1 + 100.0) - 1), rel=1e-4)
    assert float(losses.depth_loss(shifted, target, known, 0.1, 0.05)) == pytest.approx(0.0, abs=1e-6)
    # Of the 20 mm 2 % of half a metre are free: 10 mm, five knees, are left.
    less = losses.depth_loss(shifted, target, known, 0.1, 0.02)
    assert float(less) == pytest.approx(0.02 * (np.sqrt(1 + 25.0) - 1), rel=1e-4)
    holes = target.clone()
    holes[:5] = float("nan")
    half_missing = 0.5 * (losses.DEPTH_MISSING - losses.DEPTH_KNEE)
    assert float(losses.depth_loss(holes, target, known, 0.1, 0.0)) == pytest.approx(half_missing, rel=1e-5)


def test_penetration_is_the_mean_depth_in_metres() -> None:
    field = GridField(sample_grid(lambda p: sphere_distance(p, (0.0, 0.0, 0.0), 0.5), 64))
    pose = torch_pose(Similarity(np.eye(3), np.array([0.0, 0.0, 0.4]), 0.1))
    points = torch.tensor([[0.0, 0.0, 0.36], [0.0, 0.0, 0.30]])
    weights = torch.tensor([0.5, 0.5])
    assert float(losses.penetration(points, weights, field, pose)) == pytest.approx(0.5 * 0.01, abs=1e-4)


def test_gap_pulls_near_fingers_and_leaves_far_ones() -> None:
    surface = torch.zeros((1, 3))
    near = torch.tensor([[0.004, 0.0, 0.0]] * 4)
    second = torch.tensor([[0.0, 0.006, 0.0]] * 4)
    far = torch.tensor([[0.0, 0.0, 0.08]] * 4)
    vertices = torch.cat([near, second, far]).requires_grad_()
    groups = tuple(torch.arange(4 * k, 4 * k + 4) for k in range(3))
    value = losses.gap(vertices, surface, groups, 0.002, 0.01, 0.1)
    value.backward()
    assert float(value.detach()) == pytest.approx((0.002 + 0.004) / 2, rel=1e-4)
    assert vertices.grad is not None
    # Each near group's vertices are pulled straight to the surface, evenly; the far one is left alone.
    pull = torch.zeros((12, 3))
    pull[:4, 0], pull[4:8, 1] = 0.5 / 4, 0.5 / 4
    torch.testing.assert_close(vertices.grad, pull)


def test_ordering_counts_only_the_wrong_body_in_front() -> None:
    hand, held = torch.full((4, 4), 0.50), torch.full((4, 4), 0.52)
    all_of_it, none = torch.ones((4, 4), dtype=torch.bool), torch.zeros((4, 4), dtype=torch.bool)
    assert float(losses.ordering(hand, held, all_of_it, none, 0.003)) == 0
    assert float(losses.ordering(hand, held, none, all_of_it, 0.003)) == pytest.approx(0.017, abs=1e-6)


@pytest.mark.parametrize("on_shape", [1.0, 0.25, 0.0])
def test_the_shape_gets_a_share_of_the_penetrations_gradient_and_poses_all_of_it(on_shape: float) -> None:
    values = sample_grid(lambda p: sphere_distance(p, (0.1, 0.0, -0.05), 0.5), 64).requires_grad_()
    pose = torch_pose(Similarity(np.eye(3), np.array([0.0, 0.0, 0.4]), 0.1))
    points = torch.tensor([[0.01, 0.02, 0.38], [0.03, -0.01, 0.42], [0.0, 0.0, 0.30]], requires_grad=True)
    weights = torch.tensor([0.5, 0.3, 0.2])

    def value(where: torch.Tensor, share: float) -> torch.Tensor:
        return losses.penetration(where, weights, GridField(values), pose, share)

    shared = value(points, on_shape)
    assert float(shared.detach()) == pytest.approx(float(value(points, 1.0).detach()), rel=1e-6)
    (moved,) = torch.autograd.grad(shared, points, retain_graph=True)
    (full,) = torch.autograd.grad(value(points, 1.0), values)
    (reached,) = torch.autograd.grad(shared, values, allow_unused=True)
    expected = on_shape * full
    assert torch.allclose(torch.zeros_like(full) if reached is None else reached, expected, atol=1e-9)
    step = 1e-3
    for k, axis in np.ndindex(3, 3):
        there = [points.detach().clone() for _ in range(2)]
        there[0][k, axis] += step
        there[1][k, axis] -= step
        ahead, behind = (float(value(each, 1.0).detach()) for each in there)
        assert float(moved[k, axis]) == pytest.approx((ahead - behind) / (2 * step), abs=0.02)


def test_without_overlap_the_penetration_is_zero() -> None:
    field = GridField(sample_grid(lambda p: sphere_distance(p, (0.0, 0.0, 0.0), 0.5), 64))
    pose = torch_pose(Similarity(np.eye(3), np.array([0.0, 0.0, 0.4]), 0.1))
    assert float(losses.penetration(torch.tensor([[0.0, 0.0, 0.2]]), torch.ones(1), field, pose, 0.5)) == 0.0


def _sphere_and_points(radius: float, centre: tuple[float, float, float]) -> tuple[GridField, torch.Tensor]:
    """A sphere's field about the origin, and points of the front of another one, seen along z from 5 units away."""
    field = GridField(sample_grid(lambda p: sphere_distance(p, (0, 0, 0), 0.5), 48), 1.0)
    angles = torch.rand(400, 2, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 6.28])
    ring = torch.stack([angles[:, 0].sin() * angles[:, 1].cos(), angles[:, 0].sin() * angles[:, 1].sin()], -1)
    front = torch.cat([ring, -angles[:, :1].cos()], -1)
    return field, radius * front + torch.tensor(centre)


def test_measured_points_on_the_surface_cost_nothing_and_others_by_their_distance() -> None:
    pose = torch_pose(Similarity(np.eye(3), np.array([0, 0, 0.5]), 0.1))
    for size, offset, radius in ((0.1, 0.0, 0.5), (0.1, 0.1, 0.5), (0.05, 0.1, 0.5), (0.1, 0.0, 0.45)):
        field, points = _sphere_and_points(radius, (0, 0, offset))
        loss = float(losses.surface_loss(0.1 * points + torch.tensor([0, 0, 0.5]), field, pose, size))
        depth = torch.linalg.vector_norm(points, dim=-1) - 0.5  # signed, in field units
        expected = losses.pseudo_huber(depth * 0.1 / size, losses.DEPTH_KNEE).mean()
        if offset == 0 and radius == 0.5:
            assert loss < 1e-4
        else:
            assert loss >= float(expected) - 1e-3
            assert loss == pytest.approx(float(expected) + 0.1 / size * float(depth.abs().mean()), rel=0.5)


def test_the_surface_loss_has_its_own_gradient_also_where_no_ray_meets_the_body() -> None:
    field, points = _sphere_and_points(0.3, (0.9, 0.0, 0.0))  # beside the sphere, none in front of it
    values = field.values.clone().double().requires_grad_()
    where = 0.1 * points.double() + torch.tensor([0, 0, 0.5], dtype=torch.float64)
    pose = torch_pose(Similarity(np.eye(3), np.array([0, 0, 0.5]), 0.1), dtype=torch.float64)

    def loss(grid: torch.Tensor) -> torch.Tensor:
        return losses.surface_loss(where, GridField(grid, 1.0), pose, 0.1)

    loss(values).backward()
    slope = values.grad
    assert slope is not None and (slope >= 0).all() and slope.sum() > 0.5  # fills what is measured there
    direction = torch.rand(values.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    with torch.no_grad():
        numeric = (loss(values + 1e-5 * direction) - loss(values - 1e-5 * direction)) / 2e-5
    assert float((slope * direction).sum()) == pytest.approx(float(numeric), rel=1e-4)
