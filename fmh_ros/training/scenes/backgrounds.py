# SPDX-License-Identifier: Apache-2.0
"""What stands behind a hand: photographs, walls and tables, clutter, people; and what a camera does to a picture."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from fmh_ros.training.scenes.looks import skin_tone
from fmh_ros.training.scenes.textures import SIZE, Image, colour, noise, photo_crop, texture

Rng = np.random.Generator
Mask = NDArray[np.bool_]


def _plane(rng: Rng, photos: Sequence[Image]) -> Image:
    """A texture seen in perspective, as a table or wall is."""
    picture = texture(rng, photos)
    corners = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], np.float32) * SIZE
    squeeze = rng.uniform(0, 0.6)
    target = corners.copy()
    target[:2, 0] = SIZE / 2 + (target[:2, 0] - SIZE / 2) * (1.2 - 0.2 * squeeze)
    target[2:, 0] = SIZE / 2 + (target[2:, 0] - SIZE / 2) * (1.2 + 2 * squeeze)
    matrix = cv2.getPerspectiveTransform(corners, target)
    return cv2.warpPerspective(picture, matrix, (SIZE, SIZE), borderMode=cv2.BORDER_REFLECT).astype(np.float32)


def _half_plane(rng: Rng, centre: float) -> Mask:
    angle = rng.normal(0, 0.5) + np.pi / 2
    u, v = np.meshgrid(np.linspace(-1, 1, SIZE), np.linspace(-1, 1, SIZE))
    result: Mask = np.cos(angle) * u + np.sin(angle) * v > centre
    return result


def _ground(rng: Rng, photos: Sequence[Image]) -> Image:
    kind = rng.random()
    if photos and kind < 0.42:
        picture = photo_crop(rng, photos, 0.3)
    elif kind < 0.48:
        picture = cloth(rng, photos)
    elif kind < 0.62:  # studio: one light colour with a gradient
        base = np.full(3, rng.uniform(0.6, 1.0)) if rng.random() < 0.5 else colour(rng)
        ramp = np.linspace(0, rng.normal(0, 0.25), SIZE, dtype=np.float32)
        slope = ramp[:, None] if rng.random() < 0.5 else ramp[None, :]
        picture = (base + slope[..., None] + np.zeros((SIZE, SIZE, 1))).astype(np.float32)
    else:
        picture = _plane(rng, photos)
        if rng.random() < 0.6:
            picture = np.where(_half_plane(rng, rng.uniform(-0.6, 0.6))[..., None], picture, texture(rng, photos))
    return np.clip(picture, 0, 1).astype(np.float32)


def _shape_mask(rng: Rng, size: tuple[float, float]) -> Mask:
    """A random box, ellipse, polygon or bar somewhere in the picture."""
    canvas = np.zeros((SIZE, SIZE), np.uint8)
    centre = rng.uniform(-0.1, 1.1, 2) * SIZE
    half = np.exp(rng.uniform(np.log(size[0]), np.log(size[1]), 2)) * SIZE / 2
    angle = float(rng.uniform(0, 180)) if rng.random() < 0.5 else float(rng.normal(0, 6))
    kind = rng.random()
    if kind < 0.35:
        cv2.ellipse(canvas, (*centre.astype(int),), (*half.astype(int),), angle, 0, 360, 255, -1)
    elif kind < 0.8:
        box = cv2.boxPoints(((float(centre[0]), float(centre[1])), (float(2 * half[0]), float(2 * half[1])), angle))
        cv2.fillConvexPoly(canvas, box.astype(np.int32), 255)
    else:
        angles = np.sort(rng.uniform(0, 2 * np.pi, int(rng.integers(3, 9))))
        ring = np.stack([np.cos(angles), np.sin(angles)], 1) * half * rng.uniform(0.5, 1.2, (len(angles), 1))
        cv2.fillPoly(canvas, [(centre + ring).astype(np.int32)], 255)
    return canvas > 0


def cloth(rng: Rng, photos: Sequence[Image]) -> Image:
    """A woven or printed cloth in soft folds."""
    folds = noise(rng, octaves=(3, 7, 13)) - 0.5
    angle = rng.uniform(0, 180)
    turn = np.asarray(cv2.getRotationMatrix2D((SIZE / 2, SIZE / 2), angle, 1.5), np.float64)
    turn[:, 0] *= rng.uniform(1, 3)
    drawn = cv2.warpAffine(folds, turn, (SIZE, SIZE), borderMode=cv2.BORDER_REFLECT)[..., None]
    return (texture(rng, photos, 0.05) * (1 + rng.uniform(0.3, 1.1) * drawn)).astype(np.float32)


def _person(rng: Rng, picture: Image, photos: Sequence[Image]) -> Image:
    """Paint a torso in clothes and a head with hair, or a piece of them, at any size."""
    tone = skin_tone(rng)
    x, top, width = rng.uniform(0, 1) * SIZE, rng.uniform(-0.3, 0.7) * SIZE, rng.uniform(0.15, 0.5) * SIZE
    canvas = np.zeros((SIZE, SIZE), np.uint8)
    cv2.ellipse(canvas, (int(x), int(top + 2.6 * width)), (int(1.3 * width), int(1.7 * width)), 0, 0, 360, 255, -1)
    picture = np.where((canvas > 0)[..., None], cloth(rng, photos), picture)
    shading = (1 + 0.25 * np.linspace(-1, 1, SIZE))[None, :, None] * (tone if rng.random() < 0.5 else tone * 0.9)
    for dy, half, is_skin in ((-0.1, (0.62, 0.75), False), (0.0, (0.5, 0.68), True), (0.75, (0.22, 0.35), True)):
        canvas[:] = 0
        centre = (int(x), int(top + dy * width + 0.5 * width))
        cv2.ellipse(canvas, centre, (int(half[0] * width), int(half[1] * width)), 0, 0, 360, 255, -1)
        paint = shading if is_skin else colour(rng) * 0.5
        picture = np.where((canvas > 0)[..., None], paint, picture).astype(np.float32)
    for side in (-0.2, 0.2):
        cv2.circle(
            picture, (int(x + side * width), int(top + 0.42 * width)), max(int(0.06 * width), 1), (0.1, 0.08, 0.08), -1
        )
    cv2.ellipse(
        picture, (int(x), int(top + 0.8 * width)), (int(0.2 * width), int(0.06 * width)), 0, 0, 360, (0.6, 0.3, 0.3), -1
    )
    return np.clip(picture, 0, 1).astype(np.float32)


def background(rng: Rng, photos: Sequence[Image] = ()) -> Image:
    """Draw a background (SIZE, SIZE, 3), float32 in 0..1: ground, clutter, perhaps a person, perhaps out of focus."""
    picture = _ground(rng, photos)
    if rng.random() < 0.18:
        picture = _person(rng, picture, photos)
    if rng.random() < 0.6:
        for _ in range(int(rng.integers(1, 8))):
            mask = _shape_mask(rng, (0.08, 0.8))
            if rng.random() < 0.4:  # a cast shadow
                shadow = cv2.GaussianBlur(
                    np.roll(mask, tuple(rng.integers(-8, 9, 2)), (0, 1)).astype(np.float32), (0, 0), 5
                )
                picture = picture * (1 - 0.5 * shadow[..., None])
            skin = rng.random() < 0.08
            paint = skin_tone(rng) * np.ones((SIZE, SIZE, 1)) if skin else texture(rng, photos)
            ramp = 1 + rng.normal(0, 0.15) * np.linspace(-1, 1, SIZE)[None, :, None]
            picture = np.where(mask[..., None], paint * ramp, picture).astype(np.float32)
    if rng.random() < 0.45:
        picture = cv2.GaussianBlur(picture, (0, 0), float(np.exp(rng.uniform(-0.5, 1.8)))).astype(np.float32)
    return np.clip(picture, 0, 1).astype(np.float32)


def paste(rng: Rng, picture: Image, look: Image, mask: Mask) -> Image:
    """Put another cut-out into the picture, moved, turned and resized."""
    size = picture.shape[0]
    matrix = cv2.getRotationMatrix2D(
        (size / 2, size / 2), float(rng.uniform(0, 360)), float(np.exp(rng.uniform(-0.9, 0.4)))
    )
    matrix[:, 2] += rng.uniform(-0.5, 0.5, 2) * size
    weight = cv2.warpAffine(mask.astype(np.float32), matrix, (size, size))[..., None]
    moved = cv2.warpAffine(look, matrix, (size, size), borderMode=cv2.BORDER_REPLICATE)
    return (picture * (1 - weight) + moved * weight).astype(np.float32)


def photograph(rng: Rng, picture: Image, faults: float = 1.0) -> NDArray[np.uint8]:
    """Take the picture: exposure, white balance, blur, low resolution, noise and JPEG; ``faults`` : how bad, 0 to 1."""
    height, width = picture.shape[:2]
    tint = 1 + rng.normal(0, 0.07 * faults, 3)
    shot = np.clip(picture * tint * np.exp(rng.normal(0.05, 0.25 * faults)), 0, 1) ** np.exp(
        rng.normal(0, 0.2 * faults)
    )
    grey = shot.mean(-1, keepdims=True)
    shot = grey + (shot - grey) * np.clip(rng.normal(1, 0.3 * faults), 0, 2)
    shot = (0.5 + (shot - 0.5) * np.clip(rng.normal(1, 0.15 * faults), 0.5, 1.5)).astype(np.float32)
    kind = rng.random()
    if kind < 0.25:
        share = rng.uniform(1 - 0.75 * faults, 1 - 0.2 * faults)
        small = (max(int(width * share), 32), max(int(height * share), 32))
        shot = cv2.resize(cv2.resize(shot, small, interpolation=cv2.INTER_AREA), (width, height)).astype(np.float32)
    elif kind < 0.45:
        shot = cv2.GaussianBlur(shot, (0, 0), float(rng.uniform(0.4, 0.4 + faults))).astype(np.float32)
    elif kind < 0.53:
        shot = cv2.filter2D(shot, -1, _motion_kernel(rng)).astype(np.float32)
    noisy = shot + rng.normal(0, 1, shot.shape) * np.exp(
        rng.uniform(np.log(0.002), np.log(0.05 * faults + 0.002 * (1 - faults)))
    )
    result = np.clip(noisy * 255, 0, 255).astype(np.uint8)
    if rng.random() < 0.5:
        quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(95 - int(70 * faults), 95))]
        decoded = cv2.imdecode(cv2.imencode(".jpg", result, quality)[1], cv2.IMREAD_COLOR)
        result = np.asarray(decoded, np.uint8)
    return result


def _motion_kernel(rng: Rng) -> NDArray[np.float32]:
    """A line through the middle: the camera moves."""
    kernel = np.zeros((9, 9), np.float32)
    direction, reach = rng.uniform(0, np.pi), rng.uniform(1, 4)
    end = np.round(4 + reach * np.array([np.cos(direction), np.sin(direction)])).astype(int)
    cv2.line(kernel, (8 - int(end[0]), 8 - int(end[1])), (int(end[0]), int(end[1])), 1.0)
    return kernel / kernel.sum()
