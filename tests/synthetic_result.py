# SPDX-License-Identifier: Apache-2.0
"""A reconstruction made by hand, with known geometry: the shipped hand closed round a cylinder."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
import trimesh
from scipy.spatial.transform import Rotation

from fmh_ros.core.cues.types import HandObservation, SceneMasks
from fmh_ros.core.export.shading import HAND_COLOR, OBJECT_COLOR, Part, ShadedScene
from fmh_ros.core.frame.camera import CameraModel
from fmh_ros.core.frame.frame import Frame
from fmh_ros.core.guidance.report import PhaseReport
from fmh_ros.core.hand.rig import load_generic_rig
from fmh_ros.core.hand.types import HandMesh
from fmh_ros.core.reconstruction.contacts import find_contacts
from fmh_ros.core.reconstruction.mesh import place_in_object_frame
from fmh_ros.core.reconstruction.quality import measure_quality, render_parts
from fmh_ros.core.reconstruction.types import ObjectMesh, Reconstruction
from fmh_ros.core.transforms import Similarity

CAMERA = CameraModel(320, 240, np.array([[330.0, 0, 159.5], [0, 330.0, 119.5], [0, 0, 1.0]]), (), "given")
RADIUS, LENGTH = 0.028, 0.15


def cylinder(T_camera_hand: Similarity, radius: float = RADIUS, length: float = LENGTH) -> ObjectMesh:
    """A closed cylinder across the palm."""
    mesh = trimesh.creation.cylinder(radius=radius, height=length, sections=64).subdivide_to_size(0.01)
    in_palm = Similarity(Rotation.from_euler("x", 90, degrees=True).as_matrix(), np.array([0.085, 0.0, -0.042]))
    vertices = (T_camera_hand @ in_palm).apply(np.asarray(mesh.vertices))
    return place_in_object_frame(vertices, np.asarray(mesh.faces, np.int64))


def posed_hand(curl: float = 0.55) -> HandMesh:
    """The shipped right hand, half closed, 45 cm in front of the camera."""
    rig = load_generic_rig()
    rotations = torch.as_tensor(rig.curl(np.full(5, curl), 0.0, 0.9))
    vertices, keypoints = (part.numpy() for part in rig.pose(rotations))
    axes = np.stack([[0.35, -0.25, -0.2], np.zeros(3), [0.2, -0.3, 0.8]], -1)
    x = axes[:, 0] / np.linalg.norm(axes[:, 0])
    z = axes[:, 2] - x * (x @ axes[:, 2])
    z /= np.linalg.norm(z)
    pose = Similarity(np.stack([x, np.cross(z, x), z], -1), np.array([-0.07, 0.04, 0.47]))
    return HandMesh("right", pose, vertices, rig.faces, rig.vertex_finger, keypoints, 1.0, 0.08, 1.5, 0.9)


def synthetic_reconstruction() -> Reconstruction:
    """A whole result whose image and masks are rendered from the meshes themselves."""
    hand = posed_hand()
    obj = cylinder(hand.T_camera_hand)
    scene = ShadedScene(
        [
            Part(hand.T_camera_hand.apply(hand.vertices), hand.faces, HAND_COLOR),
            Part(obj.T_camera_object.apply(obj.vertices), obj.faces, OBJECT_COLOR),
        ]
    )
    picture = scene.render(CAMERA, Similarity())
    frame = Frame(picture.image, CAMERA, picture.depth.astype(np.float32))
    parts = render_parts(frame, hand, obj)
    pixels = CAMERA.project(hand.T_camera_hand.apply(hand.keypoints))
    box = (*pixels.min(0).tolist(), *pixels.max(0).tolist())
    observation = HandObservation("right", 0.98, 0.97, box, pixels, hand.keypoints.copy())
    masks = SceneMasks(parts.hand, parts.object, parts.object.astype(np.float32), None, 0.9)
    contacts = find_contacts(obj, hand)
    quality = measure_quality(frame, observation, masks, hand, obj, contacts)
    phases = (
        PhaseReport("hand", (0,), 20, 1.5, 0.5),
        PhaseReport("object", (1, 2), 30, 0.8, 0.4),
        PhaseReport("joint", (3, 4), 30, 0.9, 0.3),
    )
    return Reconstruction(
        frame, observation, masks, hand, obj, contacts, quality, phases, "embedded", "default", 7,
        {"detect": 0.1, "total": 0.2}, ("a warning",), {"fmh_ros": "0.1.0"},
    )  # fmt: skip


def with_quality(result: Reconstruction, **changes: float | None) -> Reconstruction:
    """The same result with some metrics replaced."""
    return replace(result, quality=replace(result.quality, **changes))
