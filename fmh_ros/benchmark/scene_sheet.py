# SPDX-License-Identifier: Apache-2.0
"""Scenes on one picture, each with the outlines of its masks and its true joints, to look at before measuring."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

from fmh_ros.benchmark.store import load_scene
from fmh_ros.benchmark.types import BenchmarkScene
from fmh_ros.core.export.text import write_text

Image = NDArray[np.uint8]

#: Panel and caption in pixels; scenes side by side.
WIDTH, HEIGHT, CAPTION, ACROSS = 400, 300, 18, 6
HAND, VISIBLE, WHOLE, JOINT = (80, 220, 120), (255, 160, 40), (255, 60, 160), (255, 255, 255)


def scene_sheet(folders: Sequence[Path]) -> bytes:
    """Return a JPEG with a panel per scene: the hand green, what is seen of the object orange, all of it pink."""
    panels = [_panel(load_scene(folder)) for folder in folders]
    lines = -(-len(panels) // ACROSS)
    sheet = np.full((lines * (HEIGHT + CAPTION), ACROSS * WIDTH, 3), 255, np.uint8)
    for index, panel in enumerate(panels):
        top, left = index // ACROSS * (HEIGHT + CAPTION), index % ACROSS * WIDTH
        sheet[top : top + HEIGHT + CAPTION, left : left + WIDTH] = panel
    stream = io.BytesIO()
    Pillow.fromarray(sheet).save(stream, "JPEG", quality=90)
    return stream.getvalue()


def _panel(scene: BenchmarkScene) -> Image:
    picture = scene.frame.image.copy()
    height, width = picture.shape[:2]
    scale = min(WIDTH / width, HEIGHT / height)
    thickness = max(1, round(1.2 / scale))
    for mask, colour in ((scene.hand_mask, HAND), (scene.amodal_mask, WHOLE), (scene.object_mask, VISIBLE)):
        outlines, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(picture, outlines, -1, colour, thickness)
    for x, y in scene.keypoints_2d:
        cv2.circle(picture, (round(x), round(y)), thickness + 1, JOINT, -1)
    small = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    panel = np.full((CAPTION + HEIGHT, WIDTH, 3), 255, np.uint8)
    panel[CAPTION : CAPTION + small.shape[0], : small.shape[1]] = small
    facts = scene.attributes
    text = f"{scene.name[-4:]} {facts.object_name[4:]} {facts.side} {facts.grasp} {facts.occlusion:.0%}"
    write_text(panel, f"{text} {facts.distance_m:.2f} m", (3, 2), 12)
    return panel
