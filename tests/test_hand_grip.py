# SPDX-License-Identifier: Apache-2.0
"""Laying a hand's fingers on what it holds: out of it where they sink in, up to it where they end just before it."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import trimesh
from test_hand_fit import CAMERA, RIG, depth_of, scene

from fmh_ros.core.fields.mesh_queries import MeshQueries
from fmh_ros.core.hand.fit import fit_hand
from fmh_ros.core.hand.fit_problem import HandProblem
from fmh_ros.core.hand.settle import SETTLED, Measured, grip_hand, settle_hand
from fmh_ros.core.hand.touches import NEAREST, REACH_M, SURFACE_M, find_touches
from fmh_ros.core.transforms import Similarity

POSE = "back towards the camera"


def ball_in(vertices, pose):
    """A ball of 7 cm before the palm (the hand frame's z leaves the back), that the true hand (V, 3) just touches."""
    radius, knuckle = 0.035, RIG.keypoints[9]
    for below in np.arange(0.12, 0.0, -0.0005):
        centre = pose.apply(knuckle[None] - [0.0, 0.0, below])[0]
        if np.linalg.norm(vertices - centre, axis=1).min() < radius + 0.0005:
            return trimesh.creation.icosphere(4, radius).apply_translation(centre)
    raise AssertionError("the ball touches nothing")


def queries(mesh):
    return MeshQueries(mesh.vertices, mesh.faces)


def gaps(hand, held):
    return held.nearest(hand.T_camera_hand.apply(hand.vertices)).signed_distance


@pytest.fixture(scope="module")
def grasp():
    """Measurements of a hand with noisy landmarks, its settled fit, the true vertices, and the ball it holds."""
    observation, vertices, _ = scene(POSE)
    depth = depth_of(vertices)
    exact = fit_hand(observation, CAMERA, RIG, depth=depth, hand_mask=np.isfinite(depth)).mesh
    rng = np.random.default_rng(3)
    noise = 0.01 * np.ptp(observation.keypoints_2d, axis=0).max() * rng.normal(size=(21, 2))
    observation = replace(observation, keypoints_2d=observation.keypoints_2d + noise)
    seen = Measured(observation, CAMERA, depth, np.isfinite(depth))
    fitted = fit_hand(seen.observation, CAMERA, RIG, depth=depth, hand_mask=seen.hand_mask)
    return seen, settle_hand(fitted, seen, RIG), vertices, ball_in(vertices, exact.T_camera_hand)


def scaled(ball, factor):
    """The ball larger or smaller about its middle."""
    return trimesh.creation.icosphere(4, factor * np.linalg.norm(ball.vertices[0] - ball.centroid)).apply_translation(
        ball.centroid
    )


def test_a_hand_that_guidance_moved_into_its_object_comes_back(grasp):
    seen, settled, vertices, ball = grasp
    held = queries(ball)
    pose = settled.mesh.T_camera_hand
    moved = replace(pose, translation=pose.translation - 0.015 * pose.rotation[:, 2])
    before = replace(settled.mesh, T_camera_hand=moved)
    after = grip_hand(settled, moved, held, seen, RIG)
    depths = [np.clip(-gaps(hand, held), 0, None) for hand in (before, after)]
    assert depths[0].max() > 0.003
    assert depths[1].max() < 0.0015
    errors = [np.linalg.norm(h.T_camera_hand.apply(h.vertices) - vertices, axis=1).mean() for h in (before, after)]
    assert errors[1] < 0.5 * errors[0]
    assert after.T_camera_hand.scale == 1.0


def test_fingers_yield_to_an_object_that_is_where_they_were_put(grasp):
    """An object 4 mm too thick: what only follows skin and landmarks stays in it, and what also follows it leaves."""
    seen, settled, _, ball = grasp
    thick = queries(scaled(ball, 1.12))
    pose = settled.mesh.T_camera_hand
    alone = grip_hand(settled, pose, queries(ball.copy().apply_translation([0, 0, 1.0])), seen, RIG)
    both = grip_hand(settled, pose, thick, seen, RIG)
    depths = [np.clip(-gaps(hand, thick), 0, None) for hand in (alone, both)]
    assert depths[0].max() > 0.002
    assert depths[1].sum() < 0.7 * depths[0].sum()


def test_fingers_that_end_just_before_the_object_close_on_it(grasp):
    seen, settled, _, ball = grasp
    held = queries(scaled(ball, 0.85))
    pose = settled.mesh.T_camera_hand
    touches = find_touches(settled.mesh, held)
    assert touches is not None
    assert not touches.inside.any()
    fingers = np.unique(settled.mesh.vertex_finger[touches.places.vertex_ids])
    after = grip_hand(settled, pose, held, seen, RIG)
    for finger in fingers:
        mine = settled.mesh.vertex_finger == finger
        assert gaps(after, held)[mine].min() < gaps(settled.mesh, held)[mine].min()


def test_places_that_touch_lie_on_the_surface_with_its_normals(grasp):
    _, settled, _, ball = grasp
    held = queries(ball)
    touches = find_touches(settled.mesh, held)
    assert touches is not None
    distance = gaps(settled.mesh, held)[touches.places.vertex_ids]
    assert ((distance < -SURFACE_M) == touches.inside).all()
    assert (distance[~touches.inside] < REACH_M + 0.01).all()
    assert np.linalg.norm(touches.points - ball.centroid, axis=1) == pytest.approx(
        np.linalg.norm(ball.vertices - ball.centroid, axis=1).mean(), rel=0.01
    )
    outward = (touches.points - ball.centroid) / np.linalg.norm(touches.points - ball.centroid, axis=1)[:, None]
    assert (touches.normals * outward).sum(1) == pytest.approx(1.0, abs=0.03)
    counts = np.bincount(settled.mesh.vertex_finger[touches.places.vertex_ids[~touches.inside]], minlength=6)
    assert counts.max() <= NEAREST
    assert counts[5] == 0


def test_a_hand_far_from_the_object_touches_nothing(grasp):
    _, settled, _, ball = grasp
    assert find_touches(settled.mesh, queries(ball.copy().apply_translation([0, 0, 0.5]))) is None


def test_a_moved_solution_is_the_hand_at_that_pose(grasp):
    seen, settled, _, _ = grasp
    problem = HandProblem(seen.observation, CAMERA, RIG, SETTLED)
    pose = settled.mesh.T_camera_hand
    turned = Similarity(pose.rotation @ np.diag([1.0, -1.0, -1.0]), pose.translation + [0.01, 0.02, -0.03], 1.1)
    mesh = problem.result(problem.moved(settled.theta, turned), 0.05, strict=False)
    assert mesh.T_camera_hand.apply(mesh.vertices) == pytest.approx(turned.apply(settled.mesh.vertices), abs=1e-6)
    assert mesh.scale == pytest.approx(1.1 * settled.mesh.scale)


def test_the_pull_is_along_the_normal_with_the_gradient_of_finite_differences(grasp):
    seen, settled, _, ball = grasp
    problem = HandProblem(seen.observation, CAMERA, RIG, SETTLED)
    problem.touches = find_touches(settled.mesh, queries(ball))
    theta = torch.as_tensor(settled.theta)
    jacobian = torch.autograd.functional.jacobian(problem.residuals, theta)
    step = 1e-6
    for index in range(len(theta)):
        offset = torch.zeros_like(theta)
        offset[index] = step
        numeric = (problem.residuals(theta + offset) - problem.residuals(theta - offset)) / (2 * step)
        assert torch.allclose(jacobian[:, index], numeric, rtol=1e-4, atol=1e-4)
