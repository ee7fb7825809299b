# SPDX-License-Identifier: Apache-2.0
"""The reconstruction shaded from four sides beside the photo."""

from __future__ import annotations

from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from fmh_ros.core.export.overlay import draw_contacts
from fmh_ros.core.export.shading import HAND_COLOR, OBJECT_COLOR, Part, ShadedScene
from fmh_ros.core.export.text import write_text
from fmh_ros.core.frame.camera import CameraModel
from fmh_ros.core.frame.frame import Frame
from fmh_ros.core.hand.types import HandMesh
from fmh_ros.core.reconstruction.types import Contact, ObjectMesh, Quality
from fmh_ros.core.transforms import Similarity

FloatArray = NDArray[np.float64]
Image = NDArray[np.uint8]
#: x0, y0, x1, y1.
Square = tuple[float, float, float, float]

#: Side of one view, the gap between panels and the height of the footer, pixels.
PANEL, GAP, FOOTER = 440, 8, 44
#: How much of the surroundings the photo shows: side of its square in sides of the reconstruction's.
CONTEXT = 1.35
#: Share of a view that the reconstruction fills.
FILL = 0.92


class Viewable(Protocol):
    """What of a ``Reconstruction`` is drawn."""

    @property
    def frame(self) -> Frame: ...  # noqa: D102
    @property
    def hand(self) -> HandMesh: ...  # noqa: D102
    @property
    def object(self) -> ObjectMesh: ...  # noqa: D102
    @property
    def contacts(self) -> tuple[Contact, ...]: ...  # noqa: D102
    @property
    def quality(self) -> Quality: ...  # noqa: D102


def draw_views(result: Viewable) -> Image:
    """Return the picture (H, W, 3) uint8 RGB: photo, then camera, left, back and top view, then the main numbers.

    The first view is cut out of the photo's own camera, so it can be compared with the photo directly.
    """
    scene = ShadedScene(
        [
            Part(result.hand.T_camera_hand.apply(result.hand.vertices), result.hand.faces, HAND_COLOR),
            Part(result.object.T_camera_object.apply(result.object.vertices), result.object.faces, OBJECT_COLOR),
        ]
    )
    square = square_around(_points(result), result.frame.camera)
    crop = result.frame.camera.crop(square, PANEL, PANEL)
    around = {"left side": (-90.0, 0.0), "back": (180.0, 0.0), "top": (0.0, -89.0)}
    panels = [_panel(scene, crop, Similarity(), result.contacts, "camera view")]
    for name, (azimuth, elevation) in around.items():
        camera, pose = orbit(scene, azimuth, elevation)
        panels.append(_panel(scene, camera, pose, result.contacts, name))
    side = 2 * PANEL + GAP
    canvas = np.full((side + FOOTER, 2 * side + GAP, 3), 255, np.uint8)
    canvas[:side, :side] = cut_square(result.frame.image, square, side)
    for index, panel in enumerate(panels):
        row, column = divmod(index, 2)
        y, x = row * (PANEL + GAP), side + GAP + column * (PANEL + GAP)
        canvas[y : y + PANEL, x : x + PANEL] = panel
    write_text(canvas, _numbers(result), (14, side + 10), 22)
    return canvas


def _panel(
    scene: ShadedScene, camera: CameraModel, T_world_view: Similarity, contacts: tuple[Contact, ...], name: str
) -> Image:
    picture = scene.render(camera, T_world_view)
    T_view_world = T_world_view.inverse()
    moved = tuple(
        Contact(T_view_world.apply(contact.position), contact.normal, contact.finger, contact.gap_m)
        for contact in contacts
    )
    image = picture.image
    draw_contacts(image, moved, camera, picture.depth, 1.0)
    write_text(image, name, (12, 8), 19)
    return image


def orbit(scene: ShadedScene, azimuth: float, elevation: float, panel: int = PANEL) -> tuple[CameraModel, Similarity]:
    """Return a camera of ``panel`` pixels a side, and its pose, that looks at the scene's centre from a place turned
    round it, degrees, at no less than five radii."""
    a, e = np.radians([azimuth, elevation])
    turn_y = np.array([[np.cos(a), 0, np.sin(a)], [0, 1, 0], [-np.sin(a), 0, np.cos(a)]])
    turn_x = np.array([[1, 0, 0], [0, np.cos(e), -np.sin(e)], [0, np.sin(e), np.cos(e)]])
    rotation = turn_y @ turn_x
    distance = max(float(np.linalg.norm(scene.centre)), 5.0 * scene.radius)
    focal = FILL * 0.5 * panel * np.sqrt(distance**2 - scene.radius**2) / scene.radius
    middle = (panel - 1) / 2
    K = np.array([[focal, 0, middle], [0, focal, middle], [0, 0, 1.0]])
    return CameraModel(panel, panel, K), Similarity(rotation, scene.centre - distance * rotation[:, 2])


def _points(result: Viewable) -> FloatArray:
    """All vertices (V, 3) in the camera frame."""
    hand, obj = result.hand, result.object
    return np.concatenate([hand.T_camera_hand.apply(hand.vertices), obj.T_camera_object.apply(obj.vertices)])


def square_around(points: FloatArray, camera: CameraModel, context: float = CONTEXT) -> Square:
    """Return the square around projected points (N, 3), ``context`` times as wide as they are, in pixel-edge
    coordinates."""
    pixels = camera.project(points[points[:, 2] > 1e-3]) + 0.5
    low, high = pixels.min(0), pixels.max(0)
    (x, y), half = (low + high) / 2, 0.5 * context * float((high - low).max())
    return x - half, y - half, x + half, y + half


def cut_square(image: Image, square: Square, side: int) -> Image:
    """Cut a square of pixel-edge coordinates out of an image, at ``side`` pixels; light grey where there is none."""
    x0, y0, x1, _ = square
    scale = side / (x1 - x0)
    move = np.array([[scale, 0, scale * (0.5 - x0) - 0.5], [0, scale, scale * (0.5 - y0) - 0.5]])
    how = cv2.INTER_CUBIC if scale > 1 else cv2.INTER_LINEAR
    cut = cv2.warpAffine(
        image, move, (side, side), flags=how, borderMode=cv2.BORDER_CONSTANT, borderValue=(236, 238, 242)
    )
    return np.asarray(cut, np.uint8)


def _numbers(result: Viewable) -> str:
    quality = result.quality
    x, y, z = result.object.extents_m * 100
    parts = [
        f"score {quality.score:.2f}",
        f"object {x:.1f} x {y:.1f} x {z:.1f} cm",
        f"silhouette IoU object {quality.object_silhouette_iou:.2f}, hand {quality.hand_silhouette_iou:.2f}",
        f"keypoints {quality.keypoint_error_px:.1f} px",
        f"overlap {quality.penetration_cm3:.1f} cm3",
        f"{len(result.contacts)} contacts",
    ]
    return "   \u00b7   ".join(parts)
