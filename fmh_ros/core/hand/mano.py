# SPDX-License-Identifier: Apache-2.0
"""MANO as a `HandRig`, from the user's own MANO_RIGHT.pkl (``mano_file`` says on what terms)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fmh_ros.core.hand.mano_file import JOINT_ORDER, TIP_VERTICES, mano_keypoints, mano_surface, read_mano_file
from fmh_ros.core.hand.rig import HandRig, hand_axes, joint_axes, label_fingers, load_generic_rig

FloatArray = NDArray[np.float64]


def load_mano_rig(path: Path) -> HandRig:
    """Return the mean MANO hand as a rig, its wrist closed.

    The shape and pose blend shapes are not used; the rig's own finger and palm scales stand in for them.

    Args:
        path: MANO_RIGHT.pkl.

    Raises:
        FileMissingError: there is no such file.
        ModelFileError: the file is not MANO's, is damaged, or names something unsafe.
    """
    vertices, closed, weights, regressor = mano_surface(path, read_mano_file(path))
    joints = regressor @ vertices
    R = hand_axes(joints[0], joints[1], joints[4], joints[7])
    vertices = (vertices - joints[0]) @ R.T
    joints = ((joints - joints[0]) @ R.T)[list(JOINT_ORDER)]
    tips = vertices[list(TIP_VERTICES)]
    weights = weights[:, [0, *JOINT_ORDER]] / weights.sum(1, keepdims=True)
    return HandRig(
        name="mano",
        vertices=vertices,
        faces=closed,
        weights=weights,
        joints=joints,
        axes=_axes(joints, tips),
        keypoints=mano_keypoints(np.zeros(3), joints, tips),
        vertex_finger=label_fingers(weights),
    )


def _axes(joints: FloatArray, tips: FloatArray) -> FloatArray:
    """Joint axes along MANO's bones, with the backs of the fingers where the generic rig has them."""
    dorsal = load_generic_rig().axes[:, :, 1]
    ends = [tips[j // 3] if j % 3 == 2 else joints[j + 1] for j in range(15)]
    return np.array([joint_axes(end - joint, up) for end, joint, up in zip(ends, joints, dorsal, strict=True)])


def make_mano(models: Mapping[str, Path], options: Mapping[str, Any], device: str) -> HandRig:
    """The rig of the user's file, the model ``mano``, for the registry. Raises FileMissingError and ModelFileError."""
    return load_mano_rig(models["mano"])
