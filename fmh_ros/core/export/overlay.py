# SPDX-License-Identifier: Apache-2.0
"""The photo with the reconstruction drawn on it: silhouettes, skeleton and contacts."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from fmh_ros.core.cues.types import KEYPOINT_NAMES
from fmh_ros.core.export.text import write_lines
from fmh_ros.core.fields.mesh_queries import MeshQueries, join, render_first_hits
from fmh_ros.core.frame.camera import CameraModel
from fmh_ros.core.reconstruction.types import Contact, Reconstruction

FloatArray = NDArray[np.float64]
Image = NDArray[np.uint8]
Color = tuple[int, int, int]

HAND_LINE: Color = (255, 138, 61)
OBJECT_LINE: Color = (48, 156, 255)
CONTACT_COLOR: Color = (232, 38, 76)
WHITE: Color = (255, 255, 255)
#: Colours of the skeleton, thumb to little finger.
FINGER_COLORS: tuple[Color, ...] = ((255, 99, 71), (255, 193, 7), (76, 209, 95), (64, 196, 255), (186, 104, 255))
TINT = 0.28
#: The picture's longer side is brought between these, so that lines have the same weight on every photo.
LONGEST_SIDE = (960, 1600)


def draw_overlay(result: Reconstruction) -> Image:
    """Return the photo (H, W, 3) uint8 RGB with outlines of hand and object, landmarks and contacts."""
    image, camera = drawing_canvas(result)
    hand, obj, depth = _silhouettes(result, camera)
    unit = max(camera.width, camera.height) / 960.0
    for mask, color in ((hand, HAND_LINE), (obj, OBJECT_LINE)):
        image[mask] = ((1 - TINT) * image[mask] + TINT * np.array(color)).astype(np.uint8)
    for mask, color in ((hand, HAND_LINE), (obj, OBJECT_LINE)):
        _outline(image, mask, color, unit)
    factor = camera.width / result.frame.camera.width
    draw_skeleton(image, (result.observation.keypoints_2d + 0.5) * factor - 0.5, unit)
    draw_contacts(image, result.contacts, camera, depth, unit)
    write_lines(image, [_caption(result)], unit)
    return image


def drawing_canvas(result: Reconstruction) -> tuple[Image, CameraModel]:
    """Return a copy of the photo at a size that is good to draw on, and its camera."""
    camera = result.frame.camera
    longest = max(camera.width, camera.height)
    factor = np.clip(longest, *LONGEST_SIDE) / longest
    size = (round(camera.width * factor), round(camera.height * factor))
    how = cv2.INTER_CUBIC if factor > 1 else cv2.INTER_AREA
    image = np.array(cv2.resize(result.frame.image, size, interpolation=how), np.uint8)
    return image, camera.crop((0, 0, camera.width, camera.height), *size)


def draw_skeleton(image: Image, keypoints: FloatArray, unit: float) -> None:
    """Draw the 21 landmarks (21, 2) px and the bones between them; ``unit`` scales the line widths."""
    points = [_subpixel(point) for point in keypoints]
    shift = {"lineType": cv2.LINE_AA, "shift": 4}
    bones = [(0 if joint % 4 == 1 else joint - 1, joint, (joint - 1) // 4) for joint in range(1, len(KEYPOINT_NAMES))]
    for start, end, _ in bones:
        cv2.line(image, points[start], points[end], (20, 20, 20), max(2, round(4.5 * unit)), **shift)
    for start, end, finger in bones:
        cv2.line(image, points[start], points[end], FINGER_COLORS[finger], max(1, round(2.5 * unit)), **shift)
    for index, point in enumerate(points):
        color = WHITE if index == 0 else FINGER_COLORS[(index - 1) // 4]
        cv2.circle(image, point, round(4.5 * unit * 16), (20, 20, 20), -1, **shift)
        cv2.circle(image, point, round(3.2 * unit * 16), color, -1, **shift)


def draw_contacts(
    image: Image, contacts: tuple[Contact, ...], camera: CameraModel, depth: FloatArray, unit: float
) -> None:
    """Mark contacts: a ringed disc where the point is seen, a faint dot where the surface ``depth`` (H, W) hides it."""
    shift = {"lineType": cv2.LINE_AA, "shift": 4}
    hidden: list[tuple[int, int]] = []
    seen: list[tuple[int, int]] = []
    for contact in contacts:
        if contact.position[2] <= 0:
            continue
        pixel = camera.project(contact.position)
        column, row = (int(value) for value in np.round(pixel))
        inside = 0 <= row < camera.height and 0 <= column < camera.width
        visible = inside and not depth[row, column] < contact.position[2] - 0.002
        (seen if visible else hidden).append(_subpixel(pixel))
    faint = image.copy()
    for centre in hidden:
        cv2.circle(faint, centre, round(2.0 * unit * 16), CONTACT_COLOR, -1, **shift)
    image[:] = cv2.addWeighted(faint, 0.55, image, 0.45, 0)
    for centre in seen:
        cv2.circle(image, centre, round(3.6 * unit * 16), WHITE, -1, **shift)
        cv2.circle(image, centre, round(2.5 * unit * 16), CONTACT_COLOR, -1, **shift)


def _silhouettes(
    result: Reconstruction, camera: CameraModel
) -> tuple[NDArray[np.bool_], NDArray[np.bool_], FloatArray]:
    hand = (result.hand.T_camera_hand.apply(result.hand.vertices), result.hand.faces)
    obj = (result.object.T_camera_object.apply(result.object.vertices), result.object.faces)
    vertices, faces, part = join([hand, obj])
    depth, face = render_first_hits(MeshQueries(vertices, faces), camera)
    which = np.where(face >= 0, part[face], -1)
    return which == 0, which == 1, depth


def _outline(image: Image, mask: NDArray[np.bool_], color: Color, unit: float) -> None:
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(image, contours, -1, color, max(1, round(2.2 * unit)), cv2.LINE_AA)


def _caption(result: Reconstruction) -> str:
    quality = result.quality
    return (
        f"{result.hand.side} hand (orange), object (blue), {len(result.contacts)} contacts (red)"
        f"   \u00b7   score {quality.score:.2f}"
    )


def _subpixel(point: FloatArray) -> tuple[int, int]:
    x, y = (int(value) for value in np.round(np.clip(point, -1e4, 1e5) * 16))
    return x, y
