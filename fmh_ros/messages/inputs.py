# SPDX-License-Identifier: Apache-2.0
"""From messages to a Frame: encodings, calibration, depth and frame names are checked before anything is computed."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from fmh_ros.core.errors import (
    CameraError,
    DepthError,
    EncodingError,
    FmhError,
    FrameMismatchError,
    ImageError,
    PromptError,
    UnsupportedPromptError,
)
from fmh_ros.core.frame.calibration import Calibration, parse_calibration
from fmh_ros.core.frame.depth import to_metres
from fmh_ros.core.frame.frame import Frame, ObjectPrompt
from fmh_ros.core.frame.image import MIN_SIDE
from fmh_ros.core.frame.load import make_frame
from fmh_ros.core.frame.prompts import make_prompt
from fmh_ros.core.reconstruction.profile import check_readable
from fmh_ros.messages.basics import from_time
from fmh_ros.ros_compat.images import compressed_depth_to_array, compressed_to_rgb, image_to_array, image_to_rgb

DEPTH_ENCODINGS = ("16UC1", "mono16", "32FC1")
MASK_ENCODINGS = ("mono8", "8UC1")
#: More pixels than this are not an image but an attack or an error.
MOST_PIXELS = 100_000_000


@dataclass(frozen=True)
class MessageSet:
    """Messages that belong together; ``stamp_ns`` is the image's."""

    stamp_ns: int
    image: Image | CompressedImage
    camera_info: CameraInfo | None
    depth: Image | CompressedImage | None


@dataclass(frozen=True)
class Names:
    """What to call the inputs in messages: topics, or fields of a goal."""

    image: str = "image"
    camera_info: str = "camera_info"
    depth: str = "depth"


def build_frame(messages: MessageSet, names: Names, *, rectified: bool = False) -> Frame:
    """Check the messages, decode them, and return the frame that a job works on.

    rectified : the image has no distortion, its camera is P of the camera_info.
    Raises EncodingError, ImageError, CameraError, DepthError or FrameMismatchError.
    """
    header = messages.image.header
    _check_frames(messages, names)
    pixels = decode_color(messages.image, names.image)
    depth = None if messages.depth is None else decode_depth(messages.depth, names.depth)
    height, width = pixels.shape[:2]
    calibration = None
    if messages.camera_info is not None:
        calibration = to_calibration(messages.camera_info, names.camera_info, rectified=rectified)
        found = calibration.problems(width, height)
        if found:
            raise _camera_error(names.camera_info, "; ".join(found))
    frame = make_frame(pixels, calibration=calibration, depth=depth, names=(names.camera_info, names.depth))
    return replace(frame, frame_id=header.frame_id, stamp_ns=from_time(header.stamp))


def decode_color(message: Image | CompressedImage, name: str) -> NDArray[np.uint8]:
    """Decode a colour or grey image to (H, W, 3) uint8 RGB. Raises EncodingError or ImageError."""
    if isinstance(message, CompressedImage):
        pixels = compressed_to_rgb(message, name)
    else:
        _check_size(message, name, ImageError)
        pixels = image_to_rgb(message, name)
    height, width = pixels.shape[:2]
    if min(height, width) < MIN_SIDE:
        raise ImageError(
            f"The image on {name} is {width}x{height} pixels", expected=f"at least {MIN_SIDE} pixels on each side"
        )
    return pixels


def decode_depth(message: Image | CompressedImage, name: str) -> NDArray[np.float32]:
    """Decode a depth image to (H, W) float32 metres, NaN where unknown (REP 117 and 118: 16UC1 is in millimetres,
    32FC1 in metres), or compressedDepth of one. Raises EncodingError or DepthError."""
    if isinstance(message, CompressedImage):
        return to_metres(compressed_depth_to_array(message, name, DepthError), None, name)
    _check_encoding(message, name, DEPTH_ENCODINGS, "a depth image")
    _check_size(message, name, DepthError)
    return to_metres(image_to_array(message, name, DepthError), None, name)


def to_calibration(message: CameraInfo, name: str, *, rectified: bool) -> Calibration:
    """Return what a CameraInfo says of its image. Raises CameraError, naming all that cannot be used."""
    roi = message.roi
    values = {
        "width": message.width,
        "height": message.height,
        "k": [float(value) for value in message.k],
        "d": [] if rectified else [float(value) for value in message.d],
        "distortion_model": "" if rectified else message.distortion_model,
        "binning_x": message.binning_x,
        "binning_y": message.binning_y,
        "roi": {
            "x_offset": roi.x_offset,
            "y_offset": roi.y_offset,
            # A region as large as the image is none.
            "width": 0 if roi.width == message.width else roi.width,
            "height": 0 if roi.height == message.height else roi.height,
        },
    }
    if rectified:
        p = [float(value) for value in message.p]
        values["k"] = [*p[0:3], *p[4:7], *p[8:11]]
    try:
        return parse_calibration(values, name)
    except CameraError as error:
        raise _camera_error(name, error.seen) from error


def build_prompt(
    frame: Frame,
    box: tuple[float, ...],
    points: tuple[float, ...],
    labels: tuple[int, ...],
    mask: Image | None,
    text: str,
    profile: str,
) -> ObjectPrompt:
    """Check what a goal says of the object and return it in pixels of the frame.

    Raises PromptError, UnsupportedPromptError or EncodingError.
    """
    check_readable(profile, text)
    if len(box) not in (0, 4):
        raise PromptError(f"box has {len(box)} numbers", expected="none, or left, top, right, bottom")
    if len(points) % 2:
        raise PromptError(f"points has {len(points)} numbers", expected="an even number: u v u v ...")
    if not all(map(math.isfinite, (*box, *points))):
        raise PromptError("box or points have a number that is not finite", expected="pixels")
    if labels and len(labels) * 2 != len(points):
        raise PromptError(
            f"There are {len(labels)} point_labels for {len(points) // 2} points", expected="one for each, or none"
        )
    if any(label != 1 for label in labels):
        raise UnsupportedPromptError(
            "The goal has points that are not on the object (label 0)",
            expected=f"points on the object: the profile {profile} can use no others",
            change="Leave them out",
        )
    pixels = None
    if mask is not None and (mask.width or mask.height or len(mask.data)):
        _check_encoding(mask, "the goal's mask", MASK_ENCODINGS, "a mask")
        pixels = image_to_array(mask, "the goal's mask", PromptError) > 127
    pairs = [(points[at], points[at + 1]) for at in range(0, len(points), 2)]
    return make_prompt(frame, (box[0], box[1], box[2], box[3]) if box else None, pairs, pixels, text)


def _check_frames(messages: MessageSet, names: Names) -> None:
    seen = messages.image.header.frame_id
    for name, other in ((names.camera_info, messages.camera_info), (names.depth, messages.depth)):
        if other is not None and other.header.frame_id != seen:
            raise FrameMismatchError(
                f"{names.image} is in the frame {seen!r}, {name} in {other.header.frame_id!r}",
                expected="the same frame: that of the colour camera",
                change="Use the camera_info of this camera, and depth that is aligned with it",
            )


def _check_encoding(message: Image, name: str, known: tuple[str, ...], what: str) -> None:
    if message.encoding not in known:
        raise EncodingError(
            f"The image on {name} has the encoding {message.encoding!r}",
            expected=f"{what}: {', '.join(known)}",
            change="Connect the right topic",
        )


def _check_size(message: Image, name: str, kind: type[FmhError]) -> None:
    """A message may come from anywhere: an absurd size is refused before anything is computed from it."""
    if message.width * message.height > MOST_PIXELS:
        raise kind(
            f"The image on {name} is {message.width}x{message.height} pixels", expected=f"at most {MOST_PIXELS} pixels"
        )


def _camera_error(name: str, seen: str) -> CameraError:
    return CameraError(
        f"The calibration on {name} cannot be used: {seen}",
        expected="a calibrated camera_info of this very image",
        change="Calibrate the camera, or set use_camera_info to false to have the field of view estimated",
    )
