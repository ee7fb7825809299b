# SPDX-License-Identifier: Apache-2.0
"""Procedural 2D textures: flat colours, noise, stripes, checks, wood, prints with letters, and crops of photographs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

Rng = np.random.Generator
Image = NDArray[np.float32]

SIZE = 192


def load_photos(folder: Path | None) -> list[Image]:
    """Load background pictures: ordinary images, and ``*.npy`` panoramas (H, 2H, 3) of linear radiance.

    Returns float32 images in 0..1 (gamma encoded); panoramas are returned as twelve perspective crops each.
    """
    photos: list[Image] = []
    for path in sorted(folder.iterdir()) if folder is not None else []:
        if path.suffix == ".npy":
            photos += _panorama_crops(np.load(path).astype(np.float32))
        elif path.suffix.lower() in (".png", ".jpg", ".jpeg"):
            picture = cv2.imread(str(path), cv2.IMREAD_COLOR)
            if picture is not None:
                scale = 512 / max(picture.shape[:2])
                picture = cv2.resize(picture, None, fx=min(scale, 1), fy=min(scale, 1), interpolation=cv2.INTER_AREA)
                photos.append((picture[..., ::-1] / 255).astype(np.float32))
    return photos


def _panorama_crops(panorama: Image) -> list[Image]:
    height, width = panorama.shape[:2]
    finite = np.minimum(panorama, 20.0)
    crops = []
    u, v = np.meshgrid(np.linspace(-1, 1, 256), np.linspace(-1, 1, 256))
    for k in range(12):
        half = np.tan(np.radians(28 + 14 * (k % 3)))
        yaw, pitch = k * np.pi / 6, np.radians((-28, -8, 12, -18)[k % 4])
        x, y, z = half * u, half * v, np.ones_like(u)
        y, z = np.cos(pitch) * y - np.sin(pitch) * z, np.sin(pitch) * y + np.cos(pitch) * z
        column = ((np.arctan2(x, z) + yaw) / (2 * np.pi) % 1) * (width - 1)
        row = (np.arctan2(y, np.hypot(x, z)) / np.pi + 0.5) * (height - 1)
        crop = cv2.remap(finite, column.astype(np.float32), row.astype(np.float32), cv2.INTER_CUBIC)
        exposure = 0.4 / (np.median(crop) + 1e-3)
        encoded = np.clip(crop * exposure, 0, 1) ** (1 / 2.2)
        crops.append(encoded.astype(np.float32))
    return crops


def colour(rng: Rng) -> NDArray[np.float64]:
    """Draw an RGB colour in 0..1; greys, blacks and whites are as common as in real objects."""
    kind = rng.random()
    if kind < 0.18:
        return np.full(3, rng.uniform(0.02, 0.2))
    if kind < 0.38:
        return np.clip(rng.uniform(0.75, 0.97) + rng.normal(0, 0.02, 3), 0, 1)
    if kind < 0.5:
        return np.clip(rng.uniform(0.2, 0.75) + rng.normal(0, 0.03, 3), 0, 1)
    if kind < 0.6:
        return np.clip(np.array([0.65, 0.48, 0.32]) * rng.uniform(0.4, 1.4) + rng.normal(0, 0.04, 3), 0, 1)
    hsv = np.array([[[rng.uniform(0, 360), rng.uniform(0.3, 1.0), rng.uniform(0.25, 1.0)]]], np.float32)
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)[0, 0].astype(np.float64)


def noise(rng: Rng, size: int = SIZE, octaves: Sequence[int] = (4, 8, 16, 32)) -> Image:
    """Fractal value noise (size, size), about 0..1."""
    total = np.zeros((size, size), np.float32)
    for level, cells in enumerate(octaves):
        grid = rng.random((cells, cells), dtype=np.float32)
        total += cv2.resize(grid, (size, size), interpolation=cv2.INTER_CUBIC) * np.float32(0.55**level)
    total -= total.min()
    return total / (total.max() + 1e-6)


def _coordinates(rng: Rng) -> tuple[Image, Image]:
    angle = rng.uniform(0, np.pi)
    u, v = np.meshgrid(np.linspace(0, 1, SIZE, dtype=np.float32), np.linspace(0, 1, SIZE, dtype=np.float32))
    return (
        (np.cos(angle) * u + np.sin(angle) * v).astype(np.float32),
        (np.cos(angle) * v - np.sin(angle) * u).astype(np.float32),
    )


def _mix(rng: Rng, weight: Image) -> Image:
    a, b = colour(rng), colour(rng)
    w = weight[..., None]
    return (a * w + b * (1 - w)).astype(np.float32)


def flat(rng: Rng) -> Image:
    """One colour with faint mottling."""
    mottle = (noise(rng) - 0.5) * rng.uniform(0, 0.08)
    return (colour(rng) + mottle[..., None]).astype(np.float32)


def clouds(rng: Rng) -> Image:
    """Two colours mixed by fractal noise."""
    sharp = rng.uniform(1, 8)
    return _mix(rng, 1 / (1 + np.exp(-sharp * 4 * (noise(rng) - 0.5))))


def stripes(rng: Rng) -> Image:
    """Stripes of one frequency, soft or hard."""
    u, _ = _coordinates(rng)
    wave = np.sin(u * rng.uniform(10, 90) + rng.uniform(0, 6))
    return _mix(rng, 1 / (1 + np.exp(-rng.uniform(2, 30) * (wave - rng.uniform(-0.7, 0.7)))))


def checks(rng: Rng) -> Image:
    """Checks or a woven cloth."""
    u, v = _coordinates(rng)
    f = rng.uniform(10, 60)
    a, b = (np.sin(u * f) > 0).astype(np.float32), (np.sin(v * f) > 0).astype(np.float32)
    return _mix(rng, np.abs(a - b) if rng.random() < 0.5 else (a + b) / 2)


def wood(rng: Rng) -> Image:
    """Planks with grain."""
    u, v = _coordinates(rng)
    grain = np.sin(u * rng.uniform(30, 160) + 6 * noise(rng, octaves=(3, 6)) + 2 * v)
    base = np.array([0.72, 0.52, 0.34]) * rng.uniform(0.3, 1.3) + rng.normal(0, 0.04, 3)
    plank = (np.floor(v * rng.uniform(1, 7)) * 0.37 % 1 - 0.5) * 0.2
    value = 1 + 0.12 * grain + plank + 0.1 * (noise(rng) - 0.5)
    return (base * value[..., None]).astype(np.float32)


def print_with_letters(rng: Rng) -> Image:
    """A label: panels, bars, discs and words on a ground colour."""
    canvas = np.tile(np.uint8(255 * colour(rng)), (SIZE, SIZE, 1))
    for _ in range(int(rng.integers(1, 7))):
        paint = tuple(float(255 * c) for c in colour(rng))
        x, y = (int(v) for v in rng.integers(0, SIZE, 2))
        kind = rng.random()
        if kind < 0.35:
            w, h = (int(v) for v in rng.integers(10, SIZE, 2))
            cv2.rectangle(canvas, (x, y), (x + w, y + h), paint, -1)
        elif kind < 0.5:
            cv2.circle(canvas, (x, y), int(rng.integers(6, 60)), paint, int(rng.choice([-1, 2, 5])))
        else:
            letters = "".join(chr(int(c)) for c in rng.integers(65, 122, int(rng.integers(2, 9))))
            size, bold = float(rng.uniform(0.4, 2.5)), int(rng.integers(1, 6))
            cv2.putText(canvas, letters, (x // 2, y), int(rng.integers(0, 8)), size, paint, bold, cv2.LINE_AA)
    return (canvas / 255).astype(np.float32)


def speckle(rng: Rng) -> Image:
    """Fine noise: stone, carpet, foliage."""
    fine = rng.random((SIZE, SIZE), dtype=np.float32)
    fine = cv2.GaussianBlur(fine, (0, 0), float(rng.uniform(0.5, 2.5))).astype(np.float32)
    fine = (fine - fine.mean()) / (fine.std() + 1e-6) * 0.25 + 0.5
    return _mix(rng, np.clip(fine * 0.7 + noise(rng) * 0.3, 0, 1))


_KINDS: tuple[tuple[Callable[[Rng], Image], float], ...] = (
    (flat, 0.3),
    (clouds, 0.1),
    (stripes, 0.08),
    (checks, 0.06),
    (wood, 0.1),
    (print_with_letters, 0.2),
    (speckle, 0.08),
)


def photo_crop(rng: Rng, photos: Sequence[Image], smallest: float = 0.15) -> Image:
    """A random square piece (SIZE, SIZE, 3) of one of the photographs, flipped or not, with its colours shifted."""
    photo = photos[int(rng.integers(len(photos)))]
    side = int(min(photo.shape[:2]) * rng.uniform(smallest, 1.0))
    y = int(rng.integers(photo.shape[0] - side + 1))
    x = int(rng.integers(photo.shape[1] - side + 1))
    crop = cv2.resize(photo[y : y + side, x : x + side], (SIZE, SIZE), interpolation=cv2.INTER_AREA)
    if rng.random() < 0.5:
        crop = crop[:, ::-1]
    return np.clip(crop * rng.normal(1, 0.12, 3).astype(np.float32), 0, 1)


def texture(rng: Rng, photos: Sequence[Image] = (), photo_share: float = 0.15) -> Image:
    """Draw a texture (SIZE, SIZE, 3) in about 0..1."""
    if photos and rng.random() < photo_share:
        return photo_crop(rng, photos)
    weights = np.array([w for _, w in _KINDS])
    return _KINDS[int(rng.choice(len(_KINDS), p=weights / weights.sum()))][0](rng)
