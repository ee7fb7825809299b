# SPDX-License-Identifier: Apache-2.0
"""The message HandObject read back into the core's types, and checked: a message may come from anywhere."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from follow_my_hold.msg import Contact as ContactMsg
from follow_my_hold.msg import Hand as HandMsg
from follow_my_hold.msg import HandObject
from follow_my_hold.msg import Object as ObjectMsg
from follow_my_hold.msg import Quality as QualityMsg
from numpy.typing import NDArray

from fmh_ros.core.errors import UsageError
from fmh_ros.core.frame.frame import Side
from fmh_ros.core.hand.types import FINGERS, HandMesh
from fmh_ros.core.reconstruction.types import Contact, ObjectMesh, Quality
from fmh_ros.messages.basics import from_pose, from_time, from_xyz, rows
from fmh_ros.messages.result import CUBIC_METRES_PER_CM3


@dataclass(frozen=True)
class ReceivedResult:
    """What a HandObject message says, in the core's types; the image and its masks are not part of a message.

    stamp_ns, frame_id : of the source image; keypoints_2d : (21, 2) pixels of the full-size image.
    """

    id: str
    frame_id: str
    stamp_ns: int
    hand: HandMesh
    keypoints_2d: NDArray[np.float64]
    object: ObjectMesh
    contacts: tuple[Contact, ...]
    quality: Quality
    warnings: tuple[str, ...]


def from_hand_object(message: HandObject) -> ReceivedResult:
    """Read a message. Raises UsageError when its arrays do not fit together or are not finite."""
    return ReceivedResult(
        id=message.id,
        frame_id=message.header.frame_id,
        stamp_ns=from_time(message.header.stamp),
        hand=_hand(message.hand),
        keypoints_2d=rows(message.hand.keypoints_2d, 2),
        object=_object(message.object),
        contacts=tuple(_contact(contact) for contact in message.contacts),
        quality=_quality(message.quality),
        warnings=tuple(message.quality.warnings),
    )


def _hand(message: HandMsg) -> HandMesh:
    vertices, faces = _mesh(message.vertices, message.faces, "hand")
    fingers = np.array(message.vertex_fingers, np.int64)
    if len(fingers) != len(vertices) or (len(fingers) and fingers.max() >= len(FINGERS)):
        raise _broken("hand.vertex_fingers", f"{len(vertices)} numbers below {len(FINGERS)}")
    sides: dict[int, Side] = {HandMsg.LEFT: "left", HandMsg.RIGHT: "right"}
    if message.side not in sides:
        raise _broken("hand.side", "LEFT or RIGHT")
    return HandMesh(
        side=sides[message.side],
        T_camera_hand=from_pose(message.wrist_pose),
        vertices=vertices,
        faces=faces,
        vertex_finger=fingers,
        keypoints=rows(message.keypoints, 3),
        scale=message.scale,
        scale_sigma=message.scale_sigma,
        reprojection_px=message.reprojection_error,
        score=message.score,
    )


def _object(message: ObjectMsg) -> ObjectMesh:
    vertices, faces = _mesh(message.vertices, message.faces, "object")
    return ObjectMesh(
        T_camera_object=from_pose(message.pose),
        vertices=vertices,
        faces=faces,
        extents_m=from_xyz(message.extents),
        volume_m3=message.volume,
        watertight=message.watertight,
    )


def _mesh(vertices: Any, faces: Any, name: str) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    if len(vertices) % 3 or len(faces) % 3:
        raise _broken(f"{name}.vertices or faces", "a multiple of three numbers")
    points = rows(vertices, 3)
    triangles = np.array(faces, np.int64).reshape(-1, 3)
    if not np.isfinite(points).all():
        raise _broken(f"{name}.vertices", "finite numbers")
    if len(triangles) and triangles.max() >= len(points):
        raise _broken(f"{name}.faces", f"indices below {len(points)}")
    return points, triangles


def _contact(message: ContactMsg) -> Contact:
    if message.finger >= len(FINGERS):
        raise _broken("contact.finger", f"a number below {len(FINGERS)}")
    return Contact(from_xyz(message.position), from_xyz(message.normal), FINGERS[message.finger], message.gap)


def _quality(message: QualityMsg) -> Quality:
    return Quality(
        score=message.score,
        hand_silhouette_iou=message.hand_silhouette_iou,
        object_silhouette_iou=message.object_silhouette_iou,
        keypoint_error_px=message.keypoint_error,
        depth_error_m=None if np.isnan(message.depth_error) else message.depth_error,
        penetration_cm3=message.penetration_volume / CUBIC_METRES_PER_CM3,
        contact_fraction=message.contact_fraction,
    )


def _broken(field: str, expected: str) -> UsageError:
    return UsageError(f"The HandObject message's {field} cannot be right", expected=expected)
