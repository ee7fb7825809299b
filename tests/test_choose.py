# SPDX-License-Identifier: Apache-2.0
"""Which hand is meant, with detectors and segmenters that answer as told."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fmh_ros.core.cues.types import HandObservation, SceneMasks
from fmh_ros.core.errors import NoHandError, NoObjectError
from fmh_ros.core.frame.camera import camera_from_field_of_view
from fmh_ros.core.frame.frame import Frame, ObjectPrompt, Side
from fmh_ros.core.hand.fit import mirror_observation
from fmh_ros.core.reconstruction.choose import choose_hand

WIDTH, HEIGHT = 320, 240
FRAME = Frame(
    np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8), camera_from_field_of_view(WIDTH, HEIGHT)
)


def hand_at(x: float, side: Side, score: float = 0.9) -> HandObservation:
    keypoints = np.stack([np.linspace(x - 20, x + 20, 21), np.linspace(100, 140, 21)], 1)
    return HandObservation(side, 0.9, score, (x - 20, 100, x + 20, 140), keypoints, np.zeros((21, 3)))


class ToldDetector:
    """Reports the given hands, mirrored when the image is the mirrored one."""

    name = "told"

    def __init__(self, *hands: HandObservation) -> None:
        self.hands = hands

    def detect(self, frame: Frame) -> list[HandObservation]:
        if np.array_equal(frame.image, FRAME.image):
            return list(self.hands)
        return [mirror_observation(h, WIDTH) for h in self.hands]


class ToldSegmenter:
    """Gives an object score by the hand's place in the unmirrored image; None means that nothing is held."""

    name = "told"

    def __init__(self, scores: dict[int, float | None]) -> None:
        self.scores = scores
        self.sides: list[str] = []

    def segment(self, frame: Frame, hand: HandObservation, prompt: ObjectPrompt) -> SceneMasks:
        self.sides.append(hand.side)
        x = hand.keypoints_2d[:, 0].mean()
        if not np.array_equal(frame.image, FRAME.image):
            x = WIDTH - 1 - x
        score = self.scores[round(x)]
        if score is None:
            raise NoObjectError("Nothing is held")
        empty = np.zeros((HEIGHT, WIDTH), bool)
        return SceneMasks(empty, empty, empty.astype(np.float32), None, score)


def test_the_hand_that_holds_something_is_chosen_and_said() -> None:
    detector = ToldDetector(hand_at(60, "right", 0.99), hand_at(250, "right", 0.8))
    chosen = choose_hand(FRAME, detector, ToldSegmenter({60: None, 250: 0.9}), ObjectPrompt(), None)
    assert chosen.observation.keypoints_2d[:, 0].mean() == pytest.approx(250)
    assert any("2 hands were found" in w for w in chosen.warnings)


def test_two_hands_with_objects_warn_and_name_the_choice() -> None:
    detector = ToldDetector(hand_at(60, "right"), hand_at(250, "left"))
    chosen = choose_hand(FRAME, detector, ToldSegmenter({60: 0.9, 250: 0.85}), ObjectPrompt(), None)
    assert not chosen.mirrored
    assert any("2 hands seem to hold something" in w and "right" in w for w in chosen.warnings)


def test_a_prompt_decides_between_hands() -> None:
    detector = ToldDetector(hand_at(60, "right"), hand_at(250, "right"))
    segmenter = ToldSegmenter({60: 0.9, 250: 0.3})
    for prompt in (ObjectPrompt(box=(240, 90, 300, 150)), ObjectPrompt(points=((255.0, 120.0),))):
        chosen = choose_hand(FRAME, detector, segmenter, prompt, None)
        assert chosen.observation.keypoints_2d[:, 0].mean() == pytest.approx(250)
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[100:140, 40:80] = True
    chosen = choose_hand(FRAME, detector, segmenter, ObjectPrompt(mask=mask), None)
    assert chosen.observation.keypoints_2d[:, 0].mean() == pytest.approx(60)


def test_a_left_hand_is_handed_on_as_a_right_one_in_the_mirrored_frame() -> None:
    segmenter = ToldSegmenter({60: 0.9})
    prompt = ObjectPrompt(points=((70.0, 120.0),))
    chosen = choose_hand(FRAME, ToldDetector(hand_at(60, "left")), segmenter, prompt, None)
    assert chosen.mirrored
    assert segmenter.sides == ["right"]
    assert chosen.observation.side == "right"
    assert chosen.observation.keypoints_2d[:, 0].mean() == pytest.approx(WIDTH - 1 - 60)
    assert np.array_equal(chosen.frame.image, FRAME.image[:, ::-1])
    assert chosen.prompt.points == ((WIDTH - 1 - 70.0, 120.0),)


def test_no_hand_and_no_hand_of_that_side_are_said_apart() -> None:
    with pytest.raises(NoHandError, match="No hand was found"):
        choose_hand(FRAME, ToldDetector(), ToldSegmenter({}), ObjectPrompt(), None)
    with pytest.raises(NoHandError, match="no left one"):
        choose_hand(FRAME, ToldDetector(hand_at(60, "right")), ToldSegmenter({60: 0.9}), ObjectPrompt(), "left")


def test_hands_that_hold_nothing_are_an_error() -> None:
    with pytest.raises(NoObjectError):
        choose_hand(FRAME, ToldDetector(hand_at(60, "right")), ToldSegmenter({60: None}), ObjectPrompt(), None)


@pytest.mark.parametrize("side", ["right", "left"])
def test_another_hand_is_no_object(side: Side) -> None:
    """A mask over most of another hand's landmarks is that hand or what is behind it; a prompt overrules that."""
    detector = ToldDetector(hand_at(60, side), hand_at(250, "right"))

    class Covering(ToldSegmenter):
        def segment(self, frame: Frame, hand: HandObservation, prompt: ObjectPrompt) -> SceneMasks:
            masks = super().segment(frame, hand, prompt)
            covered = np.zeros((HEIGHT, WIDTH), bool)
            covered[90:150, 225:280] = True
            return replace(masks, object=covered if side == "right" else covered[:, ::-1])

    segmenter = Covering({60: 0.9, 250: None})
    with pytest.raises(NoObjectError, match="another hand"):
        choose_hand(FRAME, detector, segmenter, ObjectPrompt(), None)
    pointed = ObjectPrompt(points=((70.0, 120.0),))
    assert choose_hand(FRAME, detector, segmenter, pointed, None).mirrored is (side == "left")
    # What only just passes for a hand is more likely the object itself.
    unsure = ToldDetector(hand_at(60, side), hand_at(250, "right", 0.7))
    assert choose_hand(FRAME, unsure, segmenter, ObjectPrompt(), None).mirrored is (side == "left")
