# SPDX-License-Identifier: Apache-2.0
"""Pictures as messages."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from fmh_ros.core.export.overlay import draw_overlay
from fmh_ros.core.reconstruction.types import Reconstruction
from fmh_ros.messages.basics import flat
from fmh_ros.messages.result import result_header


def to_overlay(result: Reconstruction) -> Image:
    """Return the source image with the result drawn on it, rgb8."""
    return to_rgb_image(draw_overlay(result), result_header(result))


def to_rgb_image(pixels: NDArray[np.uint8], header: Header) -> Image:
    """Return pixels (H, W, 3) as an rgb8 image."""
    height, width = pixels.shape[:2]
    return Image(header=header, height=height, width=width, encoding="rgb8", step=3 * width, data=flat(pixels, "B"))
