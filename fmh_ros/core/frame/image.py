# SPDX-License-Identifier: Apache-2.0
"""Reading photographs and masks from files, whatever their mode, bit depth or orientation."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from fmh_ros.core.errors import FileMissingError, FmhError, ImageError

#: Below this many pixels on the shorter side no hand can be found.
MIN_SIDE = 64
#: Diagonal of a full-frame sensor, millimetres: what a 35 mm equivalent focal length refers to.
FULL_FRAME_DIAGONAL_MM = 43.27


@dataclass(frozen=True)
class Photo:
    """A decoded photograph, upright.

    pixels : (H, W, 3) uint8 RGB.
    focal_px : focal length from the file's EXIF data, pixels, or None when it does not say.
    """

    pixels: NDArray[np.uint8]
    focal_px: float | None


def require_file(path: Path, what: str) -> None:
    """Raise FileMissingError unless ``path`` is a file that can be read; ``what`` names it to the user."""
    if not path.is_file():
        found = "is a folder" if path.is_dir() else "does not exist"
        raise FileMissingError(f"The {what} {path} {found}", expected="a readable file", change="Check the path")
    try:
        with path.open("rb") as stream:
            stream.read(1)
    except OSError as error:
        raise FileMissingError(
            f"The {what} {path} cannot be opened ({error.strerror})",
            expected="a readable file",
            change="Check its permissions",
        ) from error


def read_photo(path: Path) -> Photo:
    """Read an image file as upright 8-bit RGB.

    EXIF rotation is applied, transparency is laid over white, grey is repeated in three channels, and 16-bit grey is
    scaled by the number of bits it uses. Raises FileMissingError or ImageError.
    """
    require_file(path, "image")
    with _opened(path) as image:
        upright = ImageOps.exif_transpose(image)
        pixels = _to_rgb(upright, path)
        focal = _focal_from_exif(image, pixels.shape[1], pixels.shape[0])
    height, width = pixels.shape[:2]
    if min(height, width) < MIN_SIDE:
        raise ImageError(
            f"The image {path} is {width}x{height} pixels",
            expected=f"at least {MIN_SIDE} pixels on each side",
            change="Use a larger image, with the hand at least some 60 pixels wide",
        )
    return Photo(pixels, focal)


def read_mask(path: Path, error: type[FmhError]) -> NDArray[np.bool_]:
    """Read a mask file as (H, W) bool: true above half of the largest grey value (alpha counts as darkness).

    ``error`` is raised for a file that holds no image; ``.npy`` arrays are taken as they are, non-zero is true.
    """
    require_file(path, "mask")
    if path.suffix.lower() == ".npy":
        try:
            array = np.load(path, allow_pickle=False)
        except (ValueError, OSError, EOFError) as reason:
            raise error(f"The mask {path} is not a NumPy array ({reason})", expected="a 2-D array") from reason
        if array.ndim != 2:
            raise error(f"The mask {path} has shape {array.shape}", expected="a 2-D array, one value a pixel")
        result: NDArray[np.bool_] = np.nan_to_num(array) != 0
        return result
    try:
        with _opened(path) as image:
            upright = ImageOps.exif_transpose(image)
            grey = _grey_levels(upright)
    except ImageError as reason:
        raise error(str(reason), change="Save the mask as an 8-bit grey PNG, white on the object") from reason
    top = grey.max(initial=0.0)
    return np.asarray(grey > 0.5 * top) if top > 0 else np.zeros(grey.shape, bool)


def _opened(path: Path) -> Image.Image:
    """Open and fully decode, so that a truncated file is found here and not in the middle of a job."""
    try:
        image = Image.open(path)
        image.load()
    except Image.DecompressionBombError as reason:
        raise ImageError(
            f"The image {path} is too large ({reason})", expected="at most 178 megapixels", change="Reduce it first"
        ) from reason
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, EOFError) as reason:
        raise ImageError(
            f"The image {path} cannot be decoded ({reason})",
            expected="a complete JPEG, PNG, WebP, BMP or TIFF file",
            change="Open it in a viewer and export it again",
        ) from reason
    return image


def _to_rgb(image: Image.Image, path: Path) -> NDArray[np.uint8]:
    if image.mode.startswith("I") or image.mode == "F":
        grey = _scaled_to_bytes(np.asarray(image), path)
        return np.repeat(grey[..., None], 3, axis=2)
    if "A" in image.mode or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, rgba)
    return np.array(image.convert("RGB"))


def _scaled_to_bytes(values: NDArray[np.generic], path: Path) -> NDArray[np.uint8]:
    """Scale grey of more than 8 bits by the smallest usual bit depth that holds its largest value."""
    levels = np.asarray(values, np.float64)
    if not np.isfinite(levels).all() or levels.min() < 0:
        raise ImageError(
            f"The image {path} has values that are negative or not finite",
            expected="grey levels of 8 to 16 bits",
            change="Export it as an 8-bit PNG; a depth image belongs to --depth",
        )
    top = levels.max()
    bits = next((bits for bits in (8, 10, 12, 14, 16) if top < 2**bits), None)
    if top <= 1.0 and values.dtype.kind == "f":
        full = 1.0
    elif bits is None:
        raise ImageError(f"The image {path} has grey levels up to {top:.0f}", expected="at most 16 bits")
    else:
        full = 2.0**bits - 1
    return np.round(levels * (255.0 / full)).astype(np.uint8)


def _grey_levels(image: Image.Image) -> NDArray[np.float64]:
    if image.mode.startswith("I") or image.mode == "F":
        return np.asarray(image, np.float64)
    if "A" in image.mode or "transparency" in image.info:
        rgba = np.asarray(image.convert("RGBA"), np.float64)
        return np.asarray(rgba[..., :3].max(-1) * rgba[..., 3] / 255.0)
    return np.asarray(image.convert("L"), np.float64) if image.mode != "P" else _palette_levels(image)


def _palette_levels(image: Image.Image) -> NDArray[np.float64]:
    """A palette mask is a label image: any label but 0 is object, whatever its colour."""
    return (np.asarray(image) != 0).astype(np.float64)


def _focal_from_exif(image: Image.Image, width: int, height: int) -> float | None:
    """Focal length in pixels from the 35 mm equivalent, unless the picture was cropped after it was taken."""
    exif = image.getexif().get_ifd(ExifTags.IFD.Exif)
    try:
        equivalent = float(exif.get(ExifTags.Base.FocalLengthIn35mmFilm, 0))
        taken = sorted(float(exif.get(tag, 0)) for tag in (ExifTags.Base.ExifImageWidth, ExifTags.Base.ExifImageHeight))
    except (TypeError, ValueError):
        return None
    if not 5.0 <= equivalent <= 500.0:
        return None
    now = sorted((float(width), float(height)))
    if taken[0] > 0 and abs(taken[1] / taken[0] - now[1] / now[0]) > 0.02 * now[1] / now[0]:
        return None
    return equivalent / FULL_FRAME_DIAGONAL_MM * float(np.hypot(width, height))
