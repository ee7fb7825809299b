# SPDX-License-Identifier: Apache-2.0
"""A posed hand in the camera frame."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fmh_ros.core.frame.frame import Side
from fmh_ros.core.transforms import Similarity

Finger = Literal["thumb", "index", "middle", "ring", "little", "palm"]
FINGERS: tuple[Finger, ...] = ("thumb", "index", "middle", "ring", "little", "palm")


@dataclass(frozen=True)
class HandMesh:
    """A hand fitted to one frame.

    The hand frame: origin at the wrist joint; for a right hand x from the wrist towards the middle finger's knuckle,
    z out of the palm side's back (dorsal), y = z cross x; a left hand is the mirror image (y negated).

    side : anatomical side.
    T_camera_hand : rigid pose, scale 1.
    vertices : (V, 3) float64 metres, **hand frame**, posed; faces : (F, 3) int64, closed, outward winding.
    vertex_finger : (V,) int64, index into FINGERS.
    keypoints : (21, 3) float64 metres, hand frame, KEYPOINT_NAMES order.
    scale : size relative to the rig's average hand; scale_sigma : its relative one-sigma uncertainty.
    reprojection_px : root mean square distance between projected and detected landmarks.
    score : 0 to 1, how well the model explains the landmarks.
    """

    side: Side
    T_camera_hand: Similarity
    vertices: NDArray[np.float64]
    faces: NDArray[np.int64]
    vertex_finger: NDArray[np.int64]
    keypoints: NDArray[np.float64]
    scale: float
    scale_sigma: float
    reprojection_px: float
    score: float
