# SPDX-License-Identifier: Apache-2.0
"""Hand and object masks by a promptable network: SAM 2 or SAM 3, the object named, pointed at, or proposed.

With GroundingDINO in front of SAM 2 this is what is known as LangSAM.

``make_sam2``: model ``sam2`` (facebook/sam2.1-hiera-large or smaller, Apache-2.0), optionally ``grounding-dino``
(IDEA-Research/grounding-dino-base or -tiny, Apache-2.0). ``make_sam3``: model ``sam3`` (facebook/sam3, SAM License:
commercial use allowed, no military use; gated). Options: dtype; box_score; namer, a loaded `ObjectNamer`; proposer, a
loaded `Segmenter`. Without a finder or a name the embedded mask network proposes what is held.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from fmh_ros.core.cues.foundation.finders import (
    BOX_SCORE,
    INSTANCE_SCORE,
    Finder,
    Found,
    GroundingDinoFinder,
    Sam3Finder,
)
from fmh_ros.core.cues.foundation.promptable import MaskPrompt, PromptableNetwork, SamNetwork
from fmh_ros.core.cues.mask_inputs import hand_size_px
from fmh_ros.core.cues.segmenter import check_object, inside_box, object_warnings, to_frame_map
from fmh_ros.core.cues.squares import Square, apply, cut, invert
from fmh_ros.core.cues.types import HandObservation, ObjectNamer, SceneMasks, Segmenter
from fmh_ros.core.errors import NoObjectError
from fmh_ros.core.frame.frame import Frame, ObjectPrompt
from fmh_ros.core.pretrained import local_path, placement

FloatArray = NDArray[np.float64]
Mask = NDArray[np.bool_]
Map = NDArray[np.float32]
Box = tuple[float, float, float, float]

#: Side of the looked-at square over the hand's; it grows by WIDER while the object runs out of it, for MOST_LOOKS.
SQUARE_FACTOR, WIDER, MOST_LOOKS = 4.0, 1.8, 4
#: A box of landmarks lies inside the hand: it is grown by this part of the hand's size.
FLESH = 0.12
#: What is held begins within this part of the hand's size from the hand.
REACH = 0.25
#: Half width of the strip behind the wrist in which the forearm is looked for, over the hand's size.
FOREARM_HALF_WIDTH = 0.45
#: A point means this many pixels of the square round it at least.
POINT_RADIUS = 3.0
#: What nobody named is called this.
UNNAMED = "object"
_KNUCKLES = (0, 5, 9, 13, 17)


@dataclass(frozen=True)
class _View:
    """One square of the frame as the network sees it. size : its side in pixels of the square."""

    network: PromptableNetwork
    embedding: Any
    to_square: FloatArray
    size: int
    keypoints: FloatArray
    inside: Mask

    @property
    def hand_size(self) -> float:
        return hand_size_px(self.keypoints)


class PromptedSegmenter:
    """`Segmenter` by a promptable network.

    network : masks from boxes and points. finder : boxes from a text, or None. namer : names what nobody named, or
    None. proposer : a segmenter that says where the object is when nobody did and no finder can tell.
    """

    def __init__(
        self,
        network: PromptableNetwork,
        finder: Finder | None = None,
        namer: ObjectNamer | None = None,
        proposer: Segmenter | None = None,
    ) -> None:
        self.network, self.finder, self.namer, self.proposer = network, finder, namer, proposer
        self.name = network.name if finder is None else f"{network.name}+{finder.name}"
        self.reads_text = finder is not None

    def segment(self, frame: Frame, hand: HandObservation, prompt: ObjectPrompt) -> SceneMasks:
        """Return masks of the hand, with the forearm as far as it is looked at, and of what it holds.

        Args:
            frame: image; the hand in it is a right one (the networks do not mind).
            hand: its landmarks.
            prompt: a mask is taken as the object as it is; a box bounds the object; points lie on it; a text names it.

        Raises:
            NoObjectError: nothing near the hand answers to the name, or nothing is held.
            EmptyObjectMaskError: nothing was found where the prompt points, or the object fills the whole image.
        """
        name = prompt.text or ("" if self.namer is None else self.namer.name_object(frame, hand))
        located, sure = self._locate(frame, hand, prompt, name)
        square = _square(hand, located)
        for _ in range(MOST_LOOKS):
            masks, clipped = self._look(frame, hand, located, square)
            if not clipped:
                break
            square = _widened(square, masks.object, hand)
        if prompt.box is not None and prompt.mask is None:
            masks = replace(masks, object=masks.object & inside_box(frame.image.shape, prompt.box))
        object_score = float(np.clip(masks.object_score * sure, 0, 1))
        check_object(masks.object, hand, prompt, object_score)
        warnings = object_warnings(masks.object, object_score, prompt)
        return replace(masks, object_score=object_score, warnings=warnings, object_name=name)

    def _locate(
        self, frame: Frame, hand: HandObservation, prompt: ObjectPrompt, name: str
    ) -> tuple[ObjectPrompt, float]:
        """Return a prompt that points somewhere, and how sure it is that this is held, 0 to 1."""
        if prompt.given:
            return prompt, 1.0
        if self.finder is not None and (name or self.proposer is None):
            found = _nearest(self.finder.find(frame.image, name or UNNAMED), hand, frame.image.shape)
            if found is None:
                raise NoObjectError(
                    f"The {hand.side} hand holds nothing that {self.finder.name} would call {name or UNNAMED!r}",
                    expected="the object within reach of the hand",
                    change="Name it differently, or mark it with --object-box or --object-point",
                )
            return ObjectPrompt(found.box, text=name), float(np.sqrt(found.score))
        if self.proposer is None:
            raise NoObjectError(
                "Nobody said what is held, and these masks need to be told",
                expected="a box, a point or a name",
                change="Mark the object with --object-box or --object-point",
            )
        proposed = self.proposer.segment(frame, hand, replace(prompt, text=""))
        return _point_at(proposed.object, name), proposed.object_score

    def _look(
        self, frame: Frame, hand: HandObservation, prompt: ObjectPrompt, square: Square
    ) -> tuple[SceneMasks, bool]:
        """Segment one square; also say whether the object runs out of it."""
        size = self.network.input_size
        to_frame = square.to_frame(size)
        to_square = invert(to_frame)
        image, inside = cut(frame.image, to_frame, size)
        embedding = self.network.embed(image)
        view = _View(self.network, embedding, to_square, size, apply(to_square, hand.keypoints_2d), inside)
        if prompt.mask is None:
            wanted = _to_square(prompt, to_square)
            hand_logits, object_logits, score = _separate(view, wanted)
        else:
            given = cut(prompt.mask.astype(np.uint8), to_frame, size)[0] > 0
            hand_logits, _ = _hand(view, view.keypoints[~_at(given, view.keypoints)], np.zeros((0, 2)))
            object_logits, score = np.full((size, size), -20, np.float32), 0.9
        shape = frame.image.shape[:2]
        held = (object_logits > 0) & (object_logits >= hand_logits)
        if prompt.points and prompt.mask is None:  # where the user points there is object, whatever the network says
            seeds = np.ones_like(held)
            x, y = np.round(wanted.on).astype(int).clip(0, size - 1).T
            seeds[y, x] = False
            held |= ndimage.distance_transform_edt(seeds) <= POINT_RADIUS
        held = _connected(view, held & inside, prompt)
        arm = ((hand_logits > 0) | _forearm(view, hand_logits > 0)) & inside & ~held
        if prompt.mask is not None:
            object_mask, probability = prompt.mask.copy(), prompt.mask.astype(np.float32)
        else:
            object_mask = _to_frame_mask(held, view, shape)
            probability = to_frame_map(_sigmoid(np.where(inside, object_logits, -20)), to_square, shape)
        hand_mask = _to_frame_mask(arm, view, shape) & ~object_mask
        border = np.ones_like(held)
        border[2:-2, 2:-2] = False
        return SceneMasks(hand_mask, object_mask, probability, None, score), bool((held & border & inside).any())


def _separate(view: _View, wanted: MaskPrompt) -> tuple[Map, Map, float]:
    """Return logits of hand and object (S, S), each told what the other is, and the object's score."""
    held, score = _object(view, wanted, np.zeros((0, 2)))
    # Knuckles behind the object would point at it.
    knuckles = view.keypoints[list(_KNUCKLES)]
    hand, _ = _hand(view, knuckles[~_at(held > 0, knuckles)], wanted.on)
    # Landmarks that are firmly hand and not object keep the object off the fingers, and the other way round.
    firmly = _at(hand > np.maximum(held, 0), view.keypoints)
    core = _deepest((held > 0) & (held > hand))
    held, score = _object(view, wanted, view.keypoints[firmly])
    off = wanted.on if core is None else np.concatenate([wanted.on, core[None]])
    hand, _ = _hand(view, view.keypoints[firmly], off)
    return hand, held, score


def _object(view: _View, wanted: MaskPrompt, off: FloatArray) -> tuple[Map, float]:
    candidates = view.network.masks(view.embedding, replace(wanted, off=np.concatenate([wanted.off, off])))
    merits = []
    for logits, score in zip(candidates.logits, candidates.scores, strict=True):
        mask = logits > 0
        merit = float(score) + 0.05
        if wanted.box is not None:
            merit *= 0.1 + _overlap(_box_of(mask), wanted.box)
        if len(wanted.on):
            merit *= 0.1 + _covered(mask, wanted.on)
            merit *= 1.05 - _covered(mask, view.keypoints)  # a point alone may mean the object, or it and the hand
        merits.append(merit)
    best = int(np.argmax(merits))
    return candidates.logits[best], float(candidates.scores[best])


def _hand(view: _View, on: FloatArray, off: FloatArray) -> tuple[Map, float]:
    """Logits (S, S) of the hand, and their score: a box round the landmarks, points on it and not on it."""
    low, high = view.keypoints.min(0), view.keypoints.max(0)
    margin = FLESH * view.hand_size
    box = (*(low - margin).clip(0), *(high + margin).clip(None, view.size - 1))
    clear = np.ones(len(on), bool)
    if len(off):
        clear = np.linalg.norm(on[:, None] - off[None], axis=2).min(1) > 0.1 * view.hand_size
    candidates = view.network.masks(view.embedding, MaskPrompt(box, on[clear], off))  # type: ignore[arg-type]
    merits = [
        (float(score) + 0.05)
        * (0.1 + _covered(logits > 0, view.keypoints))
        * (0.1 + _overlap(_box_of(logits > 0), box))
        for logits, score in zip(candidates.logits, candidates.scores, strict=True)
    ]
    best = int(np.argmax(merits))
    return candidates.logits[best], float(candidates.scores[best])


def _forearm(view: _View, hand: Mask) -> Mask:
    """What continues the hand behind the wrist (S, S): found by points there, and only in a strip along the arm."""
    back = view.keypoints[0] - view.keypoints[list(_KNUCKLES[1:])].mean(0)
    length = float(np.linalg.norm(back))
    if length < 1:
        return np.zeros_like(hand)
    along = back / length
    starts = view.keypoints[0] + np.outer([0.15, 0.4], along) * view.hand_size
    visible = ((starts >= 0) & (starts <= view.size - 1)).all(1)
    if not visible.any():
        return np.zeros_like(hand)
    candidates = view.network.masks(view.embedding, MaskPrompt(None, starts[visible], view.keypoints[[8, 12, 16]]))
    merits = candidates.scores * [0.1 + _covered(logits > 0, starts[visible]) for logits in candidates.logits]
    rows, columns = np.mgrid[: view.size, : view.size]
    offset = np.stack([columns, rows], -1) - view.keypoints[0]
    ahead, aside = offset @ along, offset @ np.array([-along[1], along[0]])
    strip = (ahead > -0.1 * view.hand_size) & (np.abs(aside) < FOREARM_HALF_WIDTH * view.hand_size)
    arm = (candidates.logits[int(np.argmax(merits))] > 0) & strip
    pieces, _ = ndimage.label(arm | hand)
    touched = np.unique(pieces[hand])
    result: Mask = arm & np.isin(pieces, touched[touched > 0])
    return result


def _connected(view: _View, held: Mask, prompt: ObjectPrompt) -> Mask:
    """Drop specks, and pieces far from both the hand and what the user pointed at."""
    pieces, count = ndimage.label(held)
    if count == 0:
        return held
    numbers = np.arange(1, count + 1)
    mass = ndimage.sum_labels(held, pieces, numbers)
    keep = mass >= max(0.02 * mass.max(), 4)
    if prompt.box is None or prompt.points:
        anchors = np.concatenate([view.keypoints, apply(view.to_square, np.array(prompt.points).reshape(-1, 2))])
        pixels = np.round(anchors).astype(int).clip(0, view.size - 1)
        seeds = np.ones_like(held)
        seeds[pixels[:, 1], pixels[:, 0]] = False
        near = ndimage.minimum(ndimage.distance_transform_edt(seeds), pieces, numbers) < REACH * view.hand_size
        keep &= near
    result: Mask = np.isin(pieces, numbers[keep])
    return result


def _to_frame_mask(mask: Mask, view: _View, shape: tuple[int, ...]) -> Mask:
    """Resample a mask (S, S) to the frame (H, W); what touches the photo's border reaches it."""
    beyond = ndimage.binary_dilation(mask, iterations=2) & ~view.inside
    result: Mask = to_frame_map((mask | beyond).astype(np.float32), view.to_square, shape) > 0.5
    return result


def _square(hand: HandObservation, prompt: ObjectPrompt) -> Square:
    """The square round the hand and what the prompt points at, so large that both stand free."""
    corners = [hand.keypoints_2d, np.array(prompt.points).reshape(-1, 2)]
    if prompt.box is not None:
        corners.append(np.array(prompt.box).reshape(2, 2))
    everything = np.concatenate(corners)
    low, high = everything.min(0), everything.max(0)
    side = max(1.3 * float((high - low).max()), SQUARE_FACTOR * hand_size_px(hand.keypoints_2d))
    return Square((low + high) / 2, side)


def _widened(square: Square, seen: Mask, hand: HandObservation) -> Square:
    """A larger square, round the hand and as much of the object (H, W) as was seen."""
    corners = np.array([*np.array(hand.box).reshape(2, 2), *np.array(_box_of(seen)).reshape(2, 2)])
    return Square((corners.min(0) + corners.max(0)) / 2, square.side * WIDER)


def _to_square(prompt: ObjectPrompt, to_square: FloatArray) -> MaskPrompt:
    box = None
    if prompt.box is not None:
        corners = apply(to_square, np.array(prompt.box).reshape(2, 2)).ravel()
        box = (float(corners[0]), float(corners[1]), float(corners[2]), float(corners[3]))
    return MaskPrompt(box, apply(to_square, np.array(prompt.points).reshape(-1, 2)))


def _nearest(found: list[Found], hand: HandObservation, shape: tuple[int, ...]) -> Found | None:
    """The best find within reach of the hand: its score, less with the gap; what fills the image is no object."""
    size = hand_size_px(hand.keypoints_2d)
    best: tuple[float, Found] | None = None
    for one in found:
        low, high = np.array(one.box[:2]), np.array(one.box[2:])
        gap = float(np.hypot(*np.maximum(np.maximum(low - hand.box[2:], np.array(hand.box[:2]) - high), 0))) / size
        if gap > REACH or float((high - low).prod()) > 0.9 * shape[0] * shape[1]:
            continue
        merit = one.score * float(np.exp(-((gap / REACH) ** 2)))
        if best is None or merit > best[0]:
            best = (merit, one)
    return None if best is None else best[1]


def _point_at(mask: Mask, name: str) -> ObjectPrompt:
    """A prompt that means what a mask covers: its box, and the point deepest inside."""
    deepest = _deepest(mask)
    assert deepest is not None
    return ObjectPrompt(_box_of(mask), ((float(deepest[0]), float(deepest[1])),), text=name)


def _deepest(mask: Mask) -> FloatArray | None:
    """The pixel (x, y) of a mask that is furthest from its outside; None for an empty mask."""
    if not mask.any():
        return None
    inner = ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
    row, column = np.unravel_index(int(inner.argmax()), mask.shape)
    return np.array([column, row], np.float64)


def _box_of(mask: Mask) -> Box:
    rows, columns = np.nonzero(mask)
    if not len(rows):
        return (0.0, 0.0, 0.0, 0.0)
    return float(columns.min()), float(rows.min()), float(columns.max()), float(rows.max())


def _overlap(a: Box, b: Any) -> float:
    """Intersection over union of two boxes."""
    low, high = np.maximum(a[:2], b[:2]), np.minimum(a[2:], b[2:])
    shared = float(np.clip(high - low, 0, None).prod())
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared
    return shared / max(float(union), 1e-9)


def _at(mask: Mask, points: FloatArray) -> Mask:
    """Which of points (N, 2) a mask covers."""
    pixels = np.round(points).astype(int).clip(0, np.array(mask.shape)[::-1] - 1)
    result: Mask = mask[pixels[:, 1], pixels[:, 0]]
    return result


def _covered(mask: Mask, points: FloatArray) -> float:
    """Share of points (N, 2) that a mask covers."""
    return float(_at(mask, points).mean())


def _sigmoid(logits: Map) -> Map:
    return (1 / (1 + np.exp(-np.clip(logits, -30, 30)))).astype(np.float32)


def make_sam2(models: Mapping[str, Path], options: Mapping[str, Any], device: str) -> PromptedSegmenter:
    """Load SAM 2, and GroundingDINO when it is installed. Raises ModelMissingError, ModelFileError, ProfileError."""
    where = placement(options, device)
    network = SamNetwork.load(local_path(models, "sam2"), where, "sam2")
    finder = None
    if "grounding-dino" in models:
        finder = GroundingDinoFinder.load(
            models["grounding-dino"], placement({}, device), float(options.get("box_score", BOX_SCORE))
        )
    return PromptedSegmenter(network, finder, options.get("namer"), options.get("proposer") or _proposer())


def make_sam3(models: Mapping[str, Path], options: Mapping[str, Any], device: str) -> PromptedSegmenter:
    """Load SAM 3: finder and masks. Raises ModelMissingError, ModelFileError, ProfileError."""
    where, folder = placement(options, device), local_path(models, "sam3")
    finder = Sam3Finder.load(folder, where, float(options.get("box_score", INSTANCE_SCORE)))
    proposer = options.get("proposer") or _proposer()
    return PromptedSegmenter(SamNetwork.load(folder, where, "sam3"), finder, options.get("namer"), proposer)


def _proposer() -> Segmenter:
    from fmh_ros.core.cues.segmenter import EmbeddedSegmenter

    return EmbeddedSegmenter()
