# SPDX-License-Identifier: Apache-2.0
"""Runs the mask network on crops round a hand and merges what it says on one canvas."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from fmh_ros.core.cues.depth_evidence import find_evidence, weigh
from fmh_ros.core.cues.mask_inputs import CROP_FACTOR, CROP_SIZE, CropPrompt, guidance_maps, hand_size_px
from fmh_ros.core.cues.mask_network import MaskNetwork
from fmh_ros.core.cues.squares import Square, apply, cut, invert
from fmh_ros.core.cues.types import HandObservation
from fmh_ros.core.frame.frame import Frame, ObjectPrompt

FloatArray = NDArray[np.float64]
Map = NDArray[np.float32]

WEIGHTS = Path(__file__).parents[2] / "assets" / "masks" / "mask_network.safetensors"
CANVAS_SIZE = 384
#: Crops of the first look: side over CROP_FACTOR, turned by degrees.
FIRST_LOOK: tuple[tuple[float, float], ...] = ((1.0, 0.0), (1.25, 7.0), (0.85, -7.0))
#: Boxes whose intersection over union exceeds this are the same.
SAME_BOX = 0.7
#: Crops round hand and object once they are roughly known: side over the side of their box, turned by degrees.
SECOND_LOOK: tuple[tuple[float, float], ...] = ((1.25, 0.0), (1.5, -7.0))


@dataclass(frozen=True)
class Prediction:
    """What the network says on a canvas (CANVAS_SIZE, CANVAS_SIZE) that lies over ``square`` of the frame.

    classes : (S, S, 3) probabilities of background, hand with forearm, object; amodal : (S, S), of the whole object;
    known : (S, S) bool, looked at by a crop and in the photo; holds : probability that the hand holds something.
    """

    square: Square
    classes: Map
    amodal: Map
    known: NDArray[np.bool_]
    holds: float


@contextmanager
def _one_thread() -> Iterator[None]:
    """Run torch on one thread: the network's many small steps gain nothing from two and wait long on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class MaskPredictor:
    """Loads the weights at first use."""

    def __init__(self, weights: Path = WEIGHTS) -> None:
        self.weights = weights
        self._network: MaskNetwork | None = None

    def load(self) -> MaskNetwork:
        """Return the network. Raises ModelMissingError when the weights are not there."""
        if self._network is None:
            self._network = MaskNetwork.from_file(self.weights)
        return self._network

    def predict(self, frame: Frame, hand: HandObservation, prompt: ObjectPrompt) -> Prediction:
        """Look twice: at the hand, then at hand and object together."""
        keypoints = hand.keypoints_2d
        low, high = keypoints.min(0), keypoints.max(0)
        side = CROP_FACTOR * hand_size_px(keypoints)
        first = _with_prompt((low + high) / 2, side, prompt, keypoints)
        squares = [Square(first.centre, first.side * f, np.radians(a)) for f, a in FIRST_LOOK]
        canvas = Square(first.centre, max(first.side * 1.25, side * 2.2))
        seen = _weighed(frame, keypoints, self.look(frame, keypoints, [(s, prompt) for s in squares], canvas))
        hints = [prompt]
        if prompt.points or prompt.box is not None:
            views = [(s, ObjectPrompt()) for s in squares]
            alone = _weighed(frame, keypoints, self.look(frame, keypoints, views, canvas))
            # What the network found by itself is what the user points at: then that answer counts too, and alone
            # when a box confirms its extent.
            if prompt.box is not None and _spans(alone, prompt.box):
                seen, hints = alone, [ObjectPrompt()]
            elif prompt.box is None and _agrees(alone, prompt):
                seen, hints = alone, [prompt, ObjectPrompt()]
        box = _foreground_box(seen, keypoints, prompt)
        centre, extent = (box[0] + box[1]) / 2, float((box[1] - box[0]).max())
        extent = float(np.clip(extent, 0.7 * side / CROP_FACTOR * 2, 4 * side))
        squares = squares[:2] + [Square(centre, extent * f, np.radians(a)) for f, a in SECOND_LOOK]
        canvas = Square(centre, extent * 1.5)
        seen = self.look(frame, keypoints, [(s, hint) for s in squares for hint in hints], canvas)
        return _weighed(frame, keypoints, seen)

    def holds(self, frame: Frame, hand: HandObservation) -> float:
        """Return the probability that a right hand holds something, from one crop: a first impression."""
        keypoints = hand.keypoints_2d
        square = Square((keypoints.min(0) + keypoints.max(0)) / 2, CROP_FACTOR * hand_size_px(keypoints))
        return self.look(frame, keypoints, [(square, ObjectPrompt())], square).holds

    def look(
        self,
        frame: Frame,
        keypoints: FloatArray,
        views: Sequence[tuple[Square, ObjectPrompt]],
        canvas: Square,
    ) -> Prediction:
        """Run the network on squares of the frame, each with a prompt, and average the answers on the canvas."""
        inputs = [self._inputs(frame, keypoints, prompt, square) for square, prompt in views]
        images = torch.as_tensor(np.stack([i[0] for i in inputs]))
        maps = torch.as_tensor(np.stack([i[1] for i in inputs]))
        network = self.load()
        with torch.no_grad(), _one_thread():
            output = network(images, maps)
        fields = torch.cat([output.classes.softmax(1), output.amodal.sigmoid()[:, None]], 1).numpy()
        to_canvas = invert(canvas.to_frame(CANVAS_SIZE))
        total = np.zeros((CANVAS_SIZE, CANVAS_SIZE, 4), np.float32)
        weight = np.zeros((CANVAS_SIZE, CANVAS_SIZE, 1), np.float32)
        for (square, _), field, (_, _, inside) in zip(views, fields, inputs, strict=True):
            values = np.ascontiguousarray(field.transpose(1, 2, 0))
            step = np.vstack([to_canvas, [0, 0, 1]]) @ np.vstack([square.to_frame(len(values)), [0, 0, 1]])
            area = (CANVAS_SIZE, CANVAS_SIZE)
            share = cv2.warpAffine(_trust(inside, len(values)), step[:2], area)[..., None]
            total += cv2.warpAffine(values, step[:2], area) * share
            weight += share
        known = weight[..., 0] > 1e-3
        mean = (total / np.maximum(weight, np.float32(1e-3))).astype(np.float32)
        mean[~known] = (1, 0, 0, 0)
        holds = float(output.holds.sigmoid().mean())
        return Prediction(canvas, mean[..., :3], mean[..., 3], known, holds)

    @staticmethod
    def _inputs(
        frame: Frame, keypoints: FloatArray, prompt: ObjectPrompt, square: Square
    ) -> tuple[Map, Map, NDArray[np.bool_]]:
        to_frame = square.to_frame(CROP_SIZE)
        image, inside = cut(frame.image, to_frame, CROP_SIZE)
        to_crop = invert(to_frame)
        relative = None
        if frame.depth is not None:
            relative = _relative_depth(frame, keypoints, to_frame)
        maps = guidance_maps(apply(to_crop, keypoints), _crop_prompt(prompt, to_crop), inside, relative)
        return image.transpose(2, 0, 1).astype(np.float32), maps, inside


def canvas_depth(frame: Frame, canvas: Square) -> Map | None:
    """Depth on a canvas (CANVAS_SIZE, CANVAS_SIZE), metres, NaN where unknown; None when the frame has none."""
    if frame.depth is None:
        return None
    area, flags = (CANVAS_SIZE, CANVAS_SIZE), cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP
    depth = cv2.warpAffine(frame.depth, canvas.to_frame(CANVAS_SIZE), area, flags=flags, borderValue=float("nan"))
    return depth.astype(np.float32)


def _weighed(frame: Frame, keypoints: FloatArray, seen: Prediction) -> Prediction:
    """The answer with what measured depth says, when there is some."""
    depth = canvas_depth(frame, seen.square)
    if depth is None:
        return seen
    landmarks = apply(invert(seen.square.to_frame(CANVAS_SIZE)), keypoints)
    evidence = find_evidence(depth, landmarks, seen.known)
    return seen if evidence is None else replace(seen, classes=weigh(evidence, seen.classes, landmarks))


def _trust(inside: NDArray[np.bool_], size: int) -> Map:
    """Weights (size, size) of a crop's answer: nothing outside the photo, less towards the crop's border."""
    share = cv2.resize(inside.astype(np.float32), (size, size), interpolation=cv2.INTER_AREA) > 0.5
    ramp = np.minimum(np.linspace(0, 2, size), np.linspace(2, 0, size)).clip(0.15, 1)
    return (share * ramp[:, None] * ramp[None]).astype(np.float32)


def _relative_depth(frame: Frame, keypoints: FloatArray, to_frame: FloatArray) -> Map:
    """Depth of a crop minus the wrist's, in hand lengths; NaN where unknown."""
    assert frame.depth is not None
    flags = cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP
    crop = cv2.warpAffine(frame.depth, to_frame, (CROP_SIZE, CROP_SIZE), flags=flags, borderValue=float("nan")).astype(
        np.float32
    )
    height, width = frame.depth.shape
    palm = np.round(keypoints[[0, 5, 9, 13, 17]]).astype(int).clip(0, [width - 1, height - 1])
    wrist = float(np.nanmedian(np.concatenate([[np.nan], frame.depth[palm[:, 1], palm[:, 0]]])))
    if not np.isfinite(wrist):
        return np.full_like(crop, np.nan)
    rays = frame.camera.rays(keypoints[[0, 9]])
    length = max(float(np.linalg.norm(rays[1] - rays[0])) * wrist, 0.05)
    return (crop - np.float32(wrist)) / np.float32(length)


def _crop_prompt(prompt: ObjectPrompt, to_crop: FloatArray) -> CropPrompt:
    box = None
    if prompt.box is not None:
        x0, y0, x1, y1 = prompt.box
        corners = apply(to_crop, np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]]))
        # A turned box is drawn as the upright box of the same centre and mean size.
        half = np.array([x1 - x0, y1 - y0]) / 2 * float(np.hypot(*to_crop[:, 0]))
        spread = np.minimum((corners.max(0) - corners.min(0)) / 2, half.max())
        middle = corners.mean(0)
        box = (*(middle - spread), *(middle + spread))
    points = apply(to_crop, np.array(prompt.points).reshape(-1, 2))
    return CropPrompt(box, points)  # type: ignore[arg-type]


def _with_prompt(centre: FloatArray, side: float, prompt: ObjectPrompt, keypoints: FloatArray) -> Square:
    """Grow the first crop until it holds the prompt and the hand."""
    corners = [np.asarray(p, np.float64) for p in prompt.points]
    if prompt.box is not None:
        corners += [np.array(prompt.box[:2]), np.array(prompt.box[2:])]
    if not corners:
        return Square(centre, side)
    everything = np.concatenate([keypoints, np.array(corners)])
    low, high = everything.min(0), everything.max(0)
    return Square((low + high) / 2, max(1.25 * float((high - low).max()), 0.85 * side))


def _agrees(seen: Prediction, prompt: ObjectPrompt) -> bool:
    """Whether an answer given without the prompt calls most of the prompt's points object."""
    to_canvas = invert(seen.square.to_frame(CANVAS_SIZE))
    pixels = np.round(apply(to_canvas, np.array(prompt.points))).astype(int).clip(0, CANVAS_SIZE - 1)
    return bool((seen.classes[pixels[:, 1], pixels[:, 0], 2] > 0.5).mean() > 0.5)


def _spans(seen: Prediction, box: tuple[float, float, float, float]) -> bool:
    """Whether the box round an answer given without the prompt is nearly the user's box."""
    corners = apply(invert(seen.square.to_frame(CANVAS_SIZE)), np.array(box, np.float64).reshape(2, 2))
    sure = cv2.morphologyEx((seen.classes[..., 2] > 0.5).astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3)))
    rows, columns = np.nonzero(sure)
    if len(rows) == 0:
        return False
    low, high = np.array([columns.min(), rows.min()]), np.array([columns.max(), rows.max()])
    shared = np.clip(np.minimum(high, corners[1]) - np.maximum(low, corners[0]), 0, None).prod()
    union = (high - low).prod() + (corners[1] - corners[0]).prod() - shared
    return bool(shared > SAME_BOX * union)


def _foreground_box(seen: Prediction, keypoints: FloatArray, prompt: ObjectPrompt) -> tuple[FloatArray, FloatArray]:
    """Box (low, high), frame px, round the hand, the object as far as it is known, and the prompt."""
    points = [keypoints]
    sure = seen.classes[..., 2] > 0.5
    if sure.any():
        rows, columns = np.nonzero(cv2.morphologyEx(sure.astype(np.uint8), cv2.MORPH_OPEN, np.ones((5, 5))))
        if len(rows):
            corners = np.stack([columns, rows], 1)[[rows.argmin(), rows.argmax(), columns.argmin(), columns.argmax()]]
            points.append(apply(seen.square.to_frame(CANVAS_SIZE), corners.astype(np.float64)))
    if prompt.box is not None:
        points.append(np.array(prompt.box).reshape(2, 2))
    if prompt.points:
        points.append(np.array(prompt.points))
    everything = np.concatenate(points)
    return everything.min(0), everything.max(0)
