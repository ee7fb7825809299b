# SPDX-License-Identifier: Apache-2.0
"""The chosen hand as a mesh in the camera frame, and with measured depth its reading looked at again.

Seen from behind a left hand looks much like a right one's palm, and a landmark network takes one for the other now and
then, the little finger for the index, or a forearm for fingers. Depth does not: a rig of the wrong side, or in the
wrong pose, that projects onto the landmarks lies on little of the skin.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from fmh_ros.core.cues.anchoring import anchor_on_depth
from fmh_ros.core.cues.types import HandObservation, PointMap, RereadingDetector
from fmh_ros.core.errors import EmptyObjectMaskError, HandFitError, NoObjectError
from fmh_ros.core.hand.fit import FittedHand, fit_hand, mirror_observation
from fmh_ros.core.hand.settle import Measured, settle_hand
from fmh_ros.core.hand.skin_depth import skin_agreement
from fmh_ros.core.hand.types import HandMesh
from fmh_ros.core.reconstruction.choose import ChosenHand
from fmh_ros.core.reconstruction.mirror import mirror_masks, mirror_points
from fmh_ros.core.reconstruction.profile import Stages

#: Above this confidence in the side it is not doubted.
SURE_SIDE = 0.98
#: The other side is taken when it agrees so much better with the measured skin. On 81 rendered hands, of which five are
#: taken for the other side, this turns four of them round and no other; what the fits cost would turn none.
CLEARER = 1.1
#: Another reading is taken when its fit costs less than this part of the first one's: where its landmarks are, other
#: pixels are forearm, so that agreements do not compare.
CLEARLY = 0.8
#: A fit that costs more is doubted: of 81 rendered hands good ones cost 40 to 170, few more than this, and one whose
#: forearm is taken for fingers 415. And how many other readings are tried then; each takes about a second.
DOUBTFUL_COST, MOST_READINGS = 150.0, 3
#: A hand so much smaller than the average adult's is none: a finger was taken for a hand. It is looked for again at the
#: size that one has at this distance, metres (half closed).
LEAST_SCALE, HAND_M = 0.5, 0.13


@dataclass(frozen=True)
class PlacedHand:
    """The mesh, with the hand's choice and the point map in the frame in which it is a right hand.

    fitted : the fit that the mesh is of, where it was settled on measured skin.
    """

    chosen: ChosenHand
    points: PointMap | None
    hand: HandMesh
    fitted: FittedHand | None = None


@dataclass(frozen=True)
class _Reading:
    """A choice with its measured points, and the fit to both."""

    chosen: ChosenHand
    points: PointMap
    fitted: FittedHand

    @property
    def too_small(self) -> bool:
        """Whether no hand is so small."""
        return self.fitted.mesh.scale < LEAST_SCALE

    def worse_than(self, other: _Reading) -> bool:
        """Whether the other one is to be taken in its place."""
        if self.too_small != other.too_small:
            return self.too_small
        return other.fitted.cost < CLEARLY * self.fitted.cost

    def placed(self, stages: Stages, check: Callable[[], None]) -> PlacedHand:
        """The hand where its measured skin is."""
        fitted = settle_hand(self.fitted, measured(self.chosen, self.points), stages.rig, check=check)
        return PlacedHand(self.chosen, self.points, fitted.mesh, fitted)


def measured(chosen: ChosenHand, points: PointMap) -> Measured:
    """What a sensor and the detector say of the chosen hand."""
    return Measured(chosen.observation, chosen.frame.camera, points.depth, chosen.masks.hand)


def place_hand(
    stages: Stages, chosen: ChosenHand, points: PointMap | None, *, side_known: bool, check: Callable[[], None]
) -> PlacedHand:
    """Fit the rig, or have a network regress the mesh; with measured depth the hand stands where that is.

    side_known : the user said which hand; otherwise an unsure side is decided by depth. check : called between
    iterations; what it raises ends the fit. Raises HandFitError.
    """
    by_sensor = points is not None and points.source == "sensor"
    if stages.regressor is not None:
        hand = stages.regressor.regress(chosen.frame, chosen.observation)
        if points is not None and by_sensor:
            hand = anchor_on_depth(hand, chosen.frame.camera, points.depth, chosen.masks.hand)
        return PlacedHand(chosen, points, hand)
    fitted = _fit(stages, chosen, points if by_sensor else None, check)
    if points is None or not by_sensor:
        return PlacedHand(chosen, points, fitted.mesh)
    best = _Reading(chosen, points, fitted)
    rereader = stages.detector if isinstance(stages.detector, RereadingDetector) else None
    if rereader is not None and best.too_small:
        best = _read_again(stages, rereader, best, side_known=side_known, check=check)
    if not side_known and best.chosen.observation.side_score <= SURE_SIDE:
        best = _doubt_side(stages, best, check)
    if rereader is not None and best.fitted.cost > DOUBTFUL_COST:
        best = _read_again(stages, rereader, best, side_known=side_known, check=check)
    return best.placed(stages, check)


def _doubt_side(stages: Stages, first: _Reading, check: Callable[[], None]) -> _Reading:
    """Try the other side, also with the fingers counted the other way: a hand's back is its palm so."""
    turned = other_side(first.chosen)
    best, agreement = first, _agreement(first)
    for observation in (turned.observation, reverse_fingers(turned.observation)):
        other = _read(stages, best, replace(turned, observation=observation), check)
        explained = 0.0 if other is None else _agreement(other)
        if other is not None and explained > CLEARER * agreement:
            best, agreement = other, explained
    return best


def _agreement(reading: _Reading) -> float:
    chosen = reading.chosen
    return skin_agreement(
        reading.fitted.mesh,
        chosen.frame.camera,
        reading.points.depth,
        chosen.masks.hand,
        chosen.observation.keypoints_2d,
    )


def _read(stages: Stages, known: _Reading, chosen: ChosenHand, check: Callable[[], None]) -> _Reading | None:
    """Return another choice for the same picture as a reading, or None where no such hand can be there."""
    turned = chosen.mirrored != known.chosen.mirrored
    points = mirror_points(known.points) if turned else known.points
    try:
        return _Reading(chosen, points, _fit(stages, chosen, points, check))
    except HandFitError:
        return None


def _read_again(
    stages: Stages, detector: RereadingDetector, first: _Reading, *, side_known: bool, check: Callable[[], None]
) -> _Reading:
    """Try what else the detector makes of a hand that fits neither landmarks nor skin, or that is too small for one.

    The masks follow the best reading where they are as sure as those of the first.
    """
    best = first
    seen = first.chosen.observation
    if first.too_small:
        distance = float(first.fitted.mesh.T_camera_hand.translation[2])
        seen = _enlarged(seen, HAND_M * first.chosen.frame.camera.focal / distance)
    readings = detector.readings(first.chosen.frame, seen)
    for seen in readings[:MOST_READINGS]:
        check()
        chosen = replace(first.chosen, observation=seen)
        if seen.side == "left" and side_known:
            continue
        other = _read(stages, best, other_side(chosen) if seen.side == "left" else chosen, check)
        if other is not None and best.worse_than(other):
            best = other
    if best is first:
        return first
    chosen = best.chosen
    try:
        masks = stages.segmenter.segment(chosen.frame, chosen.observation, chosen.prompt)
    except (NoObjectError, EmptyObjectMaskError):  # with the first reading's landmarks it saw one
        return best
    points = stages.sensor_points.map_points(chosen.frame, chosen.observation, masks)
    if points is None or masks.object_score < chosen.masks.object_score:
        return best
    new = tuple(warning for warning in masks.warnings if warning not in chosen.warnings)
    chosen = replace(chosen, masks=masks, warnings=chosen.warnings + new)
    return _Reading(chosen, points, _fit(stages, chosen, points, check))


def _enlarged(seen: HandObservation, size: float) -> HandObservation:
    """The same observation in a square box of ``size`` pixels about its middle."""
    x0, y0, x1, y1 = seen.box
    x, y = (x0 + x1) / 2, (y0 + y1) / 2
    return replace(seen, box=(x - size / 2, y - size / 2, x + size / 2, y + size / 2))


def reverse_fingers(seen: HandObservation) -> HandObservation:
    """The same landmarks with index and little finger, middle and ring finger exchanged."""
    order = [*range(5), *(1 + 4 * finger + k for finger in (4, 3, 2, 1) for k in range(4))]
    return replace(seen, keypoints_2d=seen.keypoints_2d[order], keypoints_world=seen.keypoints_world[order])


def other_side(chosen: ChosenHand) -> ChosenHand:
    """The same hand taken for one of the other side: again a right one, in the mirrored frame."""
    width = chosen.frame.camera.width
    seen = mirror_observation(chosen.observation, width)
    side = "right" if chosen.mirrored else "left"
    warning = f"By its landmarks the hand is a {'left' if chosen.mirrored else 'right'} one; by its depth a {side} one."
    return replace(
        chosen,
        frame=chosen.frame.mirrored(),
        prompt=chosen.prompt.mirrored(width),
        observation=replace(seen, side="right", side_score=0.5),
        masks=mirror_masks(chosen.masks),
        mirrored=not chosen.mirrored,
        warnings=(*chosen.warnings, warning),
    )


def _fit(stages: Stages, chosen: ChosenHand, points: PointMap | None, check: Callable[[], None]) -> FittedHand:
    depth = None if points is None else points.depth
    return fit_hand(
        chosen.observation, chosen.frame.camera, stages.rig, depth=depth, hand_mask=chosen.masks.hand, check=check
    )
