# SPDX-License-Identifier: Apache-2.0
"""Fitting the rig to landmarks and depth, against poses that are known."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import trimesh
from scipy.spatial.transform import Rotation

from fmh_ros.core.cues.hand_pixels import along_forearm
from fmh_ros.core.cues.types import HandObservation
from fmh_ros.core.errors import HandFitError
from fmh_ros.core.fields.mesh_queries import MeshQueries, render_first_hits
from fmh_ros.core.frame.camera import CameraModel
from fmh_ros.core.hand.fit import NO_SKIN_COST, fit_hand, mirror_observation
from fmh_ros.core.hand.landmarks import marked_points, marked_tensor
from fmh_ros.core.hand.rig import load_generic_rig
from fmh_ros.core.hand.skin_depth import skin_agreement

RIG = load_generic_rig()
CAMERA = CameraModel(640, 480, np.array([[600.0, 0, 330], [0, 605, 235], [0, 0, 1]]))
POSES = {
    "back towards the camera": (Rotation.from_euler("xyz", [0.2, 0.3, 1.2]), (0.05, 0.02, 0.45), 0.4),
    "palm towards the camera": (Rotation.from_euler("xyz", [3.3, -0.2, -1.3]), (-0.1, 0.08, 0.6), 0.25),
    "edge on, off centre": (Rotation.from_euler("xyz", [1.5, 0.3, -0.6]), (0.12, -0.05, 0.5), 0.55),
}


def scene(name, scale=1.0):
    rotation, translation, curl = POSES[name]
    # The hand frame's z leaves the back of the hand; the camera looks along +z, so turn the back to it first.
    R = rotation.as_matrix() @ np.diag([1.0, -1.0, -1.0])
    rotations = torch.as_tensor(RIG.curl(np.array([0.3, curl, curl * 1.1, curl, curl * 0.9]), 0.2, 0.5))
    vertices, keypoints = (value.numpy() for value in RIG.pose(rotations, scale=scale))
    points = keypoints @ R.T + np.array(translation)
    pixels = CAMERA.project(points)
    # World landmarks are seen by a camera that looks straight at the hand.
    ahead = CAMERA.rays(pixels).mean(0)
    turn, _ = Rotation.align_vectors([[0.0, 0.0, 1.0]], [ahead / np.linalg.norm(ahead)])
    world = turn.apply(points - points.mean(0)) / scale
    box = (*pixels.min(0), *pixels.max(0))
    observation = HandObservation("right", 1.0, 1.0, tuple(float(v) for v in box), pixels, world)
    return observation, vertices @ R.T + np.array(translation), points


def depth_of(vertices):
    depth, _ = render_first_hits(MeshQueries(vertices, RIG.faces), CAMERA)
    return depth.astype(np.float32)


@pytest.mark.parametrize("name", POSES)
def test_exact_landmarks_are_reproduced_to_a_pixel_and_the_pose_is_recovered(name):
    observation, vertices, points = scene(name)
    hand = fit_hand(observation, CAMERA, RIG).mesh
    fitted = hand.T_camera_hand.apply(hand.keypoints)
    pixel_errors = np.linalg.norm(CAMERA.project(fitted) - observation.keypoints_2d, axis=1)
    assert pixel_errors.max() < 1.5
    assert hand.reprojection_px < 1.0
    assert hand.reprojection_px == pytest.approx(np.sqrt((pixel_errors**2).mean()))
    assert hand.score > 0.9
    assert np.linalg.norm(fitted - points, axis=1).mean() < 0.006
    error = np.linalg.norm(hand.T_camera_hand.apply(hand.vertices) - vertices, axis=1)
    assert error.mean() < 0.006


@pytest.mark.parametrize("true_scale", [0.85, 1.0, 1.15])
def test_depth_fixes_size_and_distance(true_scale):
    observation, vertices, _ = scene("back towards the camera", true_scale)
    depth = depth_of(vertices)
    hand = fit_hand(observation, CAMERA, RIG, depth=depth, hand_mask=np.isfinite(depth)).mesh
    assert hand.scale == pytest.approx(true_scale, rel=0.015)
    assert hand.scale_sigma < 0.05
    placed = hand.T_camera_hand.apply(hand.vertices)
    difference = depth_of(placed) - depth
    seen = np.isfinite(difference)
    assert np.abs(np.median(difference[seen])) < 0.001
    assert np.linalg.norm(placed - vertices, axis=1).mean() < 0.004


def test_a_hand_beside_all_measured_skin_costs_more_and_one_without_any_measured_skin_does_not():
    observation, vertices, _ = scene("back towards the camera")
    depth = depth_of(vertices)
    skin = np.isfinite(depth)
    good = fit_hand(observation, CAMERA, RIG, depth=depth, hand_mask=skin).cost
    plain = fit_hand(observation, CAMERA, RIG).cost
    elsewhere = np.zeros_like(skin)
    elsewhere[:20, :20] = True
    far = np.where(elsewhere, 0.5, np.nan).astype(np.float32)
    assert not (skin & elsewhere).any()
    assert fit_hand(observation, CAMERA, RIG, depth=far, hand_mask=elsewhere).cost == pytest.approx(
        plain + NO_SKIN_COST
    )
    assert good < plain + 0.1 * NO_SKIN_COST
    nothing = np.full_like(depth, np.nan)
    assert fit_hand(observation, CAMERA, RIG, depth=nothing, hand_mask=skin).cost == pytest.approx(plain)


def test_a_mesh_agrees_with_the_skin_it_lies_on_and_the_less_the_farther_it_is_from_it():
    observation, vertices, _ = scene("back towards the camera")
    depth = depth_of(vertices)
    skin = np.isfinite(depth)
    hand = fit_hand(observation, CAMERA, RIG).mesh
    pose = hand.T_camera_hand
    exact = replace(hand, vertices=pose.inverse().apply(vertices))

    def agreement(near_m: float, mask: np.ndarray = skin) -> float:
        seen = np.where(skin & mask, depth + np.float32(near_m), 2.0).astype(np.float32)
        return skin_agreement(exact, CAMERA, seen, mask, observation.keypoints_2d)

    assert agreement(0) == pytest.approx(1, abs=0.02)
    assert agreement(0.004) == pytest.approx(0.6, abs=0.02)
    assert agreement(-0.004) == pytest.approx(0.6, abs=0.02)
    assert agreement(0.015) == 0
    # Where the mesh covers no skin but the wall behind, it is not there: half of the mask, half of the agreement.
    half = skin & (np.arange(CAMERA.width) < np.median(np.nonzero(skin)[1]))
    assert agreement(0, half) == pytest.approx(half.sum() / skin.sum(), abs=0.03)
    # Skin that it leaves bare counts against it, a forearm beyond the wrist does not.
    arm = along_forearm(observation.keypoints_2d, skin.shape) & ~skin
    rest = ~skin & ~arm
    bare = rest & (np.cumsum(rest.ravel()).reshape(rest.shape) <= skin.sum())
    assert agreement(0, skin | arm) == pytest.approx(1, abs=0.02)
    assert agreement(0, skin | bare) == pytest.approx(0.5, abs=0.05)
    assert skin_agreement(exact, CAMERA, np.full_like(depth, np.nan), skin, observation.keypoints_2d) == 0


def test_without_depth_the_size_is_the_priors_and_says_so():
    hand = fit_hand(scene("back towards the camera", 1.15)[0], CAMERA, RIG).mesh
    assert hand.scale == pytest.approx(1.0, abs=1e-3)
    assert hand.scale_sigma == pytest.approx(0.08)


def test_depth_of_an_object_in_front_of_the_palm_does_not_move_the_hand():
    observation, vertices, _ = scene("palm towards the camera")
    hand_depth = depth_of(vertices)
    ball = trimesh.creation.icosphere(radius=0.035)
    middle = vertices.mean(0)
    ball_depth, _ = render_first_hits(
        MeshQueries(ball.vertices + middle - 0.1 * middle / np.linalg.norm(middle), ball.faces), CAMERA
    )
    hidden = np.isfinite(ball_depth)
    depth = np.where(hidden, ball_depth, hand_depth).astype(np.float32)
    hand = fit_hand(observation, CAMERA, RIG, depth=depth, hand_mask=np.isfinite(hand_depth) & ~hidden).mesh
    assert hand.scale == pytest.approx(1.0, rel=0.02)


def test_depth_with_holes_and_noise_still_fixes_the_size():
    observation, vertices, _ = scene("back towards the camera", 1.1)
    rng = np.random.default_rng(0)
    depth = depth_of(vertices) + rng.normal(0, 0.004, (480, 640)).astype(np.float32)
    depth[rng.random(depth.shape) < 0.3] = np.nan
    pixels = observation.keypoints_2d + rng.normal(0, 2.0, (21, 2))
    hand = fit_hand(replace(observation, keypoints_2d=pixels), CAMERA, RIG, depth=depth).mesh
    assert hand.scale == pytest.approx(1.1, rel=0.03)


def test_the_fitted_mesh_stays_closed_and_outward():
    hand = fit_hand(scene("edge on, off centre")[0], CAMERA, RIG).mesh
    mesh = trimesh.Trimesh(hand.vertices, hand.faces, process=False)
    assert mesh.is_watertight
    assert mesh.volume > 2e-4
    assert np.linalg.det(hand.T_camera_hand.rotation) == pytest.approx(1)
    assert hand.T_camera_hand.scale == 1.0
    assert np.allclose(hand.keypoints[0], 0, atol=1e-9)


def test_landmarks_that_no_hand_can_make_are_scored_down_and_cost_more():
    observation, _, _ = scene("back towards the camera")
    wrong = observation.keypoints_2d.copy()
    wrong[[4, 8, 12, 16, 20]] = wrong[[20, 4, 16, 8, 12]]
    good = fit_hand(observation, CAMERA, RIG)
    bad = fit_hand(replace(observation, keypoints_2d=wrong), CAMERA, RIG)
    assert bad.mesh.score < 0.5 * good.mesh.score
    assert bad.cost > 10 * good.cost


def test_a_left_hand_is_fitted_in_the_mirrored_frame():
    observation, _, points = scene("back towards the camera")
    left = mirror_observation(observation, CAMERA.width)
    assert left.side == "left"
    with pytest.raises(HandFitError, match="left"):
        fit_hand(left, CAMERA.mirrored(), RIG)
    again = mirror_observation(left, CAMERA.width)
    assert np.allclose(again.keypoints_2d, observation.keypoints_2d)
    assert np.allclose(again.box, observation.box)
    # What the mirrored camera sees of the mirrored hand, its depth as it was.
    mirror = np.array([-1.0, 1.0, 1.0])
    assert np.allclose(CAMERA.mirrored().project(points * mirror), left.keypoints_2d, atol=1e-9)
    rotation, _ = Rotation.align_vectors(left.keypoints_world, (points - points.mean(0)) * mirror)
    assert np.allclose(rotation.apply((points - points.mean(0)) * mirror), left.keypoints_world, atol=1e-9)


def test_unusable_landmarks_are_refused():
    observation, _, _ = scene("back towards the camera")
    with pytest.raises(HandFitError, match="finite"):
        fit_hand(replace(observation, keypoints_2d=np.full((21, 2), np.nan)), CAMERA, RIG)
    with pytest.raises(HandFitError, match="pixels large"):
        fit_hand(replace(observation, keypoints_2d=observation.keypoints_2d * 0.01), CAMERA, RIG)


def test_marks_of_a_landmark_network_are_not_taken_for_joints():
    observation, vertices, points = scene("back towards the camera", 0.95)
    marks = marked_points(points, "mediapipe")
    pixels = CAMERA.project(marks)
    world = observation.keypoints_world + Rotation.identity().apply(marks - points)
    seen = replace(observation, keypoints_2d=pixels, keypoints_world=world, convention="mediapipe")
    depth = depth_of(vertices)
    fits = {
        convention: fit_hand(replace(seen, convention=convention), CAMERA, RIG, depth=depth).mesh
        for convention in ("mediapipe", "joints")
    }
    errors = {
        convention: np.linalg.norm(hand.T_camera_hand.apply(hand.keypoints) - points, axis=1).mean()
        for convention, hand in fits.items()
    }
    assert fits["mediapipe"].scale == pytest.approx(0.95, rel=0.015)
    assert errors["mediapipe"] < 0.7 * errors["joints"], errors


def test_marks_move_only_where_the_network_marks_something_else():
    joints = RIG.keypoints
    marks = marked_points(joints, "mediapipe")
    assert set(np.flatnonzero(np.abs(marks - joints).max(1))) == {0, 1, 5, 9, 13, 17}
    np.testing.assert_allclose(marks[0], joints[0] + 0.12 * (joints[9] - joints[0]))
    np.testing.assert_array_equal(marked_points(joints, "joints"), joints)
    tensor = torch.tensor(joints, requires_grad=True)
    np.testing.assert_allclose(marked_tensor(tensor, "mediapipe").detach().numpy(), marks)
