# SPDX-License-Identifier: Apache-2.0
"""MediaPipe's palm detector and hand landmark network on rotated square windows of an image."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from fmh_ros.core.errors import ModelMissingError

FloatArray = NDArray[np.float64]

PALM_SIZE = 192
LANDMARK_SIZE = 224

#: Landmarks that bound the palm; the fingers move too much to place a window by.
_PALM_LANDMARKS = (0, 1, 2, 3, 5, 6, 9, 10, 13, 14, 17, 18)

_MODEL_FOLDER = Path(__file__).parents[2] / "assets" / "mediapipe"


@dataclass(frozen=True)
class Window:
    """A rotated square of an image: centre (x, y) in pixel-edge coordinates, side in pixels, angle in radians.

    The angle turns the window's axes from the image's axes, x towards y; a mirrored window's x axis then points the
    other way, so that a left hand looks like a right one in it.
    """

    centre: tuple[float, float]
    side: float
    angle: float = 0.0
    mirrored: bool = False

    def axes(self) -> FloatArray:
        """Return (2, 2) whose columns are the window's x and y axes in the image."""
        c, s = np.cos(self.angle), np.sin(self.angle)
        flip = -1.0 if self.mirrored else 1.0
        return np.array([[flip * c, -s], [flip * s, c]])

    def to_pixels(self, unit: FloatArray) -> FloatArray:
        """Map points (..., 2) in window units (0 to 1 across) to pixels, pixel centres at integers."""
        result: FloatArray = (unit - 0.5) * self.side @ self.axes().T + np.array(self.centre) - 0.5
        return result


class Pyramid:
    """An image and its halvings, so that a large window is sampled without aliasing."""

    def __init__(self, image: NDArray[np.uint8]) -> None:
        self.levels: list[NDArray[Any]] = [image]
        while min(self.levels[-1].shape[:2]) >= 2 * 96:
            height, width = self.levels[-1].shape[:2]
            self.levels.append(cv2.resize(self.levels[-1], (width // 2, height // 2), interpolation=cv2.INTER_AREA))

    def sample(self, window: Window, size: int) -> NDArray[np.float32]:
        """Return the window as (1, size, size, 3) float32 in 0..1, black outside the image."""
        full_height, full_width = self.levels[0].shape[:2]
        level = int(np.clip(np.log2(max(window.side / size, 1.0)), 0, len(self.levels) - 1))
        image = self.levels[level]
        shrink = np.array([image.shape[1] / full_width, image.shape[0] / full_height])
        linear = shrink[:, None] * window.axes() * (window.side / size)
        offset = shrink * np.array(window.centre) - 0.5 + linear @ np.full(2, 0.5 - size / 2)
        affine = np.concatenate([linear, offset[:, None]], 1)
        patch = cv2.warpAffine(image, affine, (size, size), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
        return (patch.astype(np.float32) / 255.0)[None]


@dataclass(frozen=True)
class Palm:
    """A palm in an image: detector score 0..1 and the window its hand is expected in."""

    score: float
    window: Window


@dataclass(frozen=True)
class Landmarks:
    """One answer of the landmark network.

    pixels : (21, 2) image pixels; world : (21, 3) metres, axes of the image (x right, y down, z away).
    presence : 0..1 that there is a hand; right : 0..1 that it is anatomically a right hand.
    """

    pixels: FloatArray
    world: FloatArray
    presence: float
    right: float

    def window(self, scale: float = 2.0) -> Window:
        """Return the upright window around this hand that the network was trained to look at."""
        knuckles = 0.25 * (self.pixels[5] + self.pixels[13]) + 0.5 * self.pixels[9]
        angle = _upright(self.pixels[0], knuckles)
        axes = Window((0.0, 0.0), 1.0, angle).axes()
        local = self.pixels[list(_PALM_LANDMARKS)] @ axes
        low, high = local.min(0), local.max(0)
        extent = high - low
        middle = (low + high) / 2 - np.array([0.0, 0.1 * extent[1]])
        centre = axes @ middle + 0.5
        return Window((float(centre[0]), float(centre[1])), float(scale * extent.max()), angle)


class HandNetworks:
    """The two networks, loaded at first use. Not safe to share between threads."""

    def __init__(self, folder: Path = _MODEL_FOLDER, threads: int = 1) -> None:
        self.folder = folder
        self.threads = threads
        self._runners: dict[str, Any] = {}

    def palms(self, pyramid: Pyramid, window: Window, threshold: float) -> list[Palm]:
        """Return palms inside a window, best first, overlapping ones merged."""
        outputs = self._run("palm_detection_full.tflite", pyramid.sample(window, PALM_SIZE))
        raw, logits = outputs["Identity"][0].astype(np.float64), outputs["Identity_1"][0, :, 0].astype(np.float64)
        scores = 1.0 / (1.0 + np.exp(-np.clip(logits, -80, 80)))
        kept = np.flatnonzero(scores >= threshold)
        kept = kept[np.argsort(-scores[kept])]
        values = raw[kept] / PALM_SIZE
        values[:, :2] += _anchors()[kept]
        values[:, 4:] += np.tile(_anchors()[kept], 7)
        palms = []
        while len(values):
            same = _overlap(values[0], values) > 0.3
            merged = np.average(values[same], axis=0, weights=scores[kept][same])
            palms.append(Palm(float(scores[kept][0]), _palm_window(merged, window)))
            values, kept = values[~same], kept[~same]
        return palms

    def landmarks(self, pyramid: Pyramid, window: Window) -> Landmarks:
        """Return the network's landmarks for the hand that fills a window."""
        outputs = self._run("hand_landmark_full.tflite", pyramid.sample(window, LANDMARK_SIZE))
        points = outputs["Identity"].reshape(21, 3).astype(np.float64) / LANDMARK_SIZE
        world = outputs["Identity_3"].reshape(21, 3).astype(np.float64)
        world[:, :2] = world[:, :2] @ window.axes().T
        presence, right = float(outputs["Identity_1"][0, 0]), float(outputs["Identity_2"][0, 0])
        right = 1.0 - right if window.mirrored else right
        return Landmarks(window.to_pixels(points[:, :2]), world, presence, right)

    def _run(self, name: str, image: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        if name not in self._runners:
            self._runners[name] = _load(self.folder / name, self.threads)
        interpreter = self._runners[name]
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], image)
        interpreter.invoke()
        return {entry["name"]: interpreter.get_tensor(entry["index"]) for entry in interpreter.get_output_details()}


def _load(path: Path, threads: int) -> Any:
    """Return a ready LiteRT interpreter."""
    if not path.is_file():
        raise ModelMissingError(
            f"The hand model {path} is missing",
            expected="the file that ships with the package",
            change="Reinstall the package, or run tools/fetch_mediapipe_models.py",
        )
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError as error:
        raise ModelMissingError(
            f"LiteRT cannot be imported ({error})",
            expected="the package ai-edge-litert",
            change="Install it with pip install ai-edge-litert",
        ) from error
    interpreter = Interpreter(str(path), num_threads=threads)
    interpreter.allocate_tensors()
    return interpreter


def _anchors() -> FloatArray:
    """Return the palm detector's anchor centres (2016, 2), 0..1: a 24 grid of 2, then a 12 grid of 6."""
    grids = []
    for cells, repeats in ((24, 2), (12, 6)):
        ticks = (np.arange(cells) + 0.5) / cells
        y, x = np.meshgrid(ticks, ticks, indexing="ij")
        grids.append(np.repeat(np.stack([x, y], -1).reshape(-1, 2), repeats, 0))
    return np.concatenate(grids)


def _overlap(one: FloatArray, many: FloatArray) -> FloatArray:
    """Intersection over union of a centre-size box (4+,) with others (N, 4+)."""
    low = np.maximum(one[:2] - one[2:4] / 2, many[:, :2] - many[:, 2:4] / 2)
    high = np.minimum(one[:2] + one[2:4] / 2, many[:, :2] + many[:, 2:4] / 2)
    shared = np.prod(np.clip(high - low, 0, None), 1)
    result: FloatArray = shared / (np.prod(one[2:4]) + np.prod(many[:, 2:4], 1) - shared + 1e-12)
    return result


def _upright(wrist: FloatArray, knuckle: FloatArray) -> float:
    """Window angle that makes the direction from wrist to knuckle point up."""
    dx, dy = knuckle - wrist
    return float(np.arctan2(dx, -dy))


def _palm_window(palm: FloatArray, window: Window) -> Window:
    """Window of the hand, given a detection (18,) in the units of the window it was found in."""
    keypoints = window.to_pixels(palm[4:].reshape(7, 2))
    angle = _upright(keypoints[0], keypoints[2])
    side = float(palm[2:4].max() * window.side)
    up = Window((0.0, 0.0), 1.0, angle).axes() @ np.array([0.0, -0.5 * palm[3] * window.side])
    centre = window.to_pixels(palm[:2]) + 0.5 + up
    return Window((float(centre[0]), float(centre[1])), 2.6 * side, angle)
