# SPDX-License-Identifier: Apache-2.0
"""Hand and object masks: the mask network's answer, made to follow the picture's edges and the user's prompt."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np
from numpy.typing import NDArray

from fmh_ros.core.cues.mask_beyond import join_beyond
from fmh_ros.core.cues.mask_colours import take_back
from fmh_ros.core.cues.mask_growth import grow
from fmh_ros.core.cues.mask_predictor import CANVAS_SIZE, MaskPredictor, Prediction, canvas_depth
from fmh_ros.core.cues.mask_refine import Canvas, fingers_near, refine
from fmh_ros.core.cues.plain_background import find_thing
from fmh_ros.core.cues.squares import apply, cut, invert
from fmh_ros.core.cues.types import HandObservation, SceneMasks
from fmh_ros.core.errors import EmptyObjectMaskError, NoObjectError
from fmh_ros.core.frame.frame import Frame, ObjectPrompt

Mask = NDArray[np.bool_]
Map = NDArray[np.float32]

#: Below this score, and without a prompt, the hand is taken to hold nothing.
NOTHING_HELD = 0.12
#: Below this score the network is asked a second time. Where it finds nothing it is so only when the geometric mean of
#: its belief in a held object and of its likeliest pixel's probability reaches LIKELY, or LIKELY_BY_DEPTH where depth
#: has its say in that: one in fifty rendered empty hands does that.
SURE, LIKELY, LIKELY_BY_DEPTH = 0.8, 0.45, 0.32
#: What only the second answer finds needs this score: it is sought where an empty hand looks the same.
FOUND_LATE = 0.25
#: Blur of the probability, canvas pixels, before its likeliest pixel is taken.
HINT_BLUR = 5.0
#: Below this score the result carries a warning.
UNSURE = 0.45
#: Score of what the network does not take for held, but stands out before a plain background: not sure.
STANDS_OUT = 0.4
#: What touches fewer than two fingers in the picture is hardly held: the score is multiplied by these.
FINGER_FACTORS = (0.3, 0.7, 1.0)
#: An object mask smaller than this part of the hand's box is taken to be nothing.
SMALLEST_SHARE = 0.004


class EmbeddedSegmenter:
    """`Segmenter` by the embedded mask network; the weights load at the first call."""

    name = "mask-network"

    def __init__(self, predictor: MaskPredictor | None = None) -> None:
        self.predictor = predictor or MaskPredictor()

    def segment(self, frame: Frame, hand: HandObservation, prompt: ObjectPrompt) -> SceneMasks:
        """Return masks of the hand and of what it holds.

        Args:
            frame: image, and depth if there is any; the hand in it is a right one.
            hand: its landmarks.
            prompt: a mask is taken as the object as it is; a box bounds the object; points lie on it.

        Raises:
            NoObjectError: nothing is held, and no prompt says otherwise.
            EmptyObjectMaskError: nothing was found where the prompt points, or the object fills the whole image.
        """
        reading = _read(frame, hand, prompt, self.predictor.predict(frame, hand, prompt))
        if not prompt.given and reading.score < SURE:
            reading = self._look_again(frame, hand, prompt, reading)
        prediction, canvas, score = reading.prediction, reading.canvas, reading.score
        held, solid_hand = reading.held, reading.hand
        to_canvas = invert(prediction.square.to_frame(CANVAS_SIZE))
        shape = frame.image.shape[:2]
        object_mask = to_frame_map(held.astype(np.float32), to_canvas, shape) > 0.5
        hand_mask = to_frame_map(solid_hand.astype(np.float32), to_canvas, shape) > 0.5
        probability = to_frame_map(canvas.object_probability, to_canvas, shape)
        amodal = to_frame_map(np.where(prediction.known, prediction.amodal, 0).astype(np.float32), to_canvas, shape)
        if prompt.mask is not None:
            object_mask = prompt.mask.copy()
            probability = np.maximum(probability * prompt.mask, prompt.mask).astype(np.float32)
        if prompt.box is not None and prompt.mask is None:
            object_mask &= inside_box(shape, prompt.box)
        hand_mask &= ~object_mask
        if not prompt.given and score < NOTHING_HELD:
            thing = find_thing(frame.image, hand_mask, hand.keypoints_2d)
            if thing is not None:
                object_mask, score = thing, STANDS_OUT
                probability = np.maximum(probability, thing).astype(np.float32)
        check_object(object_mask, hand, prompt, score)
        warnings = object_warnings(object_mask, score, prompt)
        whole = np.maximum(amodal, object_mask)
        return SceneMasks(hand_mask, object_mask, probability, whole, score, warnings, prompt.text)

    def _look_again(self, frame: Frame, hand: HandObservation, prompt: ObjectPrompt, first: _Reading) -> _Reading:
        """Ask the network again with the likeliest pixel of its own answer for a prompt.

        It tells the object's outline much better than whether there is one: that pixel lies on the object in 36 of 39
        rendered scenes of the benchmark's training split, also where nothing was found. Whether anything is held
        remains what the first answer says, since a prompt makes the network sure of it.
        """
        at, peak = _peak(first.prediction)
        found = first.score >= NOTHING_HELD
        height, width = frame.image.shape[:2]
        inside = 0 <= at[0] <= width - 1 and 0 <= at[1] <= height - 1
        least = LIKELY if frame.depth is None else LIKELY_BY_DEPTH
        if not inside or (not found and np.sqrt(first.prediction.holds * peak) < least):
            return first
        hinted = self.predictor.predict(frame, hand, replace(prompt, points=(at,)))
        second = _read(frame, hand, prompt, replace(hinted, holds=first.prediction.holds))
        if not found:
            return first if second.score < FOUND_LATE else replace(second, score=min(second.score, STANDS_OUT))
        return replace(second, score=first.score) if second.held.any() else first


@dataclass(frozen=True)
class _Reading:
    """One answer of the network, refined: masks (S, S) of object and hand on its canvas, and how sure it is."""

    prediction: Prediction
    canvas: Canvas
    held: Mask
    hand: Mask
    score: float


def _read(frame: Frame, hand: HandObservation, prompt: ObjectPrompt, prediction: Prediction) -> _Reading:
    """Refine an answer; prompt : what the user gave."""
    canvas = _canvas(frame, hand, prompt, prediction)
    held, solid_hand = refine(canvas)
    # How sure it is that something is held is the network's to say: colours know nothing of holding.
    score = _score(canvas, prediction, held, prompt)
    if prompt.box is None and prompt.mask is None:
        held, solid_hand = take_back(canvas, held, solid_hand)
        held = grow(canvas, held, solid_hand)
        held = join_beyond(canvas, held, solid_hand)
        solid_hand &= ~held
    return _Reading(prediction, canvas, held, solid_hand, score)


def _peak(prediction: Prediction) -> tuple[tuple[float, float], float]:
    """Where in the frame the object is likeliest to be, and how likely, after smoothing."""
    likely = np.where(prediction.known, prediction.classes[..., 2], 0).astype(np.float32)
    smooth = cv2.GaussianBlur(likely, (0, 0), HINT_BLUR)
    row, column = np.unravel_index(int(smooth.argmax()), smooth.shape)
    x, y = apply(prediction.square.to_frame(CANVAS_SIZE), np.array([[column, row]], np.float64))[0]
    return (float(x), float(y)), float(smooth[row, column])


def _canvas(frame: Frame, hand: HandObservation, prompt: ObjectPrompt, prediction: Prediction) -> Canvas:
    """Gather everything the refinement needs in the canvas' pixels."""
    to_frame = prediction.square.to_frame(CANVAS_SIZE)
    to_canvas = invert(to_frame)
    image, inside = cut(frame.image, to_frame, CANVAS_SIZE)
    box = None
    if prompt.box is not None:
        corners = apply(to_canvas, np.array(prompt.box, np.float64).reshape(2, 2))
        box = (corners[0], corners[1])
    return Canvas(
        image=image,
        inside=inside & prediction.known,
        object_probability=prediction.classes[..., 2].copy(),
        hand_probability=prediction.classes[..., 1].copy(),
        keypoints=apply(to_canvas, hand.keypoints_2d),
        box=box,
        points=apply(to_canvas, np.array(prompt.points).reshape(-1, 2)),
        depth=canvas_depth(frame, prediction.square),
    )


def to_frame_map(values: Map, to_canvas: NDArray[np.float64], shape: tuple[int, ...]) -> Map:
    """Resample a canvas map (S, S) into the frame, 0 outside the canvas."""
    size = (shape[1], shape[0])
    moved = cv2.warpAffine(values, to_canvas, size, flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
    return moved.astype(np.float32)


def inside_box(shape: tuple[int, ...], box: tuple[float, float, float, float]) -> Mask:
    """Pixels (H, W) within a box x0, y0, x1, y1."""
    rows, columns = np.arange(shape[0])[:, None], np.arange(shape[1])[None]
    x0, y0, x1, y1 = box
    result: Mask = (columns >= x0) & (columns <= x1) & (rows >= y0) & (rows <= y1)
    return result


def _score(canvas: Canvas, prediction: Prediction, held: Mask, prompt: ObjectPrompt) -> float:
    """How sure it is that the hand holds this object: the network's verdict and how firm the mask is."""
    if not held.any():
        return 0.9 if prompt.mask is not None else 0.0
    firmness = float(prediction.classes[..., 2][held].mean())
    if prompt.given:
        return float(np.clip(0.5 + 0.5 * firmness, 0, 1))
    fingers = fingers_near(canvas, held)
    return float(np.sqrt(prediction.holds * firmness) * FINGER_FACTORS[min(fingers, len(FINGER_FACTORS) - 1)])


def check_object(mask: Mask, hand: HandObservation, prompt: ObjectPrompt, score: float) -> None:
    """Raise NoObjectError or EmptyObjectMaskError for a mask (H, W) that is no object."""
    box_area = max((hand.box[2] - hand.box[0]) * (hand.box[3] - hand.box[1]), 1.0)
    pixels = int(mask.sum())
    small = pixels < max(SMALLEST_SHARE * box_area, 8)
    if not prompt.given and (small or score < NOTHING_HELD):
        raise NoObjectError(
            f"The {hand.side} hand seems to hold nothing (score {score:.2f}, {pixels} object pixels)",
            expected="a hand that holds an object, both visible",
            change="Mark the object with --object-box or --object-point if there is one",
        )
    if small:
        raise EmptyObjectMaskError(
            f"Only {pixels} object pixels were found at the prompt",
            expected="a box round the visible part of the object, or a point on it, not on the hand",
            change="Move the prompt, or give --object-mask",
        )
    edges = (mask[0].any(), mask[-1].any(), mask[:, 0].any(), mask[:, -1].any())
    if all(edges) and mask.mean() > 0.6:
        raise EmptyObjectMaskError(
            f"The object mask touches every border and fills {100 * mask.mean():.0f} % of the image",
            expected="an object that is at least partly surrounded by something else",
            change="Move the camera back, or give --object-mask",
        )


def object_warnings(mask: Mask, score: float, prompt: ObjectPrompt) -> tuple[str, ...]:
    """Sentences for the user about an object mask (H, W): unsure, or cut off."""
    warnings = []
    if score < UNSURE:
        hint = "give --object-mask" if prompt.given else "mark it with --object-box or --object-point"
        warnings.append(f"The object's outline is unsure (score {score:.2f}); if it is wrong, {hint}.")
    cut_off = [
        n
        for n, e in zip(("top", "bottom", "left", "right"), (mask[0], mask[-1], mask[:, 0], mask[:, -1]), strict=True)
        if e.any()
    ]
    if cut_off:
        warnings.append(f"The object is cut off at the {' and '.join(cut_off)} of the image; the rest is a guess.")
    return tuple(warnings)
