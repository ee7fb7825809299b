# SPDX-License-Identifier: Apache-2.0
"""Ties a monocular estimate of the surface to the fitted hand, so that hand and object stand at one scale."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from fmh_ros.core.cues.types import PointMap
from fmh_ros.core.frame.camera import CameraModel
from fmh_ros.core.hand.skin_depth import measure_skin
from fmh_ros.core.hand.types import HandMesh

#: Relative error of a hand's size when its distance is measured, one sigma.
MEASURED_SIZE_SIGMA = 0.03


def anchor_on_depth(
    hand: HandMesh, camera: CameraModel, depth: NDArray[np.float32], hand_mask: NDArray[np.bool_]
) -> HandMesh:
    """Move a hand to where its skin is measured, size and distance together, so that it stays as it is in the image.

    Args:
        hand: placed by a guess of its size.
        camera: intrinsics of the frame.
        depth: (H, W) measured metres along z, NaN where unknown.
        hand_mask: (H, W) visible hand. Without enough measured skin the hand is returned as it is.
    """
    skin = measure_skin(hand, camera, depth, hand_mask, coarse=True)
    if skin is None:
        return hand
    pose = hand.T_camera_hand
    return replace(
        hand,
        T_camera_hand=replace(pose, translation=pose.translation * skin.ratio),
        vertices=hand.vertices * skin.ratio,
        keypoints=hand.keypoints * skin.ratio,
        scale=hand.scale * skin.ratio,
        scale_sigma=float(np.hypot(MEASURED_SIZE_SIGMA, skin.relative_error)),
    )


def anchor_on_hand(points: PointMap, hand: HandMesh, camera: CameraModel, hand_mask: NDArray[np.bool_]) -> PointMap:
    """Scale a network's depth so that the hand's visible skin lies where the fitted hand is.

    Both guess the scale, the fit from the size of hands and the network from all it sees; where they differ by a tenth
    an object would float centimetres before the hand. Measured depth is returned as it is, and so is an estimate that
    shows too little of the hand.

    Args:
        points: the estimate.
        hand: fitted without that estimate.
        camera: intrinsics of the frame.
        hand_mask: (H, W) visible hand.
    """
    if points.source == "sensor":
        return points
    skin = measure_skin(hand, camera, points.depth, hand_mask, coarse=True)
    if skin is None:
        return points
    depth = (points.depth / np.float32(skin.ratio)).astype(np.float32)
    return replace(points, depth=depth, scale_sigma=float(np.hypot(hand.scale_sigma, skin.relative_error)))
