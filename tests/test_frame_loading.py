# SPDX-License-Identifier: Apache-2.0
"""Images, depth and prompts from files: what is understood, and what is refused with which words."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from fmh_ros.core.errors import DepthError, FileMissingError, ImageError, PromptError
from fmh_ros.core.frame.camera import CameraModel
from fmh_ros.core.frame.load import WORKING_SIDE, load_frame, make_frame, reduced
from fmh_ros.core.frame.prompts import load_prompt, make_prompt

RNG = np.random.default_rng(3)


def picture(height: int = 80, width: int = 120) -> np.ndarray:
    """Smooth colours that differ at every pixel, so that a flip or a shift shows."""
    v, u = np.mgrid[:height, :width]
    return np.stack([u * 255 // width, v * 255 // height, (u + v) % 256], -1).astype(np.uint8)


def saved(path: Path, array: np.ndarray, **options: object) -> Path:
    Image.fromarray(array).save(path, **options)
    return path


def test_rgb_png_is_read_as_it_is(tmp_path: Path) -> None:
    frame = load_frame(saved(tmp_path / "a.png", picture()))
    np.testing.assert_array_equal(frame.image, picture())
    assert frame.depth is None and frame.source_camera is None


#: How many quarter turns (counter-clockwise) and then left-right flips make the stored image upright.
ORIENTATIONS = {2: (0, True), 3: (2, False), 6: (3, False), 8: (1, False)}


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_exif_orientation_is_applied(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    frame = load_frame(saved(tmp_path / "a.png", picture(), exif=exif))
    turns, flip = ORIENTATIONS[orientation]
    upright = np.rot90(picture(), turns)
    np.testing.assert_array_equal(frame.image, upright[:, ::-1] if flip else upright)
    assert (frame.camera.height, frame.camera.width) == frame.image.shape[:2]


def test_grey_rgba_palette_and_16_bit_images_become_8_bit_rgb(tmp_path: Path) -> None:
    grey = picture()[..., 0]
    rgba = np.dstack([picture(), np.full(grey.shape, 255, np.uint8)])
    rgba[:, :60, 3] = 0
    files = {
        "grey": saved(tmp_path / "g.png", grey),
        "rgba": saved(tmp_path / "a.png", rgba),
        "16": saved(tmp_path / "h.png", grey.astype(np.uint16) * 257),
        "12": saved(tmp_path / "i.png", (grey.astype(np.uint16) << 4) | (grey >> 4)),
    }
    images = {name: load_frame(path).image for name, path in files.items()}
    assert all(image.shape == (80, 120, 3) and image.dtype == np.uint8 for image in images.values())
    np.testing.assert_array_equal(images["grey"], np.repeat(grey[..., None], 3, -1))
    np.testing.assert_array_equal(images["16"][..., 1], grey)
    np.testing.assert_allclose(images["12"][..., 1].astype(int), grey, atol=1)
    assert (images["rgba"][:, :60] == 255).all(), "transparent pixels become white"
    np.testing.assert_array_equal(images["rgba"][:, 60:], picture()[:, 60:])


def test_too_small_corrupt_and_missing_images_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"63 pixels.*at least 64.*larger image"):
        load_frame(saved(tmp_path / "small.png", picture(63, 200)))
    whole = saved(tmp_path / "whole.jpg", RNG.integers(0, 255, (200, 200, 3), np.uint8)).read_bytes()
    (tmp_path / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.png").write_text("not a picture")
    (tmp_path / "empty.png").touch()
    for name in ("cut.jpg", "text.png", "empty.png"):
        with pytest.raises(ImageError, match="cannot be decoded"):
            load_frame(tmp_path / name)
    for missing in (tmp_path / "none.png", tmp_path):
        with pytest.raises(FileMissingError, match="readable file"):
            load_frame(missing)


def test_focal_length_comes_from_exif_when_the_photo_was_not_cropped(tmp_path: Path) -> None:
    exif = Image.Exif()
    details = exif.get_ifd(ExifTags.IFD.Exif)
    details[ExifTags.Base.FocalLengthIn35mmFilm] = 26
    details[ExifTags.Base.ExifImageWidth], details[ExifTags.Base.ExifImageHeight] = 1200, 800
    frame = load_frame(saved(tmp_path / "a.jpg", picture(), exif=exif))
    assert frame.camera.focal == pytest.approx(26 / 43.27 * np.hypot(120, 80), rel=1e-3)
    assert frame.camera.source == "estimated" and "EXIF" in frame.warnings[0]
    cropped = load_frame(saved(tmp_path / "b.jpg", picture(80, 80), exif=exif))
    assert "default" in cropped.warnings[0]


def test_a_large_image_is_reduced_and_its_pixels_can_be_mapped_back(tmp_path: Path) -> None:
    frame = load_frame(saved(tmp_path / "a.png", picture(1500, 2000)))
    assert max(frame.image.shape) == WORKING_SIDE
    assert (frame.reported_camera.width, frame.reported_camera.height) == (2000, 1500)
    point = np.array([0.1, -0.05, 0.8])
    np.testing.assert_allclose(
        frame.to_reported(frame.camera.project(point)), frame.reported_camera.project(point), atol=1e-9
    )
    pixels = np.array([[0.0, 0.0], [1999.0, 1499.0]])
    np.testing.assert_allclose(frame.to_reported(frame.from_reported(pixels)), pixels, atol=1e-9)
    mirrored = frame.mirrored()
    flipped = np.array([-0.1, -0.05, 0.8])
    np.testing.assert_allclose(
        mirrored.to_reported(mirrored.camera.project(flipped)), mirrored.reported_camera.project(flipped), atol=1e-9
    )


def test_reducing_keeps_depth_values_unmixed() -> None:
    depth = np.where(np.arange(200)[None, :] < 99, 0.5, 2.0).astype(np.float32).repeat(150, 0)
    small = reduced(make_frame(picture(150, 200), depth=depth), 80)
    assert set(np.unique(small.depth)) == {np.float32(0.5), np.float32(2.0)}
    assert (small.depth == 0.5).mean() == pytest.approx(99 / 200, abs=0.02)


def test_16_bit_png_is_millimetres_and_zero_is_unknown(tmp_path: Path) -> None:
    millimetres = np.full((80, 120), 650, np.uint16)
    millimetres[:10] = 0
    frame = load_frame(saved(tmp_path / "a.png", picture()), saved(tmp_path / "d.png", millimetres))
    assert frame.depth is not None and frame.depth.dtype == np.float32
    assert np.isnan(frame.depth[:10]).all()
    np.testing.assert_allclose(frame.depth[10:], 0.65, rtol=1e-6)


def test_npy_floats_are_metres_integers_millimetres_and_holes_are_unknown(tmp_path: Path) -> None:
    metres = np.full((80, 120), 0.7)
    metres[0, :4] = [np.nan, np.inf, 0.0, -1.0]
    image = saved(tmp_path / "a.png", picture())
    np.save(tmp_path / "f.npy", metres)
    np.save(tmp_path / "i.npy", np.full((80, 120, 1), 700, np.int32))
    floats = load_frame(image, tmp_path / "f.npy").depth
    assert floats is not None and np.isnan(floats[0, :4]).all() and np.isnan(floats).sum() == 4
    integers = load_frame(image, tmp_path / "i.npy").depth
    assert integers is not None
    np.testing.assert_allclose(integers, 0.7, rtol=1e-6)


def test_depth_scale_overrides_the_unit(tmp_path: Path) -> None:
    depth = saved(tmp_path / "d.png", np.full((80, 120), 3000, np.uint16))
    frame = load_frame(saved(tmp_path / "a.png", picture()), depth, depth_scale=1 / 5000)
    assert frame.depth is not None
    np.testing.assert_allclose(frame.depth, 0.6, rtol=1e-6)


@pytest.mark.parametrize(
    ("values", "scale", "words"),
    [
        (np.full((80, 120), 650.0), None, r"median of 650 m.*millimetres: pass --depth-scale 0\.001"),
        (np.full((80, 120), 2, np.uint16), None, r"median of 0\.002 m.*metres: pass --depth-scale 1\b"),
        (np.full((80, 120), 0.65), 0.001, r"metres: pass --depth-scale 1\b"),
        (np.zeros((80, 120), np.uint16), None, r"no known value.*0 or NaN"),
        (np.full((80, 120), -0.6), None, r"all are negative.*Negate"),
        (np.full((40, 60), 0.6), None, r"60x40 pixels, the image is 120x80.*aligned_depth_to_color"),
        (np.full((120, 80), 0.6), None, r"80x120 pixels.*EXIF orientation"),
        (np.full((80, 120, 3), 0.6), None, r"shape \(80, 120, 3\).*2-D array"),
        (np.full((80, 120), 0.6), -1.0, r"depth scale is -1"),
    ],
)
def test_depth_that_does_not_fit_is_refused(
    tmp_path: Path, values: np.ndarray, scale: float | None, words: str
) -> None:
    np.save(tmp_path / "d.npy", values)
    with pytest.raises(DepthError, match=words):
        load_frame(saved(tmp_path / "a.png", picture()), tmp_path / "d.npy", depth_scale=scale)


def test_a_picture_of_depth_and_a_corrupt_file_are_refused(tmp_path: Path) -> None:
    image = saved(tmp_path / "a.png", picture())
    with pytest.raises(DepthError, match=r"8 bits.*16-bit PNG"):
        load_frame(image, saved(tmp_path / "d.png", picture()))
    for name in ("bad.png", "bad.npy"):
        (tmp_path / name).write_bytes(b"nothing of the kind")
        with pytest.raises(DepthError, match=r"cannot be decoded|not a NumPy array"):
            load_frame(image, tmp_path / name)
    with pytest.raises(FileMissingError, match="depth image"):
        load_frame(image, tmp_path / "none.png")


def test_prompts_are_parsed_clipped_and_kept_in_the_pixels_of_the_image(tmp_path: Path) -> None:
    frame = make_frame(picture())
    mask = np.zeros((80, 120), np.uint8)
    mask[20:50, 30:70] = 255
    prompt = load_prompt(frame, "10,20,130,60", ["5,6", "7.5,8"], saved(tmp_path / "m.png", mask))
    assert prompt.box == (10.0, 20.0, 119.0, 60.0)
    assert prompt.points == ((5.0, 6.0), (7.5, 8.0))
    assert prompt.mask is not None
    np.testing.assert_array_equal(prompt.mask, mask > 0)


def test_the_name_of_the_object_is_one_line_and_survives_mirroring() -> None:
    prompt = make_prompt(make_frame(picture()), text="  red\n mug ")
    assert prompt.text == "red mug" == prompt.mirrored(120).text
    assert not prompt.given  # it says what, and not where
    for text in ("x" * 300, "mug\x00"):
        with pytest.raises(PromptError, match="few words"):
            make_prompt(make_frame(picture()), text=text)


def test_prompts_follow_an_image_that_is_reduced() -> None:
    frame = make_frame(picture(1500, 2000))
    mask = np.zeros((1500, 2000), bool)
    mask[300:900, 500:1500] = True
    prompt = make_prompt(frame, (500, 300, 1500, 900), [(1000, 600)], mask)
    assert prompt.mask is not None and prompt.mask.shape == frame.image.shape[:2] and prompt.box is not None
    x, y = prompt.points[0]
    np.testing.assert_allclose(frame.to_reported(np.array([x, y])), [1000, 600], atol=1e-6)
    rows, columns = np.nonzero(prompt.mask)
    np.testing.assert_allclose(
        [columns.min(), rows.min(), columns.max(), rows.max()], prompt.box, atol=1.0, err_msg="box and mask agree"
    )


def test_prompts_follow_the_removal_of_lens_distortion() -> None:
    K = np.array([[100.0, 0, 59.5], [0, 100.0, 39.5], [0, 0, 1]])
    camera = CameraModel(120, 80, K, (-0.3, 0.05, 0.001, 0.0, 0.0))
    frame = make_frame(picture())
    distorted = type(frame)(frame.image, camera)
    point = np.array([0.3, 0.2, 1.0])
    r2 = point[0] ** 2 + point[1] ** 2
    radial = 1 - 0.3 * r2 + 0.05 * r2**2
    seen = [
        100 * (point[0] * radial + 2 * 0.001 * point[0] * point[1]) + 59.5,
        100 * (point[1] * radial + 0.001 * (r2 + 2 * point[1] ** 2)) + 39.5,
    ]
    prompt = make_prompt(distorted, points=[(seen[0], seen[1])])
    np.testing.assert_allclose(prompt.points[0], camera.project(point), atol=1e-2)


@pytest.mark.parametrize(
    ("box", "points", "words"),
    [
        ("1,2,3", [], r"'1,2,3' is not 4 numbers.*x0,y0,x1,y1"),
        ("a,b,c,d", [], r"is not 4 numbers"),
        ("1,2,nan,4", [], r"is not 4 numbers"),
        ("60,10,20,40", [], r"is empty.*x0 < x1"),
        ("200,10,300,40", [], r"no area in the image of 120x80"),
        (None, ["120,10"], r"outside the image of 120x80"),
        (None, ["5"], r"is not 2 numbers.*x,y"),
    ],
)
def test_prompts_that_do_not_fit_are_refused(box: str | None, points: list[str], words: str) -> None:
    with pytest.raises(PromptError, match=words):
        load_prompt(make_frame(picture()), box, points)


@pytest.mark.parametrize(
    ("mask", "words"),
    [
        (np.full((40, 60), 255, np.uint8), r"60x40 pixels, the image is 120x80"),
        (np.zeros((80, 120), np.uint8), r"covers 0 of 9600"),
        (np.full((80, 120), 255, np.uint8), r"covers 9600 of 9600.*inverted"),
    ],
)
def test_masks_that_do_not_fit_are_refused(tmp_path: Path, mask: np.ndarray, words: str) -> None:
    with pytest.raises(PromptError, match=words):
        load_prompt(make_frame(picture()), mask_path=saved(tmp_path / "m.png", mask))


def test_a_mask_file_that_is_no_image_is_a_prompt_error(tmp_path: Path) -> None:
    (tmp_path / "m.png").write_text("no mask")
    with pytest.raises(PromptError, match="cannot be decoded"):
        load_prompt(make_frame(picture()), mask_path=tmp_path / "m.png")
    with pytest.raises(FileMissingError, match="mask"):
        load_prompt(make_frame(picture()), mask_path=tmp_path / "none.png")
