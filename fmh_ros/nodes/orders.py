# SPDX-License-Identifier: Apache-2.0
"""What a job is to do: read from a goal's message, which may hold anything, or made by mode continuous."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal

from follow_my_hold.action import Reconstruct
from sensor_msgs.msg import Image

from fmh_ros.core.errors import EncodingError, ProfileError, UsageError
from fmh_ros.core.guidance.config import PRESETS
from fmh_ros.core.reconstruction.profile import load_profile
from fmh_ros.messages.basics import from_time
from fmh_ros.messages.inputs import MessageSet

Goal = Reconstruct.Goal
SIDES: dict[int, Literal["auto", "left", "right"]] = {
    Goal.AUTO: "auto",
    Goal.LEFT: "left",
    Goal.RIGHT: "right",
}
MOST_SAMPLES = 100


@dataclass(frozen=True)
class PromptFields:
    """What a goal says of the object, as it says it; see Reconstruct.action."""

    box: tuple[float, ...] = ()
    points: tuple[float, ...] = ()
    labels: tuple[int, ...] = ()
    mask: Image | None = None
    text: str = ""


@dataclass(frozen=True)
class Order:
    """One job. ``images`` : what to work on, None for a frame of the topics: that of ``stamp_ns``, or the next one."""

    profile: str
    preset: str
    images: MessageSet | None = None
    stamp_ns: int | None = None
    prompt: PromptFields = field(default_factory=PromptFields)
    side: Literal["auto", "left", "right"] = "auto"
    seed: int = 0
    samples: int = 1
    guidance: bool = True
    time_budget_s: float | None = None
    previews: bool = False


def read_goal(goal: Any, *, profile: str, preset: str, time_budget_s: float) -> Order:
    """Return the order that a goal gives; the node's parameters fill what the goal leaves open.

    Raises UsageError, ProfileError or EncodingError.
    """
    profile, preset = goal.profile or profile, goal.preset or preset
    check_profile_and_preset(profile, preset)
    if goal.side not in SIDES:
        raise UsageError(f"side is {goal.side}", expected="AUTO, LEFT or RIGHT")
    if not 1 <= goal.samples <= MOST_SAMPLES:
        raise UsageError(f"samples is {goal.samples}", expected=f"1 to {MOST_SAMPLES}")
    if not (math.isfinite(goal.time_budget) and goal.time_budget >= 0):
        raise UsageError(f"time_budget is {goal.time_budget}", expected="seconds, or 0 for no limit")
    if goal.input not in (Goal.NEXT_FRAME, Goal.STAMP, Goal.IMAGES):
        raise UsageError(f"input is {goal.input}", expected="NEXT_FRAME, STAMP or IMAGES")
    return Order(
        profile=profile,
        preset=preset,
        images=_images(goal) if goal.input == Goal.IMAGES else None,
        stamp_ns=from_time(goal.stamp) if goal.input == Goal.STAMP else None,
        prompt=PromptFields(
            tuple(map(float, goal.box)),
            tuple(map(float, goal.points)),
            tuple(map(int, goal.point_labels)),
            goal.mask,
            goal.text,
        ),
        side=SIDES[goal.side],
        seed=int(goal.seed),
        samples=int(goal.samples),
        guidance=bool(goal.guidance),
        time_budget_s=float(goal.time_budget) or time_budget_s or None,
        previews=bool(goal.preview),
    )


def check_profile_and_preset(profile: str, preset: str) -> None:
    """Raise ProfileError or UsageError for names that do not exist."""
    try:
        load_profile(profile)
    except ProfileError as error:
        raise ProfileError(error.seen, expected=error.expected, change="Correct the goal or the parameter") from error
    if preset not in PRESETS:
        raise UsageError(f"There is no guidance preset {preset!r}", expected=f"one of {', '.join(PRESETS)}")


def _images(goal: Any) -> MessageSet:
    """The images in a goal; depth and calibration are taken to be of the image's frame when they name none."""
    raw, compressed = bool(len(goal.image.data)), bool(len(goal.compressed_image.data))
    if raw == compressed:
        raise EncodingError(
            "The goal has " + ("two images" if raw else "no image"),
            expected="one of image and compressed_image to be filled",
        )
    image = goal.image if raw else goal.compressed_image
    info = goal.camera_info if goal.camera_info.width else None
    depth = goal.depth if len(goal.depth.data) else None
    for other in (info, depth):
        if other is not None and not other.header.frame_id:
            other.header.frame_id = image.header.frame_id
    return MessageSet(from_time(image.header.stamp), image, info, depth)
