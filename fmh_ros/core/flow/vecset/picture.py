# SPDX-License-Identifier: Apache-2.0
"""The completed view as the picture that image-conditioned generators are shown."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from fmh_ros.core.cues.types import ObjectView
from fmh_ros.core.errors import EmptyObjectMaskError


def cut_out(view: ObjectView) -> NDArray[np.uint8]:
    """The completed view as RGBA (S, S, 4): the object opaque, all else transparent white, which resizing mixes in."""
    size = view.image.shape[1::-1]
    mask = view.mask if view.mask.shape == view.image.shape[:2] else cv2.resize(view.mask, size)
    alpha = np.round(255 * np.clip(mask, 0, 1)).astype(np.uint8)
    alpha[alpha < 128] = 0
    return np.dstack([np.where(alpha[..., None] > 0, view.image, np.uint8(255)), alpha])


def opaque_box(picture: NDArray[np.uint8], least: int) -> tuple[slice, slice]:
    """Rows and columns of an RGBA picture's (H, W, 4) opaque part.

    Raises EmptyObjectMaskError unless that spans ``least`` pixels both ways.
    """
    rows, columns = np.nonzero(picture[..., 3])
    if len(rows) == 0 or min(np.ptp(rows), np.ptp(columns)) + 1 < least:
        raise EmptyObjectMaskError(
            "The object's picture for the generator is empty",
            expected=f"an object of at least {least} by {least} pixels",
            change="Give --object-box or --object-point, or move the camera closer",
        )
    return slice(int(rows.min()), int(rows.max()) + 1), slice(int(columns.min()), int(columns.max()) + 1)


def on_white(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Blend an RGBA picture (H, W, 4) with white, (H, W, 3)."""
    share = picture[..., 3:].astype(np.float32) / 255
    blended = picture[..., :3] * share + np.float32(255) * (1 - share)
    return blended.clip(0, 255).astype(np.uint8)
