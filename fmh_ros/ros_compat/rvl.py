# SPDX-License-Identifier: Apache-2.0
"""RVL, the lossless coding of depth images by runs and variable lengths (A. D. Wilson, Fast Lossless Depth Image
Compression, ISS 2017), as ROS's compressedDepth transport writes it."""

from __future__ import annotations

import struct

import numpy as np
from numpy.typing import NDArray

#: More pixels than this are not an image but an attack or an error.
MOST_PIXELS = 100_000_000
#: So many groups of 3 bits hold any number of 32 bits.
_LONGEST = 11


def decode_rvl(data: bytes) -> NDArray[np.uint16]:
    """Decode to (H, W). ``data`` : width and height, uint32 little endian, and the coded pixels. Raises ValueError.

    The code is a row of numbers: how many pixels are zero, how many after them are not, the differences of those to the
    pixel before that was not zero, and so on.
    """
    if len(data) < 8:
        raise ValueError("the size is missing")
    width, height = struct.unpack_from("<II", data)
    size = width * height
    if not 0 < size <= MOST_PIXELS:
        raise ValueError(f"the size is {width}x{height}")
    numbers = _numbers(np.frombuffer(data, "<u4", (len(data) - 8) // 4, 8))
    places: list[NDArray[np.int64]] = []
    chosen: list[NDArray[np.int64]] = []
    at = read = 0
    while at < size:
        if read + 2 > len(numbers):
            raise ValueError(f"the data end at pixel {at} of {size}")
        zeros, others = int(numbers[read]), int(numbers[read + 1])
        at, read = at + zeros, read + 2
        if at + others > size or read + others > len(numbers) or zeros + others == 0:
            raise ValueError(f"a run of {zeros} and {others} pixels does not fit at pixel {at} of {size}")
        places.append(np.arange(at, at + others))
        chosen.append(numbers[read : read + others])
        at, read = at + others, read + others
    coded = np.concatenate(chosen)
    differences = (coded >> 1) ^ -(coded & 1)  # 0, -1, 1, -2, 2 ... are coded as 0, 1, 2, 3, 4 ...
    pixels = np.zeros(size, np.uint16)
    pixels[np.concatenate(places)] = np.cumsum(differences).astype(np.uint16)
    return pixels.reshape(height, width)


def _numbers(words: NDArray[np.uint32]) -> NDArray[np.int64]:
    """Read numbers in groups of 4 bits, the highest of a word first: 3 bits of the number, the lowest first, and one
    that says whether more follow."""
    groups = ((words[:, None] >> np.arange(28, -1, -4, dtype=np.uint32)) & 15).astype(np.int64).ravel()
    ends = np.flatnonzero(groups < 8)
    if not len(ends):
        return np.zeros(0, np.int64)
    groups = groups[: ends[-1] + 1]
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    if lengths.max() > _LONGEST:
        raise ValueError("a number has more than 32 bits")
    shifts = 3 * (np.arange(len(groups)) - np.repeat(starts, lengths))
    return np.asarray(np.add.reduceat((groups & 7) << shifts, starts), np.int64)
