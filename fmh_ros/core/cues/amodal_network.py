# SPDX-License-Identifier: Apache-2.0
"""The network that tells how far the object reaches behind the hand, and what it is shown.

It sees no colours: where object and hand are seen, what depth is measured, and the skeleton of the fitted hand with its
own depth. Those are the same in a rendered scene and in a photograph.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fmh_ros.core.cues.mask_inputs import MAP_SIZE, stroke
from fmh_ros.core.cues.shipped_weights import read_into

FloatArray = NDArray[np.float64]
Map = NDArray[np.float32]

#: Maps: object, hand, inside the photo, depth, depth known, five fingers, palm, the skeleton's near and far side, where
#: it is, scale.
MAP_COUNT = 15
#: Labels of pixels.
HAND, OBJECT = 1, 2
#: Depths are counted from the grasp's middle in units of this, metres, up to so many.
DEPTH_UNIT_M, DEPTH_LIMIT = 0.1, 2.0
#: Half thickness of fingers and palm, metres, and how wide a usual crop is.
FINGER_M, PALM_M, CROP_M = 0.008, 0.012, 0.35
#: However near the hand is, no bone is drawn wider.
MOST_STROKE_PX = 60
_FINGERS = ((1, 2, 3, 4), (5, 6, 7, 8), (9, 10, 11, 12), (13, 14, 15, 16), (17, 18, 19, 20))
_PALM = ((0, 1), (0, 5), (0, 9), (0, 13), (0, 17), (5, 9), (9, 13), (13, 17))
#: Points along each bone that the skeleton's depth is drawn at, and the channels of the levels, coarser and coarser.
_STEPS, _WIDTHS = 6, (48, 80, 112, 144)


@dataclass(frozen=True)
class AmodalInput:
    """One square crop (MAP_SIZE, MAP_SIZE).

    label : uint8, 0 neither, HAND or OBJECT, visible parts; inside : bool, in the photo; depth : float32 metres along
    z, minus the grasp's middle, NaN where unknown, or None; joints : (21, 3), pixels of the crop and metres along z,
    minus the grasp's middle; metres_per_px : at the grasp's distance.
    """

    label: NDArray[np.uint8]
    inside: NDArray[np.bool_]
    depth: Map | None
    joints: FloatArray
    metres_per_px: float


def amodal_maps(seen: AmodalInput) -> Map:
    """Draw the maps (MAP_COUNT, MAP_SIZE, MAP_SIZE)."""
    maps = np.zeros((MAP_COUNT, MAP_SIZE, MAP_SIZE), np.float32)
    maps[0], maps[1], maps[2] = seen.label == OBJECT, seen.label == HAND, seen.inside
    if seen.depth is not None:
        known = np.isfinite(seen.depth) & seen.inside
        maps[3] = np.where(known, _depth_units(np.nan_to_num(seen.depth)), 0)
        maps[4] = known
    pixels = np.clip(seen.joints[:, :2], -500, 500)
    finger_px, palm_px = (2 * min(half / seen.metres_per_px, MOST_STROKE_PX / 2) for half in (FINGER_M, PALM_M))
    for k, finger in enumerate(_FINGERS):
        maps[5 + k] = stroke(pixels[list(finger)], finger_px)
    for a, b in _PALM:
        maps[10] = np.maximum(maps[10], stroke(pixels[[a, b]], palm_px))
    near, far, where = _skeleton_depth(pixels, seen.joints[:, 2], seen.metres_per_px)
    maps[11], maps[12], maps[13] = near, far, where
    maps[14] = np.log(seen.metres_per_px * MAP_SIZE / CROP_M)
    return maps


def _depth_units(metres: NDArray[np.floating]) -> Map:
    return np.asarray(np.clip(metres / DEPTH_UNIT_M, -DEPTH_LIMIT, DEPTH_LIMIT), np.float32)


def _skeleton_depth(pixels: FloatArray, depth: FloatArray, metres_per_px: float) -> tuple[Map, Map, Map]:
    """Depth of the nearest and of the farthest bone at each pixel, in units, and where there is any."""
    bones = [pair for finger in _FINGERS for pair in pairwise(finger)] + list(_PALM)
    joints = np.concatenate([pixels, depth[:, None]], 1)
    share = np.linspace(0, 1, _STEPS)[:, None]
    points = np.concatenate([joints[a] * (1 - share) + joints[b] * share for a, b in bones])
    radius = int(np.clip(round(FINGER_M / metres_per_px), 1, MOST_STROKE_PX // 2))
    order = np.argsort(points[:, 2])
    empty = np.float32(99)
    drawn = []
    for sequence in (order[::-1], order):  # what is drawn last stays
        canvas = np.full((MAP_SIZE, MAP_SIZE), empty, np.float32)
        for x, y, z in points[sequence]:
            cv2.circle(canvas, (round(x), round(y)), radius, float(z), -1)
        drawn.append(canvas)
    where = drawn[0] != empty
    near, far = (np.where(where, _depth_units(canvas), 0).astype(np.float32) for canvas in drawn)
    return near, far, where.astype(np.float32)


class _Residual(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, stride, 1)
        self.norm = nn.GroupNorm(8, outputs)
        self.second = nn.Conv2d(outputs, outputs, 3, 1, 1)
        self.last = nn.GroupNorm(8, outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.silu(self.norm(self.first(x)))
        y: Tensor = nn.functional.silu(x + self.last(self.second(x)))
        return y


class AmodalNetwork(nn.Module):
    """A small U-Net: maps (N, MAP_COUNT, MAP_SIZE, MAP_SIZE) to logits (N, MAP_SIZE, MAP_SIZE) of the whole object."""

    def __init__(self) -> None:
        super().__init__()
        self.fold = nn.PixelUnshuffle(2)
        self.down = nn.ModuleList()
        inputs = 4 * MAP_COUNT
        for level, width in enumerate(_WIDTHS):
            self.down.append(_Residual(inputs, width, 1 if level == 0 else 2))
            inputs = width
        self.middle = _Residual(inputs, inputs)
        self.up = nn.ModuleList()
        for level in range(len(_WIDTHS) - 2, -1, -1):
            self.up.append(_Residual(inputs + _WIDTHS[level], _WIDTHS[level]))
            inputs = _WIDTHS[level]
        self.head = nn.Sequential(nn.Conv2d(inputs, 4, 3, 1, 1), nn.PixelShuffle(2))

    @classmethod
    def from_file(cls, path: Path) -> AmodalNetwork:
        """Load weights for inference. Raises ModelMissingError when they are missing or of another network."""
        network = cls()
        read_into(network, path, "amodal network", "fmh_ros.training.amodal")
        return network

    def forward(self, maps: Tensor) -> Tensor:
        """Return the logits."""
        x = self.fold(maps)
        taps = []
        for layer in self.down:
            x = layer(x)
            taps.append(x)
        x = self.middle(x)
        for layer, tap in zip(self.up, taps[-2::-1], strict=True):
            x = layer(torch.cat([nn.functional.interpolate(x, scale_factor=2, mode="nearest"), tap], 1))
        result: Tensor = self.head(x)[:, 0]
        return result
