# SPDX-License-Identifier: Apache-2.0
"""From files to a Frame: decoded, upright, undistorted, calibrated and of a size that can be processed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from fmh_ros.core.frame.calibration import Calibration, read_calibration, undistort_image, undistort_nearest
from fmh_ros.core.frame.camera import CameraModel, camera_from_field_of_view
from fmh_ros.core.frame.depth import check_aligned, read_depth
from fmh_ros.core.frame.frame import Frame
from fmh_ros.core.frame.image import read_photo

#: Larger images are reduced to this many pixels on the longer side for processing. Results are still reported in the
#: pixels and with the camera of the full-size image (``Frame.reported_camera``).
WORKING_SIDE = 1600


def load_frame(
    image_path: str | Path,
    depth_path: str | Path | None = None,
    camera_path: str | Path | None = None,
    depth_scale: float | None = None,
) -> Frame:
    """Read one image, with its aligned depth and its ROS calibration when there are any.

    image_path : JPEG, PNG, ...; grey, RGBA, 16-bit and EXIF-rotated files are understood.
    depth_path : 16-bit PNG in millimetres or .npy in metres; depth_scale : metres per unit instead.
    camera_path : camera_info YAML; without it the field of view comes from EXIF or a default and a warning says so.

    Raises FileMissingError, ImageError, DepthError or CameraError.
    """
    photo = read_photo(Path(image_path))
    calibration = None if camera_path is None else read_calibration(Path(camera_path))
    depth = None if depth_path is None else read_depth(Path(depth_path), depth_scale)
    return make_frame(
        photo.pixels,
        calibration=calibration,
        depth=depth,
        focal_px=photo.focal_px,
        names=(str(camera_path), str(depth_path)),
    )


def make_frame(
    image: NDArray[np.uint8],
    *,
    calibration: Calibration | None = None,
    depth: NDArray[np.float32] | None = None,
    focal_px: float | None = None,
    names: tuple[str, str] = ("camera_info", "depth"),
) -> Frame:
    """Build a Frame from arrays: check that they belong together, undistort, and reduce to the working size.

    image : (H, W, 3) uint8 RGB; depth : (H, W) float32 metres, NaN unknown; focal_px : focal length to assume without
    a calibration; names : what to call calibration and depth in messages. Raises CameraError or DepthError.
    """
    height, width = image.shape[:2]
    warnings: list[str] = []
    if calibration is None:
        camera = _estimated_camera(width, height, focal_px, warnings)
    else:
        camera = calibration.camera_for(width, height, names[0])
    if depth is not None:
        check_aligned(depth, width, height, names[1])
    return frame_of(image, camera, depth, tuple(warnings))


def frame_of(
    image: NDArray[np.uint8],
    camera: CameraModel,
    depth: NDArray[np.float32] | None = None,
    warnings: tuple[str, ...] = (),
) -> Frame:
    """Build a Frame from arrays that belong together: undistort, and reduce to the working size.

    image : (H, W, 3) uint8 RGB; camera : of it, its principal point anywhere; depth : (H, W) float32 metres, NaN where
    unknown.
    """
    if camera.distortion:
        image = undistort_image(image, camera)
        depth = None if depth is None else undistort_nearest(depth, camera, float("nan"))
    frame = Frame(np.ascontiguousarray(image), camera, depth, warnings=warnings)
    return reduced(frame, WORKING_SIDE)


def reduced(frame: Frame, longest: int) -> Frame:
    """Return the frame with at most ``longest`` pixels on its longer side; ``source_camera`` keeps the full size."""
    camera = frame.camera
    if max(camera.width, camera.height) <= longest:
        return frame
    factor = longest / max(camera.width, camera.height)
    size = (max(1, round(camera.width * factor)), max(1, round(camera.height * factor)))
    image = np.asarray(cv2.resize(frame.image, size, interpolation=cv2.INTER_AREA), np.uint8)
    small = camera.crop((0, 0, camera.width, camera.height), *size)
    depth = None
    if frame.depth is not None:
        # Nearest and not a mean: a mean across an edge makes points that float between hand and background.
        depth = np.asarray(cv2.resize(frame.depth, size, interpolation=cv2.INTER_NEAREST_EXACT), np.float32)
    return replace(frame, image=image, camera=small, depth=depth, source_camera=frame.reported_camera)


def _estimated_camera(width: int, height: int, focal_px: float | None, warnings: list[str]) -> CameraModel:
    camera = camera_from_field_of_view(width, height)
    if focal_px is not None:
        K = np.array([[focal_px, 0, (width - 1) / 2], [0, focal_px, (height - 1) / 2], [0, 0, 1.0]])
        camera = replace(camera, K=K)
    degrees = float(np.degrees(2 * np.arctan(0.5 * max(width, height) / camera.focal)))
    how = "the focal length in the image's EXIF data" if focal_px is not None else "a default"
    warnings.append(
        f"No calibration was given: a field of view of {degrees:.0f} degrees was taken from {how}; "
        "the distance from the camera is only as good as that"
    )
    return camera
