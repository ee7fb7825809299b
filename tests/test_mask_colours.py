# SPDX-License-Identifier: Apache-2.0
"""What a mask network takes for hand and has the object's colour goes back to the object, and nothing else does."""

from __future__ import annotations

import numpy as np
import pytest

from fmh_ros.core.cues.mask_colours import take_back
from fmh_ros.core.cues.mask_refine import Canvas

SIZE = 200
SKIN, SLEEVE, GREEN = (205, 160, 135), (60, 140, 70), (55, 145, 75)


def _canvas(thing: tuple[int, int, int]) -> Canvas:
    """A hand from (60, 60) to (140, 140), fingers up, its forearm in a sleeve below, and a bar above and between its
    fingers, at the columns from 92 to 107."""
    image = np.full((SIZE, SIZE, 3), 230, np.uint8)
    image[60:140, 60:140] = SKIN
    image[140:, 80:116] = SLEEVE
    image[20:110, 92:108] = thing
    image = np.clip(image + np.random.default_rng(0).normal(0, 4, image.shape), 0, 255).astype(np.uint8)
    roots = np.array([[100, 136], *([x, 112] for x in (66, 74, 116, 124, 134))], float)
    keypoints = np.concatenate([roots[:1], *([[root[0], root[1] - 16 * k] for k in range(4)] for root in roots[1:])])
    unsure = np.full((SIZE, SIZE), 0.5, np.float32)
    return Canvas(image, np.ones((SIZE, SIZE), bool), unsure, unsure, keypoints, None, np.zeros((0, 2)), None)


def _masks() -> tuple[np.ndarray, np.ndarray]:
    """Of a network that sees the bar above the fingers only, and all the rest as hand and forearm."""
    held, hand = np.zeros((2, SIZE, SIZE), bool)
    held[20:60, 92:108] = True
    hand[60:140, 60:140] = hand[140:, 80:116] = True
    return held, hand


def test_the_part_between_the_fingers_goes_back_to_the_object() -> None:
    held, hand = _masks()
    found, rest = take_back(_canvas(GREEN), held, hand)
    bar = np.zeros_like(held)
    bar[20:110, 92:108] = True
    assert not (found & rest).any()
    np.testing.assert_array_equal(found | rest, held | hand)
    assert (found & bar).sum() / (found | bar).sum() > 0.9
    assert not found[140:].any(), "a sleeve of the object's colour stays with the arm"


@pytest.mark.parametrize("thing", [SKIN, (200, 165, 140)])
def test_what_looks_like_skin_moves_nothing(thing: tuple[int, int, int]) -> None:
    held, hand = _masks()
    found, rest = take_back(_canvas(thing), held, hand)
    assert (found & hand).sum() < 0.01 * hand.sum()
    np.testing.assert_array_equal(found | rest, held | hand)


@pytest.mark.parametrize(
    ("top", "left", "side", "taken"), [(116, 118, 14, False), (116, 118, 18, True), (62, 110, 14, True)]
)
def test_small_spots_of_the_objects_colour_far_from_it_stay_with_the_hand(
    top: int, left: int, side: int, taken: bool
) -> None:
    """Bright skin is a small spot; beyond a finger, of 7 pixels here, or large, it is the object again."""
    held, hand = _masks()
    canvas = _canvas(GREEN)
    canvas.image[top : top + side, left : left + side] = GREEN
    found, _ = take_back(canvas, held, hand)
    assert found[64:106, 94:106].all()
    assert found[top + 2 : top + side - 2, left + 2 : left + side - 2].any() is np.bool_(taken)


def test_too_little_to_learn_a_colour_from_changes_nothing() -> None:
    held, hand = _masks()
    nothing = np.zeros_like(held)
    found, rest = take_back(_canvas(GREEN), nothing, hand)
    assert not found.any()
    np.testing.assert_array_equal(rest, hand)
    found, rest = take_back(_canvas(GREEN), held, nothing)
    np.testing.assert_array_equal(found, held)
