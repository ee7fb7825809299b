# SPDX-License-Identifier: Apache-2.0
"""Meshes as glTF binaries, in metres and in the camera optical frame.

glTF says that y points up; these files keep the camera's own coordinates (x right, y down, z forward) all the same, so
that a vertex of the file is the point that TF, the JSON and a point cloud of the camera speak of. A viewer that assumes
y up shows the scene upside down: turn it by 180 degrees about x.
"""

from __future__ import annotations

import numpy as np
import trimesh
from numpy.typing import NDArray

from fmh_ros.core.export.shading import HAND_COLOR, OBJECT_COLOR, Color
from fmh_ros.core.reconstruction.types import Reconstruction


def hand_mesh(result: Reconstruction) -> trimesh.Trimesh:
    """Return the hand in the camera frame, coloured."""
    hand = result.hand
    return _mesh(hand.T_camera_hand.apply(hand.vertices), hand.faces, HAND_COLOR, "hand")


def object_mesh(result: Reconstruction) -> trimesh.Trimesh:
    """Return the object in the camera frame, coloured."""
    obj = result.object
    return _mesh(obj.T_camera_object.apply(obj.vertices), obj.faces, OBJECT_COLOR, "object")


def glb_files(result: Reconstruction) -> dict[str, bytes]:
    """Return the contents of ``hand.glb``, ``object.glb`` and ``scene.glb`` (both, as nodes "hand" and "object")."""
    hand, obj = hand_mesh(result), object_mesh(result)
    contents: dict[str, dict[str, trimesh.Geometry]] = {
        "hand.glb": {"hand": hand},
        "object.glb": {"object": obj},
        "scene.glb": {"hand": hand, "object": obj},
    }
    return {
        name: trimesh.Scene(parts).export(file_type="glb", include_normals=True) for name, parts in contents.items()
    }


def _mesh(vertices: NDArray[np.float64], faces: NDArray[np.int64], color: Color, name: str) -> trimesh.Trimesh:
    material = trimesh.visual.material.PBRMaterial(
        name=name, baseColorFactor=[*color, 255], metallicFactor=0.0, roughnessFactor=0.6
    )
    mesh = trimesh.Trimesh(vertices, faces, process=False)
    mesh.visual = trimesh.visual.TextureVisuals(material=material)
    return mesh
