# SPDX-License-Identifier: Apache-2.0
"""What a real camera and a hand do to a clean view: occlusion, ragged masks, noisy and missing depth and normals."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from fmh_ros.core.cues.completion import round_normals
from fmh_ros.core.flow.embedded.layout import MAP_CHANNELS, MAP_SIZE

Rng = np.random.Generator
Map = NDArray[np.float32]
Mask = NDArray[np.bool_]


def hand_occluder(rng: Rng, mask: Mask) -> Mask:
    """A palm with an arm and a few fingers, reaching over the object from one side."""
    rows, columns = np.nonzero(mask)
    pick = int(rng.integers(len(rows)))
    grip = np.array([columns[pick], rows[pick]], float)
    away = rng.normal(size=2)
    away /= np.linalg.norm(away) + 1e-9
    extent = float(np.sqrt(mask.sum()))
    hand = rng.uniform(0.35, 1.3) * max(extent, 14.0)
    palm = grip + away * hand * rng.uniform(0.1, 0.6)
    canvas = np.zeros((MAP_SIZE, MAP_SIZE), np.uint8)
    axes = (max(2, int(hand * rng.uniform(0.18, 0.34))), max(2, int(hand * rng.uniform(0.22, 0.38))))
    centre = (int(palm[0]), int(palm[1]))
    if rng.random() < 0.75:
        cv2.ellipse(canvas, centre, axes, float(rng.uniform(0, 180)), 0, 360, 1, -1)
    if rng.random() < 0.5:
        end = palm + away * 90
        cv2.line(canvas, centre, (int(end[0]), int(end[1])), 1, max(2, int(hand * 0.35)))
    across = np.array([-away[1], away[0]])
    for _ in range(int(rng.integers(1, 6))):
        start = palm + across * hand * rng.uniform(-0.35, 0.35)
        middle = start - away * hand * rng.uniform(0.2, 0.5) + across * hand * rng.normal(0, 0.12)
        tip = middle - away * hand * rng.uniform(-0.1, 0.45) + across * hand * rng.normal(0, 0.15)
        points = np.round(np.stack([start, middle, tip])).astype(np.int32)
        cv2.polylines(canvas, [points], False, 1, max(2, int(hand * rng.uniform(0.11, 0.18))))
    return canvas.astype(bool)


def _blobs(rng: Rng, share: float) -> Mask:
    """Random smooth blobs that cover about this share of the map."""
    noise = cv2.resize(rng.random((9, 9)).astype(np.float32), (MAP_SIZE, MAP_SIZE), interpolation=cv2.INTER_CUBIC)
    result: Mask = noise < np.quantile(noise, share)
    return result


def _ragged(rng: Rng, mask: Mask) -> Mask:
    """The mask a segmenter would give: edges off by a pixel, now and then a piece lost or gained."""
    image = mask.astype(np.uint8)
    kernel = np.ones((3, 3), np.uint8)
    kind = rng.random()
    if kind < 0.2:
        image = cv2.erode(image, kernel).astype(np.uint8)
    elif kind < 0.45:
        image = cv2.dilate(image, kernel).astype(np.uint8)
    if rng.random() < 0.4:
        grown, shrunk = cv2.dilate(image, kernel), cv2.erode(image, kernel)
        image = np.where(_blobs(rng, 0.5), grown, shrunk).astype(np.uint8)
    if rng.random() < 0.08:
        image = np.where(_blobs(rng, 0.12), 0, image).astype(np.uint8)
    return image.astype(bool)


def _sensor(rng: Rng, depth: Map, seen: Mask) -> tuple[Map, Mask]:
    """Depth with noise, smooth bias, eaten edges and holes; and where it is known."""
    known = seen.copy()
    if rng.random() < 0.6:
        known = cv2.erode(known.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool)
    if rng.random() < 0.4:
        known &= ~_blobs(rng, float(rng.uniform(0.03, 0.4)))
    bias = cv2.resize(rng.normal(0, 1, (4, 4)).astype(np.float32), (MAP_SIZE, MAP_SIZE), interpolation=cv2.INTER_CUBIC)
    noise = rng.uniform(0, 0.03) * rng.standard_normal((MAP_SIZE, MAP_SIZE)) + rng.uniform(0, 0.02) * bias
    return (depth + noise).astype(np.float32), known


def _noisy_normals(rng: Rng, normals: Map, strength: float) -> Map:
    """Normals (3, S, S) bent by smooth and white noise of this strength."""
    smooth = np.stack([cv2.resize(c, (MAP_SIZE, MAP_SIZE)) for c in rng.normal(0, 1, (3, 8, 8)).astype(np.float32)])
    white = rng.standard_normal(normals.shape)
    bent = normals + strength * (0.7 * smooth + 0.5 * white)
    result: Map = (bent / (np.linalg.norm(bent, axis=0, keepdims=True) + 1e-6)).astype(np.float32)
    return result


def clean_maps(mask: Mask, depth: Map, normals: Map) -> Map:
    """Condition maps (8, S, S) float32 of a view that nothing hides, with exact depth and normals."""
    maps = np.zeros((MAP_CHANNELS, MAP_SIZE, MAP_SIZE), np.float32)
    maps[0], maps[3], maps[7] = mask, mask, mask
    maps[2], maps[4:7] = depth * mask, normals * mask
    return maps


def degrade(rng: Rng, mask: Mask, depth: Map, normals: Map, has_depth: bool) -> Map:
    """Clean maps of one view to the (8, S, S) float32 condition maps (layout.MAP_CHANNELS)."""
    unknown = np.zeros_like(mask)
    if rng.random() < 0.85:
        for _ in range(4):
            unknown = hand_occluder(rng, mask)
            if (mask & ~unknown).sum() > 0.35 * mask.sum():
                break
        else:
            unknown = np.zeros_like(mask)
    if rng.random() < 0.07:
        cut = int(rng.integers(2, 14))
        unknown = unknown.copy()
        unknown[-cut:] = True
    seen = _ragged(rng, mask) & ~unknown
    maps = np.zeros((MAP_CHANNELS, MAP_SIZE, MAP_SIZE), np.float32)
    maps[0], maps[1] = seen, unknown
    inside = seen & mask
    if has_depth:
        noisy, known = _sensor(rng, depth, inside)
        maps[2], maps[3] = noisy * known, known
        maps[4:7] = _noisy_normals(rng, normals, float(rng.uniform(0, 0.35))) * known
        maps[7] = known
        return maps
    kind = rng.random()
    if kind < 0.2:
        maps[4:7] = _noisy_normals(rng, normals, float(rng.uniform(0.1, 0.6))) * inside
        maps[7] = inside
    elif kind < 0.85:
        # What the pipeline itself gives where nothing but the outline is known.
        maps[4:7] = round_normals(seen).transpose(2, 0, 1) * seen
        maps[7] = seen
    return maps
