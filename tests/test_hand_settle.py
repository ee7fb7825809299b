# SPDX-License-Identifier: Apache-2.0
"""Settling a fitted hand on its measured skin: what landmarks get wrong, depth puts right."""

from dataclasses import replace

import numpy as np
import pytest
from test_hand_fit import CAMERA, POSES, RIG, depth_of, scene

from fmh_ros.core.cues.hand_pixels import along_forearm
from fmh_ros.core.fields.mesh_queries import MeshQueries
from fmh_ros.core.hand.fit import fit_hand
from fmh_ros.core.hand.settle import Measured, settle_hand
from fmh_ros.core.hand.skin_depth import match_points, skin_points


def disturbed(observation, seed=0):
    """Landmarks as wrong as a network's: all shifted together, and each by 4 % of the hand."""
    rng = np.random.default_rng(seed)
    box = np.ptp(observation.keypoints_2d, axis=0).max()
    return replace(
        observation, keypoints_2d=observation.keypoints_2d + box * (0.04 * rng.normal(size=(21, 2)) + [0.05, -0.03])
    )


def settled(observation, depth, mask):
    fitted = fit_hand(observation, CAMERA, RIG, depth=depth, hand_mask=mask)
    return fitted.mesh, settle_hand(fitted, Measured(observation, CAMERA, depth, mask), RIG).mesh


def distances(hand, points):
    """Distances of measured points from the hand's surface, metres."""
    return np.abs(MeshQueries(hand.T_camera_hand.apply(hand.vertices), hand.faces).nearest(points).signed_distance)


def errors(hand, vertices):
    return np.linalg.norm(hand.T_camera_hand.apply(hand.vertices) - vertices, axis=1)


@pytest.mark.parametrize("name", POSES)
def test_wrong_landmarks_are_corrected_by_the_measured_skin(name):
    observation, vertices, _ = scene(name)
    depth = depth_of(vertices)
    before, after = settled(disturbed(observation), depth, np.isfinite(depth))
    points = skin_points(CAMERA, depth, np.isfinite(depth), observation.keypoints_2d)
    near_before, near_after = distances(before, points), distances(after, points)
    assert near_after.mean() < 0.8 * near_before.mean()
    assert near_after.mean() < 0.0015
    # Seen edge on, half of the fingers are hidden and stay where the wrong landmarks put them.
    assert errors(after, vertices).mean() < (1.05 if name.startswith("edge") else 0.8) * errors(before, vertices).mean()


def test_only_measured_skin_that_the_camera_sees_is_matched():
    observation, vertices, _ = scene("back towards the camera")
    depth = depth_of(vertices)
    skin = np.isfinite(depth)
    arm = along_forearm(observation.keypoints_2d, skin.shape)
    points = skin_points(
        CAMERA, np.where(skin | arm, np.nan_to_num(depth, nan=0.5), np.nan), skin | arm, observation.keypoints_2d
    )
    pixels = np.round(CAMERA.project(points)).astype(int)
    assert len(points) == 250
    assert not arm[pixels[:, 1], pixels[:, 0]].any()
    assert points[:, 2] == pytest.approx(depth[pixels[:, 1], pixels[:, 0]], abs=1e-6)
    hand = fit_hand(observation, CAMERA, RIG).mesh
    exact = replace(hand, vertices=hand.T_camera_hand.inverse().apply(vertices))
    matched = match_points(exact, points, 0.02)
    places = matched.places
    on_mesh = vertices[places.vertex_ids][places.corners]
    assert (on_mesh * places.weights[..., None]).sum(1) == pytest.approx(matched.points, abs=1e-3)
    assert len(matched.points) > 0.95 * len(points)
    # From behind, the nearest surface is one that is turned away.
    assert match_points(exact, points + [0, 0, 0.1], 0.2) is None
    assert match_points(exact, points - [0, 0, 0.1], 0.02) is None


def test_a_hand_without_measured_skin_or_whose_skin_it_would_explain_less_stays_as_it_was(monkeypatch):
    observation, vertices, _ = scene("back towards the camera")
    depth = depth_of(vertices)
    skin = np.isfinite(depth)
    fitted = fit_hand(observation, CAMERA, RIG, depth=depth, hand_mask=skin)

    def settle(**changed):
        return settle_hand(fitted, replace(Measured(observation, CAMERA, depth, skin), **changed), RIG)

    assert settle(depth=np.full_like(depth, np.nan)) is fitted
    assert settle(hand_mask=np.zeros_like(skin)) is fitted
    assert settle(depth=depth + np.float32(0.2)) is fitted
    assert settle().mesh is not fitted.mesh
    exact = {True: 1.0, False: 0.5}
    monkeypatch.setattr("fmh_ros.core.hand.settle.skin_agreement", lambda hand, *rest: exact[hand is fitted.mesh])
    assert settle() is fitted


def test_the_callers_check_ends_it():
    observation, vertices, _ = scene("back towards the camera")
    depth = depth_of(vertices)
    fitted = fit_hand(observation, CAMERA, RIG, depth=depth)

    def stop():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        settle_hand(fitted, Measured(observation, CAMERA, depth, np.isfinite(depth)), RIG, check=stop)
