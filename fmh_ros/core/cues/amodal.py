# SPDX-License-Identifier: Apache-2.0
"""How far the object reaches behind the hand: an estimate from the masks, the fitted hand and what depth there is.

A generator that knows only that a region is hidden ends most objects there. But fingers are bent round something, and
what comes out on one side of a fist goes on inside it.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from fmh_ros.core.cues.amodal_network import HAND, MAP_SIZE, OBJECT, AmodalInput, AmodalNetwork, amodal_maps
from fmh_ros.core.cues.completion import grasp_centre
from fmh_ros.core.cues.squares import Square, apply, invert
from fmh_ros.core.cues.types import PointMap, SceneMasks
from fmh_ros.core.frame.frame import Frame
from fmh_ros.core.hand.types import HandMesh

FloatArray = NDArray[np.float64]
WEIGHTS = Path(__file__).resolve().parents[2] / "assets" / "amodal" / "amodal_network.safetensors"
#: Side of the crop over that of the box round hand and object, and its least and largest size over the hand's.
MARGIN, LEAST_HANDS, MOST_HANDS = 1.3, 1.5, 3.5
#: Turns of the crop, degrees, whose answers are averaged.
TURNS = (0.0, 90.0, 180.0, 270.0)


class AmodalNetworkEstimator:
    """`AmodalEstimator` by the network that ships with the package; ``load`` reads its weights."""

    name = "amodal-network"

    def __init__(self, weights: Path = WEIGHTS) -> None:
        self.weights = weights
        self._network: AmodalNetwork | None = None

    def load(self) -> AmodalNetwork:
        """Return the network. Raises ModelMissingError when the weights are not there."""
        if self._network is None:
            self._network = AmodalNetwork.from_file(self.weights)
        return self._network

    def estimate(self, frame: Frame, masks: SceneMasks, points: PointMap | None, hand: HandMesh) -> SceneMasks:
        """Return the masks with ``amodal_probability``: 1 on the seen object, an estimate on the hand, 0 elsewhere."""
        whole = masks.object.astype(np.float32)
        if masks.object.any() and masks.hand.any():
            behind = masks.hand & ~masks.object
            guess = self._behind_hand(frame, masks, None if points is None else points.depth, hand)
            whole[behind] = guess[behind]
        return replace(masks, amodal_probability=whole)

    def _behind_hand(
        self, frame: Frame, masks: SceneMasks, depth: NDArray[np.float32] | None, hand: HandMesh
    ) -> NDArray[np.float32]:
        joints = hand.T_camera_hand.apply(hand.keypoints)
        middle = float(grasp_centre(hand)[2])
        pixels = frame.camera.project(joints)
        square = crop_square(pixels, masks.object)
        label = np.where(masks.object, OBJECT, np.where(masks.hand, HAND, 0)).astype(np.uint8)
        crops = [replace(square, angle=float(np.radians(turn))) for turn in TURNS]
        inputs = []
        for crop in crops:
            to_crop = invert(crop.to_frame(MAP_SIZE))
            size, flags = (MAP_SIZE, MAP_SIZE), cv2.INTER_NEAREST
            near = None
            if depth is not None:
                near = cv2.warpAffine(depth, to_crop, size, flags=flags, borderValue=float("nan")) - np.float32(middle)
            placed = np.concatenate([apply(to_crop, pixels), joints[:, 2:] - middle], 1)
            scale = middle / frame.camera.focal * crop.side / MAP_SIZE
            inside = cv2.warpAffine(np.ones_like(label), to_crop, size, flags=flags) > 0
            cropped = cv2.warpAffine(label, to_crop, size, flags=flags).astype(np.uint8)
            seen = AmodalInput(cropped, inside, near, placed, scale)
            inputs.append(amodal_maps(seen))
        with torch.no_grad():
            answers = torch.sigmoid(self.load()(torch.from_numpy(np.stack(inputs)))).numpy()
        height, width = label.shape
        total = np.zeros((height, width), np.float32)
        for crop, answer in zip(crops, answers, strict=True):
            total += cv2.warpAffine(answer.astype(np.float32), crop.to_frame(MAP_SIZE), (width, height))
        return np.asarray(total / len(crops), np.float32)


def crop_square(pixels: FloatArray, held: NDArray[np.bool_]) -> Square:
    """The crop round the joints (21, 2) and the object's mask (H, W), both in pixels of the frame."""
    low, high = pixels.min(0), pixels.max(0)
    hand = float((high - low).max())
    rows, columns = np.nonzero(held)
    low = np.minimum(low, [columns.min(), rows.min()])
    high = np.maximum(high, [columns.max(), rows.max()])
    side = float(np.clip(MARGIN * (high - low).max(), LEAST_HANDS * hand, MOST_HANDS * hand))
    return Square((low + high) / 2, side)
