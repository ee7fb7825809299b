# SPDX-License-Identifier: Apache-2.0
"""Image messages as arrays and back: cv_bridge where it is installed, else NumPy and OpenCV.

Colours are always converted here, so that both ways give the same pixels. Arrays share the message's memory where they
can: do not write to them.
"""

from __future__ import annotations

import re
import sys
from array import array
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from fmh_ros.core.errors import EncodingError, FmhError, ImageError
from fmh_ros.ros_compat.rvl import decode_rvl

try:
    import cv_bridge as _cv_bridge
except ImportError:
    _cv_bridge = None

#: The distribution's cv_bridge, None where there is none.
CV_BRIDGE: ModuleType | None = _cv_bridge
#: Bytes before the picture in compressedDepth: a format, and two numbers for inverse depth.
DEPTH_HEADER = 12


@dataclass(frozen=True)
class Encoding:
    """Layout of one pixel.

    dtype : of one channel; to_rgb : OpenCV's conversion to RGB, None when nothing is to be done.
    """

    dtype: type[np.generic]
    channels: int
    to_rgb: int | None = None

    @property
    def pixel_bytes(self) -> int:
        """Bytes of one pixel."""
        return np.dtype(self.dtype).itemsize * self.channels


#: What can be turned into a colour image. OpenCV's YUY2 is YUYV; alpha is dropped.
COLOR_ENCODINGS = {
    "rgb8": Encoding(np.uint8, 3),
    "bgr8": Encoding(np.uint8, 3, cv2.COLOR_BGR2RGB),
    "rgba8": Encoding(np.uint8, 4, cv2.COLOR_RGBA2RGB),
    "bgra8": Encoding(np.uint8, 4, cv2.COLOR_BGRA2RGB),
    "rgb16": Encoding(np.uint16, 3),
    "bgr16": Encoding(np.uint16, 3, cv2.COLOR_BGR2RGB),
    "rgba16": Encoding(np.uint16, 4, cv2.COLOR_RGBA2RGB),
    "bgra16": Encoding(np.uint16, 4, cv2.COLOR_BGRA2RGB),
    "mono8": Encoding(np.uint8, 1, cv2.COLOR_GRAY2RGB),
    "mono16": Encoding(np.uint16, 1, cv2.COLOR_GRAY2RGB),
    "uyvy": Encoding(np.uint8, 2, cv2.COLOR_YUV2RGB_UYVY),
    "yuv422": Encoding(np.uint8, 2, cv2.COLOR_YUV2RGB_UYVY),
    "yuyv": Encoding(np.uint8, 2, cv2.COLOR_YUV2RGB_YUY2),
    "yuv422_yuy2": Encoding(np.uint8, 2, cv2.COLOR_YUV2RGB_YUY2),
    # ROS names a Bayer pattern by its first four pixels, these constants of OpenCV by the four from the second row on.
    "bayer_rggb8": Encoding(np.uint8, 1, cv2.COLOR_BayerBG2RGB),
    "bayer_bggr8": Encoding(np.uint8, 1, cv2.COLOR_BayerRG2RGB),
    "bayer_gbrg8": Encoding(np.uint8, 1, cv2.COLOR_BayerGR2RGB),
    "bayer_grbg8": Encoding(np.uint8, 1, cv2.COLOR_BayerGB2RGB),
    "bayer_rggb16": Encoding(np.uint16, 1, cv2.COLOR_BayerBG2RGB),
    "bayer_bggr16": Encoding(np.uint16, 1, cv2.COLOR_BayerRG2RGB),
    "bayer_gbrg16": Encoding(np.uint16, 1, cv2.COLOR_BayerGR2RGB),
    "bayer_grbg16": Encoding(np.uint16, 1, cv2.COLOR_BayerGB2RGB),
}
_GENERIC = re.compile(r"(8U|8S|16U|16S|32S|32F|64F)(?:C([1-9]))?")
_GENERIC_TYPES: dict[str, type[np.generic]] = {
    "8U": np.uint8,
    "8S": np.int8,
    "16U": np.uint16,
    "16S": np.int16,
    "32S": np.int32,
    "32F": np.float32,
    "64F": np.float64,
}


def find_encoding(name: str) -> Encoding | None:
    """Return the layout of a named colour encoding or of a matrix type such as 16UC1, None when it is neither."""
    if name in COLOR_ENCODINGS:
        return COLOR_ENCODINGS[name]
    matched = _GENERIC.fullmatch(name)
    return None if matched is None else Encoding(_GENERIC_TYPES[matched[1]], int(matched[2] or 1))


def image_to_array(
    message: Image, name: str = "image", error: type[FmhError] = ImageError, *, use_bridge: bool = True
) -> NDArray[Any]:
    """Return the pixels as they are: (H, W) for one channel, else (H, W, C), in the machine's byte order.

    Rows may be padded (``step``). ``name`` is what messages call the image; ``use_bridge`` False leaves cv_bridge out.
    Raises EncodingError for an unknown encoding and ``error`` for data that do not fit the size.
    """
    encoding = find_encoding(message.encoding)
    if encoding is None:
        raise EncodingError(
            f"The image on {name} has the encoding {message.encoding!r}",
            expected="an encoding of sensor_msgs: " + ", ".join(COLOR_ENCODINGS) + ", or a type such as 16UC1",
            change="Have the driver publish rgb8 (image_proc converts)",
        )
    _check_size(message, encoding, name, error)
    if use_bridge and CV_BRIDGE is not None and message.step % encoding.pixel_bytes == 0:  # it shears other paddings
        bridged: NDArray[Any] = CV_BRIDGE.CvBridge().imgmsg_to_cv2(message, "passthrough")
        return bridged
    return _array_from_rows(message, encoding)


def image_to_rgb(message: Image, name: str = "image", *, use_bridge: bool = True) -> NDArray[np.uint8]:
    """Return a colour or grey image as (H, W, 3) uint8 RGB; 16 bits are scaled to 8, alpha is dropped.

    Raises EncodingError for an encoding that is no colour, and ImageError for data that do not fit the size.
    """
    encoding = COLOR_ENCODINGS.get(message.encoding)
    if encoding is None:
        raise EncodingError(
            f"The image on {name} has the encoding {message.encoding!r}",
            expected="a colour or grey image: " + ", ".join(COLOR_ENCODINGS),
            change="Connect the colour topic, or convert it (image_proc)",
        )
    pixels = image_to_array(message, name, use_bridge=use_bridge)
    if (encoding.channels == 2 and message.width % 2) or ("bayer" in message.encoding and min(pixels.shape[:2]) < 2):
        raise ImageError(
            f"The image on {name} is {message.width}x{message.height} pixels of {message.encoding}",
            expected="whole pairs of pixels: their colours are shared",
        )
    if pixels.dtype == np.uint16 and "bayer" not in message.encoding:
        pixels = _eight_bits(pixels)
    if encoding.to_rgb is not None:
        pixels = cv2.cvtColor(np.ascontiguousarray(pixels), encoding.to_rgb)
    return _eight_bits(pixels) if pixels.dtype == np.uint16 else np.asarray(pixels, np.uint8)


def compressed_to_rgb(message: CompressedImage, name: str = "image") -> NDArray[np.uint8]:
    """Decode a JPEG, PNG or other picture file to (H, W, 3) uint8 RGB, unrotated, whatever its EXIF data say.

    Raises EncodingError for a depth image and ImageError for data that cannot be decoded.
    """
    if "compressedDepth" in message.format:
        raise EncodingError(
            f"The image on {name} is a depth image ({message.format!r})",
            expected="a colour image",
            change="Connect the colour topic",
        )
    pixels = _decoded(bytes(message.data), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION, message.format, name)
    # "compressed rgb" says that the encoder was given RGB where it takes BGR.
    swapped = "compressed rgb" in message.format
    return np.ascontiguousarray(pixels if swapped else pixels[..., ::-1], np.uint8)


def compressed_depth_to_array(
    message: CompressedImage, name: str = "depth", error: type[FmhError] = ImageError
) -> NDArray[Any]:
    """Decode compressedDepth (PNG or RVL) to (H, W): uint16 as published, or float32 metres with NaN where unknown.

    A 32FC1 image is kept as inverse depth: ``depth = a / (value - b)``, a and b in the 12 bytes before the picture.
    Raises EncodingError for another format and ``error`` for data that cannot be decoded.
    """
    if "compressedDepth" not in message.format:
        raise EncodingError(
            f"The image on {name} has the format {message.format!r}",
            expected="compressedDepth, as PNG or RVL",
            change="Connect the topic <depth>/compressedDepth",
        )
    data = bytes(message.data)
    values = _coded_depth(data[DEPTH_HEADER:], message.format, name, error)
    if not message.format.startswith("32FC1"):
        return values
    a, b = np.frombuffer(data, "<f4", 2, 4)
    with np.errstate(divide="ignore", invalid="ignore"):
        depth = (a / (values.astype(np.float32) - b)).astype(np.float32)
    return np.where(values > 0, depth, np.float32(np.nan))


def _coded_depth(data: bytes, kind: str, name: str, error: type[FmhError]) -> NDArray[np.uint16]:
    """Decode what follows the header of compressedDepth."""
    if "rvl" in kind.lower():
        try:
            return decode_rvl(data)
        except ValueError as reason:
            raise error(
                f"The compressed image on {name} ({kind!r}, {len(data)} bytes) cannot be decoded: {reason}",
                expected="a complete RVL image",
            ) from reason
    values = _decoded(data, cv2.IMREAD_UNCHANGED, kind, name, error)
    if values.dtype != np.uint16 or values.ndim != 2:
        raise error(f"The depth image on {name} holds {values.dtype} of shape {values.shape}", expected="16 bits grey")
    return values


def array_to_image(pixels: NDArray[Any], encoding: str, header: Header) -> Image:
    """Return an image message of (H, W) or (H, W, C) pixels of exactly that encoding. Raises EncodingError."""
    layout = find_encoding(encoding)
    channels = 1 if pixels.ndim == 2 else pixels.shape[-1]
    if layout is None or pixels.ndim not in (2, 3) or channels != layout.channels or pixels.dtype != layout.dtype:
        raise EncodingError(f"{pixels.dtype} of shape {pixels.shape} is not {encoding!r}", expected="its type and size")
    data = array("B")
    data.frombytes(np.ascontiguousarray(pixels).reshape(-1).view(np.uint8).data)
    return Image(
        header=header,
        height=pixels.shape[0],
        width=pixels.shape[1],
        encoding=encoding,
        is_bigendian=int(sys.byteorder == "big"),
        step=pixels.shape[1] * layout.pixel_bytes,
        data=data,
    )


def _check_size(message: Image, encoding: Encoding, name: str, error: type[FmhError]) -> None:
    row = message.width * encoding.pixel_bytes
    needed = message.step * (message.height - 1) + row
    if message.width > 0 and message.height > 0 and message.step >= row and len(message.data) >= needed:
        return
    raise error(
        f"The image on {name} says {message.width}x{message.height} {message.encoding} with {message.step} bytes a row "
        f"and has {len(message.data)} bytes",
        expected=f"at least {row} bytes a row, {max(needed, 1)} in all",
        change="The driver fills the message wrongly",
    )


def _array_from_rows(message: Image, encoding: Encoding) -> NDArray[Any]:
    """Look at the data as an array, without padding and in the machine's byte order."""
    dtype = np.dtype(encoding.dtype).newbyteorder(">" if message.is_bigendian else "<")
    shape = (message.height, message.width, encoding.channels)
    strides = (message.step, encoding.pixel_bytes, dtype.itemsize)
    pixels: NDArray[Any] = np.ndarray(shape, dtype, np.frombuffer(message.data, np.uint8).data, 0, strides)
    if encoding.channels == 1:
        pixels = pixels[..., 0]
    return pixels.astype(dtype.newbyteorder("="), copy=False)


def _eight_bits(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    """Scale 16 bits to 8, rounded."""
    return np.asarray(cv2.convertScaleAbs(pixels, alpha=255 / 65535), np.uint8).reshape(pixels.shape)


def _decoded(data: bytes, flags: int, kind: str, name: str, error: type[FmhError] = ImageError) -> NDArray[Any]:
    pixels = None
    if data:
        try:
            pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
        except cv2.error:  # a header that asks for more than OpenCV gives
            pixels = None
    if pixels is None:
        raise error(
            f"The compressed image on {name} ({kind!r}, {len(data)} bytes) cannot be decoded",
            expected="a complete JPEG or PNG",
            change="Look at it with another viewer: was it cut off?",
        )
    decoded: NDArray[Any] = pixels
    return decoded
