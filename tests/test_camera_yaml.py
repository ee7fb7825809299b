# SPDX-License-Identifier: Apache-2.0
"""ROS camera_info YAML: what is accepted, and what is refused with which words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml
from PIL import Image

from fmh_ros.core.errors import CameraError, FileMissingError
from fmh_ros.core.frame.calibration import read_calibration
from fmh_ros.core.frame.load import load_frame, make_frame

WIDTH, HEIGHT = 160, 120
K = [150.0, 0.0, 81.0, 0.0, 151.0, 58.0, 0.0, 0.0, 1.0]


def info(**changes: Any) -> dict[str, Any]:
    """A camera_info as the calibrators write it."""
    values: dict[str, Any] = {
        "image_width": WIDTH,
        "image_height": HEIGHT,
        "camera_name": "test",
        "camera_matrix": {"rows": 3, "cols": 3, "data": list(K)},
        "distortion_model": "plumb_bob",
        "distortion_coefficients": {"rows": 1, "cols": 5, "data": [0.0] * 5},
    }
    values.update(changes)
    return {key: value for key, value in values.items() if value is not None}


def written(tmp_path: Path, values: Any) -> Path:
    path = tmp_path / "camera.yaml"
    path.write_text(values if isinstance(values, str) else yaml.safe_dump(values))
    return path


def loaded(tmp_path: Path, values: Any) -> Any:
    Image.new("RGB", (WIDTH, HEIGHT), (90, 120, 150)).save(tmp_path / "a.png")
    return load_frame(tmp_path / "a.png", camera_path=written(tmp_path, values))


def matrix(numbers: list[float]) -> dict[str, Any]:
    return {"rows": 3, "cols": 3, "data": numbers}


def test_a_calibration_is_used_as_it_is(tmp_path: Path) -> None:
    frame = loaded(tmp_path, info())
    np.testing.assert_array_equal(frame.camera.K.ravel(), K)
    assert frame.camera.source == "given" and frame.camera.distortion == () and frame.warnings == ()


def test_the_form_of_ros2_topic_echo_is_understood(tmp_path: Path) -> None:
    values = {
        "width": WIDTH,
        "height": HEIGHT,
        "distortion_model": "plumb_bob",
        "d": [0.0] * 5,
        "k": K,
        "p": [0.0] * 12,
    }
    text = yaml.safe_dump(values) + "---\n"
    np.testing.assert_array_equal(loaded(tmp_path, text).camera.K.ravel(), K)


@pytest.mark.parametrize(
    ("model", "coefficients"),
    [
        ("plumb_bob", [-0.25, 0.08, 0.001, -0.002, 0.0]),
        ("rational_polynomial", [-0.2, 0.05, 0.001, -0.001, 0.01, 0.1, 0.02, 0.005]),
    ],
)
def test_distortion_is_removed_from_image_and_depth(model: str, coefficients: list[float], tmp_path: Path) -> None:
    """Draw dots where a distorting camera sees known points; afterwards they are where a pinhole sees them."""
    points = np.array([[x, y, 1.0] for x in (-0.35, 0.0, 0.35) for y in (-0.25, 0.0, 0.25)])
    seen, _ = cv2.projectPoints(points, np.zeros(3), np.zeros(3), np.reshape(K, (3, 3)), np.array(coefficients))
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    depth = np.full((HEIGHT, WIDTH), 2.0, np.float32)
    for u, v in seen[:, 0]:
        cv2.circle(image, (round(u * 16), round(v * 16)), 3 * 16, (255, 255, 255), -1, cv2.LINE_AA, 4)
        cv2.circle(depth, (round(u), round(v)), 3, 0.5, -1)
    values = info(distortion_model=model, distortion_coefficients={"data": coefficients})
    frame = make_frame(image, calibration=read_calibration(written(tmp_path, values)), depth=depth)
    assert frame.camera.distortion == tuple(coefficients)
    for u, v in frame.camera.project(points):
        window = (slice(round(v) - 5, round(v) + 6), slice(round(u) - 5, round(u) + 6))
        weight = frame.image[window][..., 0].astype(float)
        rows, columns = np.mgrid[window]
        np.testing.assert_allclose(
            [(columns * weight).sum() / weight.sum(), (rows * weight).sum() / weight.sum()], [u, v], atol=0.35
        )
        assert frame.depth is not None and frame.depth[round(v), round(u)] == 0.5
    assert frame.depth is not None
    assert set(np.unique(frame.depth[np.isfinite(frame.depth)])) == {np.float32(0.5), np.float32(2.0)}, "never mixed"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"camera_matrix": matrix([np.nan, *K[1:]])}, r"not finite"),
        ({"camera_matrix": matrix([0.0] * 9)}, r"focal length 0.*uncalibrated"),
        ({"camera_matrix": matrix([-150.0, *K[1:]])}, r"negative focal length"),
        ({"camera_matrix": matrix(K[:8])}, r"8 numbers, not 9"),
        ({"camera_matrix": matrix([3.6, 0, 81, 0, 3.6, 58, 0, 0, 1])}, r"focal length is 3\.6.*in pixels"),
        ({"camera_matrix": matrix([150, 0, 900, 0, 150, 58, 0, 0, 1])}, r"principal point \(900, 58\) lies outside"),
        ({"camera_matrix": matrix([150, 0, 81, 0, 150, 58, 0, 0, 2])}, r"not of the form"),
        ({"image_width": 320, "image_height": 240}, r"320x240 pixels, the image has 160x120.*multiply K by 0\.5"),
        ({"image_width": 128, "image_height": 72}, r"128x72 pixels, the image has 160x120"),
        ({"image_width": 120, "image_height": 160}, r"rotated upright"),
        ({"image_width": None}, r"image_width is missing"),
        ({"camera_matrix": None}, r"camera_matrix is missing"),
        ({"camera_matrix": {"data": ["a"] * 9}}, r"not made of numbers"),
        ({"distortion_coefficients": {"data": [np.nan] * 5}}, r"distortion_coefficients are not finite"),
        ({"distortion_coefficients": {"data": [0.1] * 3}}, r"3 coefficients, not 4 or 5"),
        (
            {"distortion_model": "equidistant", "distortion_coefficients": {"data": [0.1] * 4}},
            r"'equidistant'.*rectify",
        ),
        ({"binning_x": 2, "binning_y": 2}, r"binning is 2x2"),
        ({"roi": {"x_offset": 8, "y_offset": 0, "width": 100, "height": 100}}, r"region of interest"),
    ],
)
def test_calibrations_that_do_not_fit_are_refused(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(CameraError, match=words) as caught:
        loaded(tmp_path, info(**changes))
    assert caught.value.expected and caught.value.change


def test_all_problems_are_named_at_once(tmp_path: Path) -> None:
    values = info(
        image_width=320,
        camera_matrix=matrix([-150.0, *K[1:]]),
        distortion_model="fisheye",
        distortion_coefficients={"data": [0.1] * 4},
    )
    with pytest.raises(CameraError) as caught:
        loaded(tmp_path, values)
    for words in ("negative focal length", "'fisheye'", "320x120 pixels"):
        assert words in str(caught.value)


@pytest.mark.parametrize("text", ["just words", "[1, 2, 3]", "a: [unclosed", ""])
def test_files_that_are_no_calibration_are_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(CameraError, match="camera_info"):
        loaded(tmp_path, text)


def test_a_missing_calibration_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileMissingError, match="calibration"):
        read_calibration(tmp_path / "none.yaml")
