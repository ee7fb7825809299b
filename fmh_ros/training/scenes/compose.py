# SPDX-License-Identifier: Apache-2.0
"""Training pictures from a bank of views: every draw gets new materials, light, background and camera faults."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from fmh_ros.core.hand.rig import HandRig
from fmh_ros.training.scenes.backgrounds import background, paste, photograph
from fmh_ros.training.scenes.looks import draw_lighting, shade
from fmh_ros.training.scenes.render import BACKGROUND, OBJECT, Buffers
from fmh_ros.training.scenes.textures import Image

Rng = np.random.Generator


@dataclass(frozen=True)
class Picture:
    """A picture with its truth; maps (S, S).

    image : (S, S, 3) uint8 RGB; label : uint8, 0 background, 1 hand and forearm, 2 object; amodal : bool, whole object;
    depth : float32 metres, 0 off hand and object; normals : (S, S, 3) float32 camera frame; keypoints_2d : (21, 2) px;
    keypoints : (21, 3) metres, camera frame; inside : bool, False where the crop sticks out of the photo.
    """

    image: NDArray[np.uint8]
    label: NDArray[np.uint8]
    amodal: NDArray[np.bool_]
    depth: NDArray[np.float32]
    normals: NDArray[np.float32]
    keypoints_2d: NDArray[np.float64]
    keypoints: NDArray[np.float64]
    inside: NDArray[np.bool_]
    holds: bool
    name: str


class Bank:
    """Packed views, in memory. ``refresh`` picks up files that were added to the folder since."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._files: dict[str, dict[str, NDArray[np.generic]]] = {}
        self._index: list[tuple[str, int]] = []

    def refresh(self) -> int:
        """Load new files and return the number of views."""
        for path in sorted(self.folder.glob("*.npz")):
            if path.name in self._files or path.name.endswith(".part.npz"):
                continue
            with np.load(path) as data:
                self._files[path.name] = {key: data[key] for key in data.files}
            self._index += [(path.name, k) for k in range(len(self._files[path.name]["holds"]))]
        return len(self._index)

    def __len__(self) -> int:
        return len(self._index)

    def row(self, index: int) -> dict[str, NDArray[np.generic]]:
        """Return the packed arrays of one view."""
        name, k = self._index[index]
        return {key: values[k] for key, values in self._files[name].items()}

    def buffers(self, index: int) -> Buffers:
        """Unpack the geometry buffers of one view."""
        row = self.row(index)
        bits = np.unpackbits(row["bits"][..., None], axis=-1).astype(bool)  # type: ignore[arg-type]
        return Buffers(
            row["label"],  # type: ignore[arg-type]
            row["depth"].astype(np.float32),
            row["normal"].astype(np.float32) / np.float32(127),
            row["surface"].astype(np.float32),
            row["openness"].astype(np.float32) / np.float32(255),
            bits[..., :2],
            bits[..., 2],
            bits[..., 3],
            row["lights"],  # type: ignore[arg-type]
        )


def _cast_shadow(rng: Rng, picture: Image, mask: NDArray[np.bool_]) -> Image:
    shift = rng.integers(-24, 25, 2)
    moved = np.roll(mask, tuple(shift), (0, 1)).astype(np.float32)
    soft = cv2.GaussianBlur(moved, (0, 0), float(rng.uniform(1.5, 10)))[..., None]
    return (picture * (1 - rng.uniform(0.15, 0.6) * soft)).astype(np.float32)


def _photo_border(rng: Rng, size: int) -> NDArray[np.bool_]:
    """Where the crop lies inside the photo: sometimes one or two sides stick out."""
    inside = np.ones((size, size), bool)
    if rng.random() < 0.3:
        for _ in range(int(rng.integers(1, 3))):
            cut = int(size * rng.uniform(0.02, 0.33))
            np.rot90(inside, int(rng.integers(4)))[:cut] = False
    return inside


def _put_in_front(
    rng: Rng, rig: HandRig, bank: Bank, picture: Image, label: NDArray[np.uint8], photos: Sequence[Image]
) -> tuple[Image, NDArray[np.uint8]]:
    """Put another hand or thing in front, unless it would hide too much; what it hides becomes background."""
    other = bank.buffers(int(rng.integers(len(bank))))
    mask = other.label != OBJECT if rng.random() < 0.7 else other.label == OBJECT
    mask = mask & (other.label != BACKGROUND)
    look = shade(rng, rig, other, draw_lighting(rng), photos)
    both = np.concatenate([look, mask[..., None].astype(np.float32)], -1)
    marked = paste(rng, np.concatenate([picture, np.zeros((*mask.shape, 1), np.float32)], -1), both, mask)
    front = marked[..., 3] > 0.5
    for kind in (1, 2):
        if (front & (label == kind)).sum() > 0.35 * (label == kind).sum():
            return picture, label
    return np.ascontiguousarray(marked[..., :3]), np.where(front, 0, label).astype(np.uint8)


def compose(rng: Rng, rig: HandRig, bank: Bank, index: int, photos: Sequence[Image] = ()) -> Picture:
    """Make a picture of one view of the bank; other views serve as clutter behind it."""
    row, buffers = bank.row(index), bank.buffers(index)
    size = buffers.label.shape[0]
    picture = cv2.resize(background(rng, photos), (size, size)).astype(np.float32)
    light = draw_lighting(rng)
    for _ in range(int(rng.choice([0, 1, 2, 3], p=[0.45, 0.3, 0.15, 0.1]))):
        other = bank.buffers(int(rng.integers(len(bank))))
        look = shade(rng, rig, other, light, photos)
        kind = rng.random()
        mask = other.label == OBJECT if kind < 0.65 else (other.label != BACKGROUND)
        if kind > 0.85:
            mask = mask & (other.label != OBJECT)
        picture = paste(rng, picture, look, mask)
    solid = buffers.label != BACKGROUND
    if rng.random() < 0.5:
        picture = _cast_shadow(rng, picture, solid)
    look = shade(rng, rig, buffers, light, photos)
    soft = cv2.GaussianBlur(solid.astype(np.float32), (0, 0), float(rng.uniform(0.4, 0.9)))[..., None]
    # Spread the look past its border so that the soft edge mixes surface and background, not black.
    spread = cv2.dilate(np.where(solid[..., None], look, 0).astype(np.float32), np.ones((5, 5)))
    picture = picture * (1 - soft) + np.where(solid[..., None], look, spread) * soft
    if rng.random() < 0.04:  # see-through objects
        clear = (buffers.label == OBJECT) & ~buffers.hand_only
        behind = cv2.resize(background(rng, photos), (size, size))
        share = np.float32(rng.uniform(0.2, 0.6))
        picture = np.where(clear[..., None], picture * (1 - share) + behind * share, picture)
    label = np.where(buffers.label == OBJECT, 2, solid).astype(np.uint8)
    if rng.random() < 0.15:
        picture, label = _put_in_front(rng, rig, bank, picture.astype(np.float32), label, photos)
    inside = _photo_border(rng, size)
    keypoints = row["keypoints"].astype(np.float64)
    homogeneous = keypoints @ row["K"].astype(np.float64).T
    image = photograph(rng, picture.astype(np.float32))
    image[~inside] = 0
    return Picture(
        image,
        label,
        buffers.amodal,
        buffers.depth,
        buffers.normal,
        homogeneous[:, :2] / homogeneous[:, 2:],
        keypoints,
        inside,
        bool(row["holds"]),
        str(row["name"]),
    )
