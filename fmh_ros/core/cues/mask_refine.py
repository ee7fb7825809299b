# SPDX-License-Identifier: Apache-2.0
"""Makes a rough object probability follow the picture's edges, honour a prompt, and stay with the hand."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from fmh_ros.core.cues.depth_evidence import depth_edges

Mask = NDArray[np.bool_]
Map = NDArray[np.float32]
FloatArray = NDArray[np.float64]

GRABCUT_SIZE = 192
#: Probabilities above and below which the picture's colours may not overrule the network.
SURE = 0.93
SURELY_NOT = 0.04
#: A user's box is tight: when the mask does not span it, the probability inside is raised by these amounts, and the
#: result that spans it best is taken; raising costs LIFT_COST per unit.
LIFTS = (0.0, 0.2, 0.35, 0.45)
LIFT_COST = 0.5
#: What each piece the mask falls into costs.
PIECE_COST = 0.12
#: A mask that spans this part of the box both ways needs no raising.
SPANNED = 0.88
#: Longest gap between a held part and the hand's mask, as a part of the hand's box.
REACH = 0.12
#: Part of a piece's rim along the hand from which it counts fully as held, and the smallest weight over the largest
#: piece's at which another piece is kept.
FULL_GRIP = 0.25
LEAST_PIECE = 0.3
#: A finger counts as near within this part of the hand's box.
NEAR_FINGER = 0.1
#: Mean probability from which a surface is firmly the object, and the same as a part of the firmest surface's, among
#: those of more pixels than a speck.
FIRM, FIRM_SHARE, SPECK = 0.7, 0.85, 30
#: What a tenth of the likely pixels exceeds where the network is not at all, and fully, sure of a part; and what the
#: others need then. On 40 training scenes of the benchmark without depth the mean IoU is 0.643 so, 0.637 with a half.
SURE_OF_A_PART, LEAST_BESIDE = (0.8, 0.95), 0.7


@dataclass(frozen=True)
class Canvas:
    """Everything on one square canvas (S, S).

    image : uint8 RGB; inside : looked at and in the photo; object_probability, hand_probability : float32;
    keypoints : (21, 2) px; box : its two corners or None; points : (N, 2) px on the object; depth : metres or None.
    """

    image: NDArray[np.uint8]
    inside: Mask
    object_probability: Map
    hand_probability: Map
    keypoints: FloatArray
    box: tuple[FloatArray, FloatArray] | None
    points: FloatArray
    depth: Map | None


def _box_mask(canvas: Canvas) -> Mask:
    height, width = canvas.inside.shape
    result = np.ones((height, width), bool)
    if canvas.box is not None:
        rows, columns = np.arange(height)[:, None], np.arange(width)[None]
        (x0, y0), (x1, y1) = canvas.box
        result = (columns >= x0) & (columns <= x1) & (rows >= y0) & (rows <= y1)
    return result


def _disc(shape: tuple[int, ...], points: FloatArray, radius: int) -> Mask:
    drawn = np.zeros(shape, np.uint8)
    for x, y in points:
        cv2.circle(drawn, (round(float(x)), round(float(y))), radius, 1, -1)
    return drawn > 0


def prompted_probability(canvas: Canvas, lift: float = 0.0) -> Map:
    """The object's probability with what the prompt says: nothing outside the box; in it, raised by ``lift``."""
    probability = np.where(canvas.inside, canvas.object_probability, 0).astype(np.float32)
    if canvas.box is not None:
        allowed = _box_mask(canvas)
        probability = np.where(allowed, probability, 0).astype(np.float32)
        free = allowed & canvas.inside & (canvas.hand_probability < 0.5)
        probability = np.where(free, probability * np.float32(1 - lift) + np.float32(lift), probability)
    if len(canvas.points):
        probability = np.where(_disc(probability.shape, canvas.points, 5), 1, probability)
    return probability.astype(np.float32)


def _grabcut(canvas: Canvas, probability: Map) -> Map | None:
    """Let colour models decide where the network is unsure; None when there is too little of either side."""
    size = (GRABCUT_SIZE, GRABCUT_SIZE)
    image = cv2.resize(canvas.image, size, interpolation=cv2.INTER_AREA)
    p = cv2.resize(probability, size, interpolation=cv2.INTER_AREA)
    inside = cv2.resize(canvas.inside.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0
    hand = cv2.resize(canvas.hand_probability, size, interpolation=cv2.INTER_AREA)
    labels = np.where(p > 0.5, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
    labels[p > SURE] = cv2.GC_FGD
    labels[(p < SURELY_NOT) | ~inside | (hand > 0.8)] = cv2.GC_BGD
    if (labels == cv2.GC_FGD).sum() + (labels == cv2.GC_PR_FGD).sum() < 30 or (p <= 0.5).sum() < 30:
        return None
    cut = cut_by_colours(np.asarray(image, np.uint8), labels).astype(np.float32)
    shape = probability.shape[::-1]
    return cv2.resize(cut, shape, interpolation=cv2.INTER_LINEAR).astype(np.float32)


def cut_by_colours(image: NDArray[np.uint8], labels: NDArray[np.uint8]) -> Mask:
    """Divide an RGB image (H, W, 3) by models of its colours (GrabCut); labels : (H, W), OpenCV's GC_ constants."""
    labels, models = labels.copy(), (np.zeros((1, 65)), np.zeros((1, 65)))
    cv2.setRNGSeed(1)
    cv2.grabCut(image, labels, (0, 0, 1, 1), *models, 3, cv2.GC_INIT_WITH_MASK)
    result: Mask = (labels == cv2.GC_FGD) | (labels == cv2.GC_PR_FGD)
    return result


def _follow_edges(canvas: Canvas, probability: Map, radius: int = 6, epsilon: float = 2e-3) -> Map:
    """Guided filter: the probability becomes locally linear in the picture's brightness."""
    guide = cv2.cvtColor(canvas.image, cv2.COLOR_RGB2GRAY).astype(np.float32) / 255
    box = (2 * radius + 1, 2 * radius + 1)
    mean_g, mean_p = cv2.blur(guide, box), cv2.blur(probability, box)
    slope = (cv2.blur(guide * probability, box) - mean_g * mean_p) / (
        cv2.blur(guide * guide, box) - mean_g**2 + epsilon
    )
    offset = mean_p - slope * mean_g
    result: Map = np.clip(cv2.blur(slope, box) * guide + cv2.blur(offset, box), 0, 1)
    return result


def refine(canvas: Canvas) -> tuple[Mask, Mask]:
    """Return object and hand masks (S, S), disjoint; the object in one piece near the hand, or as the prompt says."""
    best: tuple[float, Mask, Mask] | None = None
    for lift in LIFTS if canvas.box is not None else (0.0,):
        held, hand = _refine_once(canvas, lift)
        held = keep_held_parts(canvas, held)
        span, pieces = _span(canvas, held), ndimage.label(held)[1]
        merit = span - LIFT_COST * lift - PIECE_COST * pieces
        if best is None or merit > best[0]:
            best = (merit, held, hand & ~held)
        if span > SPANNED and pieces == 1:
            break
    assert best is not None
    return best[1], best[2]


def _span(canvas: Canvas, held: Mask) -> float:
    """Part of the box's width or height, the smaller of the two, that the mask spans; 1 without a box."""
    if canvas.box is None:
        return 1.0
    if not held.any():
        return 0.0
    rows, columns = np.nonzero(held)
    low, high = canvas.box
    inner_low, inner_high = np.maximum(low, 0), np.minimum(high, held.shape[0] - 1)
    size = np.maximum(inner_high - inner_low, 1)
    return float(min((np.ptp(columns) + 1) / size[0], (np.ptp(rows) + 1) / size[1]))


def _refine_once(canvas: Canvas, lift: float) -> tuple[Mask, Mask]:
    probability = prompted_probability(canvas, lift)
    blended = _follow_edges(canvas, probability)
    cut = _grabcut(canvas, probability)
    if cut is not None:
        agreement = 2 * (cut * probability).sum() / (cut.sum() + probability.sum() + 1e-6)
        # Colour models that disagree with the network altogether have mixed object and ground: then they get no say.
        share = 0.5 * float(np.clip((agreement - 0.5) / 0.3, 0, 1))
        blended = (1 - share) * blended + share * cut
    allowed = canvas.inside & _box_mask(canvas)
    rival = np.where(canvas.inside, canvas.hand_probability, 0)
    held = (blended > _least(canvas, blended)) & allowed & ((rival < 0.6) | (probability > rival))
    held |= _disc(held.shape, canvas.points, 3) & allowed
    if canvas.depth is not None:
        held = _cut_by_depth(canvas, held, probability)
    hand = _hand_mask(canvas) & ~held
    return held, hand


def _least(canvas: Canvas, blended: Map) -> float:
    """Probability from which a pixel is the object.

    Where the network is sure of a part, and neither depth nor a box tells the object from what lies behind it, the rest
    has to be likelier than a half: of scissors over a box the box is unsure.
    """
    likely = canvas.object_probability[blended > 0.5]
    if canvas.depth is not None or canvas.box is not None or not len(likely):
        return 0.5
    low, high = SURE_OF_A_PART
    return 0.5 + (LEAST_BESIDE - 0.5) * float(np.clip((np.quantile(likely, 0.9) - low) / (high - low), 0, 1))


def _cut_by_depth(canvas: Canvas, held: Mask, probability: Map) -> Mask:
    """Drop surfaces behind a depth edge that are less firmly the object than its firmest one."""
    assert canvas.depth is not None
    jump = depth_edges(canvas.depth)
    pieces, count = ndimage.label(held & ~jump)
    if not count:
        return held
    numbers = np.arange(1, count + 1)
    firmness = ndimage.mean(probability, pieces, numbers)
    large = ndimage.sum_labels(held, pieces, numbers) > SPECK
    # Where the network is unsure of everything, its best guess is still the object.
    least = min(FIRM, FIRM_SHARE * float(firmness[large].max())) if large.any() else FIRM
    kept = (firmness > least) | (ndimage.mean(probability > SURE, pieces, numbers) > 0.3)
    result = (held & jump) | np.isin(pieces, numbers[kept])
    # Pixels on an edge stay only beside a kept surface.
    return result & ndimage.binary_dilation(result & ~jump, iterations=2)


def _hand_mask(canvas: Canvas) -> Mask:
    mask = (_follow_edges(canvas, canvas.hand_probability, 4) > 0.5) & canvas.inside
    pieces, count = ndimage.label(mask)
    if count <= 1:
        return mask
    # Keep what the landmarks touch; fingers cut off by the object count as well.
    near = _disc(mask.shape, canvas.keypoints, max(int(0.06 * np.ptp(canvas.keypoints, axis=0).max()), 2))
    wanted = np.unique(pieces[near & mask])
    return np.isin(pieces, wanted[wanted > 0])


def keep_held_parts(canvas: Canvas, held: Mask) -> Mask:
    """Keep the parts near the hand (or at the prompt) that are not mere specks, and fill their holes."""
    held = ndimage.binary_opening(held, iterations=1) | (held & _disc(held.shape, canvas.points, 8))
    pieces, count = ndimage.label(held)
    if count == 0:
        return held
    size = float(np.ptp(canvas.keypoints, axis=0).max())
    hand = _hand_mask(canvas) | _disc(held.shape, canvas.keypoints, max(int(0.08 * size), 3))
    gap = ndimage.distance_transform_edt(~hand)
    numbers = np.arange(1, count + 1)
    mass = ndimage.sum_labels(np.maximum(canvas.object_probability, 0.2), pieces, numbers)
    reached = ndimage.minimum(gap, pieces, numbers) < max(int(REACH * size), 3)
    prompted = _pointed_at(canvas, pieces, count)
    wanted = reached | (canvas.box is not None)
    weight = np.where(wanted, mass * _grip(held, pieces, numbers, gap), 0)
    least = LEAST_PIECE if canvas.box is None else 0.5 * LEAST_PIECE
    keep = wanted & (weight > least * weight.max())
    if prompted.any():
        # Other pieces may belong to it, beyond the hand, but not ones that outweigh what was pointed at.
        pointed = mass[prompted].max()
        keep = prompted | (wanted & (mass > 0.1 * pointed) & (mass < 0.9 * pointed))
    return _fill_holes(canvas, np.isin(pieces, numbers[keep]), size)


def fingers_near(canvas: Canvas, held: Mask) -> int:
    """How many fingers come close to the mask in the picture with one of their three outer landmarks."""
    size = float(np.ptp(canvas.keypoints, axis=0).max())
    gap = ndimage.distance_transform_edt(~held)
    last = np.array(held.shape) - 1
    pixels = np.clip(np.round(canvas.keypoints[1:, ::-1]).astype(int), 0, last).reshape(5, 4, 2)[:, 1:]
    return int((gap[pixels[..., 0], pixels[..., 1]] < NEAR_FINGER * size).any(1).sum())


def _pointed_at(canvas: Canvas, pieces: NDArray[np.int32], count: int) -> Mask:
    result = np.zeros(count, bool)
    last = np.array(pieces.shape) - 1
    for x, y in canvas.points:
        row, column = np.clip(np.round([y, x]).astype(int), 0, last)
        if pieces[row, column]:
            result[pieces[row, column] - 1] = True
    return result


def _grip(held: Mask, pieces: NDArray[np.int32], numbers: NDArray[np.int64], gap: FloatArray) -> FloatArray:
    """How much of each piece's rim lies along the hand: 1 from FULL_GRIP on, less below. What is held is embraced."""
    rim = held & ~ndimage.binary_erosion(held)
    length = ndimage.sum_labels(rim, pieces, numbers)
    along = ndimage.sum_labels(rim & (gap < 6), pieces, numbers)
    result: FloatArray = np.clip(along / np.maximum(length, 1) / FULL_GRIP, 0.1, 1)
    return result


def _fill_holes(canvas: Canvas, mask: Mask, size: float) -> Mask:
    """Fill holes, but not those that show hand or another thing, such as the eye of a mug's handle."""
    holes, number = ndimage.label(ndimage.binary_fill_holes(mask) & ~mask)
    for hole in range(1, number + 1):
        where = holes == hole
        if canvas.object_probability[where].mean() > 0.3 or where.sum() < 0.002 * size**2:
            mask = mask | where
    return mask & ~(canvas.hand_probability > 0.85)
