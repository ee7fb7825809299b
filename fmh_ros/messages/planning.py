# SPDX-License-Identifier: Apache-2.0
"""Messages of packages that need not be installed: the object for MoveIt, detections for readers of vision_msgs."""

from __future__ import annotations

import importlib
import importlib.util
from types import ModuleType
from typing import Any

import numpy as np
from shape_msgs.msg import Mesh, MeshTriangle

from fmh_ros.core.reconstruction.types import Reconstruction
from fmh_ros.core.transforms import Similarity
from fmh_ros.messages.basics import flat, to_points, to_pose, to_vector
from fmh_ros.messages.decimate import decimated
from fmh_ros.messages.frames import OBJECT_FRAME, hand_frame
from fmh_ros.messages.result import result_header


def optional_messages(package: str) -> ModuleType | None:
    """Return the message module of a package, None where it is not installed."""
    if importlib.util.find_spec(package) is None:
        return None
    return importlib.import_module(f"{package}.msg")


def to_collision_object(result: Reconstruction, most_faces: int, prefix: str = "") -> Any:
    """Return a moveit_msgs/CollisionObject that adds the object: its mesh in the object frame, and as subframes where
    the wrist is ("grasp") and each contact. Raises ModuleNotFoundError without moveit_msgs."""
    from moveit_msgs.msg import CollisionObject

    obj = result.object
    vertices, faces = decimated(obj.vertices, obj.faces, most_faces)
    mesh = Mesh(vertices=to_points(vertices))
    mesh.triangles = [MeshTriangle(vertex_indices=np.array(face, np.uint32)) for face in faces]
    T_object_camera = obj.T_camera_object.inverse()
    subframes = {"grasp": T_object_camera @ result.hand.T_camera_hand}
    for number, contact in enumerate(result.contacts):
        position = T_object_camera.apply(contact.position)
        subframes[f"contact_{contact.finger}_{number}"] = Similarity(np.eye(3), position)
    return CollisionObject(
        header=result_header(result),
        id=prefix + OBJECT_FRAME,
        pose=to_pose(obj.T_camera_object),
        meshes=[mesh],
        mesh_poses=[to_pose(Similarity())],
        subframe_names=list(subframes),
        subframe_poses=[to_pose(pose) for pose in subframes.values()],
        operation=CollisionObject.ADD,
    )


def to_detections(result: Reconstruction, made_id: str) -> Any:
    """Return a vision_msgs/Detection3DArray with the oriented boxes of object and hand.

    Raises ModuleNotFoundError without vision_msgs.
    """
    from vision_msgs.msg import Detection3DArray

    hand, obj = result.hand, result.object
    low, high = hand.vertices.min(0), hand.vertices.max(0)
    T_hand_box = Similarity(np.eye(3), (low + high) / 2)
    boxes = (
        (OBJECT_FRAME, obj.T_camera_object, obj.T_camera_object, obj.extents_m, result.quality.score),
        (hand_frame(hand), hand.T_camera_hand, hand.T_camera_hand @ T_hand_box, high - low, hand.score),
    )
    header = result_header(result)
    detections = [_detection(header, made_id, *box) for box in boxes]
    return Detection3DArray(header=header, detections=detections)


def _detection(
    header: Any, made_id: str, name: str, pose: Similarity, box: Similarity, size: np.ndarray, score: float
) -> Any:
    from vision_msgs.msg import BoundingBox3D, Detection3D, ObjectHypothesisWithPose

    hypothesis = ObjectHypothesisWithPose()
    hypothesis.hypothesis.class_id = name
    hypothesis.hypothesis.score = float(score)
    hypothesis.pose.pose = to_pose(pose)
    hypothesis.pose.covariance = np.asarray(flat(np.zeros(36), "d"))
    bbox = BoundingBox3D(center=to_pose(box), size=to_vector(size))
    return Detection3D(header=header, results=[hypothesis], bbox=bbox, id=made_id)
