# SPDX-License-Identifier: Apache-2.0
"""Fits the hand rig to 21 landmarks by least squares with the true intrinsics, and to measured depth if there is some.

One image says nothing about size: scaling hand and distance together leaves every pixel in place. Without depth the
size is therefore the prior's, an average adult hand, and its uncertainty is stated. With depth the visible skin fixes
the distance and with it the size.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fmh_ros.core.cues.types import HandObservation
from fmh_ros.core.errors import HandFitError
from fmh_ros.core.frame.camera import CameraModel
from fmh_ros.core.hand.fit_problem import FitSettings, HandProblem
from fmh_ros.core.hand.rig import HandRig
from fmh_ros.core.hand.skin_depth import FEWEST_PIXELS, measure_skin
from fmh_ros.core.hand.types import HandMesh

FloatArray = NDArray[np.float64]

#: What a fit costs that misses all skin by 25 mm: all samples, robust.
NO_SKIN_COST = 850.0


@dataclass(frozen=True)
class FittedHand:
    """A fit: the posed mesh, and the sum of squared residuals, in deviations, comparable among fits to the same picture
    and depth: a hand that covers none of the measured skin costs NO_SKIN_COST more. theta : the problem's solution."""

    mesh: HandMesh
    cost: float
    theta: FloatArray


def fit_hand(
    observation: HandObservation,
    camera: CameraModel,
    rig: HandRig,
    *,
    depth: NDArray[np.float32] | None = None,
    hand_mask: NDArray[np.bool_] | None = None,
    settings: FitSettings | None = None,
    check: Callable[[], None] | None = None,
) -> FittedHand:
    """Fit a right hand.

    Args:
        observation: landmarks of a right hand (mirror frame and observation of a left one first).
        camera: intrinsics of the frame.
        rig: the hand model.
        depth: (H, W) metres along z, NaN where unknown, aligned with the frame.
        hand_mask: (H, W) visible skin, so that depth of the held object is not mistaken for the hand's; the forearm
            may be in it.
        settings: what the fit believes.
        check: called between iterations; what it raises ends the fit.

    Returns:
        The posed mesh, whose ``scale_sigma`` is the size prior's without depth and smaller with it, and its cost.

    Raises:
        HandFitError: the landmarks are unusable, belong to a left hand, or no plausible pose explains them.
    """
    settings = settings or FitSettings()
    _check(observation)
    problem = HandProblem(observation, camera, rig, settings)
    problem.check = check
    tried = [problem.solve(problem.start(curl, False)) for curl in settings.starts]
    theta = min(tried, key=problem.cost)
    if problem.error(theta) > settings.doubt:
        tried = [problem.solve(problem.start(curl, True)) for curl in settings.starts]
        theta = min([theta, *tried], key=problem.cost)
    sigma = settings.size
    cost = 0.0
    if depth is not None:
        theta, sigma = _use_depth(problem, theta, depth, hand_mask)
        measured = depth if hand_mask is None else depth[hand_mask]
        if problem.skin is None and np.isfinite(measured).sum() >= FEWEST_PIXELS:
            cost = NO_SKIN_COST
    return FittedHand(problem.result(theta, sigma), cost + problem.cost(theta), theta)


def _check(observation: HandObservation) -> None:
    if observation.side != "right":
        raise HandFitError(
            "The hand to fit is a left one",
            expected="a right hand; a left one is fitted in the mirrored frame",
            change="Mirror the frame and the observation first",
        )
    points = observation.keypoints_2d
    if points.shape != (21, 2) or not (np.isfinite(points).all() and np.isfinite(observation.keypoints_world).all()):
        raise HandFitError("The hand landmarks are not 21 finite points", change="Use another photo of the hand")
    if np.ptp(points, axis=0).max() < 8:
        raise HandFitError(
            f"The hand is only {np.ptp(points, axis=0).max():.0f} pixels large",
            expected="at least 8 pixels",
            change="Use a larger image, or crop it around the hand",
        )


def _use_depth(
    problem: HandProblem,
    theta: FloatArray,
    depth: NDArray[np.float32],
    hand_mask: NDArray[np.bool_] | None,
) -> tuple[FloatArray, float]:
    """Move the solution onto the measured skin and refine it there; return it with its relative size uncertainty."""
    settings = problem.settings
    sigma = settings.size
    for attempt in range(settings.depth_rounds):
        mesh = problem.result(theta, sigma)
        skin = measure_skin(mesh, problem.camera, depth, hand_mask, coarse=attempt == 0)
        if skin is None:
            break
        # Size and distance together by the median ratio leave the image as it is and put the skin at its depth.
        theta = theta.copy()
        position = problem.t0.numpy() + problem.t0[2].item() * theta[3:6]
        theta[6] += np.log(skin.ratio)
        theta[3:6] = (position * skin.ratio - problem.t0.numpy()) / problem.t0[2].item()
        problem.skin = skin
        theta = problem.solve(theta)
        error = skin.relative_error
        sigma = float(min(settings.size, np.hypot(settings.landmark_size, error)))
    return theta, sigma


def mirror_observation(observation: HandObservation, width: int) -> HandObservation:
    """Return the same hand in the horizontally flipped image of this width: a left hand becomes a right one."""
    flip = np.array([-1.0, 1.0])
    x0, y0, x1, y1 = observation.box
    return replace(
        observation,
        side="left" if observation.side == "right" else "right",
        box=(width - 1 - x1, y0, width - 1 - x0, y1),
        keypoints_2d=observation.keypoints_2d * flip + np.array([width - 1.0, 0.0]),
        keypoints_world=observation.keypoints_world * np.array([-1.0, 1.0, 1.0]),
    )
