# SPDX-License-Identifier: Apache-2.0
"""Deferred shading: give the geometry buffers of a view skin, cloth and material, and light them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from fmh_ros.core.hand.rig import HandRig
from fmh_ros.training.scenes.render import ARM, BACKGROUND, HAND, OBJECT, SLEEVE, Buffers
from fmh_ros.training.scenes.textures import Image, colour, noise, texture

Rng = np.random.Generator

#: sRGB of skin from light to dark; tones in between are interpolated.
_SKIN = np.array(
    [
        [0.96, 0.82, 0.75],
        [0.91, 0.72, 0.60],
        [0.82, 0.62, 0.48],
        [0.68, 0.47, 0.34],
        [0.48, 0.31, 0.22],
        [0.27, 0.17, 0.13],
    ]
)


@dataclass(frozen=True)
class Lighting:
    """Colours (3,) of the ambient light and of each lamp (LIGHTS, 3)."""

    ambient: NDArray[np.float64]
    lamps: NDArray[np.float64]


def draw_lighting(rng: Rng) -> Lighting:
    """Draw warm, neutral or cold light, hard or soft."""
    tint = 1 + rng.normal(0, 0.05) * np.array([1.0, 0.1, -1.0])
    soft = rng.uniform(0.35, 0.95)
    strength = rng.uniform(0.1, 1.0, (2, 1)) * (1.15 - soft)
    return Lighting(soft * tint, strength * (1 + rng.normal(0, 0.08, (2, 3))))


def skin_tone(rng: Rng) -> NDArray[np.float64]:
    """Draw an sRGB skin colour."""
    position = rng.beta(1.1, 1.6) * (len(_SKIN) - 1)
    tone = np.array([np.interp(position, np.arange(len(_SKIN)), _SKIN[:, c]) for c in range(3)])
    return np.clip(tone * rng.normal(1, 0.03) + rng.normal(0, 0.012, 3), 0.03, 1)


def _lookup(rng: Rng, picture: Image, surface: NDArray[np.float32], span: float) -> Image:
    """Sample a texture on a surface through a random plane or round a random axis."""
    basis = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    local = surface @ basis.astype(np.float32)
    if rng.random() < 0.3:
        around = surface[..., [0, 2]]
        flat = np.stack([np.arctan2(around[..., 1], around[..., 0]) / np.pi, surface[..., 1] / span], -1)
    else:
        flat = local[..., :2] / span
    size = picture.shape[0]
    folded = (np.abs((flat + rng.uniform(0, 2, 2)) % 2 - 1) * (size - 1)).astype(np.float32)
    return cv2.remap(picture, folded[..., 0], folded[..., 1], cv2.INTER_LINEAR).astype(np.float32)


def _skin(rng: Rng, rig: HandRig, buffers: Buffers, tone: NDArray[np.float64]) -> Image:
    """Skin with blotches, red knuckles and fingertips, creases and nails."""
    surface = buffers.surface
    blotch = _lookup(rng, noise(rng), surface, 0.12)[..., None] - 0.5
    fine = _lookup(rng, noise(rng, octaves=(32, 64, 96)), surface, 0.05)[..., None] - 0.5
    value = 1 + rng.uniform(0.05, 0.3) * blotch + rng.uniform(0.02, 0.22) * fine
    result = (tone * value).astype(np.float32)
    hand = buffers.label == HAND
    red, crease, nail = _skin_marks(rig, surface[hand], fine[hand][:, 0])
    detail = result[hand]
    detail = detail * (1 + red[:, None] * rng.uniform(0, 0.35) * np.array([0.25, -0.25, -0.2]))
    detail = detail * (1 - rng.uniform(0.0, 0.35) * crease[:, None])
    painted = colour(rng) if rng.random() < 0.12 else np.clip(tone * [1.08, 1.0, 1.02] + 0.05, 0, 1)
    weight = nail[:, None] * (rng.random() < 0.7)
    result[hand] = detail * (1 - weight) + painted * weight
    return result


def _skin_marks(
    rig: HandRig, surface: NDArray[np.float32], fine: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Redness, creases and nails, 0..1 each, of hand pixels whose rest positions (N, 3) are given."""
    red = np.zeros(len(surface), np.float32)
    crease, nail = red.copy(), red.copy()
    for k in range(1, 21):
        offset = surface - rig.keypoints[k].astype(np.float32)
        distance = np.einsum("nc,nc->n", offset, offset)
        near = np.flatnonzero(distance < 0.03**2)
        offset, distance = offset[near], distance[near]
        red[near] += np.exp(-distance / np.float32(0.011**2))
        along = offset[:, 0] if k > 4 else offset @ np.array([0.7, 0.7, 0], np.float32)
        line = np.exp(-(((along + 0.002 * fine[near]) / np.float32(0.0012)) ** 2))
        crease[near] += np.where(distance < 0.013**2, line, 0)
        if k % 4 == 0:
            flat = distance - along**2 - offset[:, 2] ** 2
            nail[near] += (offset[:, 2] > 0.001) & (np.abs(along + 0.006) < 0.007) & (flat < 0.005**2)
    return np.minimum(red, 1), np.minimum(crease, 1), np.minimum(nail, 1)


def _hand_albedo(rng: Rng, rig: HandRig, buffers: Buffers, photos: Sequence[Image]) -> Image:
    tone = skin_tone(rng)
    skin = _skin(rng, rig, buffers, tone)
    arm = buffers.label == ARM
    skin[arm] *= np.float32(rng.uniform(0.88, 1.1))
    if rng.random() < 0.1:  # a watch, a band or a bracelet
        start = -rng.uniform(0.0, 0.05)
        band = arm & (buffers.surface[..., 0] < start) & (buffers.surface[..., 0] > start - rng.uniform(0.008, 0.03))
        skin[band] = colour(rng)
    if rng.random() < 0.04:  # a glove
        cloth = _lookup(rng, texture(rng), buffers.surface, 0.1)
        skin[buffers.label == HAND] = cloth[buffers.label == HAND]
    sleeve = _lookup(rng, texture(rng, photos), buffers.surface, float(rng.uniform(0.04, 0.3)))
    return np.where((buffers.label == SLEEVE)[..., None], sleeve, skin).astype(np.float32)


def _object_albedo(rng: Rng, buffers: Buffers, photos: Sequence[Image]) -> Image:
    surface = buffers.surface
    span = float(np.exp(rng.uniform(np.log(0.04), np.log(0.3))))
    if rng.random() < 0.08:  # skin or cardboard coloured objects must not be taken for the hand or the ground
        first = (skin_tone(rng) * rng.uniform(0.85, 1.1) * np.ones((*surface.shape[:2], 1))).astype(np.float32)
    else:
        first = _lookup(rng, texture(rng, photos), surface, span)
    for _ in range(int(rng.choice([0, 1, 2], p=[0.5, 0.35, 0.15]))):  # parts of another material
        second = _lookup(rng, texture(rng, photos), surface, span)
        direction = np.eye(3)[int(rng.integers(3))] if rng.random() < 0.7 else rng.normal(size=3)
        level = surface @ (direction / np.linalg.norm(direction)).astype(np.float32)
        low = rng.uniform(-0.08, 0.08)
        first = np.where(((level > low) & (level < low + rng.uniform(0.01, 0.2)))[..., None], second, first)
    return first.astype(np.float32)


def _lit(
    rng: Rng, buffers: Buffers, albedo: Image, where: NDArray[np.bool_], light: Lighting, gloss: float, shininess: float
) -> NDArray[np.float32]:
    """Light the pixels ``where``; returns their colours (N, 3)."""
    normal = buffers.normal[where]
    openness = buffers.openness[where][:, None] ** np.float32(rng.uniform(0.4, 1.3))
    sky = 1 - np.float32(rng.uniform(0, 0.35)) * (0.5 + 0.5 * normal[:, 1:2])
    total = light.ambient.astype(np.float32) * openness * sky
    shine = np.zeros_like(total)
    for k, lamp in enumerate(light.lamps.astype(np.float32)):
        lit = cv2.GaussianBlur(buffers.lit[..., k].astype(np.float32), (0, 0), 1.0)[where][:, None]
        total = total + lamp * lit * np.clip(normal @ buffers.lights[k].astype(np.float32), 0, 1)[:, None]
        half = buffers.lights[k] + np.array([0, 0, -1.0])
        half /= np.linalg.norm(half)
        facing = np.clip(normal @ half.astype(np.float32), 0, 1)[:, None]
        shine += lamp * lit * facing ** np.float32(shininess)
    return (albedo[where] * total + np.float32(gloss) * shine).astype(np.float32)


def shade(rng: Rng, rig: HandRig, buffers: Buffers, light: Lighting, photos: Sequence[Image] = ()) -> Image:
    """Return the look (H, W, 3), float32 sRGB in 0..1, of every pixel that sees hand, arm or object; 0 elsewhere."""
    result = np.zeros((*buffers.label.shape, 3), np.float32)
    is_object = buffers.label == OBJECT
    is_hand = (buffers.label != BACKGROUND) & ~is_object
    albedo = _hand_albedo(rng, rig, buffers, photos)
    result[is_hand] = _lit(rng, buffers, albedo, is_hand, light, rng.uniform(0, 0.15), rng.uniform(8, 40))
    if not is_object.any():
        return np.clip(result, 0, 1)
    albedo = _object_albedo(rng, buffers, photos)
    gloss = 0.0 if rng.random() < 0.35 else rng.uniform(0.05, 0.7)
    look = _lit(rng, buffers, albedo, is_object, light, gloss, float(np.exp(rng.uniform(2, 5.5))))
    if rng.random() < 0.22:  # polished or metal: mirrors its surroundings
        around = cv2.GaussianBlur(texture(rng, photos, 0.6), (0, 0), float(rng.uniform(1, 8)))
        u = (buffers.normal[..., 0] * 0.48 + 0.5) * (around.shape[1] - 1)
        v = (buffers.normal[..., 1] * 0.48 + 0.5) * (around.shape[0] - 1)
        mirror = cv2.remap(around, u, v, cv2.INTER_LINEAR)[is_object]
        share = np.float32(rng.uniform(0.1, 0.85))
        look = look * (1 - share) + mirror * share
    result[is_object] = look
    return np.clip(result, 0, 1)
