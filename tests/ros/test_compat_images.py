# SPDX-License-Identifier: Apache-2.0
"""Image messages as arrays, with cv_bridge where it is installed and without it always."""

from __future__ import annotations

import struct
from array import array

import cv2
import numpy as np
import pytest

pytest.importorskip("sensor_msgs.msg", reason="ROS is not installed: make setup-ros")
pytest.importorskip("tf2_msgs.msg", reason="the messages are not built: make setup-ros")

from rvl_encoder import encode_rvl
from sensor_msgs.msg import CompressedImage, Image, PointCloud2
from std_msgs.msg import Header

from fmh_ros.core.errors import DepthError, EncodingError, ImageError
from fmh_ros.ros_compat import (
    COLOR_ENCODINGS,
    array_to_image,
    compressed_depth_to_array,
    compressed_to_rgb,
    image_to_array,
    image_to_rgb,
    make_cloud,
)
from fmh_ros.ros_compat.clouds import POINT_CLOUD2
from fmh_ros.ros_compat.images import CV_BRIDGE

RANDOM = np.random.default_rng(0)
needs_bridge = pytest.mark.skipif(CV_BRIDGE is None, reason="cv_bridge is not installed")
bridges = pytest.mark.parametrize("bridge", [False, pytest.param(True, marks=needs_bridge)], ids=["own", "cv_bridge"])


def message_of(pixels: np.ndarray, encoding: str, padding: int = 0, big: bool = False) -> Image:
    """A message as drivers make them: padded rows, either byte order."""
    rows = np.ascontiguousarray(pixels.astype(pixels.dtype.newbyteorder(">" if big else "<")))
    rows = rows.view(np.uint8).reshape(len(pixels), -1)
    rows = np.pad(rows, ((0, 0), (0, padding)), constant_values=0xAB)
    data = array("B", rows.tobytes())
    height, width = pixels.shape[:2]
    return Image(height=height, width=width, encoding=encoding, is_bigendian=big, step=rows.shape[1], data=data)


def smooth_rgb() -> np.ndarray:
    """A picture (48, 64, 3) that survives colour subsampling and demosaicing nearly unchanged."""
    v, u = np.mgrid[0:48, 0:64]
    return np.stack([60 + 2 * u, 200 - 2 * v, 90 + u + v], -1).astype(np.uint8)


def mosaic(rgb: np.ndarray, pattern: str) -> np.ndarray:
    """What a sensor with this Bayer pattern sees; ``pattern`` names its first four pixels, row by row."""
    result = np.empty(rgb.shape[:2], rgb.dtype)
    for place, color in enumerate(pattern):
        rows, columns = slice(place // 2, None, 2), slice(place % 2, None, 2)
        result[rows, columns] = rgb[rows, columns, "rgb".index(color)]
    return result


def as_yuv(rgb: np.ndarray, luma_first: bool) -> np.ndarray:
    """Packed 4:2:2 (H, W, 2) of BT.601 with limited range, from the standard's numbers."""
    r, g, b = np.moveaxis(rgb.astype(float), -1, 0)
    luma = 16 + (65.481 * r + 128.553 * g + 24.966 * b) / 255
    blue = 128 + (-37.797 * r - 74.203 * g + 112.0 * b) / 255
    red = 128 + (112.0 * r - 93.786 * g - 18.214 * b) / 255
    chroma = np.empty_like(luma)
    chroma[:, 0::2] = (blue[:, 0::2] + blue[:, 1::2]) / 2
    chroma[:, 1::2] = (red[:, 0::2] + red[:, 1::2]) / 2
    parts = (luma, chroma) if luma_first else (chroma, luma)
    return np.stack(parts, -1).round().astype(np.uint8)


@bridges
@pytest.mark.parametrize("padding", [0, 1, 13, 24])
@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize(
    ("encoding", "shape", "dtype"),
    [("rgb8", (5, 7, 3), np.uint8), ("mono16", (5, 7), np.uint16), ("16UC1", (5, 7), np.uint16),
     ("32FC1", (5, 7), np.float32), ("rgba16", (5, 7, 4), np.uint16), ("8UC2", (5, 7, 2), np.uint8)],
)  # fmt: skip
def test_pixels_come_out_as_they_went_in(
    bridge: bool, padding: int, big: bool, encoding: str, shape: tuple[int, ...], dtype: type
) -> None:
    pixels = (RANDOM.random(shape) * 250).astype(dtype)
    read = image_to_array(message_of(pixels, encoding, padding, big), use_bridge=bridge)
    assert read.dtype == np.dtype(dtype) and read.dtype.isnative
    np.testing.assert_array_equal(read, pixels)


@bridges
@pytest.mark.parametrize(
    ("encoding", "order"), [("rgb8", [0, 1, 2]), ("bgr8", [2, 1, 0]), ("rgba8", [0, 1, 2, 1]), ("bgra8", [2, 1, 0, 1])]
)
def test_orders_of_colours_are_told_apart_and_alpha_is_dropped(bridge: bool, encoding: str, order: list[int]) -> None:
    rgb = RANDOM.integers(0, 256, (6, 9, 3), np.uint8)
    read = image_to_rgb(message_of(rgb[..., order], encoding, padding=5), use_bridge=bridge)
    np.testing.assert_array_equal(read, rgb)


@bridges
@pytest.mark.parametrize("encoding", ["rgb16", "bgr16", "rgba16", "bgra16", "mono16"])
def test_sixteen_bits_are_scaled_to_eight(bridge: bool, encoding: str) -> None:
    rgb = RANDOM.integers(0, 256, (6, 8, 3), np.uint8)
    deep = rgb.astype(np.uint16) * 257
    if encoding == "mono16":
        read = image_to_rgb(message_of(deep[..., 0], encoding, big=True), use_bridge=bridge)
        np.testing.assert_array_equal(read, np.repeat(rgb[..., :1], 3, -1))
        return
    order = [0, 1, 2] if encoding.startswith("rgb") else [2, 1, 0]
    order += [1] if "a" in encoding else []
    np.testing.assert_array_equal(image_to_rgb(message_of(deep[..., order], encoding), use_bridge=bridge), rgb)


@bridges
@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("pattern", ["rggb", "bggr", "gbrg", "grbg"])
def test_each_bayer_pattern_gives_its_colours_back(bridge: bool, pattern: str, deep: bool) -> None:
    rgb = smooth_rgb()
    pixels = mosaic(rgb, pattern)
    pixels = pixels.astype(np.uint16) * 257 if deep else pixels
    read = image_to_rgb(message_of(pixels, f"bayer_{pattern}{16 if deep else 8}"), use_bridge=bridge)
    assert read.dtype == np.uint8
    error = np.abs(read.astype(int) - rgb)[2:-2, 2:-2]
    assert error.max() <= 3


@bridges
@pytest.mark.parametrize(("encoding", "luma_first"), [("uyvy", 0), ("yuv422", 0), ("yuyv", 1), ("yuv422_yuy2", 1)])
def test_packed_yuv_is_that_of_the_standard(bridge: bool, encoding: str, luma_first: int) -> None:
    rgb = smooth_rgb()
    read = image_to_rgb(message_of(as_yuv(rgb, bool(luma_first)), encoding, padding=6), use_bridge=bridge)
    assert np.abs(read.astype(int) - rgb).max() <= 4


@bridges
def test_grey_is_repeated(bridge: bool) -> None:
    grey = RANDOM.integers(0, 256, (4, 6), np.uint8)
    read = image_to_rgb(message_of(grey, "mono8", 3), use_bridge=bridge)
    np.testing.assert_array_equal(read, np.repeat(grey[..., None], 3, -1))


@bridges
def test_every_colour_encoding_gives_a_picture_of_its_size(bridge: bool) -> None:
    for name, encoding in COLOR_ENCODINGS.items():
        shape = (8, 10) if encoding.channels == 1 else (8, 10, encoding.channels)
        read = image_to_rgb(message_of(np.full(shape, 77, encoding.dtype), name, 2), use_bridge=bridge)
        assert (read.shape, read.dtype) == ((8, 10, 3), np.uint8), name


@pytest.mark.parametrize("encoding", ["", "rgb", "jpeg", "32FC1", "16UC1", "8UC3", "nv21", "8UC0"])
def test_what_is_no_colour_is_refused_by_name(encoding: str) -> None:
    with pytest.raises(EncodingError, match=r"/cam .*" + repr(encoding)):
        image_to_rgb(message_of(np.zeros((4, 4, 3), np.uint8), encoding), "/cam")


@bridges
@pytest.mark.parametrize(
    "wrong", [{"step": 11}, {"height": 5}, {"width": 5}, {"height": 0}, {"width": 0}, {"data": array("B")}, {"step": 0}]
)
def test_sizes_that_do_not_fit_the_data_are_refused(bridge: bool, wrong: dict[str, object]) -> None:
    message = message_of(np.zeros((4, 4, 3), np.uint8), "rgb8")
    for name, value in wrong.items():
        setattr(message, name, value)
    with pytest.raises(ImageError, match="bytes"):
        image_to_rgb(message, use_bridge=bridge)
    with pytest.raises(DepthError, match="/depth"):
        image_to_array(message, "/depth", DepthError, use_bridge=bridge)


@pytest.mark.parametrize(("encoding", "shape"), [("uyvy", (4, 5, 2)), ("bayer_rggb8", (1, 6))])
def test_pictures_without_whole_pairs_of_pixels_are_refused(encoding: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(ImageError, match="pairs"):
        image_to_rgb(message_of(np.zeros(shape, np.uint8), encoding))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_a_picture_becomes_the_message_that_it_is_read_from(dtype: type) -> None:
    names = {np.uint8: "rgb8", np.uint16: "16UC1", np.float32: "32FC1"}
    pixels = (RANDOM.random((5, 7, 3) if dtype is np.uint8 else (5, 7)) * 200).astype(dtype)
    message = array_to_image(pixels[:, ::-1], names[dtype], Header(frame_id="eye"))
    assert (message.header.frame_id, message.step) == ("eye", 7 * pixels.nbytes // 35)
    np.testing.assert_array_equal(image_to_array(message), pixels[:, ::-1])
    with pytest.raises(EncodingError):
        array_to_image(pixels, "mono8" if dtype is np.uint8 else "rgb8", Header())


def compressed(pixels: np.ndarray, suffix: str, text: str) -> CompressedImage:
    done, data = cv2.imencode(suffix, pixels, [cv2.IMWRITE_JPEG_QUALITY, 98])
    assert done
    return CompressedImage(format=text, data=array("B", data.tobytes()))


def test_jpeg_and_png_of_every_kind_are_decoded() -> None:
    rgb = smooth_rgb()
    bgr = rgb[..., ::-1]
    exact = compressed_to_rgb(compressed(bgr, ".png", "rgb8; png compressed bgr8"))
    np.testing.assert_array_equal(exact, rgb)
    lossy = compressed_to_rgb(compressed(bgr, ".jpg", "jpeg"))
    assert np.abs(lossy.astype(int) - rgb).max() <= 6
    swapped = compressed_to_rgb(compressed(rgb, ".png", "rgb8; png compressed rgb8"))
    np.testing.assert_array_equal(swapped, rgb)
    grey = compressed_to_rgb(compressed(rgb[..., 0], ".png", "mono8; png compressed "))
    np.testing.assert_array_equal(grey, np.repeat(rgb[..., :1], 3, -1))
    deep = compressed_to_rgb(compressed(rgb[..., 0].astype(np.uint16) * 257, ".png", "mono16; png compressed "))
    np.testing.assert_array_equal(deep, np.repeat(rgb[..., :1], 3, -1))


def test_a_jpeg_is_not_turned_by_its_exif_orientation() -> None:
    message = compressed(smooth_rgb()[..., ::-1], ".jpg", "jpeg")
    # Orientation 6: turn by 90 degrees. Calibration and prompts belong to the pixels as they are stored.
    tiff = b"II*\0" + struct.pack("<IHHHIHHI", 8, 1, 0x0112, 3, 1, 6, 0, 0)
    exif = b"Exif\0\0" + tiff
    data = bytes(message.data)
    turned = data[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + data[2:]
    assert cv2.imdecode(np.frombuffer(turned, np.uint8), cv2.IMREAD_COLOR).shape == (64, 48, 3)
    read = compressed_to_rgb(CompressedImage(format="jpeg", data=array("B", turned)))
    np.testing.assert_array_equal(read, compressed_to_rgb(message))


@pytest.mark.parametrize("keep", [0, 10, 300])
def test_what_cannot_be_decoded_is_refused(keep: int) -> None:
    message = compressed(smooth_rgb(), ".png", "png")
    message.data = message.data[:keep] if keep < 300 else array("B", b"\xab" * keep)
    with pytest.raises(ImageError, match="/cam"):
        compressed_to_rgb(message, "/cam")


def test_compressed_depth_gives_millimetres_or_metres() -> None:
    millimetres = RANDOM.integers(0, 5000, (6, 8), np.uint16)
    png = cv2.imencode(".png", millimetres)[1].tobytes()
    message = CompressedImage(format="16UC1; compressedDepth png", data=array("B", bytes(12) + png))
    np.testing.assert_array_equal(compressed_depth_to_array(message), millimetres)
    with pytest.raises(EncodingError, match="depth image"):
        compressed_to_rgb(message)

    metres = RANDOM.uniform(0.3, 4.0, (6, 8))
    metres[0, 0] = np.nan
    # As the plugin does it: inverse depth in 16 bits, exact near the camera, 0 for unknown.
    quantisation, most = 100.0, 10.0
    a = quantisation * (quantisation + 1)
    b = 1 - a / most
    values = np.where(np.isfinite(metres), a / metres + b, 0).astype(np.uint16)
    png = cv2.imencode(".png", values)[1].tobytes()
    message = CompressedImage(format="32FC1; compressedDepth", data=array("B", struct.pack("<iff", 0, a, b) + png))
    read = compressed_depth_to_array(message)
    assert read.dtype == np.float32 and np.isnan(read[0, 0])
    np.testing.assert_allclose(read.ravel()[1:], metres.ravel()[1:], rtol=2e-3)


@pytest.mark.parametrize("kind", ["smooth", "holes", "noise", "zero", "full", "one"])
def test_rvl_gives_what_was_encoded(kind: str) -> None:
    columns, rows = np.meshgrid(np.arange(53), np.arange(31))
    pixels = (600 + 3 * columns + 5 * rows).astype(np.uint16)
    pixels = {
        "smooth": pixels,
        "holes": np.where(RANDOM.random(pixels.shape) < 0.3, 0, pixels).astype(np.uint16),
        "noise": RANDOM.integers(0, 65536, pixels.shape, np.uint16),
        "zero": np.zeros_like(pixels),
        "full": np.where((columns + rows) % 2, 65535, 1).astype(np.uint16),
        "one": pixels[:1, :1],
    }[kind]
    message = CompressedImage(format="16UC1; compressedDepth rvl", data=array("B", bytes(12) + encode_rvl(pixels)))
    read = compressed_depth_to_array(message)
    assert read.dtype == np.uint16
    np.testing.assert_array_equal(read, pixels)


def test_rvl_is_read_bit_by_bit_as_it_is_defined() -> None:
    # 2 zeros, 2 others: 5 (+5, coded 10 = 2 + 8 * 1) and 4 (-1, coded 1), then 1 zero and nothing.
    words = struct.pack("<2I", 0x22A11100, 0)
    assert compressed_depth_to_array(
        CompressedImage(
            format="16UC1; compressedDepth rvl", data=array("B", bytes(12) + struct.pack("<II", 5, 1) + words)
        )
    ).tolist() == [[0, 0, 5, 4, 0]]


@pytest.mark.parametrize("cut", [0, 3, 8, 12, 40])
def test_rvl_that_is_cut_off_or_absurd_is_refused(cut: int) -> None:
    data = bytes(12) + encode_rvl(RANDOM.integers(0, 2000, (9, 9), np.uint16))[:cut]
    message = CompressedImage(format="16UC1; compressedDepth rvl", data=array("B", data))
    with pytest.raises(DepthError, match="/depth"):
        compressed_depth_to_array(message, "/depth", DepthError)
    for size in ((0, 7), (2**32 - 1, 2**32 - 1)):
        for words in (b"", b"\xff" * 40, b"\x00" * 40):
            message.data = array("B", bytes(12) + struct.pack("<II", *size) + words)
            with pytest.raises(DepthError):
                compressed_depth_to_array(message, "/depth", DepthError)


def test_other_compressed_depth_is_refused() -> None:
    with pytest.raises(EncodingError, match="jpeg"):
        compressed_depth_to_array(CompressedImage(format="jpeg", data=array("B", bytes(40))))
    with pytest.raises(DepthError, match="decoded"):
        compressed_depth_to_array(
            CompressedImage(format="16UC1; compressedDepth", data=array("B", bytes(40))), error=DepthError
        )


@pytest.mark.parametrize(
    "ros", [False, pytest.param(True, marks=pytest.mark.skipif(POINT_CLOUD2 is None, reason="no sensor_msgs_py"))]
)
def test_a_cloud_holds_its_columns(ros: bool) -> None:
    values = RANDOM.random((50, 6)).astype(np.float32)
    names = ("x", "y", "z", "normal_x", "normal_y", "normal_z")
    cloud = make_cloud(Header(frame_id="eye"), names, values, use_ros=ros)
    assert isinstance(cloud, PointCloud2)
    assert (cloud.width, cloud.height, cloud.point_step, cloud.row_step) == (50, 1, 24, 1200)
    offsets = {field.name: field.offset for field in cloud.fields}
    read = np.frombuffer(bytes(cloud.data), np.uint8).reshape(50, 24)
    for place, name in enumerate(names):
        column = np.ascontiguousarray(read[:, offsets[name] : offsets[name] + 4]).view(np.float32)[:, 0]
        np.testing.assert_array_equal(column, values[:, place])
