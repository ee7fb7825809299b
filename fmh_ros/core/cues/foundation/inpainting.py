# SPDX-License-Identifier: Apache-2.0
"""The object with the hand painted out by an image editor, believed only where the picture proves it right.

Editors redraw everything: colours drift, the object moves by some pixels, a finger stays, or another object appears.
So what was seen is always kept as it was; the answer only says what lies behind the hand, and only when the seen part
of the object is still the same in it and no hand is left. Otherwise the view stays as it was, hidden parts unknown.

``make_kontext``, ``make_qwen_edit``, ``make_klein``: `Completer` on the editors of ``editors``, whose models, options
and licences are listed there; further option: attempts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from fmh_ros.core.cues.foundation.editors import ImageEditor, klein_editor, kontext_editor, qwen_editor
from fmh_ros.core.cues.types import HandDetector, ObjectView, SceneMasks
from fmh_ros.core.frame.camera import CameraModel
from fmh_ros.core.frame.frame import Frame

FloatArray = NDArray[np.float64]
Mask = NDArray[np.bool_]
Picture = NDArray[np.uint8]

#: The editor sees so much more than the view's crop, over its side: it must recognise what it removes.
CONTEXT = 1.5
#: Grey levels by which the object's seen part may differ after alignment: at the median, and at nine tenths of it.
SAME_MEDIAN, SAME_MOST = 14.0, 55.0
#: Where the hand was, the median pixel must change by so many grey levels: else it is still there.
CHANGED = 12.0
#: An alignment may move no corner of the picture by more than this part of its side.
MOST_MOVED = 0.06
#: Side of the picture that is aligned and cut, pixels.
WORKING_SIDE = 384
INSTRUCTION = (
    "Remove the hand and the arm. Keep the {name} exactly as it is, at the same place, in the same pose and size, and "
    "complete the parts of it that the hand covered. Keep the background."
)


@dataclass(frozen=True)
class _Crop:
    """What the editor is shown. picture : (S, S, 3); seen, hidden : (S, S), the object, and what the hand covers;
    camera : its intrinsics, in the view's orientation."""

    picture: Picture
    seen: Mask
    hidden: Mask
    camera: CameraModel


class PaintingCompleter:
    """`Completer` by an image editor.

    editor : removes the hand. detector : finds a hand that is left, or None to go by the changed pixels alone.
    attempts : how many seeds are tried before giving up.
    """

    def __init__(self, editor: ImageEditor, detector: HandDetector | None = None, attempts: int = 2) -> None:
        self.editor, self.detector, self.attempts = editor, detector, attempts
        self.name = editor.name

    def complete(self, frame: Frame, masks: SceneMasks, view: ObjectView) -> tuple[ObjectView, tuple[str, ...]]:
        """Return the view with what the hand hides painted in, and warnings.

        ``image`` becomes the completed object on white, at the editor's resolution; painted pixels join ``mask`` and
        leave ``unknown``; depth and normals stay those of the seen part. An object that the hand does not touch in the
        image is left alone, and so is the view when no attempt passes the checks.
        """
        crop = _crop(frame, masks, view, self.editor.side)
        if not (ndimage.binary_dilation(crop.seen, iterations=3) & crop.hidden).any():
            return view, ()
        instruction = INSTRUCTION.format(name=masks.object_name or "object that the hand holds")
        reason = ""
        for seed in range(self.attempts):
            edited = _aligned(crop, self.editor.edit(crop.picture, instruction, seed))
            reason = self._doubt(crop, edited)
            if not reason:
                return _painted(view, crop, edited), ()
        return view, (f"The hand could not be painted out ({reason}); what it hides is left unknown.",)

    def _doubt(self, crop: _Crop, edited: Picture) -> str:
        """Why an answer is not believed; "" when it is."""
        change = np.abs(edited.astype(np.float32) - crop.picture).mean(-1)
        inner = ndimage.binary_erosion(crop.seen, iterations=2)
        sure = change[inner if inner.any() else crop.seen]
        if np.median(sure) > SAME_MEDIAN or np.quantile(sure, 0.9) > SAME_MOST:
            return f"{self.name} changed the object itself"
        if np.median(change[crop.hidden]) < CHANGED:
            return f"{self.name} left the hand in place"
        if self.detector is not None and self._finds_hand(crop, edited):
            return "a hand is left"
        return ""

    def _finds_hand(self, crop: _Crop, edited: Picture) -> bool:
        """Whether a hand is found where there was one."""
        assert self.detector is not None
        last = np.array(crop.hidden.shape)[::-1] - 1
        for hand in self.detector.detect(Frame(edited, crop.camera)):
            x, y = np.round(hand.keypoints_2d).astype(int).clip(0, last).T
            if crop.hidden[y, x].mean() > 0.3:
                return True
        return False


def _crop(frame: Frame, masks: SceneMasks, view: ObjectView, side: int) -> _Crop:
    """Look along the view's axis with a wider lens."""
    focal = view.camera.K[0, 0] * side / view.camera.width / CONTEXT
    K = np.array([[focal, 0, (side - 1) / 2], [0, focal, (side - 1) / 2], [0, 0, 1.0]])
    homography = K @ view.T_camera_view.rotation.T @ np.linalg.inv(frame.camera.K)

    def warp(values: NDArray[Any], border: int) -> NDArray[Any]:
        return np.asarray(
            cv2.warpPerspective(values, homography, (side, side), flags=cv2.INTER_LINEAR, borderMode=border)
        )

    seen = warp(masks.object.astype(np.float32), cv2.BORDER_CONSTANT) > 0.5
    # A little more than half: no pixel between hand and object is neither.
    hand = warp(masks.hand.astype(np.float32), cv2.BORDER_CONSTANT) > 0.25
    camera = CameraModel(side, side, K, (), frame.camera.source)
    return _Crop(warp(frame.image, cv2.BORDER_REPLICATE).astype(np.uint8), seen, hand & ~seen, camera)


def _aligned(crop: _Crop, edited: Picture) -> Picture:
    """Undo what the editor did to the picture as a whole: a small shift and stretch, and a drift of colours."""
    side = crop.picture.shape[0]
    moved = _registered(crop, edited)
    fixed = (
        edited
        if moved is None
        else cv2.warpAffine(
            edited, moved, (side, side), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REPLICATE
        )
    )
    result = np.asarray(fixed, np.float32).copy()
    unchanged = ~ndimage.binary_dilation(crop.hidden, iterations=max(3, side // 100))
    unchanged = unchanged & ndimage.binary_dilation(crop.seen, iterations=side // 8)
    for channel in range(3):
        now, before = result[..., channel][unchanged], crop.picture[..., channel][unchanged].astype(np.float32)
        if len(now) < 50:
            break
        spread = float(now.std())
        covariance = float(((now - now.mean()) * (before - before.mean())).mean())
        gain = float(np.clip(covariance / spread**2, 0.8, 1.25)) if spread > 2 else 1.0
        offset = float(np.clip(before.mean() - gain * now.mean(), -40, 40))
        result[..., channel] = gain * result[..., channel] + offset
    return np.clip(np.round(result), 0, 255).astype(np.uint8)


def _registered(crop: _Crop, edited: Picture) -> FloatArray | None:
    """Return the affine map (2, 3) from the crop's pixels to the edited picture's, or None when none is found.

    The hand's surroundings are left out: there the pictures are meant to differ.
    """
    side = crop.picture.shape[0]
    size = (WORKING_SIDE, WORKING_SIDE)
    ratio = side / WORKING_SIDE
    small = [
        cv2.cvtColor(cv2.resize(p, size, interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2GRAY)
        for p in (crop.picture, edited)
    ]
    keep = cv2.resize((~crop.hidden).astype(np.uint8), size, interpolation=cv2.INTER_NEAREST)
    keep = cv2.erode(keep, np.ones((9, 9), np.uint8))
    criteria = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 60, 1e-5)
    try:
        _, found = cv2.findTransformECC(
            small[0], small[1], np.eye(2, 3, dtype=np.float32), cv2.MOTION_AFFINE, criteria, keep, 5
        )
    except cv2.error:  # flat pictures, or ones that have nothing in common
        return None
    affine = np.asarray(found, np.float64)
    corners = np.array([[0, 0, 1], [1, 0, 1], [0, 1, 1], [1, 1, 1.0]]) * [WORKING_SIDE - 1, WORKING_SIDE - 1, 1]
    if np.abs(corners @ affine.T - corners[:, :2]).max() > MOST_MOVED * WORKING_SIDE:
        return None
    # From pixels of the small picture to those of the large one, centres at integers.
    shift = 0.5 * ratio - 0.5
    affine[:, 2] = affine[:, 2] * ratio + shift - affine[:, :2] @ np.full(2, shift)
    return affine


def find_painted(crop_picture: Picture, edited: Picture, seen: Mask, hidden: Mask) -> Mask:
    """Which hidden pixels (S, S) the edited picture shows to be the object.

    Colours decide, learnt from what is known to be object and known to be ground; the painted part must touch the seen.
    """
    side = edited.shape[0]
    size = (WORKING_SIDE, WORKING_SIDE)
    small = cv2.resize(edited, size, interpolation=cv2.INTER_AREA)
    known, behind = (cv2.resize(m.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0 for m in (seen, hidden))
    hull = np.zeros(size, np.uint8)
    rows, columns = np.nonzero(known)
    if len(rows) < 20 or not behind.any():
        return np.zeros_like(seen)
    cv2.fillConvexPoly(hull, cv2.convexHull(np.stack([columns, rows], 1).astype(np.int32)), 1)
    labels = np.full(size, cv2.GC_BGD, np.uint8)
    labels[known] = cv2.GC_FGD
    labels[behind] = cv2.GC_PR_BGD
    labels[behind & (hull > 0)] = cv2.GC_PR_FGD
    cv2.setRNGSeed(0)
    models = np.zeros((1, 65)), np.zeros((1, 65))
    # What the seen part looks like is taken from the photograph itself.
    known_edge = np.where(known[..., None], cv2.resize(crop_picture, size, interpolation=cv2.INTER_AREA), small)
    cv2.grabCut(known_edge.astype(np.uint8), labels, None, *models, 4, cv2.GC_INIT_WITH_MASK)  # type: ignore[call-overload]
    found = (labels == cv2.GC_FGD) | (labels == cv2.GC_PR_FGD)
    found = ndimage.binary_opening(found, iterations=1) | known
    pieces, _ = ndimage.label(found)
    touched = np.unique(pieces[known])
    found &= np.isin(pieces, touched[touched > 0])
    large = cv2.resize(found.astype(np.float32), (side, side), interpolation=cv2.INTER_LINEAR) > 0.5
    return np.asarray(large & hidden, bool)


def _painted(view: ObjectView, crop: _Crop, edited: Picture) -> ObjectView:
    """Put the seen object and what was painted behind the hand together, in the view's crop."""
    painted = find_painted(crop.picture, edited, crop.seen, crop.hidden)
    whole = crop.seen | painted
    # Pixels beside the hand are mixed with its colour.
    mixed = ndimage.binary_dilation(painted, iterations=2)
    colours = np.where(mixed[..., None], edited, crop.picture)
    side = crop.picture.shape[0]

    def to_view(size: int) -> FloatArray:
        K = view.camera.K.copy()
        K[:2, :2] *= size / view.camera.width
        K[:2, 2] = (size - 1) / 2
        return np.asarray(K @ np.linalg.inv(crop.camera.K), np.float64)[:2]

    def sample(values: NDArray[Any], size: int) -> NDArray[np.float32]:
        moved = cv2.warpAffine(values.astype(np.float32), to_view(size), (size, size), flags=cv2.INTER_LINEAR)
        return np.asarray(moved, np.float32)

    fine = sample(whole, side) > 0.5
    image = np.where(fine[..., None], sample(colours, side), 255).astype(np.uint8)
    new = sample(painted, view.mask.shape[0])
    mask = np.maximum(view.mask, np.where(view.unknown, new, 0)).astype(np.float32)
    return replace(view, image=image, mask=mask, unknown=view.unknown & (mask <= 0.5))


def _completer(editor: ImageEditor, options: Mapping[str, Any]) -> PaintingCompleter:
    from fmh_ros.core.cues.hand_detector import MediaPipeHandDetector

    detector = options.get("detector") or MediaPipeHandDetector()
    return PaintingCompleter(editor, detector, int(options.get("attempts", 2)))


def make_kontext(models: Mapping[str, Path], options: Mapping[str, Any], device: str) -> PaintingCompleter:
    """Load FLUX.1 Kontext. Raises ModelMissingError, ModelFileError or ProfileError."""
    return _completer(kontext_editor(models, options, device), options)


def make_qwen_edit(models: Mapping[str, Path], options: Mapping[str, Any], device: str) -> PaintingCompleter:
    """Load Qwen-Image-Edit. Raises ModelMissingError, ModelFileError or ProfileError."""
    return _completer(qwen_editor(models, options, device), options)


def make_klein(models: Mapping[str, Path], options: Mapping[str, Any], device: str) -> PaintingCompleter:
    """Load FLUX.2 klein. Raises ModelMissingError, ModelFileError or ProfileError."""
    return _completer(klein_editor(models, options, device), options)
