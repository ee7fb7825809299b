# SPDX-License-Identifier: Apache-2.0
"""Captions in pictures, in Pillow's own typeface."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Color = tuple[int, int, int]


def write_text(
    image: NDArray[np.uint8], text: str, position: tuple[float, float], size: float, color: Color = (40, 44, 52)
) -> None:
    """Write one line with its top left corner at ``position`` (x, y), in place; ``size`` in pixels."""
    canvas = Image.fromarray(image)
    ImageDraw.Draw(canvas).text(position, text, fill=color, font=ImageFont.load_default(size))
    image[:] = np.asarray(canvas)


def write_lines(image: NDArray[np.uint8], lines: list[str], unit: float) -> None:
    """Write captions in the lower left corner on a dark translucent plate, in place; ``unit`` scales the text.

    Text that would not fit is made smaller.
    """
    width = image.shape[1]
    size = 19.0 * unit
    longest = max(ImageFont.load_default(size).getlength(line) for line in lines)
    size *= min(1.0, (width - 3.2 * size) / longest)
    font = ImageFont.load_default(size)
    longest = max(font.getlength(line) for line in lines)
    pad, step = 0.55 * size, 1.3 * size
    right, top = round(longest + 2.6 * pad), round(image.shape[0] - len(lines) * step - 1.1 * pad)
    plate = image[top:, :right]
    image[top:, :right] = (0.32 * plate + 0.68 * np.array((18, 20, 24))).astype(np.uint8)
    for index, line in enumerate(lines):
        write_text(image, line, (1.2 * pad, top + 0.45 * pad + index * step), size, (245, 246, 248))
