# SPDX-License-Identifier: Apache-2.0
"""The side of a hand, decided by measured depth where the landmarks are unsure of it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from fmh_ros.core.cues.point_map import SensorPointMapper
from fmh_ros.core.cues.types import HandObservation, SceneMasks
from fmh_ros.core.errors import NoObjectError
from fmh_ros.core.frame.frame import Frame, ObjectPrompt
from fmh_ros.core.hand.fit import mirror_observation
from fmh_ros.core.hand.rig import load_generic_rig
from fmh_ros.core.reconstruction.choose import ChosenHand
from fmh_ros.core.reconstruction.mirror import mirror_masks, mirror_points
from fmh_ros.core.reconstruction.place_hand import PlacedHand, place_hand, reverse_fingers
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


class Rereading:
    """A detector that has readings to offer, and a segmenter that finds the object for right landmarks only."""

    name = "rereading"

    def __init__(self, readings: list[HandObservation], masks: SceneMasks | None = None) -> None:
        self.offered, self.masks, self.asked = readings, masks, 0

    def detect(self, frame: Frame) -> list[HandObservation]:
        raise AssertionError("the hand is there already")

    def readings(self, frame: Frame, hand: HandObservation) -> list[HandObservation]:
        self.asked += 1
        return self.offered

    def segment(self, frame: Frame, hand: HandObservation, prompt: ObjectPrompt) -> SceneMasks:
        if self.masks is None:
            raise NoObjectError("nothing is held")
        return self.masks


def _stages(detector: Rereading | None = None) -> Stages:
    unused = None
    return Stages(  # only these are asked
        detector=detector, segmenter=detector, sensor_points=SensorPointMapper(), monocular_points=None, rig=RIG,
        generator=unused, watcher=unused,
    )  # type: ignore[arg-type]  # fmt: skip


def _placed(chosen: ChosenHand, detector: Rereading | None = None, *, side_known: bool = False) -> PlacedHand:
    points = SensorPointMapper().map_points(chosen.frame, chosen.observation, chosen.masks)
    return place_hand(_stages(detector), chosen, points, side_known=side_known, check=lambda: None)


def _misread(seen: HandObservation) -> HandObservation:
    """The landmarks of a detector that takes the little finger for the index, and is sure of the side."""
    return replace(reverse_fingers(seen), side_score=1.0)


def _joints(placed: PlacedHand) -> np.ndarray:
    """In the camera frame of the image that is not mirrored."""
    joints = placed.hand.T_camera_hand.apply(placed.hand.keypoints)
    return joints * [-1.0 if placed.chosen.mirrored else 1.0, 1.0, 1.0]


@pytest.mark.parametrize(("score", "taken"), [(1.0, True), (0.5, True), (0.4, False), (None, False)])
def test_a_hand_that_fits_no_skin_is_read_again_and_masks_as_sure_follow(
    right: ChosenHand, score: float | None, taken: bool
) -> None:
    first = replace(right.masks, object=right.masks.object & (np.indices(right.masks.object.shape)[0] % 2 > 0))
    first = replace(first, object_score=0.5)
    second = None if score is None else replace(right.masks, object_score=score, warnings=("cut off",))
    wrong = _misread(right.observation)
    detector = Rereading([_misread(wrong), wrong], second)
    assert np.allclose(detector.offered[0].keypoints_2d, right.observation.keypoints_2d)
    placed = _placed(replace(right, observation=wrong, masks=first), detector)
    assert detector.asked == 1
    np.testing.assert_allclose(_joints(placed), _joints(_placed(right)), atol=2e-3)
    np.testing.assert_array_equal(placed.chosen.masks.object, right.masks.object if taken else first.object)
    assert ("cut off" in placed.chosen.warnings) is taken


def test_a_reading_of_the_other_side_is_mirrored_unless_the_user_said_which_hand_it_is(right: ChosenHand) -> None:
    mistaken = _mistaken(right, 1.0)
    mistaken = replace(mistaken, observation=_misread(mistaken.observation))
    seen = mirror_observation(right.observation, right.frame.camera.width)
    detector = Rereading([seen], right.masks)
    assert seen.side == "left"
    placed = _placed(mistaken, detector)
    assert not placed.chosen.mirrored
    np.testing.assert_allclose(_joints(placed), _joints(_placed(right)), atol=2e-3)
    assert _placed(mistaken, detector, side_known=True).chosen is mistaken


def test_a_finger_that_is_taken_for_a_hand_is_read_again_at_the_size_of_a_hand(right: ChosenHand) -> None:
    seen = right.observation
    size = float(np.ptp(seen.keypoints_2d, axis=0).max())
    depth_inside = ndimage.distance_transform_edt(right.masks.hand)
    row, column = np.unravel_index(depth_inside.argmax(), depth_inside.shape)
    pixels = np.array([column, row]) + 0.3 * (seen.keypoints_2d - seen.keypoints_2d.mean(0))
    box = tuple(float(v) for v in (*pixels.min(0), *pixels.max(0)))
    finger = replace(seen, keypoints_2d=pixels, box=box)
    boxes = []

    class Sized(Rereading):
        def readings(self, frame: Frame, hand: HandObservation) -> list[HandObservation]:
            boxes.append(np.array(hand.box))
            return super().readings(frame, hand)

    alone = _placed(replace(right, observation=finger), Sized([finger]))
    assert alone.hand.scale < 0.5
    placed = _placed(replace(right, observation=finger), Sized([finger, seen], right.masks))
    assert placed.hand.scale == pytest.approx(_placed(right).hand.scale, rel=0.02)
    np.testing.assert_allclose(_joints(placed), _joints(_placed(right)), atol=2e-3)
    for asked in (boxes[0], boxes[-1]):
        sides = asked[2:] - asked[:2]
        assert (asked[:2] + asked[2:]) / 2 == pytest.approx((np.array(box[:2]) + box[2:]) / 2)
        assert sides[0] == pytest.approx(sides[1])
        assert 0.6 * size < sides[0] < 1.8 * size


def test_a_hand_that_fits_is_not_read_again(right: ChosenHand) -> None:
    detector = Rereading([_misread(right.observation)], right.masks)
    assert _placed(right, detector).chosen is right
    assert detector.asked == 0


def test_an_unsure_side_that_depth_contradicts_is_turned_round(truth: SceneTruth, right: ChosenHand) -> None:
    placed = _placed(_mistaken(right, 0.8))
    assert not placed.chosen.mirrored
    assert any("right one" in warning for warning in placed.chosen.warnings)
    np.testing.assert_array_equal(placed.chosen.frame.image, truth.frame.image)
    np.testing.assert_array_equal(placed.chosen.masks.object, truth.object_mask)
    joints = placed.hand.T_camera_hand.apply(placed.hand.keypoints)
    expected = _placed(right).hand
    np.testing.assert_allclose(joints, expected.T_camera_hand.apply(expected.keypoints), atol=2e-3)


def test_a_hand_whose_back_is_taken_for_the_palm_has_its_fingers_counted_the_other_way(right: ChosenHand) -> None:
    mistaken = _mistaken(right, 0.8)
    placed = _placed(replace(mistaken, observation=reverse_fingers(mistaken.observation)))
    assert not placed.chosen.mirrored
    np.testing.assert_allclose(placed.chosen.observation.keypoints_2d, right.observation.keypoints_2d)
    np.testing.assert_allclose(_joints(placed), _joints(_placed(right)), atol=2e-3)


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
