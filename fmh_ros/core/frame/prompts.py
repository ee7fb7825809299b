# SPDX-License-Identifier: Apache-2.0
"""What the user points at: parsed from text and files, checked, and moved into the pixels of the working image."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from fmh_ros.core.errors import PromptError
from fmh_ros.core.frame.calibration import undistort_nearest, undistort_pixels
from fmh_ros.core.frame.frame import Frame, ObjectPrompt
from fmh_ros.core.frame.image import read_mask

Box = tuple[float, float, float, float]
Point = tuple[float, float]

#: A longer text is no name.
LONGEST_TEXT = 200
#: A smaller box or mask cannot be meant.
MIN_BOX_SIDE = 4.0
MIN_MASK_PIXELS = 16


def parse_numbers(text: str, count: int, form: str) -> tuple[float, ...]:
    """Parse ``count`` comma-separated finite numbers; ``form`` shows the expected form in the PromptError."""
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        values = ()
    if len(values) != count or not np.isfinite(values).all():
        raise PromptError(f"The prompt {text!r} is not {count} numbers", expected=form, change="Give pixels, no spaces")
    return values


def parse_box(text: str) -> Box:
    """Parse ``x0,y0,x1,y1``."""
    x0, y0, x1, y1 = parse_numbers(text, 4, "x0,y0,x1,y1 such as 120,80,300,260")
    return x0, y0, x1, y1


def parse_point(text: str) -> Point:
    """Parse ``x,y``."""
    x, y = parse_numbers(text, 2, "x,y such as 210,170")
    return x, y


def make_prompt(
    frame: Frame,
    box: Box | None = None,
    points: Sequence[Point] = (),
    mask: NDArray[np.bool_] | None = None,
    text: str = "",
) -> ObjectPrompt:
    """Check a prompt given in pixels of the upright original image and move it to the pixels of ``frame.image``.

    box : x0, y0, x1, y1, clipped to the image; points : on the object; mask : (H, W) bool of the original image;
    text : the object's name. Raises PromptError.
    """
    camera = frame.reported_camera
    width, height = camera.width, camera.height
    checked_box = None if box is None else _checked_box(box, width, height)
    for x, y in points:
        if not (-0.5 <= x <= width - 0.5 and -0.5 <= y <= height - 0.5):
            raise PromptError(
                f"The point {x:g},{y:g} lies outside the image of {width}x{height} pixels",
                expected="a pixel on the object",
                change="Give the pixel in the original, upright image",
            )
    return ObjectPrompt(
        None if checked_box is None else _moved_box(frame, checked_box),
        tuple(_moved_point(frame, point) for point in points),
        None if mask is None else _moved_mask(frame, mask),
        _checked_text(text),
    )


def load_prompt(
    frame: Frame,
    box: str | None = None,
    points: Sequence[str] = (),
    mask_path: str | Path | None = None,
    text: str = "",
) -> ObjectPrompt:
    """Read a prompt as the command line gives it: texts and a mask file. Raises PromptError or FileMissingError."""
    mask = None if mask_path is None else read_mask(Path(mask_path), PromptError)
    parsed = None if box is None else parse_box(box)
    return make_prompt(frame, parsed, [parse_point(point) for point in points], mask, text)


def _checked_text(text: str) -> str:
    """One line of the text, or PromptError when it is no name."""
    name = " ".join(text.split())
    if len(name) > LONGEST_TEXT or not name.isprintable():
        raise PromptError(
            f"The object's name {name[:40]!r} has {len(name)} characters",
            expected=f"a few words, at most {LONGEST_TEXT} characters",
            change="Say what the object is, for example: red mug",
        )
    return name


def _checked_box(box: Box, width: int, height: int) -> Box:
    x0, y0, x1, y1 = box
    if x1 <= x0 or y1 <= y0:
        raise PromptError(
            f"The box {x0:g},{y0:g},{x1:g},{y1:g} is empty",
            expected="x0 < x1 and y0 < y1: left, top, right, bottom",
            change="Give two opposite corners, and not a corner with width and height",
        )
    inside = (max(x0, 0.0), max(y0, 0.0), min(x1, width - 1.0), min(y1, height - 1.0))
    if inside[2] - inside[0] < MIN_BOX_SIDE or inside[3] - inside[1] < MIN_BOX_SIDE:
        raise PromptError(
            f"The box {x0:g},{y0:g},{x1:g},{y1:g} has no area in the image of {width}x{height} pixels",
            expected=f"at least {MIN_BOX_SIDE:g} pixels a side inside the image",
            change="Give pixels of the original, upright image",
        )
    return inside


def _moved_box(frame: Frame, box: Box) -> Box:
    """Box around the moved outline: lens distortion bends its sides."""
    x0, y0, x1, y1 = box
    t = np.linspace(0, 1, 9)
    along_x, along_y = x0 + t * (x1 - x0), y0 + t * (y1 - y0)
    sides = [(along_x, np.full(9, y0)), (along_x, np.full(9, y1)), (np.full(9, x0), along_y), (np.full(9, x1), along_y)]
    outline = np.concatenate([np.stack(side, -1) for side in sides])
    moved = frame.from_reported(undistort_pixels(outline, frame.reported_camera))
    limits = np.array([frame.camera.width - 1.0, frame.camera.height - 1.0])
    low, high = np.clip(moved.min(0), 0, limits), np.clip(moved.max(0), 0, limits)
    return float(low[0]), float(low[1]), float(high[0]), float(high[1])


def _moved_point(frame: Frame, point: Point) -> Point:
    moved = frame.from_reported(undistort_pixels(np.array([point]), frame.reported_camera))[0]
    limits = np.array([frame.camera.width - 1.0, frame.camera.height - 1.0])
    x, y = np.clip(moved, 0, limits)
    return float(x), float(y)


def _moved_mask(frame: Frame, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    camera = frame.reported_camera
    if mask.shape != (camera.height, camera.width):
        raise PromptError(
            f"The mask is {mask.shape[1]}x{mask.shape[0]} pixels, the image is {camera.width}x{camera.height}",
            expected="a mask of exactly the image's size",
            change="Draw it on the original, upright image and do not resize it",
        )
    count = int(mask.sum())
    if count < MIN_MASK_PIXELS or count == mask.size:
        raise PromptError(
            f"The mask covers {count} of {mask.size} pixels",
            expected="white on the object and black elsewhere",
            change="Check that it is not empty or inverted",
        )
    labels = mask.astype(np.uint8)
    if camera.distortion:
        labels = undistort_nearest(labels, camera, 0)
    size = (frame.camera.width, frame.camera.height)
    if size != (camera.width, camera.height):
        labels = np.asarray(cv2.resize(labels, size, interpolation=cv2.INTER_NEAREST_EXACT))
    return labels.astype(bool)
