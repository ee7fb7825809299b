# SPDX-License-Identifier: Apache-2.0
"""Left hands: everything is reconstructed as a right hand in the mirrored frame, and this is where it is turned back.

Mirroring the camera frame at its yz plane keeps poses proper when each body's own frame is mirrored too: the hand frame
at its xz plane (``HandMesh``), the object frame so that its axes follow their usual rule in the real camera frame.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from fmh_ros.core.cues.types import PointMap, SceneMasks
from fmh_ros.core.hand.fit import mirror_observation
from fmh_ros.core.hand.types import HandMesh
from fmh_ros.core.progress import PreviewMesh
from fmh_ros.core.reconstruction.mesh import object_axes
from fmh_ros.core.reconstruction.types import Contact, ObjectMesh, Reconstruction
from fmh_ros.core.transforms import Similarity

_Scalar = TypeVar("_Scalar", bound=np.generic)
_CAMERA = np.diag([-1.0, 1.0, 1.0])
_HAND = np.diag([1.0, -1.0, 1.0])


def mirror_reconstruction(result: Reconstruction) -> Reconstruction:
    """Return the same scene seen in a mirror: image, camera, hand of the other side, object, contacts."""
    width = result.frame.camera.width
    return replace(
        result,
        frame=result.frame.mirrored(),
        observation=mirror_observation(result.observation, width),
        masks=mirror_masks(result.masks),
        hand=mirror_hand(result.hand),
        object=_mirror_object(result.object),
        contacts=tuple(_mirror_contact(c) for c in result.contacts),
    )


def mirror_masks(masks: SceneMasks) -> SceneMasks:
    """Flip every map horizontally."""
    amodal = masks.amodal_probability
    return replace(
        masks,
        hand=_flipped(masks.hand),
        object=_flipped(masks.object),
        object_probability=_flipped(masks.object_probability),
        amodal_probability=None if amodal is None else _flipped(amodal),
    )


def mirror_points(points: PointMap) -> PointMap:
    """The same surface seen in a mirror."""
    normals = None if points.normals is None else _flipped(points.normals) * np.array([-1, 1, 1], np.float32)
    return replace(points, depth=_flipped(points.depth), normals=normals)


def mirror_hand(hand: HandMesh) -> HandMesh:
    """The other hand, in its own frame convention (y negated)."""
    pose = hand.T_camera_hand
    return replace(
        hand,
        side="left" if hand.side == "right" else "right",
        T_camera_hand=Similarity(_CAMERA @ pose.rotation @ _HAND, _CAMERA @ pose.translation, pose.scale),
        vertices=hand.vertices @ _HAND,
        faces=np.ascontiguousarray(hand.faces[:, ::-1]),
        keypoints=hand.keypoints @ _HAND,
    )


def mirror_preview(mesh: PreviewMesh) -> PreviewMesh:
    """The same mesh seen in a mirror."""
    vertices = mesh.vertices * np.array([-1.0, 1.0, 1.0], np.float32)
    return PreviewMesh(vertices, np.ascontiguousarray(mesh.faces[:, ::-1]))


def _flipped(values: NDArray[_Scalar]) -> NDArray[_Scalar]:
    return np.ascontiguousarray(values[:, ::-1])


def _mirror_object(mesh: ObjectMesh) -> ObjectMesh:
    pose = mesh.T_camera_object
    axes = object_axes(_CAMERA @ pose.rotation)
    mirrored = Similarity(axes, _CAMERA @ pose.translation)
    vertices = mirrored.inverse().apply(pose.apply(mesh.vertices) @ _CAMERA)
    return replace(mesh, T_camera_object=mirrored, vertices=vertices, faces=np.ascontiguousarray(mesh.faces[:, ::-1]))


def _mirror_contact(contact: Contact) -> Contact:
    return replace(contact, position=_CAMERA @ contact.position, normal=_CAMERA @ contact.normal)
