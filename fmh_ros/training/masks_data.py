# SPDX-License-Identifier: Apache-2.0
"""Batches for the mask network: pictures with noisy landmarks, sometimes a prompt, sometimes depth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fmh_ros.core.cues.mask_inputs import MAP_SIZE, CropPrompt, guidance_maps, hand_size_px
from fmh_ros.core.hand.rig import HandRig
from fmh_ros.training.scenes.compose import Bank, Picture, compose
from fmh_ros.training.scenes.textures import Image

Rng = np.random.Generator
IGNORED = 255
#: Share of the examples that come with depth: robots mostly have it, photographs never.
DEPTH_SHARE = 0.4
#: Arrays in the order of `Batch`, without the batch axis.
Example = tuple[
    NDArray[np.float32],
    NDArray[np.float32],
    NDArray[np.int64],
    NDArray[np.float32],
    NDArray[np.float32],
    NDArray[np.float32],
    np.float32,
]


@dataclass(frozen=True)
class Batch:
    """Inputs and truth of N crops; truth at MAP_SIZE. ``classes`` is IGNORED outside the photo."""

    image: Tensor
    maps: Tensor
    classes: Tensor
    amodal: Tensor
    normals: Tensor
    depth: Tensor
    holds: Tensor


def noisy_keypoints(rng: Rng, keypoints: NDArray[np.float64]) -> NDArray[np.float64]:
    """Disturb landmarks (21, 2) as a detector does: more at the tips, now and then badly."""
    size = hand_size_px(keypoints)
    strength = size * (1.0 if rng.random() < 0.85 else 2.5)
    noise = rng.normal(0, 0.012, (21, 2)) + rng.normal(0, 0.015, 2)
    for finger in range(5):
        growth = np.array([0.3, 0.6, 0.85, 1.0])[:, None]
        noise[1 + 4 * finger : 5 + 4 * finger] += growth * rng.normal(0, 0.03, 2)
    return keypoints + strength * noise


def draw_prompt(rng: Rng, label: NDArray[np.uint8], inside: NDArray[np.bool_]) -> CropPrompt:
    """Draw what a user might give for the visible object: mostly nothing, else a rough box or a few points."""
    rows, columns = np.nonzero((label == 2) & inside)
    kind = rng.random()
    if len(rows) < 12 or kind < 0.6:
        return CropPrompt()
    box = None
    if kind < 0.84:
        low, high = np.array([columns.min(), rows.min()]), np.array([columns.max(), rows.max()])
        jitter = rng.normal(0, 0.04, 4) * np.tile(high - low, 2)
        box = tuple(float(v) for v in np.concatenate([low, high]) + jitter)
    points = np.zeros((0, 2))
    if kind >= 0.78:
        picks = rng.integers(len(rows), size=int(rng.integers(1, 4)))
        points = np.stack([columns[picks], rows[picks]], 1).astype(np.float64)
    return CropPrompt(box, points)  # type: ignore[arg-type]


def sensor_depth(rng: Rng, exact: NDArray[np.float32]) -> NDArray[np.float32]:
    """Depth (S, S) as an RGB-D camera gives it, NaN where missing; background, 0 in ``exact``, is a tilted plane."""
    size = exact.shape[0]
    ramp = np.linspace(-1, 1, size, dtype=np.float32)
    near = exact > 0
    z = float(np.median(exact[near])) if near.any() else 0.5
    behind = z + 0.06 + rng.exponential(0.35) + rng.normal(0, 0.1) * ramp[:, None] + rng.normal(0, 0.05) * ramp[None]
    depth = np.where(near, exact, np.maximum(behind, z + 0.01)).astype(np.float32)
    depth += (rng.normal(0, 1, depth.shape) * 0.002 * depth**2).astype(np.float32)
    edge = cv2.morphologyEx(near.astype(np.uint8), cv2.MORPH_GRADIENT, np.ones((3, 3))) > 0
    holes = edge & (rng.random(depth.shape) < rng.uniform(0.1, 0.9))
    blobs = cv2.resize(rng.random((12, 12), dtype=np.float32), (size, size)) < rng.uniform(0, 0.25)
    depth[holes | blobs] = np.nan
    return depth


def relative_depth(depth: NDArray[np.floating], wrist_z: float, hand_length: float) -> NDArray[np.float32]:
    """Depth minus the wrist's, in hand lengths (wrist to middle knuckle)."""
    result: NDArray[np.float32] = ((depth - wrist_z) / hand_length).astype(np.float32)
    return result


def _small(values: NDArray[Any], interpolation: int) -> NDArray[Any]:
    return cv2.resize(values, (MAP_SIZE, MAP_SIZE), interpolation=interpolation)


def make_example(rng: Rng, picture: Picture, *, prompts: bool = True, with_depth: bool | None = None) -> Example:
    """Turn a picture into arrays in the order of `Batch`."""
    keypoints = noisy_keypoints(rng, picture.keypoints_2d)
    prompt = draw_prompt(rng, picture.label, picture.inside) if prompts else CropPrompt()
    hand_length = float(np.linalg.norm(picture.keypoints[9] - picture.keypoints[0]))
    wrist_z = float(picture.keypoints[0, 2])
    relative = None
    if rng.random() < DEPTH_SHARE if with_depth is None else with_depth:
        seen = sensor_depth(rng, picture.depth)
        seen[~picture.inside] = np.nan
        relative = relative_depth(seen, wrist_z + rng.normal(0, 0.01), hand_length * np.exp(rng.normal(0, 0.08)))
    maps = guidance_maps(keypoints, prompt, picture.inside, relative)
    classes = np.where(picture.inside, picture.label, IGNORED).astype(np.uint8)
    return (
        picture.image.transpose(2, 0, 1).astype(np.float32),
        maps,
        _small(classes.astype(np.float32), cv2.INTER_NEAREST).astype(np.int64),
        _small(picture.amodal.astype(np.float32), cv2.INTER_AREA),
        _small(picture.normals, cv2.INTER_NEAREST).transpose(2, 0, 1),
        _small(relative_depth(picture.depth, wrist_z, hand_length), cv2.INTER_NEAREST),
        np.float32(picture.holds),
    )


def vary(rng: Rng, example: Example) -> Example:
    """The same example turned by a multiple of 90 degrees and in other colours: cheaper than a new one."""
    image, maps, classes, amodal, normals, depth, holds = example
    turns = int(rng.integers(4))
    gain = np.exp(rng.normal(0, 0.12, (3, 1, 1)) + rng.normal(0, 0.2))
    inside = maps[10].repeat(2, 0).repeat(2, 1) > 0.99
    image = (np.clip(image * gain + rng.normal(0, 6), 0, 255) * inside).astype(np.float32)

    def turned(values: NDArray[np.generic]) -> NDArray[np.generic]:
        return np.ascontiguousarray(np.rot90(values, turns, (-2, -1)))

    normals = turned(normals).copy()  # type: ignore[assignment]
    for _ in range(turns):
        normals[0], normals[1] = normals[1].copy(), -normals[0]
    return (turned(image), turned(maps), turned(classes), turned(amodal), normals, turned(depth), holds)  # type: ignore[return-value]


class ExampleSource:
    """Endless examples of a bank: each new picture is used ``uses`` times, later ones varied and far apart."""

    def __init__(self, rig: HandRig, bank: Bank, photos: Sequence[Image], uses: int = 2, memory: int = 400) -> None:
        self.rig, self.bank, self.photos = rig, bank, photos
        self.uses, self.memory = uses, memory
        self._kept: list[Example] = []

    def _fresh(self, rng: Rng) -> Example:
        index = int(rng.integers(len(self.bank)))
        return make_example(rng, compose(rng, self.rig, self.bank, index, self.photos))

    def batch(self, rng: Rng, count: int) -> Batch:
        """Return ``count`` examples."""
        rows = []
        for _ in range(count):
            if len(self._kept) >= self.memory and rng.random() > 1 / self.uses:
                rows.append(vary(rng, self._kept[int(rng.integers(len(self._kept)))]))
                continue
            fresh = self._fresh(rng)
            rows.append(fresh)
            if len(self._kept) < self.memory:
                self._kept.append(fresh)
            else:
                self._kept[int(rng.integers(self.memory))] = fresh
        return Batch(*(torch.as_tensor(np.stack(column)) for column in zip(*rows, strict=True)))
