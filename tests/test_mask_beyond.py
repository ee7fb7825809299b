# SPDX-License-Identifier: Apache-2.0
"""A tool held in its middle is one object on both sides of the hand; a sleeve of its colour is none of it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from fmh_ros.core.cues.mask_beyond import join_beyond
from fmh_ros.core.cues.mask_refine import Canvas

SIZE = 240
SKIN, TOOL, TABLE = (205, 160, 135), (55, 145, 75), (90, 90, 100)
Region = tuple[slice, slice]
#: The hand, fingers up; the tool goes through it from left to right, at the same height.
HAND: Region = (slice(70, 170), slice(80, 160))
LEFT: Region = (slice(105, 125), slice(10, 80))
RIGHT: Region = (slice(105, 125), slice(160, 185))


def _region(*where: Region) -> NDArray[np.bool_]:
    mask = np.zeros((SIZE, SIZE), bool)
    for each in where:
        mask[each] = True
    return mask


def _canvas(*green: Region, likely: Region = LEFT, size: int = SIZE) -> Canvas:
    """A picture with the tool's colour at ``green``; the network takes ``likely`` for object and the rest of the green
    for hand. size : what is in the photo."""
    image = np.full((SIZE, SIZE, 3), TABLE, np.uint8)
    image[HAND] = SKIN
    for where in green:
        image[where] = TOOL
    image = np.clip(image + np.random.default_rng(0).normal(0, 4, image.shape), 0, 255).astype(np.uint8)
    roots = np.array([[120, 166], *([x, 142] for x in (86, 100, 118, 136, 154))], float)
    keypoints = np.concatenate([roots[:1], *([[root[0], root[1] - 22 * k] for k in range(4)] for root in roots[1:])])
    held = _region(likely).astype(np.float32)
    hand = (_region(HAND, *green) & ~_region(likely)).astype(np.float32)
    inside = _region((slice(0, size), slice(0, size)))
    return Canvas(image, inside, held, hand, keypoints, None, np.zeros((0, 2)), None)


def test_the_other_end_of_a_tool_joins_it() -> None:
    held, hand = _region(LEFT), _region(HAND, RIGHT)
    joined = join_beyond(_canvas(LEFT, RIGHT), held, hand)
    assert (joined & _region(RIGHT)).sum() > 0.9 * _region(RIGHT).sum()
    assert (joined & ~_region(LEFT, RIGHT)).sum() < 20


def test_what_the_network_is_sure_of_joins_in_any_colour() -> None:
    canvas = _canvas(LEFT)
    canvas.image[RIGHT] = (200, 40, 40)
    sure = replace(canvas, object_probability=_region(LEFT, RIGHT).astype(np.float32))
    joined = join_beyond(sure, _region(LEFT), _region(HAND))
    assert (joined & _region(RIGHT)).sum() > 0.9 * _region(RIGHT).sum()
    assert not (join_beyond(canvas, _region(LEFT), _region(HAND)) & _region(RIGHT)).any()


@pytest.mark.parametrize(
    ("piece", "why"),
    [
        ((slice(105, 125), slice(160, SIZE)), "it leaves the picture, as sleeves do"),
        ((slice(85, 135), slice(140, 150)), "it has the hand all round, as shadows between fingers have"),
        ((slice(60, 78), slice(10, 80)), "there is no hand between it and the object"),
    ],
)
def test_other_things_of_the_colour_stay_out(piece: Region, why: str) -> None:
    held, hand = _region(LEFT), _region(HAND, piece) & ~_region(LEFT)
    assert np.array_equal(join_beyond(_canvas(LEFT, piece), held, hand), held), why


def test_what_is_small_beside_the_object_stays_out() -> None:
    held, hand = _region(LEFT), _region(HAND)
    speck = (slice(110, 118), slice(160, 168))
    assert np.array_equal(join_beyond(_canvas(LEFT, speck), held, hand), held)


def test_a_thing_on_the_table_behind_the_hand_stays_out() -> None:
    """It has the tool's colour, in its line too, but the network sees ground there and no hand."""
    canvas = _canvas(LEFT, RIGHT)
    ground = replace(canvas, hand_probability=_region(HAND).astype(np.float32))
    assert np.array_equal(join_beyond(ground, _region(LEFT), _region(HAND)), _region(LEFT))


def test_the_border_of_the_photo_counts_not_that_of_the_canvas() -> None:
    held, hand = _region(LEFT), _region(HAND, RIGHT)
    assert np.array_equal(join_beyond(_canvas(LEFT, RIGHT, size=186), held, hand), held)
