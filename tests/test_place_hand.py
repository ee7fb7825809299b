# SPDX-License-Identifier: Apache-2.0
"""The side of a hand, decided by measured depth where the landmarks are unsure of it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fmh_ros.core.cues.point_map import SensorPointMapper
from fmh_ros.core.cues.types import SceneMasks
from fmh_ros.core.frame.frame import ObjectPrompt
from fmh_ros.core.hand.fit import mirror_observation
from fmh_ros.core.hand.rig import load_generic_rig
from fmh_ros.core.reconstruction.choose import ChosenHand
from fmh_ros.core.reconstruction.mirror import mirror_masks, mirror_points
from fmh_ros.core.reconstruction.place_hand import place_hand
from fmh_ros.core.reconstruction.profile import Stages
from fmh_ros.training.scenes.truth import SceneTruth, draw_truth

RIG = load_generic_rig()


@pytest.fixture(scope="module")
def truth() -> SceneTruth:
    return draw_truth(5, RIG, family="bottle")


@pytest.fixture(scope="module")
def right(truth: SceneTruth) -> ChosenHand:
    """The scene as it is: a right hand."""
    seen = truth.object_mask.astype(np.float32)
    masks = SceneMasks(truth.hand_mask, truth.object_mask, seen, None, 1.0)
    return ChosenHand(truth.frame, ObjectPrompt(), truth.observation(), masks, False, ())


def _mistaken(chosen: ChosenHand, score: float) -> ChosenHand:
    """The same scene by a detector that takes the hand for a left one: so frame and all are mirrored."""
    frame, observation = chosen.frame.mirrored(), mirror_observation(chosen.observation, chosen.frame.camera.width)
    observation = replace(observation, side="right", side_score=score)
    return replace(chosen, frame=frame, observation=observation, masks=mirror_masks(chosen.masks), mirrored=True)


def _stages() -> Stages:
    unused = None
    return Stages(  # only the rig is asked
        detector=unused, segmenter=unused, sensor_points=unused, monocular_points=None, rig=RIG, generator=unused,
        watcher=unused,
    )  # type: ignore[arg-type]  # fmt: skip


def _placed(chosen: ChosenHand, *, side_known: bool = False):
    points = SensorPointMapper().map_points(chosen.frame, chosen.observation, chosen.masks)
    return place_hand(_stages(), chosen, points, side_known=side_known, check=lambda: None)


def test_an_unsure_side_that_depth_contradicts_is_turned_round(truth: SceneTruth, right: ChosenHand) -> None:
    placed = _placed(_mistaken(right, 0.8))
    assert not placed.chosen.mirrored
    assert any("right one" in warning for warning in placed.chosen.warnings)
    np.testing.assert_array_equal(placed.chosen.frame.image, truth.frame.image)
    np.testing.assert_array_equal(placed.chosen.masks.object, truth.object_mask)
    joints = placed.hand.T_camera_hand.apply(placed.hand.keypoints)
    expected = _placed(right).hand
    np.testing.assert_allclose(joints, expected.T_camera_hand.apply(expected.keypoints), atol=2e-3)


@pytest.mark.parametrize("score", [0.6, 0.97])
def test_an_unsure_side_that_depth_confirms_is_kept(right: ChosenHand, score: float) -> None:
    chosen = replace(right, observation=replace(right.observation, side_score=score))
    placed = _placed(chosen)
    assert placed.chosen is chosen


def test_what_the_user_or_the_landmarks_are_sure_of_is_not_doubted(right: ChosenHand) -> None:
    assert _placed(_mistaken(right, 0.8), side_known=True).chosen.mirrored
    assert _placed(_mistaken(right, 0.99)).chosen.mirrored


def test_a_point_map_in_a_mirror_is_the_map_of_the_mirrored_frame(right: ChosenHand) -> None:
    mapper = SensorPointMapper()
    points = mapper.map_points(right.frame, right.observation, right.masks)
    turned = mapper.map_points(right.frame.mirrored(), right.observation, mirror_masks(right.masks))
    assert points is not None
    assert turned is not None
    mirrored = mirror_points(points)
    np.testing.assert_array_equal(mirrored.depth, turned.depth)
    assert mirrored.normals is not None
    assert turned.normals is not None
    both = np.isfinite(mirrored.normals).all(-1) & np.isfinite(turned.normals).all(-1)
    assert both.mean() > 0.3
    assert (np.einsum("nk,nk->n", mirrored.normals[both], turned.normals[both]) > 0.999).mean() > 0.99
