# SPDX-License-Identifier: Apache-2.0
"""Messages that make one input."""

from __future__ import annotations

from dataclasses import dataclass

from sensor_msgs.msg import CameraInfo, CompressedImage, Image


@dataclass(frozen=True)
class MessageSet:
    """Messages that belong together; ``stamp_ns`` is the image's."""

    stamp_ns: int
    image: Image | CompressedImage
    camera_info: CameraInfo | None
    depth: Image | None
