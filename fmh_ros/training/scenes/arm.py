# SPDX-License-Identifier: Apache-2.0
"""The forearm behind a wrist: a tapered tube, bare or in a sleeve."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
RING = 20


def forearm(
    rng: np.random.Generator, scale: float, sleeve_from: float, reach: tuple[float, float] = (0.22, 0.34)
) -> tuple[FloatArray, NDArray[np.int64], FloatArray]:
    """Build a forearm that continues the rig's hand (hand frame, metres), bent at the wrist.

    Args:
        rng: decides bend, build and length.
        scale: size of the hand relative to the rig.
        sleeve_from: distance behind the wrist at which the tube widens to a sleeve, metres; inf for a bare arm.
        reach: shortest and longest length to draw, metres; more than a forearm's goes on straight to the shoulder.

    Returns:
        Vertices (V, 3), faces (F, 3) outward, and the distance behind the wrist of each vertex (V,), metres.
    """
    length = rng.uniform(*reach)
    along = np.sort(np.concatenate([np.linspace(-0.016, length, 16), sleeve_from + np.array([-1e-3, 1e-3])]))
    along = along[np.isfinite(along) & (along <= length)]
    t = np.clip(along / length, 0, 1)
    build = rng.uniform(0.85, 1.2)
    width = scale * (0.0265 + build * 0.018 * np.sqrt(t))
    depth = scale * (0.0195 + build * 0.02 * np.sqrt(t))
    loose = np.where(along > sleeve_from, rng.uniform(0.003, 0.018), 0.0)
    wrinkle = loose * 0.5 * np.sin(along * rng.uniform(100, 300) + rng.uniform(0, 6))
    width, depth = width + loose + wrinkle, depth + loose + wrinkle
    bend = np.radians([rng.normal(0, 22), rng.normal(0, 12)]).clip(-0.9, 0.9)
    # The bend is spread over the first four centimetres, as a wrist does.
    amount = np.clip((along + 0.016) / 0.045, 0, 1)
    pitch, yaw = bend[0] * amount, bend[1] * amount
    direction = np.stack([-np.cos(pitch) * np.cos(yaw), np.cos(pitch) * np.sin(yaw), np.sin(pitch)], 1)
    steps = np.diff(along, prepend=along[0])[:, None]
    centre = np.array([0.016 * scale, 0.0, -0.003]) + np.cumsum(steps * direction, 0)
    up = np.stack([np.sin(pitch), np.zeros_like(pitch), np.cos(pitch)], 1)
    side = np.cross(direction, up)
    side /= np.linalg.norm(side, axis=1, keepdims=True)
    up = np.cross(side, direction)
    angle = np.linspace(0, 2 * np.pi, RING, endpoint=False)
    ring = np.cos(angle)[None, :, None] * (width[:, None, None] * side[:, None])
    ring = ring + np.sin(angle)[None, :, None] * (depth[:, None, None] * up[:, None])
    vertices = (centre[:, None] + ring).reshape(-1, 3)
    count = len(along)
    i, j = np.meshgrid(np.arange(count - 1), np.arange(RING), indexing="ij")
    a, b = i * RING + j, i * RING + (j + 1) % RING
    quads = np.stack([a, b, a + RING, b, b + RING, a + RING], -1).reshape(-1, 3)
    caps = [[0, k + 1, k] for k in range(1, RING - 1)]
    last = (count - 1) * RING
    caps += [[last, last + k, last + k + 1] for k in range(1, RING - 1)]
    faces = np.concatenate([quads, np.array(caps)])
    outward = np.cross(vertices[faces[0, 1]] - vertices[faces[0, 0]], vertices[faces[0, 2]] - vertices[faces[0, 0]])
    if outward @ (vertices[faces[0, 0]] - centre[0]) < 0:
        faces = faces[:, ::-1]
    return vertices, np.ascontiguousarray(faces), np.repeat(along, RING)
