# SPDX-License-Identifier: Apache-2.0
"""The object's surface as a point cloud with normals."""

from __future__ import annotations

import numpy as np
from sensor_msgs.msg import PointCloud2

from fmh_ros.core.fields.mesh_queries import vertex_normals
from fmh_ros.core.reconstruction.types import Reconstruction
from fmh_ros.messages.result import result_header
from fmh_ros.ros_compat import make_cloud

FIELDS = ("x", "y", "z", "normal_x", "normal_y", "normal_z")


def to_object_cloud(result: Reconstruction) -> PointCloud2:
    """Return the object's vertices, metres, and their outward unit normals in the camera frame: the whole surface,
    what the camera did not see included. Six float32 fields a point, as grasp planners read them."""
    obj = result.object
    points = obj.T_camera_object.apply(obj.vertices)
    normals = vertex_normals(obj.vertices, obj.faces) @ obj.T_camera_object.rotation.T
    return make_cloud(result_header(result), FIELDS, np.concatenate([points, normals], axis=1).astype(np.float32))
