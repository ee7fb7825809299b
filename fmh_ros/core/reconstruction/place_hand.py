# SPDX-License-Identifier: Apache-2.0
"""The chosen hand as a mesh in the camera frame, and with measured depth the choice of its side looked at again.

Seen from behind a left hand looks much like a right one's palm, and a landmark network takes one for the other now and
then. Depth does not: a rig of the wrong side that projects onto the landmarks lies on the skin nowhere.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from fmh_ros.core.cues.anchoring import anchor_on_depth
from fmh_ros.core.cues.types import PointMap
from fmh_ros.core.errors import HandFitError
from fmh_ros.core.hand.fit import FittedHand, fit_hand, mirror_observation
from fmh_ros.core.hand.types import HandMesh
from fmh_ros.core.reconstruction.choose import ChosenHand
from fmh_ros.core.reconstruction.mirror import mirror_masks, mirror_points
from fmh_ros.core.reconstruction.profile import Stages

#: Above this confidence in the side it is not doubted.
SURE_SIDE = 0.98
#: The other side is taken when its fit costs less than this part of the first one's. On rendered hands the wrong side's
#: fit costs twice the right one's.
CLEARLY = 0.8


@dataclass(frozen=True)
class PlacedHand:
    """The mesh, with the hand's choice and the point map in the frame in which it is a right hand."""

    chosen: ChosenHand
    points: PointMap | None
    hand: HandMesh


def place_hand(
    stages: Stages, chosen: ChosenHand, points: PointMap | None, *, side_known: bool, check: Callable[[], None]
) -> PlacedHand:
    """Fit the rig, or have a network regress the mesh; with measured depth the hand stands where that is.

    side_known : the user said which hand; otherwise an unsure side is decided by depth. check : called between
    iterations; what it raises ends the fit. Raises HandFitError.
    """
    measured = points is not None and points.source == "sensor"
    if stages.regressor is not None:
        hand = stages.regressor.regress(chosen.frame, chosen.observation)
        if points is not None and measured:
            hand = anchor_on_depth(hand, chosen.frame.camera, points.depth, chosen.masks.hand)
        return PlacedHand(chosen, points, hand)
    fitted = _fit(stages, chosen, points if measured else None, check)
    if not measured or side_known or chosen.observation.side_score > SURE_SIDE:
        return PlacedHand(chosen, points, fitted.mesh)
    assert points is not None
    turned, turned_points = other_side(chosen), mirror_points(points)
    try:
        other = _fit(stages, turned, turned_points, check)
    except HandFitError:  # no hand of that side can be there
        return PlacedHand(chosen, points, fitted.mesh)
    if other.cost < CLEARLY * fitted.cost:
        return PlacedHand(turned, turned_points, other.mesh)
    return PlacedHand(chosen, points, fitted.mesh)


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
