# SPDX-License-Identifier: Apache-2.0
"""What stands out before a plain background, on drawn pictures whose things are known to the pixel."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from fmh_ros.core.cues.plain_background import find_background, find_thing

HEIGHT, WIDTH = 240, 320
ROWS, COLUMNS = np.mgrid[:HEIGHT, :WIDTH]
#: An upright hand 100 px tall, its forearm cut off by the lower border.
KEYPOINTS = np.array([[160, 200], *[[140 + 10 * f, 175 - 25 * j] for f in range(5) for j in range(4)]], float)
HAND = (COLUMNS > 132) & (COLUMNS < 188) & (ROWS > 95)
BAR = (abs(ROWS - 110) < 15) & (COLUMNS > 60) & (COLUMNS < 260)
HOLE = (ROWS - 110) ** 2 + (COLUMNS - 90) ** 2 < 9**2
THING = BAR & ~HOLE & ~HAND
NOTHING = np.zeros_like(HAND)


def draw(thing: NDArray[np.bool_], light_falls_by: float = 20) -> NDArray[np.uint8]:
    """A skin-coloured hand and a cardboard thing before a wall whose light falls off a little to the right."""
    picture = np.full((HEIGHT, WIDTH, 3), (225.0, 228.0, 230.0)) - light_falls_by * (COLUMNS / WIDTH)[..., None]
    picture[thing] = (190, 150, 105)
    picture[HAND] = (215, 170, 150)
    picture += np.random.default_rng(3).normal(0, 1.0, picture.shape)
    return picture.clip(0, 255).astype(np.uint8)


def test_a_thing_is_found_to_the_pixel_and_its_gaps_are_left_open() -> None:
    found = find_thing(draw(THING), HAND, KEYPOINTS)
    assert found is not None and not (found & HAND).any()
    assert not found[HOLE & ((ROWS - 110) ** 2 + (COLUMNS - 90) ** 2 < 6**2)].any()
    assert (found & THING).sum() / (found | THING).sum() > 0.95


def test_the_same_picture_mirrored_gives_the_same_thing_mirrored() -> None:
    flipped = KEYPOINTS * (-1, 1) + (WIDTH - 1, 0)
    found = find_thing(draw(THING), HAND, KEYPOINTS)
    again = find_thing(draw(THING)[:, ::-1].copy(), HAND[:, ::-1], flipped)
    assert found is not None and again is not None
    assert (found ^ again[:, ::-1]).mean() < 0.002


CUT_OFF = (abs(ROWS - 110) < 40) & (COLUMNS < 150)
OUT_OF_REACH = (abs(ROWS - 40) < 15) & (abs(COLUMNS - 60) < 30)
SPECK = (abs(ROWS - 110) < 5) & (COLUMNS >= 188) & (COLUMNS < 196)


@pytest.mark.parametrize("thing", [NOTHING, CUT_OFF, OUT_OF_REACH, SPECK])
def test_nothing_what_the_border_cuts_off_what_is_far_and_specks_are_no_things(thing: NDArray[np.bool_]) -> None:
    assert find_background(draw(thing)) is not None
    assert find_thing(draw(thing), HAND, KEYPOINTS) is None


def test_a_background_that_is_not_plain_says_nothing() -> None:
    rough = np.random.default_rng(5).integers(0, 255, (HEIGHT // 8, WIDTH // 8, 3)).astype(np.uint8)
    pattern = cv2.resize(rough, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
    picture = np.where((HAND | THING)[..., None], draw(THING), pattern)
    for image in (picture, draw(THING, light_falls_by=150)):
        assert find_background(image) is None and find_thing(image, HAND, KEYPOINTS) is None


def test_without_a_hand_there_is_no_thing() -> None:
    assert find_thing(draw(THING), NOTHING, KEYPOINTS) is None
