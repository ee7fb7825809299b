# SPDX-License-Identifier: Apache-2.0
"""A result as markers for RViz and Foxglove: meshes, skeleton, contacts."""

from __future__ import annotations

import numpy as np
from geometry_msgs.msg import Vector3
from std_msgs.msg import ColorRGBA, Header
from visualization_msgs.msg import Marker, MarkerArray

from fmh_ros.core.cues.types import KEYPOINT_NAMES
from fmh_ros.core.export.overlay import CONTACT_COLOR, FINGER_COLORS
from fmh_ros.core.export.shading import HAND_COLOR, OBJECT_COLOR, Color
from fmh_ros.core.reconstruction.types import Reconstruction
from fmh_ros.core.transforms import Similarity
from fmh_ros.messages.basics import FloatArray, to_points, to_pose
from fmh_ros.messages.decimate import IntArray, decimated
from fmh_ros.messages.result import result_header

#: Metres.
BONE_WIDTH, JOINT_SIZE, CONTACT_SIZE = 0.003, 0.006, 0.005
ARROW_LENGTH, ARROW_SHAFT, ARROW_HEAD = 0.02, 0.0015, 0.004
OBJECT_ALPHA = 0.85


def to_markers(result: Reconstruction, most_faces: int) -> MarkerArray:
    """Return markers in the camera frame: meshes of at most ``most_faces`` triangles, contacts, skeleton.

    The first marker deletes what an earlier result left.
    """
    header = result_header(result)
    hand, obj = result.hand, result.object
    markers = [
        Marker(header=header, action=Marker.DELETEALL),
        _mesh(header, "hand", hand.T_camera_hand, hand.vertices, hand.faces, HAND_COLOR, 1.0, most_faces),
        _mesh(header, "object", obj.T_camera_object, obj.vertices, obj.faces, OBJECT_COLOR, OBJECT_ALPHA, most_faces),
        *_skeleton(header, hand.T_camera_hand, hand.keypoints),
        *_contacts(header, result),
    ]
    return MarkerArray(markers=markers)


def no_markers(header: Header) -> MarkerArray:
    """Return what deletes the markers of a result."""
    return MarkerArray(markers=[Marker(header=header, action=Marker.DELETEALL)])


def _marker(header: Header, namespace: str, kind: int, pose: Similarity, number: int = 0) -> Marker:
    return Marker(header=header, ns=namespace, id=number, type=kind, action=Marker.ADD, pose=to_pose(pose))


def _mesh(
    header: Header,
    name: str,
    pose: Similarity,
    vertices: FloatArray,
    faces: IntArray,
    color: Color,
    alpha: float,
    most_faces: int,
) -> Marker:
    marker = _marker(header, name, Marker.TRIANGLE_LIST, pose)
    vertices, faces = decimated(vertices, faces, most_faces)
    marker.points = to_points(vertices[faces].reshape(-1, 3))
    marker.color = _color(color, alpha)
    marker.scale = Vector3(x=1.0, y=1.0, z=1.0)
    return marker


def _skeleton(header: Header, pose: Similarity, keypoints: FloatArray) -> list[Marker]:
    bones = _marker(header, "skeleton", Marker.LINE_LIST, pose, 0)
    bones.scale.x = BONE_WIDTH
    joints = _marker(header, "skeleton", Marker.SPHERE_LIST, pose, 1)
    joints.scale = Vector3(x=JOINT_SIZE, y=JOINT_SIZE, z=JOINT_SIZE)
    ends = [(0 if joint % 4 == 1 else joint - 1, joint) for joint in range(1, len(KEYPOINT_NAMES))]
    bones.points = to_points(keypoints[np.array(ends).ravel()])
    bones.colors = [_color(FINGER_COLORS[(joint - 1) // 4]) for _, joint in ends for _ in range(2)]
    joints.points = to_points(keypoints)
    joints.colors = [_color(FINGER_COLORS[max(joint - 1, 0) // 4]) for joint in range(len(KEYPOINT_NAMES))]
    bones.color = joints.color = _color((255, 255, 255))
    return [bones, joints]


def _contacts(header: Header, result: Reconstruction) -> list[Marker]:
    """Spheres at the contacts, and arrows along the normals: out of the object."""
    if not result.contacts:
        return []
    positions = np.array([contact.position for contact in result.contacts])
    spheres = _marker(header, "contacts", Marker.SPHERE_LIST, Similarity())
    spheres.points = to_points(positions)
    spheres.scale = Vector3(x=CONTACT_SIZE, y=CONTACT_SIZE, z=CONTACT_SIZE)
    spheres.color = _color(CONTACT_COLOR)
    arrows = []
    for number, contact in enumerate(result.contacts):
        arrow = _marker(header, "contact_normals", Marker.ARROW, Similarity(), number)
        arrow.points = to_points([contact.position, contact.position + ARROW_LENGTH * contact.normal])
        arrow.scale = Vector3(x=ARROW_SHAFT, y=ARROW_HEAD, z=0.0)
        arrow.color = _color(CONTACT_COLOR)
        arrows.append(arrow)
    return [spheres, *arrows]


def _color(color: Color, alpha: float = 1.0) -> ColorRGBA:
    red, green, blue = (value / 255.0 for value in color)
    return ColorRGBA(r=red, g=green, b=blue, a=alpha)
