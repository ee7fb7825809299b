# SPDX-License-Identifier: Apache-2.0
"""Keeps an eye on hands from image to image, quickly: where they are, and whether they hold something."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fmh_ros.core.cues.hand_detector import HandSearch, MediaPipeHandDetector
from fmh_ros.core.cues.hand_models import HandNetworks, Landmarks, Pyramid
from fmh_ros.core.cues.mask_predictor import MaskPredictor
from fmh_ros.core.cues.types import HandObservation, SeenHand, keypoint_distance
from fmh_ros.core.frame.camera import camera_from_field_of_view
from fmh_ros.core.frame.frame import Frame, Side
from fmh_ros.core.hand.fit import mirror_observation

#: One look over the whole image in every direction; no tiles, no second chances, no averaging: that takes a job's time.
QUICK_SEARCH = HandSearch(
    weak_palm=HandSearch.palm, paddings=(1.0,), tiles=(), jitter_angles=(0.0,), jitter_scales=(1.0,)
)
#: Between two such looks, known hands are only followed in so many images.
FOLLOWED = 5
MOST_HANDS = 2
#: Weight of the newest image in what is remembered of a hand's side.
NEWEST = 0.3


@dataclass(frozen=True)
class _Known:
    """A hand that was seen in the last image; ``right`` : 0 to 1, remembered over images."""

    landmarks: Landmarks
    right: float


class HandWatcher:
    """`Watcher` by the networks that jobs use, on fewer windows; not safe to share between threads."""

    def __init__(self, networks: HandNetworks, predictor: MaskPredictor) -> None:
        self._networks, self._predictor = networks, predictor
        self._detector = MediaPipeHandDetector(networks, QUICK_SEARCH)
        self._known: list[_Known] = []
        self._followed = 0

    def look(self, image: NDArray[np.uint8]) -> tuple[SeenHand, ...]:
        """Return the hands in an image (H, W, 3) RGB, at most MOST_HANDS, the surest first."""
        frame = Frame(image, camera_from_field_of_view(image.shape[1], image.shape[0]))
        pyramid = Pyramid(image)
        known = [again for one in self._known if (again := self._follow(pyramid, one)) is not None]
        self._followed += 1
        if not known or self._followed >= FOLLOWED:
            self._followed = 0
            known += [_known(hand) for hand in self._detector.detect(frame)]
        self._known = _distinct(known)[:MOST_HANDS]
        return tuple(self._judge(frame, one) for one in self._known)

    def _follow(self, pyramid: Pyramid, known: _Known) -> _Known | None:
        """Look where the hand was; None when it is not there any more."""
        found = self._networks.landmarks(pyramid, known.landmarks.window())
        if found.presence < self._detector.search.presence:
            return None
        return _Known(found, (1 - NEWEST) * known.right + NEWEST * found.right)

    def _judge(self, frame: Frame, known: _Known) -> SeenHand:
        landmarks = known.landmarks
        x0, y0 = (float(value) for value in landmarks.pixels.min(0))
        x1, y1 = (float(value) for value in landmarks.pixels.max(0))
        side: Side = "right" if known.right > 0.5 else "left"
        sure = max(known.right, 1 - known.right)
        box = (x0, y0, x1, y1)
        hand = HandObservation(side, sure, landmarks.presence, box, landmarks.pixels, landmarks.world, "mediapipe")
        if side == "left":  # the network knows right hands only
            holds = self._predictor.holds(frame.mirrored(), mirror_observation(hand, frame.camera.width))
        else:
            holds = self._predictor.holds(frame, hand)
        return SeenHand(side, landmarks.presence, hand.box, landmarks.pixels, holds)


def _known(hand: HandObservation) -> _Known:
    right = hand.side_score if hand.side == "right" else 1 - hand.side_score
    return _Known(Landmarks(hand.keypoints_2d, hand.keypoints_world, hand.score, right), right)


def _distinct(known: list[_Known]) -> list[_Known]:
    """Drop what was found a second time: the first is the one that was followed."""
    kept: list[_Known] = []
    for one in known:
        if all(
            keypoint_distance(one.landmarks.pixels, other.landmarks.pixels) > QUICK_SEARCH.duplicate for other in kept
        ):
            kept.append(one)
    return sorted(kept, key=lambda one: -one.landmarks.presence)
