# SPDX-License-Identifier: Apache-2.0
"""An encoder of RVL depth images, to test the decoder with."""

from __future__ import annotations

import struct

import numpy as np


def encode_rvl(pixels: np.ndarray) -> bytes:
    """A plain encoder, number by number, as the paper describes it."""
    groups: list[int] = []

    def put(number: int) -> None:
        while True:
            number, low = number >> 3, number & 7
            groups.append(low | (8 if number else 0))
            if not number:
                return

    flat, at, before = [int(value) for value in pixels.ravel()], 0, 0
    while at < len(flat):
        begin = at
        while at < len(flat) and flat[at] == 0:
            at += 1
        put(at - begin)
        begin = at
        while at < len(flat) and flat[at] != 0:
            at += 1
        put(at - begin)
        for value in flat[begin:at]:
            difference, before = value - before, value
            put(2 * difference if difference >= 0 else -2 * difference - 1)
    groups += [0] * (-len(groups) % 8)
    words = [
        int("".join(f"{group:x}" for group in groups[place : place + 8]), 16) for place in range(0, len(groups), 8)
    ]
    return struct.pack("<II", pixels.shape[1], pixels.shape[0]) + struct.pack(f"<{len(words)}I", *words)
