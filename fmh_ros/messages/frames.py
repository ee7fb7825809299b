# SPDX-License-Identifier: Apache-2.0
"""Named coordinate frames of a result, for TF and for poses of the hand's joints."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from geometry_msgs.msg import PoseArray, TransformStamped
from std_msgs.msg import Header

from fmh_ros.core.cues.types import KEYPOINT_NAMES
from fmh_ros.core.hand.types import HandMesh
from fmh_ros.core.reconstruction.types import Reconstruction
from fmh_ros.core.transforms import Similarity
from fmh_ros.messages.basics import FloatArray, to_pose, to_transform
from fmh_ros.messages.result import result_header

OBJECT_FRAME = "object"
#: Places of the five fingertips among the keypoints.
TIPS = tuple(index for index, name in enumerate(KEYPOINT_NAMES) if name.endswith("_tip"))


def hand_frame(hand: HandMesh) -> str:
    """Name of the hand's frame."""
    return f"hand_{hand.side}"


def named_poses(result: Reconstruction, prefix: str = "") -> dict[str, Similarity]:
    """Return the poses in the camera frame of hand, five fingertips and object, by frame name.

    A fingertip's frame: origin at the tip, x along the last bone away from the palm, z as near to the hand's z (out of
    the back of the hand) as that allows.
    """
    hand, name = result.hand, prefix + hand_frame(result.hand)
    joints = joint_poses(hand)
    poses = {name: hand.T_camera_hand}
    poses |= {f"{name}_{KEYPOINT_NAMES[tip]}": joints[tip] for tip in TIPS}
    return {**poses, prefix + OBJECT_FRAME: result.object.T_camera_object}


def joint_poses(hand: HandMesh) -> list[Similarity]:
    """Return the poses of the 21 keypoints in the camera frame; x along the bone that ends or, at a base, begins there.

    The wrist has the hand's own orientation.
    """
    poses = [hand.T_camera_hand]
    for joint in range(1, len(KEYPOINT_NAMES)):
        is_base = joint % 4 == 1
        start, end = (joint, joint + 1) if is_base else (joint - 1, joint)
        rotation = _along(hand.keypoints[end] - hand.keypoints[start])
        poses.append(hand.T_camera_hand @ Similarity(rotation, hand.keypoints[joint]))
    return poses


def to_hand_joints(result: Reconstruction) -> PoseArray:
    """Return the 21 joints in the order of Hand.keypoints, in the camera frame.

    Poses and not a JointState: hand models differ in their angles, but all have these points, and retargeting to robot
    hands starts from them.
    """
    return PoseArray(header=result_header(result), poses=[to_pose(pose) for pose in joint_poses(result.hand)])


def to_transforms(
    poses_camera: Mapping[str, Similarity], header: Header, T_parent_camera: Similarity | None = None
) -> list[TransformStamped]:
    """Return one transform for each named pose in the camera frame, as children of the header's frame.

    T_parent_camera : pose of the camera in the header's frame, None when that is the camera's.
    """
    parent = Similarity() if T_parent_camera is None else T_parent_camera
    return [
        TransformStamped(header=header, child_frame_id=name, transform=to_transform(parent @ pose))
        for name, pose in poses_camera.items()
    ]


def _along(direction: FloatArray) -> FloatArray:
    """Rotation (3, 3) whose x axis is ``direction`` and whose z axis is as near to (0, 0, 1) as possible."""
    length = float(np.linalg.norm(direction))
    x = direction / length if length > 0 else np.array([1.0, 0.0, 0.0])
    up = np.array([0.0, 0.0, 1.0])
    if abs(x @ up) > 0.999:  # a bone straight out of the back of the hand: any z across it will do
        up = np.array([-1.0, 0.0, 0.0])
    z = up - x * (x @ up)
    z /= np.linalg.norm(z)
    return np.stack([x, np.cross(z, x), z], -1)
