# SPDX-License-Identifier: Apache-2.0
"""The object's mask grows to what has its colours and ends at an edge, and no further."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from fmh_ros.core.cues.mask_growth import grow
from fmh_ros.core.cues.mask_refine import Canvas

SIZE = 384
#: A box on a table: rows and columns; the network saw its left part.
BOX, SEEN = (slice(120, 260), slice(100, 300)), (slice(120, 260), slice(100, 190))
HAND = (slice(150, 230), slice(40, 100))


def _region(where: tuple[slice, slice]) -> NDArray[np.bool_]:
    mask = np.zeros((SIZE, SIZE), bool)
    mask[where] = True
    return mask


def _canvas(table: tuple[int, int, int], box: tuple[int, int, int]) -> Canvas:
    rng = np.random.default_rng(0)
    image = np.full((SIZE, SIZE, 3), table, np.float64)
    image[BOX], image[HAND] = box, (200, 150, 120)
    keypoints = np.array([[40.0 + 60 * (k % 2), 150.0 + 4 * k] for k in range(21)])
    hand = _region(HAND).astype(np.float32)
    return Canvas(
        image=np.clip(image + rng.normal(0, 3, image.shape), 0, 255).astype(np.uint8),
        inside=np.ones((SIZE, SIZE), bool),
        object_probability=_region(SEEN).astype(np.float32),
        hand_probability=hand,
        keypoints=keypoints,
        box=None,
        points=np.zeros((0, 2)),
        depth=None,
    )


def test_a_box_of_which_half_was_seen_is_completed() -> None:
    canvas = _canvas(table=(60, 70, 80), box=(40, 90, 190))
    grown = grow(canvas, _region(SEEN), _region(HAND))
    assert (grown & _region(BOX)).sum() > 0.98 * _region(BOX).sum()
    assert not (grown & _region(HAND)).any()
    assert (grown & ~_region(BOX)).sum() < 0.02 * _region(BOX).sum()


def test_without_an_edge_nothing_is_added() -> None:
    """A table that goes over into the box has its colours, but the box does not end in it."""
    canvas = _canvas(table=(60, 70, 80), box=(60, 70, 80))
    ramp = np.linspace(0, 60, SIZE)[None, :, None]
    blended = replace(canvas, image=np.clip(canvas.image + ramp, 0, 255).astype(np.uint8))
    assert np.array_equal(grow(blended, _region(SEEN), _region(HAND)), _region(SEEN))


@pytest.mark.parametrize("open_to_border", [False, True])
def test_what_reaches_the_border_is_added_only_to_what_does(open_to_border: bool) -> None:
    """A wall of the object's colour is no part of it, unless the object leaves the picture as well."""
    canvas = _canvas(table=(60, 70, 80), box=(40, 90, 190))
    image = canvas.image.copy()
    image[BOX[0], 100:] = (40, 90, 190)
    seen = _region((BOX[0], slice(100, 384 if open_to_border else 260)))
    if open_to_border:
        seen[120:180, 300:350] = False
    grown = grow(replace(canvas, image=image), seen, _region(HAND))
    assert grown.sum() > seen.sum() if open_to_border else np.array_equal(grown, seen)


def test_print_beside_the_object_is_no_part_of_it() -> None:
    """Letters of the object's colour on the table, which neither touch it nor the hand."""
    canvas = _canvas(table=(60, 70, 80), box=(40, 90, 190))
    image = canvas.image.copy()
    image[300:330, 150:250] = (40, 90, 190)
    grown = grow(replace(canvas, image=image), _region(BOX), _region(HAND))
    assert np.array_equal(grown, _region(BOX))


@pytest.mark.parametrize(
    ("behind_m", "probability", "added"), [(0.05, 0.2, True), (0.3, 0.2, False), (0.05, 0.0, False)]
)
def test_with_depth_a_piece_belongs_by_its_depth(behind_m: float, probability: float, added: bool) -> None:
    """The rest of a box has no edge towards the table, but its depth, and the network has an inkling of it."""
    canvas = _canvas(table=(60, 70, 80), box=(40, 90, 190))
    rest = _region(BOX) & ~_region(SEEN)
    depth = np.full((SIZE, SIZE), 0.9, np.float32)
    depth[_region(SEEN)], depth[rest] = 0.5, 0.5 + behind_m
    chances = np.where(rest, probability, canvas.object_probability).astype(np.float32)
    grown = grow(replace(canvas, depth=depth, object_probability=chances), _region(SEEN), _region(HAND))
    assert (grown & rest).sum() > 0.95 * rest.sum() if added else np.array_equal(grown, _region(SEEN))


def test_too_few_pixels_tell_no_colours() -> None:
    canvas = _canvas(table=(60, 70, 80), box=(40, 90, 190))
    speck = _region((slice(180, 190), slice(180, 190)))
    assert np.array_equal(grow(canvas, speck, _region(HAND)), speck)
