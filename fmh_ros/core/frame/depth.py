# SPDX-License-Identifier: Apache-2.0
"""Reading depth images: 16-bit PNG in millimetres or NumPy arrays in metres, aligned with the colour image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from fmh_ros.core.errors import DepthError
from fmh_ros.core.frame.image import require_file

#: A hand that can be reconstructed is this far from the camera, metres (median of the whole depth image).
PLAUSIBLE_M = (0.05, 30.0)
MILLIMETRE = 0.001


def read_depth(path: Path, scale: float | None = None) -> NDArray[np.float32]:
    """Read a depth file as (H, W) float32 metres along z, NaN where unknown.

    ``scale`` : metres per unit of the file; None takes integers as millimetres and floats as metres. Zero, negative,
    NaN and infinite values are unknown. Raises FileMissingError or DepthError.
    """
    require_file(path, "depth image")
    raw = _read_array(path) if path.suffix.lower() == ".npy" else _read_picture(path)
    if scale is not None and not (np.isfinite(scale) and scale > 0):
        raise DepthError(f"The depth scale is {scale}", expected="metres per unit, for instance 0.001 for millimetres")
    return to_metres(raw, scale, name=str(path))


def to_metres(raw: NDArray[np.generic], scale: float | None, name: str) -> NDArray[np.float32]:
    """Convert raw depth (H, W) to float32 metres with NaN where unknown; ``name`` is used in messages.

    Raises DepthError when nothing is known or the values can only be in another unit.
    """
    integer = raw.dtype.kind in "ui"
    metres_per_unit = scale if scale is not None else (MILLIMETRE if integer else 1.0)
    depth = np.asarray(raw, np.float64) * metres_per_unit
    known = np.isfinite(depth) & (depth > 0)
    if not known.any():
        negative = bool((depth < 0).any())
        raise DepthError(
            f"The depth image {name} has no known value ({'all are negative' if negative else 'all are 0 or NaN'})",
            expected="distances along z, positive in front of the camera",
            change="Negate it (its z axis points backwards)" if negative else "Check the topic or file",
        )
    _check_unit(float(np.median(depth[known])), metres_per_unit, name)
    return np.where(known, depth, np.nan).astype(np.float32)


def check_aligned(depth: NDArray[np.float32], width: int, height: int, name: str) -> None:
    """Raise DepthError unless ``depth`` has the size of the upright colour image."""
    if depth.shape == (height, width):
        return
    rotated = depth.shape == (width, height)
    raise DepthError(
        f"The depth image {name} is {depth.shape[1]}x{depth.shape[0]} pixels, the image is {width}x{height}",
        expected="depth aligned with the colour image, pixel for pixel",
        change=(
            "Rotate it as the image's EXIF orientation says"
            if rotated
            else "Use the depth that is registered to the colour camera (aligned_depth_to_color), not the raw one"
        ),
    )


def _check_unit(median: float, metres_per_unit: float, name: str) -> None:
    low, high = PLAUSIBLE_M
    if low <= median <= high:
        return
    seen = f"The depth image {name} has a median of {median:.4g} m when one unit is {metres_per_unit:g} m"
    for scale, unit in ((1e-3, "millimetres"), (1.0, "metres"), (1e-4, "tenths of a millimetre")):
        if low <= median / metres_per_unit * scale <= high:
            raise DepthError(
                seen,
                expected=f"a scene {low:g} to {high:g} m away",
                change=f"The values look like {unit}: pass --depth-scale {scale:g}",
            )
    raise DepthError(seen, expected=f"a scene {low:g} to {high:g} m away", change="Pass the unit with --depth-scale")


def _read_array(path: Path) -> NDArray[np.generic]:
    try:
        array = np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise DepthError(
            f"The depth file {path} is not a NumPy array ({error})", expected="a 2-D array saved with numpy.save"
        ) from error
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fui" or array.squeeze().ndim != 2:
        kind = f"{array.dtype} with shape {array.shape}" if isinstance(array, np.ndarray) else "an archive"
        raise DepthError(
            f"The depth file {path} holds {kind}", expected="a 2-D array of floats (metres) or integers (millimetres)"
        )
    result: NDArray[np.generic] = array.squeeze()
    return result


def _read_picture(path: Path) -> NDArray[np.generic]:
    try:
        with Image.open(path) as image:
            image.load()
            mode, array = image.mode, np.asarray(image)
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError, ValueError) as error:
        raise DepthError(
            f"The depth image {path} cannot be decoded ({error})", expected="a complete 16-bit PNG or a .npy file"
        ) from error
    if mode.startswith("I") or mode == "F":
        return array
    raise DepthError(
        f"The depth image {path} has 8 bits a channel (mode {mode})",
        expected="one channel of 16 bits in millimetres; 8 bits is a picture of depth and not depth",
        change="Save the depth as a 16-bit PNG in millimetres, or as a .npy array in metres",
    )
