# SPDX-License-Identifier: Apache-2.0
"""Camera calibrations in the ROS ``camera_info`` YAML form, and the removal of lens distortion."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml
from numpy.typing import NDArray

from fmh_ros.core.errors import CameraError
from fmh_ros.core.frame.camera import CameraModel
from fmh_ros.core.frame.image import require_file

#: How many coefficients OpenCV's two pinhole models may have.
COEFFICIENTS = {"plumb_bob": (4, 5), "rational_polynomial": (8, 12, 14)}
NO_DISTORTION = ("", "none")


@dataclass(frozen=True)
class Calibration:
    """A camera_info as it was written: nothing is checked yet.

    width, height : pixels; matrix : K, nine numbers; model : name of the distortion model; distortion : coefficients.
    """

    width: int
    height: int
    matrix: tuple[float, ...]
    model: str
    distortion: tuple[float, ...]

    def problems(self, width: int, height: int) -> list[str]:
        """Return every reason why this cannot be the calibration of a width x height image; empty when it can."""
        found = self._matrix_problems() + self._distortion_problems()
        if (self.width, self.height) != (width, height):
            found.append(self._size_problem(width, height))
        return found

    def camera_for(self, width: int, height: int, name: str) -> CameraModel:
        """Return the camera of a width x height image, or raise one CameraError that lists all problems."""
        found = self.problems(width, height)
        if found:
            raise CameraError(
                f"The calibration {name} does not fit: " + "; ".join(found),
                expected="a ROS camera_info of this very image",
                change="Correct it, or leave --camera out to have the field of view estimated",
            )
        coefficients = self.distortion if any(self.distortion) else ()
        camera = CameraModel(width, height, np.array(self.matrix).reshape(3, 3), coefficients, "given")
        camera.validate()
        return camera

    def _matrix_problems(self) -> list[str]:
        if len(self.matrix) != 9:
            return [f"camera_matrix has {len(self.matrix)} numbers, not 9"]
        if not np.isfinite(self.matrix).all():
            return [f"camera_matrix is not finite: {list(self.matrix)}"]
        K = np.array(self.matrix).reshape(3, 3)
        if K[0, 0] == 0 or K[1, 1] == 0:
            return ["camera_matrix has focal length 0, which is how ROS marks an uncalibrated camera"]
        found = []
        if K[0, 0] < 0 or K[1, 1] < 0:
            found.append(f"camera_matrix has a negative focal length ({K[0, 0]:g}, {K[1, 1]:g})")
        if not np.allclose(K[2], (0, 0, 1)) or K[1, 0] != 0:
            found.append(f"camera_matrix is not of the form [fx s cx; 0 fy cy; 0 0 1]: {list(self.matrix)}")
        if not (0 <= K[0, 2] <= self.width and 0 <= K[1, 2] <= self.height):
            found.append(f"the principal point ({K[0, 2]:g}, {K[1, 2]:g}) lies outside {self.width}x{self.height}")
        return found

    def _distortion_problems(self) -> list[str]:
        if not np.isfinite(self.distortion).all():
            return [f"distortion_coefficients are not finite: {list(self.distortion)}"]
        if not any(self.distortion):
            return []
        if self.model not in COEFFICIENTS:
            known = " or ".join(COEFFICIENTS)
            return [f"distortion_model is {self.model!r}, not {known}: rectify the image before (image_proc)"]
        if len(self.distortion) not in COEFFICIENTS[self.model]:
            wanted = " or ".join(map(str, COEFFICIENTS[self.model]))
            return [f"{self.model} has {len(self.distortion)} coefficients, not {wanted}"]
        return []

    def _size_problem(self, width: int, height: int) -> str:
        text = f"it is for {self.width}x{self.height} pixels, the image has {width}x{height}"
        if (self.height, self.width) == (width, height):
            return text + " (the image was rotated upright, the calibration is for the sensor's orientation)"
        if self.width > 0 and self.height > 0 and self.width * height == self.height * width:
            factor = width / self.width
            return text + f" (if the image was resized and not cropped, multiply K by {factor:g})"
        return text


def read_calibration(path: Path) -> Calibration:
    """Read a camera_info YAML, as the ROS calibrators or ``ros2 topic echo`` write it.

    Raises FileMissingError or CameraError; whether it fits an image is checked by ``Calibration.camera_for``.
    """
    require_file(path, "calibration")
    try:
        documents = [d for d in yaml.safe_load_all(path.read_text(encoding="utf-8")) if d is not None]
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        summary = " ".join(str(error).split())[:160]
        raise CameraError(f"The calibration {path} is not YAML ({summary})", expected="a ROS camera_info") from error
    if not documents or not isinstance(documents[0], Mapping):
        raise CameraError(f"The calibration {path} holds no mapping", expected="a ROS camera_info")
    return parse_calibration(documents[0], str(path))


def parse_calibration(values: Mapping[str, Any], name: str) -> Calibration:
    """Pick the fields out of a camera_info mapping; raises one CameraError naming everything that is missing."""
    missing: list[str] = []

    def numbers(*keys: str, required: bool = True) -> tuple[float, ...]:
        for key in keys:
            if key in values:
                return _numbers(values[key], key, missing)
        if required:
            missing.append(f"{keys[0]} is missing")
        return ()

    width = numbers("image_width", "width")
    height = numbers("image_height", "height")
    matrix = numbers("camera_matrix", "k", "K")
    distortion = numbers("distortion_coefficients", "d", "D", required=False)
    missing += _unsupported(values)
    if missing:
        raise CameraError(
            f"The calibration {name} cannot be used: " + "; ".join(missing),
            expected="image_width, image_height, camera_matrix, distortion_model and distortion_coefficients",
            change="Write it with the ROS camera calibrator",
        )
    model = str(values.get("distortion_model", "plumb_bob" if distortion else "")).strip().lower()
    return Calibration(int(width[0]), int(height[0]), matrix, model, distortion)


def camera_yaml(camera: CameraModel, name: str = "camera") -> str:
    """Return the ``camera_info`` YAML of a rectified camera, in the form that the ROS calibrators write."""

    def row(values: NDArray[np.floating]) -> str:
        return "[" + ", ".join(f"{v:.12g}" for v in values.ravel()) + "]"

    projection = np.concatenate([camera.K, np.zeros((3, 1))], 1)
    return (
        f"image_width: {camera.width}\nimage_height: {camera.height}\ncamera_name: {name}\n"
        f"camera_matrix:\n  rows: 3\n  cols: 3\n  data: {row(camera.K)}\n"
        "distortion_model: plumb_bob\n"
        f"distortion_coefficients:\n  rows: 1\n  cols: 5\n  data: {row(np.zeros(5))}\n"
        f"rectification_matrix:\n  rows: 3\n  cols: 3\n  data: {row(np.eye(3))}\n"
        f"projection_matrix:\n  rows: 3\n  cols: 4\n  data: {row(projection)}\n"
    )


def undistort_image(image: NDArray[np.uint8], camera: CameraModel) -> NDArray[np.uint8]:
    """Remove ``camera.distortion`` from an image (H, W, 3), keeping K; pixels without a source become black."""
    return np.asarray(cv2.remap(image, *_maps(camera), cv2.INTER_LINEAR))


def undistort_nearest(values: NDArray[Any], camera: CameraModel, fill: float) -> NDArray[Any]:
    """Remove the distortion from (H, W) depth or labels without mixing values; ``fill`` where there is no source."""
    return np.asarray(
        cv2.remap(values, *_maps(camera), cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT, borderValue=fill)
    )


def undistort_pixels(pixels: NDArray[np.floating], camera: CameraModel) -> NDArray[np.float64]:
    """Move pixels (N, 2) of the distorted image to where they are in the undistorted one."""
    if not camera.distortion:
        return np.asarray(pixels, np.float64)
    points = np.asarray(pixels, np.float64).reshape(-1, 1, 2)
    moved = cv2.undistortPoints(points, camera.K, np.array(camera.distortion), P=camera.K)
    return np.asarray(moved, np.float64).reshape(-1, 2)


def _maps(camera: CameraModel) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    size = (camera.width, camera.height)
    distortion = np.array(camera.distortion)
    map_x, map_y = cv2.initUndistortRectifyMap(camera.K, distortion, None, camera.K, size, cv2.CV_32FC1)
    return np.asarray(map_x, np.float32), np.asarray(map_y, np.float32)


def _numbers(value: Any, key: str, problems: list[str]) -> tuple[float, ...]:
    if isinstance(value, Mapping):
        value = value.get("data", [])
    if not isinstance(value, (list, tuple)):
        value = [value]
    try:
        return tuple(float(number) for number in value)
    except (TypeError, ValueError):
        problems.append(f"{key} is not made of numbers: {value}")
        return ()


def _unsupported(values: Mapping[str, Any]) -> list[str]:
    """A camera_info of a binned or cropped image has a K of the full sensor: say so rather than be wrong."""
    found = []
    binning = [values.get(key, 0) for key in ("binning_x", "binning_y")]
    if any(isinstance(value, (int, float)) and value > 1 for value in binning):
        found.append(f"binning is {binning[0]}x{binning[1]}, K belongs to the unbinned image")
    roi = values.get("roi")
    if isinstance(roi, Mapping) and any(roi.get(key, 0) for key in ("x_offset", "y_offset", "width", "height")):
        found.append("it has a region of interest, K belongs to the full sensor image")
    return found
