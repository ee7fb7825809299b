# SPDX-License-Identifier: Apache-2.0
"""What stands out before a plain background: where the mask network sees nothing held, the picture may still show it.

A network takes a cardboard toy for skin, or for nothing at all. Before a wall, a table top or a sheet of paper no
network is needed: whatever is not the background, not the hand, and not cut off by the photo's border is a thing.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Mask = NDArray[np.bool_]
FloatArray = NDArray[np.float64]

#: CIELAB units per pixel below which a picture is smooth, and what a background's colours may scatter by: lightness
#: (light falls off), then the two colour axes.
SMOOTH = 2.0
SCATTER = np.array([12.0, 3.0, 3.0])
#: Part of the photo's border that one smooth surface must run along to be a plain background.
LEAST_BORDER = 0.6
#: A colour within so many deviations, and so many units, of the background's is the background seen through a gap.
DEVIATIONS, SLACK = 3.0, 6.0
#: Parts of the hand's box: what the hand's mask may be wrong by at its rim; the longest gap between hand and thing; the
#: smallest thing's area (of the box's).
HAND_RIM, REACH, SMALLEST = 0.03, 0.1, 0.03
#: A thing of more of its rim than this on the photo's border may be anything: a sleeve, a body, a table.
MOST_CUT = 0.03


def find_background(image: NDArray[np.uint8]) -> Mask | None:
    """Return the plain background (H, W) of an image (H, W, 3) RGB, None when it has none."""
    colours = cv2.cvtColor(cv2.bilateralFilter(image, 5, 20, 3), cv2.COLOR_RGB2LAB).astype(np.float32)
    slopes = [cv2.Sobel(colours, cv2.CV_32F, *axis, ksize=3) / 8 for axis in ((1, 0), (0, 1))]
    surfaces, count = ndimage.label(np.sqrt(sum((slope**2).sum(-1) for slope in slopes)) < SMOOTH)
    border = np.concatenate([surfaces[0], surfaces[-1], surfaces[1:-1, 0], surfaces[1:-1, -1]])
    along = np.bincount(border, minlength=count + 1)[1:]
    if not count or along.max() < LEAST_BORDER * len(border):
        return None
    surface = surfaces == along.argmax() + 1
    mean, scatter = colours[surface].mean(0), colours[surface].std(0)
    if (scatter > SCATTER).any():
        return None
    return surface | (np.abs(colours - mean) < DEVIATIONS * scatter + SLACK).all(-1)


def find_thing(image: NDArray[np.uint8], hand: Mask, keypoints: FloatArray) -> Mask | None:
    """Return what stands out at a hand before a plain background, (H, W).

    Args:
        image: (H, W, 3) RGB.
        hand: (H, W), the hand with its forearm.
        keypoints: (21, 2), px.

    Returns:
        The visible pixels of things that reach the hand and end within the photo; None when there are none, or the
        background is not plain.
    """
    background = find_background(image)
    if background is None or not hand.any():
        return None
    size = float(np.ptp(keypoints, axis=0).max())
    gap = ndimage.distance_transform_edt(~hand)
    pieces, count = ndimage.label(ndimage.binary_opening(~background & (gap > HAND_RIM * size)))
    if not count:
        return None
    numbers = np.arange(1, count + 1)
    inner = ndimage.binary_erosion(pieces > 0)
    rim = ndimage.sum_labels((pieces > 0) & ~inner, pieces, numbers)
    outermost = np.ones(hand.shape, bool)
    outermost[1:-1, 1:-1] = False
    cut = ndimage.sum_labels(outermost, pieces, numbers) / np.maximum(rim, 1)
    area = ndimage.sum_labels(pieces > 0, pieces, numbers)
    reached = ndimage.minimum(gap, pieces, numbers) < REACH * size
    kept = numbers[reached & (cut <= MOST_CUT) & (area > SMALLEST * size**2)]
    if not len(kept):
        return None
    # Up to the hand again: only its uncertain rim was left out.
    grown = ndimage.binary_dilation(np.isin(pieces, kept), iterations=max(round(HAND_RIM * size), 1))
    return np.asarray(grown & ~background & ~hand)
