# SPDX-License-Identifier: Apache-2.0
"""Pictures as messages."""

from __future__ import annotations

from sensor_msgs.msg import Image

from fmh_ros.core.export.overlay import draw_overlay
from fmh_ros.core.reconstruction.types import Reconstruction
from fmh_ros.messages.result import result_header
from fmh_ros.ros_compat import array_to_image


def to_overlay(result: Reconstruction) -> Image:
    """Return the source image with the result drawn on it, rgb8."""
    return array_to_image(draw_overlay(result), "rgb8", result_header(result))
