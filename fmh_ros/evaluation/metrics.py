# SPDX-License-Identifier: Apache-2.0
"""The paper's protocol in one call: align the predicted to the true hand, then compare the objects.

``evaluation.sample`` has everything else that is measured.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fmh_ros.evaluation.alignment import align_points
from fmh_ros.evaluation.points import ObjectErrors, compare_points, sample_points
from fmh_ros.evaluation.types import FloatArray

__all__ = ["ObjectErrors", "align_points", "compare_points", "hand_aligned_errors", "sample_points"]


def hand_aligned_errors(
    hand: tuple[FloatArray, FloatArray],
    predicted: tuple[FloatArray, NDArray[np.integer]],
    true: tuple[FloatArray, NDArray[np.integer]],
    samples: int = 10_000,
) -> ObjectErrors:
    """Compare objects after mapping the predicted hand onto the true one.

    hand : predicted and true corresponding hand points (N, 3), metres (vertices of one topology, or the 21 joints).
    predicted, true : vertices (V, 3) in metres, in the frame of their hand, and faces (F, 3).
    """
    alignment = align_points(hand[0], hand[1])
    moved = alignment.apply(sample_points(*predicted, samples))
    return compare_points(moved, sample_points(*true, samples))
