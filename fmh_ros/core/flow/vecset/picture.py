# SPDX-License-Identifier: Apache-2.0
"""The completed view as the picture that image-conditioned generators are shown."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from fmh_ros.core.cues.types import ObjectView


def cut_out(view: ObjectView) -> NDArray[np.uint8]:
    """The completed view as RGBA (S, S, 4): the object opaque, all else transparent white, which resizing mixes in."""
    size = view.image.shape[1::-1]
    mask = view.mask if view.mask.shape == view.image.shape[:2] else cv2.resize(view.mask, size)
    alpha = np.round(255 * np.clip(mask, 0, 1)).astype(np.uint8)
    alpha[alpha < 128] = 0
    return np.dstack([np.where(alpha[..., None] > 0, view.image, np.uint8(255)), alpha])
