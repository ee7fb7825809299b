# SPDX-License-Identifier: Apache-2.0
"""Which hand is meant: by side, by prompt, or the one that holds something."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from fmh_ros.core.cues.types import HandDetector, HandObservation, SceneMasks, Segmenter, keypoint_distance
from fmh_ros.core.errors import EmptyObjectMaskError, NoHandError, NoObjectError
from fmh_ros.core.frame.frame import Frame, ObjectPrompt, Side
from fmh_ros.core.hand.fit import mirror_observation

#: At most so many hands are segmented to find the one that holds something.
MAX_CANDIDATES = 3
#: Landmarks this near to each other, over the hand's size, are one hand's; and the part of another hand's landmarks on
#: the object's mask from which that is no object. Of 21 photographs one has 0.95, no other any.
SAME_HAND, OTHER_HAND = 0.5, 0.5
#: Another hand counts from this part of the score of the one that is asked about: a pink mug passes for a hand (0.66)
#: beside the hand that holds it (0.91), while the hands of a group reach 0.95 and more.
SURE_OTHER = 0.85
#: A second hand whose combined score reaches this share of the best one's is worth a warning.
RIVAL_SHARE = 0.6


@dataclass(frozen=True)
class ChosenHand:
    """The hand to reconstruct, as a right hand: for a left one frame, prompt and everything behind are mirrored."""

    frame: Frame
    prompt: ObjectPrompt
    observation: HandObservation
    masks: SceneMasks
    mirrored: bool
    warnings: tuple[str, ...]


def choose_hand(
    frame: Frame,
    detector: HandDetector,
    segmenter: Segmenter,
    prompt: ObjectPrompt,
    side: Side | None,
    check: Callable[[], None] | None = None,
) -> ChosenHand:
    """Detect hands and pick one.

    A prompt decides by nearness; otherwise up to MAX_CANDIDATES hands are segmented and the surest hand with the surest
    object wins. Raises NoHandError, NoObjectError or EmptyObjectMaskError. check : called between networks; what it
    raises ends the choice.
    """
    found = detector.detect(frame)
    hands = [h for h in found if side is None or h.side == side]
    if not hands:
        seen = f"{len(found)} hand(s), but no {side} one" if found else "No hand was found in the image"
        raise NoHandError(
            seen,
            expected="a hand at least about 40 pixels wide, not covered by a glove",
            change="Use --hand auto" if found else "Move the camera closer, or crop the image around the hand",
        )
    if prompt.given:
        hands = sorted(hands, key=lambda h: _distance_to_prompt(h, prompt))[:1]
    candidates: list[ChosenHand] = []
    failure: NoObjectError | EmptyObjectMaskError | None = None
    for hand in hands[:MAX_CANDIDATES]:
        if check is not None:
            check()
        try:
            chosen = _as_right_hand(frame, detector, segmenter, prompt, hand)
            if not prompt.given:
                _check_no_other_hand(chosen, hand, found)
            candidates.append(chosen)
        except (NoObjectError, EmptyObjectMaskError) as error:
            failure = failure or error
    if not candidates:
        assert failure is not None
        raise failure
    candidates.sort(key=_score, reverse=True)
    best = candidates[0]
    return ChosenHand(**{**vars(best), "warnings": best.warnings + _rivals(candidates, len(hands))})


def _score(chosen: ChosenHand) -> float:
    return chosen.observation.score * chosen.masks.object_score


def _rivals(candidates: list[ChosenHand], hands: int) -> tuple[str, ...]:
    rivals = [c for c in candidates[1:] if _score(c) > RIVAL_SHARE * _score(candidates[0])]
    if rivals:
        side = "left" if candidates[0].mirrored else "right"
        return (
            f"{1 + len(rivals)} hands seem to hold something; the {side} one was chosen. "
            "Give --hand or --object-box for another.",
        )
    return (f"{hands} hands were found; the one that holds something was chosen.",) if hands > 1 else ()


def _as_right_hand(
    frame: Frame, detector: HandDetector, segmenter: Segmenter, prompt: ObjectPrompt, hand: HandObservation
) -> ChosenHand:
    if hand.side == "right":
        masks = segmenter.segment(frame, hand, prompt)
        return ChosenHand(frame, prompt, hand, masks, False, masks.warnings)
    width = frame.camera.width
    turned, turned_prompt = frame.mirrored(), prompt.mirrored(width)
    # Landmarks are taken again in the mirrored image, so that a mirrored photo gives exactly the mirrored result.
    middle = width - 1 - hand.keypoints_2d[:, 0].mean(), hand.keypoints_2d[:, 1].mean()
    again = [h for h in detector.detect(turned) if h.side == "right"]
    again.sort(key=lambda h: float(np.hypot(*(h.keypoints_2d.mean(0) - middle))))
    size = max(hand.box[2] - hand.box[0], hand.box[3] - hand.box[1])
    observation = mirror_observation(hand, width)
    if again and np.hypot(*(again[0].keypoints_2d.mean(0) - middle)) < 0.5 * size:
        observation = again[0]
    masks = segmenter.segment(turned, observation, turned_prompt)
    return ChosenHand(turned, turned_prompt, observation, masks, True, masks.warnings)


def _check_no_other_hand(chosen: ChosenHand, hand: HandObservation, found: list[HandObservation]) -> None:
    """Raise NoObjectError when the object's mask has the landmarks of a hand in it: then it is that hand, or the ground
    behind it."""
    mask = chosen.masks.object
    for other in found:
        if other is hand or keypoint_distance(other.keypoints_2d, hand.keypoints_2d) < SAME_HAND:
            continue
        if other.score < SURE_OTHER * hand.score:
            continue
        pixels = np.round(other.keypoints_2d).astype(int)
        if chosen.mirrored:
            pixels[:, 0] = mask.shape[1] - 1 - pixels[:, 0]
        inside = ((pixels >= 0) & (pixels < mask.shape[::-1])).all(1)
        covered = mask[pixels[inside, 1], pixels[inside, 0]].sum() / len(pixels)
        if covered > OTHER_HAND:
            raise NoObjectError(
                f"What the {hand.side} hand seems to hold has another hand in it",
                expected="a hand that holds an object, both visible",
                change="Mark the object with --object-box or --object-point if there is one",
            )


def _distance_to_prompt(hand: HandObservation, prompt: ObjectPrompt) -> float:
    """Pixels from the hand's nearest keypoint to what the prompt points at."""
    keypoints = hand.keypoints_2d
    distances = []
    if prompt.box is not None:
        x0, y0, x1, y1 = prompt.box
        nearest = np.clip(keypoints, [x0, y0], [x1, y1])
        distances.append(float(np.linalg.norm(keypoints - nearest, axis=1).mean()))
    for point in prompt.points:
        distances.append(float(np.linalg.norm(keypoints - np.array(point), axis=1).min()))
    if prompt.mask is not None and prompt.mask.any():
        rows, columns = np.nonzero(prompt.mask)
        step = max(1, len(rows) // 2000)
        pixels = np.stack([columns, rows], 1)[::step]
        distances.append(float(np.linalg.norm(keypoints[:, None] - pixels[None], axis=2).min(1).mean()))
    return min(distances)
