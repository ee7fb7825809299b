# SPDX-License-Identifier: Apache-2.0
"""The object's surface as a point cloud with normals."""

from __future__ import annotations

import sys

import numpy as np
from sensor_msgs.msg import PointCloud2, PointField

from fmh_ros.core.fields.mesh_queries import vertex_normals
from fmh_ros.core.reconstruction.types import Reconstruction
from fmh_ros.messages.basics import flat
from fmh_ros.messages.result import result_header

FIELDS = ("x", "y", "z", "normal_x", "normal_y", "normal_z")


def to_object_cloud(result: Reconstruction) -> PointCloud2:
    """Return the object's vertices, metres, and their outward unit normals in the camera frame: the whole surface,
    what the camera did not see included. Six float32 fields a point, as grasp planners read them."""
    obj = result.object
    points = obj.T_camera_object.apply(obj.vertices)
    normals = vertex_normals(obj.vertices, obj.faces) @ obj.T_camera_object.rotation.T
    values = np.concatenate([points, normals], axis=1).astype(np.float32)
    step = values.itemsize * len(FIELDS)
    return PointCloud2(
        header=result_header(result),
        height=1,
        width=len(values),
        fields=[
            PointField(name=name, offset=4 * place, datatype=PointField.FLOAT32, count=1)
            for place, name in enumerate(FIELDS)
        ],
        is_bigendian=sys.byteorder == "big",
        point_step=step,
        row_step=step * len(values),
        data=flat(np.frombuffer(values.tobytes(), np.uint8), "B"),
        is_dense=True,
    )
