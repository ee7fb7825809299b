# SPDX-License-Identifier: Apache-2.0
"""Finds hands and their 21 landmarks, stubbornly: hands that hold things are what the networks see worst."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fmh_ros.core.cues.hand_models import FloatArray, HandNetworks, Landmarks, Palm, Pyramid, Window
from fmh_ros.core.cues.types import HandObservation, keypoint_distance
from fmh_ros.core.frame.frame import Frame


@dataclass(frozen=True)
class HandSearch:
    """How hard to look.

    palm, presence : thresholds of the two networks; weak_palm, weak_presence : those of the last resort, whose finds
        are scored down by weak_factor.
    angles : directions the whole image is turned to; paddings : sides of the searched square over the longer side.
    tiles : sides of the sliding squares over the shorter side, for when the whole image shows no hand.
    duplicate : two hands are one when their keypoints are on average nearer than this part of their size.
    again : sides of the windows in which a doubtful hand is looked at again, over its box's.
    jitter_angles, jitter_scales : windows whose landmarks are averaged, radians and factors; each is also seen
        mirrored. Over the test photos this shrinks the scatter of landmarks under a moved window to a third.
    """

    palm: float = 0.5
    presence: float = 0.5
    weak_palm: float = 0.2
    weak_presence: float = 0.3
    weak_factor: float = 0.6
    angles: int = 6
    paddings: tuple[float, ...] = (1.0, 1.4)
    tiles: tuple[float, ...] = (0.7, 0.45)
    duplicate: float = 0.25
    again: tuple[float, ...] = (1.6, 2.4)
    jitter_angles: tuple[float, ...] = (-0.14, 0.14)
    jitter_scales: tuple[float, ...] = (0.95, 1.1)


@dataclass
class _Candidate:
    """A hand under construction: its latest landmarks, how often it was found, and the factor on its score."""

    landmarks: Landmarks
    votes: int = 1
    factor: float = 1.0


class MediaPipeHandDetector:
    """`HandDetector` by MediaPipe's networks through LiteRT; the models load at the first call."""

    name = "mediapipe"

    def __init__(self, networks: HandNetworks | None = None, search: HandSearch | None = None) -> None:
        self.networks = networks or HandNetworks()
        self.search = search or HandSearch()

    def detect(self, frame: Frame, near: tuple[float, float] | None = None) -> list[HandObservation]:
        """Return every hand found, best first.

        Args:
            frame: image to search, RGB.
            near: (x, y) px, where the user says the hand is about; the search zooms in there and hands are ordered
                by their distance to it before their score.

        Returns:
            One observation per hand; an empty list when there is none. ``score`` combines the presence network, how
            steadily the landmarks stay in place when the window moves, and in how many ways the hand was found.
        """
        pyramid = Pyramid(frame.image)
        height, width = frame.image.shape[:2]
        found: list[_Candidate] = []
        weak: list[Palm] = []
        windows = list(self._whole(width, height))
        for window in windows:
            self._look(pyramid, window, found, weak)
        if near is not None:
            for window in self._around(near, width, height):
                self._look(pyramid, window, found, weak)
        elif not found:
            for window in self._tiles(width, height):
                self._look(pyramid, window, found, weak)
        if not found:
            self._last_resort(pyramid, weak, found)
        if near is not None and not any(_contains(candidate.landmarks.pixels, near) for candidate in found):
            self._force(pyramid, near, max(width, height), found)
        hands = self._distinct([self._observe(pyramid, candidate) for candidate in found])
        diagonal = float(np.hypot(width, height))
        return sorted(hands, key=lambda hand: -_rank(hand, near, diagonal))

    def readings(self, frame: Frame, hand: HandObservation) -> list[HandObservation]:
        """Return what else the landmark network makes of a hand that was found, surest first.

        From a window that is turned wrong it takes a forearm for fingers or a little finger for the thumb, and its next
        windows follow its own mistake. Surer is not righter: what can be measured has to decide.
        """
        pyramid = Pyramid(frame.image)
        x0, y0, x1, y1 = hand.box
        centre, size = ((x0 + x1 + 1) / 2, (y0 + y1 + 1) / 2), max(x1 - x0, y1 - y0)
        views: list[Landmarks] = []
        for view in self._views_around(pyramid, centre, tuple(size * scale for scale in self.search.again)):
            apart = float(np.hypot(*(view.pixels.mean(0) - hand.keypoints_2d.mean(0))))
            known = any(keypoint_distance(other.pixels, view.pixels) < self.search.duplicate / 2 for other in views)
            if view.presence >= self.search.weak_presence and apart < 0.6 * size and not known:
                views.append(view)
        enough = len(self.search.paddings) * self.search.angles
        return sorted((self._observe(pyramid, _Candidate(view, enough)) for view in views), key=lambda h: -h.score)

    def _whole(self, width: int, height: int) -> Iterator[Window]:
        longest = max(width, height)
        for padding in self.search.paddings:
            for k in range(self.search.angles):
                yield Window((width / 2, height / 2), padding * longest, 2 * np.pi * k / self.search.angles)

    def _around(self, near: tuple[float, float], width: int, height: int) -> Iterator[Window]:
        for part in (0.25, 0.4, 0.6):
            for k in range(self.search.angles):
                angle = 2 * np.pi * k / self.search.angles
                yield Window((near[0] + 0.5, near[1] + 0.5), part * max(width, height), angle)

    def _tiles(self, width: int, height: int) -> Iterator[Window]:
        for part in self.search.tiles:
            side = part * min(width, height)
            columns, rows = (int(np.ceil(length / side * 1.4)) for length in (width, height))
            for y in np.linspace(side / 2, height - side / 2, max(rows, 2)):
                for x in np.linspace(side / 2, width - side / 2, max(columns, 2)):
                    for angle in (0.0, 2.1, 4.2):
                        yield Window((float(x), float(y)), side, angle)

    def _look(self, pyramid: Pyramid, window: Window, found: list[_Candidate], weak: list[Palm]) -> None:
        """Search one window: confirm what is known, add what is new, remember what is doubtful."""
        for palm in self.networks.palms(pyramid, window, self.search.weak_palm):
            known = next((c for c in found if _same_window(c.landmarks.window(), palm.window)), None)
            if known is not None:
                known.votes += 1
            elif palm.score < self.search.palm:
                weak.append(palm)
            else:
                self._confirm(pyramid, palm.window, self.search.presence, found, 1.0)

    def _last_resort(self, pyramid: Pyramid, weak: list[Palm], found: list[_Candidate]) -> None:
        for palm in sorted(weak, key=lambda palm: -palm.score)[:40]:
            self._confirm(pyramid, palm.window, self.search.weak_presence, found, self.search.weak_factor)

    def _force(self, pyramid: Pyramid, near: tuple[float, float], longest: int, found: list[_Candidate]) -> None:
        """Ask the landmark network alone where the user pointed: it knows gloves and half-hidden hands as hands."""
        sides = tuple(part * longest for part in (0.2, 0.26, 0.36, 0.52, 0.72))
        best: Landmarks | None = None
        for view in self._views_around(pyramid, (near[0] + 0.5, near[1] + 0.5), sides):
            if view.presence > (best.presence if best else self.search.presence):
                best = view
        if best is not None:
            found.append(_Candidate(best, 1, self.search.weak_factor))

    def _confirm(
        self, pyramid: Pyramid, window: Window, threshold: float, found: list[_Candidate], factor: float
    ) -> None:
        """Add the hand in a window if the landmark network sees one there at first and at second sight."""
        first = self.networks.landmarks(pyramid, window)
        if first.presence < threshold:
            return
        second = self.networks.landmarks(pyramid, first.window())
        if second.presence < threshold:
            return
        third = self.networks.landmarks(pyramid, second.window())
        if third.presence < threshold:
            return
        for candidate in found:
            if keypoint_distance(candidate.landmarks.pixels, third.pixels) < self.search.duplicate:
                candidate.votes += 1
                return
        found.append(_Candidate(third, 1, factor))

    def _observe(self, pyramid: Pyramid, candidate: _Candidate) -> HandObservation:
        """Average the landmarks over slightly moved windows and score the hand."""
        base = candidate.landmarks.window()
        views = [
            self.networks.landmarks(pyramid, Window(base.centre, base.side * scale, base.angle + angle, mirrored))
            for scale in self.search.jitter_scales
            for angle in self.search.jitter_angles
            for mirrored in (False, True)
        ]
        pixels = np.mean([view.pixels for view in views], 0)
        world = np.mean([view.world for view in views], 0)
        right = float(np.mean([view.right for view in views]))
        presence = float(np.mean([view.presence for view in views]))
        spread = float(np.mean([keypoint_distance(view.pixels, pixels) for view in views]))
        chances = self.search.angles * len(self.search.paddings)
        often = 0.7 + 0.3 * min(candidate.votes / (0.5 * chances), 1.0)
        score = presence * float(np.exp(-((spread / 0.15) ** 2))) * often * candidate.factor
        x0, y0 = (float(v) for v in pixels.min(0))
        x1, y1 = (float(v) for v in pixels.max(0))
        side = "right" if right > 0.5 else "left"
        box = (x0, y0, x1, y1)
        return HandObservation(side, max(right, 1.0 - right), score, box, pixels, world, "mediapipe")  # type: ignore[arg-type]

    def _views_around(
        self, pyramid: Pyramid, centre: tuple[float, float], sides: tuple[float, ...]
    ) -> Iterator[Landmarks]:
        """Ask the landmark network alone, about windows turned every way, and follow it where it sees a hand."""
        for side in sides:
            for k in range(8):
                for mirrored in (False, True):
                    view = self.networks.landmarks(pyramid, Window(centre, side, k * np.pi / 4, mirrored))
                    for _ in range(3):
                        if view.presence < self.search.weak_presence:
                            break
                        view = self.networks.landmarks(pyramid, view.window())
                    yield view

    def _distinct(self, hands: list[HandObservation]) -> list[HandObservation]:
        """Drop hands that overlap a better one, and those the averaged presence no longer supports."""
        kept: list[HandObservation] = []
        for hand in sorted(hands, key=lambda hand: -hand.score):
            alike = any(
                keypoint_distance(other.keypoints_2d, hand.keypoints_2d) < self.search.duplicate
                or _covered(hand.box, other.box) > 0.75
                for other in kept
            )
            if not alike and hand.score > 0.1:
                kept.append(hand)
        return kept


def _contains(pixels: FloatArray, point: tuple[float, float]) -> bool:
    """Whether a point lies in the box of keypoints (21, 2), grown by a quarter."""
    low, high = pixels.min(0), pixels.max(0)
    margin = 0.25 * float((high - low).max())
    return bool((low - margin <= point).all() and (high + margin >= point).all())


def _same_window(a: Window, b: Window) -> bool:
    apart = float(np.hypot(a.centre[0] - b.centre[0], a.centre[1] - b.centre[1]))
    turn = abs((a.angle - b.angle + np.pi) % (2 * np.pi) - np.pi)
    return apart < 0.2 * min(a.side, b.side) and turn < 0.6 and 0.6 < a.side / b.side < 1.6


def _covered(box: tuple[float, ...], by: tuple[float, ...]) -> float:
    """Part of a box that another covers."""
    low, high = np.maximum(box[:2], by[:2]), np.minimum(box[2:], by[2:])
    area = (box[2] - box[0]) * (box[3] - box[1])
    return float(np.prod(np.clip(high - low, 0, None))) / (area + 1e-9)


def _rank(hand: HandObservation, near: tuple[float, float] | None, diagonal: float) -> float:
    """Order hands: by score, a little by size, and first of all by closeness when the user pointed."""
    box: NDArray[np.float64] = np.array(hand.box)
    size = float(np.hypot(box[2] - box[0], box[3] - box[1])) / diagonal
    value = hand.score + 0.3 * min(size / 0.3, 1.0)
    if near is None:
        return value
    outside = np.maximum(np.maximum(box[:2] - near, np.array(near) - box[2:]), 0.0)
    return value - 20.0 * float(np.linalg.norm(outside)) / diagonal
