# SPDX-License-Identifier: Apache-2.0
"""What measured depth says of hand and object: a body that stands free beside the hand is not the background.

A network that has only learnt what things look like is unsure of a tool it never saw. Depth does not know what a tool
looks like either, but it knows which surfaces end in the air around the hand, and which ones go on behind it.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from fmh_ros.core.cues.hand_pixels import along_forearm, distance_to_bones

Mask = NDArray[np.bool_]
Map = NDArray[np.float32]
FloatArray = NDArray[np.float64]

#: A jump in measured depth of more than this separates two surfaces, metres.
DEPTH_JUMP_M = 0.03
#: Nothing this much further or nearer than the palm is held, metres.
ARM_REACH_M = 0.4
#: A surface of more of its rim than this in front of something further away stands free.
FREE_RIM = 0.6
#: How far from the hand's landmarks a free body may begin, as a part of the hand's box.
BESIDE = 0.15
#: Pixels across a rim to what is behind it: depth cameras see nothing right at an edge.
ACROSS = 6
#: What comes out from behind the hand this much further away, metres, may be what it holds.
GRIP_DEPTH_M = 0.1
#: Fewest pixels of a body.
SPECK = 40
#: Where the network gives neither hand nor object a chance, this much of one to the likelier by where it is.
CHANCE = 0.05
#: Half width of a finger, as a part of the hand's box.
AT_BONE = 0.08
#: Landmarks over the palm.
PALM = [0, 5, 9, 13, 17]


@dataclass(frozen=True)
class DepthEvidence:
    """Masks (S, S). free : surfaces of bodies that stand free and reach the hand; palm : the surface of the palm, the
    back of the hand and whatever goes on from it without an edge; far : surfaces out of the hand's reach."""

    free: Mask
    palm: Mask
    far: Mask


def depth_edges(depth: Map) -> Mask:
    """Where (H, W) depth, metres, jumps to the next pixel right or below."""
    with np.errstate(invalid="ignore"):
        down = np.abs(np.diff(depth, axis=0, append=depth[-1:])) > DEPTH_JUMP_M
        right = np.abs(np.diff(depth, axis=1, append=depth[:, -1:])) > DEPTH_JUMP_M
    return down | right


def find_evidence(depth: Map, keypoints: FloatArray, inside: Mask) -> DepthEvidence | None:
    """Read the depth (S, S), metres, NaN where unknown, round a hand with landmarks (21, 2), px.

    inside : (S, S) bool, what was looked at. Returns None when the hand itself has no depth.
    """
    last = np.array(depth.shape) - 1
    at = np.clip(np.round(keypoints[:, ::-1]).astype(int), 0, last)
    values = depth[at[:, 0], at[:, 1]]
    values = values[np.isfinite(values)]
    if len(values) < 3:
        return None
    hand_z = float(np.median(values))
    with np.errstate(invalid="ignore"):
        far = np.abs(depth - hand_z) > ARM_REACH_M
    known = np.isfinite(depth) & inside
    surfaces, count = ndimage.label(known & ~far & ~depth_edges(depth))
    if not count:
        return DepthEvidence(np.zeros_like(far), np.zeros_like(far), far)
    numbers = np.arange(1, count + 1)
    large = ndimage.sum_labels(known, surfaces, numbers) > SPECK
    size = float(np.ptp(keypoints, axis=0).max())
    to_bones = distance_to_bones(keypoints, depth.shape)
    free = large & (_free_share(depth, inside, surfaces, numbers) > FREE_RIM)
    beside = free & (ndimage.minimum(to_bones, surfaces, numbers) < BESIDE * size)
    bodies = np.isin(surfaces, numbers[beside])
    bodies = np.isin(surfaces, numbers[beside | (free & _touching(depth, bodies, surfaces, numbers))])
    # The pixels of an edge belong to the nearer side.
    grown = ndimage.binary_dilation(bodies, iterations=2) & ~far & (surfaces == 0)
    under_palm = np.unique(surfaces[at[PALM, 0], at[PALM, 1]])
    return DepthEvidence(bodies | grown, np.isin(surfaces, under_palm[under_palm > 0]), far & known)


def _touching(depth: Map, bodies: Mask, surfaces: NDArray[np.int32], numbers: NDArray[np.int64]) -> Mask:
    """Which surfaces come out from behind the bodies (S, S), or lie before them, close by."""
    if not bodies.any():
        return np.zeros(len(numbers), bool)
    gap, (rows, columns) = ndimage.distance_transform_edt(~bodies, return_indices=True)
    with np.errstate(invalid="ignore"):
        close = (gap <= 2 * ACROSS) & (np.abs(depth - depth[rows, columns]) < GRIP_DEPTH_M)
    result: Mask = ndimage.sum_labels(close, surfaces, numbers) > ACROSS
    return result


def _free_share(depth: Map, inside: Mask, surfaces: NDArray[np.int32], numbers: NDArray[np.int64]) -> FloatArray:
    """Part of each surface's rim with something further away behind it, of that and the rim that leaves the photo.

    A rim along something nearer says nothing, since the surface goes on behind it.
    """
    window = np.ones((2 * ACROSS + 1, 2 * ACROSS + 1), np.uint8)
    behind = cv2.dilate(np.where(np.isfinite(depth) & inside, depth, 0).astype(np.float32), window)
    rim = (surfaces > 0) & (ndimage.minimum_filter(surfaces, 3) != ndimage.maximum_filter(surfaces, 3))
    leaves = (surfaces > 0) & (ndimage.minimum_filter(inside.astype(np.uint8), 2 * ACROSS + 1, mode="constant") == 0)
    with np.errstate(invalid="ignore"):
        ends = rim & ~leaves & (behind - depth > DEPTH_JUMP_M)
    ended = ndimage.sum_labels(ends, surfaces, numbers)
    left = ndimage.sum_labels(leaves, surfaces, numbers) / ACROSS
    result: FloatArray = np.asarray(ended / np.maximum(ended + left, 1))
    return result


def weigh(evidence: DepthEvidence, classes: Map, keypoints: FloatArray) -> Map:
    """Return the probabilities (S, S, 3) of background, hand and object, given the network's and what depth says.

    In a free body the background is no answer, so hand and object share its chance by theirs; where the network knows
    neither, what lies at the fingers or goes on from the palm along the forearm is the hand. What is out of reach is
    the background.
    """
    size = float(np.ptp(keypoints, axis=0).max())
    shape = evidence.free.shape
    at_bones = distance_to_bones(keypoints, shape) < AT_BONE * size
    at_hand = at_bones | (along_forearm(keypoints, shape) & evidence.palm)
    hand = classes[..., 1] + np.where(at_hand, CHANCE, 0)
    held = classes[..., 2] + np.where(at_hand, 0, CHANCE)
    result = classes.copy()
    free, far = evidence.free, evidence.far
    result[free] = np.stack([np.zeros_like(hand), hand, held], -1)[free] / np.maximum(hand + held, 1e-6)[free, None]
    result[far] = (1, 0, 0)
    return result.astype(np.float32)
