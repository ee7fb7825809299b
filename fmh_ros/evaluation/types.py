# SPDX-License-Identifier: Apache-2.0
"""What is compared: the truth of one image and a prediction for it.

Everything is in metres. A truth is in the camera optical frame (x right, y down, z forward); so is a prediction, unless
it says that it is in a frame of its own.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fmh_ros.core.frame.frame import Side
from fmh_ros.core.transforms import Similarity

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class Symmetry:
    """Rotations of an object that nobody can see, in the object frame.

    rotations : (S, 3, 3) float64, proper, the identity among them. axis : (3,) unit when any rotation about it is one
    too (a cylinder: this axis and, in ``rotations``, the half turn that swaps its ends). any_rotation : a sphere.
    """

    rotations: FloatArray = field(default_factory=lambda: np.eye(3)[None])
    axis: FloatArray | None = None
    any_rotation: bool = False


@dataclass(frozen=True)
class GroundTruth:
    """The true hand and object of one image, in the camera optical frame, metres.

    name : of the sample, unique in its set; side : anatomical side of the hand.
    hand_vertices : (V, 3) float64; hand_faces : (F, 3) int64, outward winding.
    object_vertices : (W, 3) float64, in the camera frame too; object_faces : (G, 3) int64, outward winding.
    keypoints : (21, 3) joints in the order of KEYPOINT_NAMES; None where the data has none.
    T_camera_object : pose of the object frame; None where the data has none. Symmetries are in the object frame.
    contacts : (C, 3) points of the object's surface that the hand touches, none for (0, 3); None for not known.
    """

    name: str
    side: Side
    hand_vertices: FloatArray
    hand_faces: IntArray
    object_vertices: FloatArray
    object_faces: IntArray
    keypoints: FloatArray | None = None
    T_camera_object: Similarity | None = None
    contacts: FloatArray | None = None
    symmetry: Symmetry = field(default_factory=Symmetry)


@dataclass(frozen=True)
class Prediction:
    """What a system made of one image; hand and object in one frame, metres.

    hand_vertices : (V, 3) float64; hand_faces : (F, 3) int64, outward winding.
    object_vertices : (W, 3) float64; object_faces : (G, 3) int64, outward winding, (0, 3) for a cloud of points.
    keypoints : (21, 3) joints in the order of KEYPOINT_NAMES, or None.
    T_camera_object : pose of the system's own object frame, or None.
    contacts : (C, 3) points of the predicted object's surface that the hand touches; None: found from the meshes.
    score : how good the system thinks the result is, 0 to 1, or None.
    in_camera_frame : whether the frame is the camera optical frame of the image; False for systems that work with a
        camera or a unit of their own, whose position and size mean something only relative to their hand.
    """

    name: str
    side: Side
    hand_vertices: FloatArray
    hand_faces: IntArray
    object_vertices: FloatArray
    object_faces: IntArray
    keypoints: FloatArray | None = None
    T_camera_object: Similarity | None = None
    contacts: FloatArray | None = None
    score: float | None = None
    in_camera_frame: bool = True
