# SPDX-License-Identifier: Apache-2.0
"""MANO with its blend shapes, posed by the parameters that data sets are annotated with.

Romero, Tzionas, Black: Embodied Hands (2017), equations 1 to 4; ``mano_file`` says on what terms its files come. It is
for reading ground truth: what the product fits to images is a `HandRig`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from fmh_ros.core.frame.frame import Side
from fmh_ros.core.hand.mano_file import (
    JOINT_ORDER,
    TIP_VERTICES,
    mano_array,
    mano_keypoints,
    mano_surface,
    read_mano_file,
    refusal,
)

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

#: Parent of each joint in MANO's own order: wrist, then index, middle, little, ring, thumb from the palm outwards.
PARENTS = (-1, 0, 1, 2, 0, 4, 5, 0, 7, 8, 0, 10, 11, 0, 13, 14)


@dataclass(frozen=True)
class ManoHand:
    """A posed hand: vertices (V, 3) and keypoints (21, 3) in the order of KEYPOINT_NAMES, metres."""

    vertices: FloatArray
    keypoints: FloatArray


@dataclass(frozen=True)
class ManoModel:
    """One hand of MANO, arrays float64, in MANO's own frame and joint order, metres.

    template (V, 3); faces (F, 3) int64, outward, the wrist closed; weights (V, 16); regressor (16, V).
    shape_basis (V, 3, 10), pose_basis (V, 3, 135) : blend shapes of betas and of rotations.
    pose_mean (45,) : mean pose of the fingers, axis-angle; pose_components (45, 45) : principal components, by rows.
    """

    side: Side
    template: FloatArray
    faces: IntArray
    weights: FloatArray
    regressor: FloatArray
    shape_basis: FloatArray
    pose_basis: FloatArray
    pose_mean: FloatArray
    pose_components: FloatArray

    def fingers(self, coefficients: NDArray[np.floating]) -> FloatArray:
        """Return axis-angles (45,) of n PCA coefficients (n,): the mean pose plus the first n components."""
        values = np.asarray(coefficients, np.float64)
        return self.pose_mean + values @ self.pose_components[: len(values)]

    def pose(
        self,
        rotation: NDArray[np.floating],
        fingers: NDArray[np.floating],
        betas: NDArray[np.floating],
        translation: NDArray[np.floating],
    ) -> ManoHand:
        """Pose the hand.

        rotation : (3,) of the whole hand about its own wrist, axis-angle; fingers : (45,) axis-angle, the mean pose
        included ("flat hand mean" true); betas : (10,); translation : (3,) metres, added last, so the wrist does not
        land on it: MANO's template has its wrist away from the origin.
        """
        turns = Rotation.from_rotvec(np.concatenate([rotation, fingers]).reshape(16, 3)).as_matrix()
        shaped = self.template + self.shape_basis @ np.asarray(betas, np.float64)
        joints = self.regressor @ shaped
        bent = shaped + self.pose_basis @ (turns[1:] - np.eye(3)).ravel()
        world = np.tile(np.eye(4), (16, 1, 1))
        for index, parent in enumerate(PARENTS):
            step = np.eye(4)
            step[:3, :3] = turns[index]
            step[:3, 3] = joints[index] - (joints[parent] if parent >= 0 else 0)
            world[index] = step if parent < 0 else world[parent] @ step
        posed = world[:, :3, 3].copy()
        # From the resting joint's frame: what is at the joint stays there.
        world[:, :3, 3] -= np.einsum("jab,jb->ja", world[:, :3, :3], joints)
        blended = np.einsum("vj,jab->vab", self.weights, world)
        vertices = np.einsum("vab,vb->va", blended[:, :3, :3], bent) + blended[:, :3, 3] + translation
        keypoints = mano_keypoints(
            posed[0] + translation, posed[list(JOINT_ORDER)] + translation, vertices[list(TIP_VERTICES)]
        )
        return ManoHand(vertices, keypoints)


def load_mano_model(path: Path, side: Side) -> ManoModel:
    """Read MANO_RIGHT.pkl or MANO_LEFT.pkl.

    The left hand is taken as the file has it. Its first shape blend shapes have the sign of the right hand's along x
    (smplx, issue 48); data sets whose annotators did not change that, such as DexYCB and ARCTIC, mean it so.

    Raises FileMissingError or ModelFileError.
    """
    data = read_mano_file(path)
    template, faces, weights, regressor = mano_surface(path, data)
    shape_basis, pose_basis = mano_array(data, "shapedirs", 3), mano_array(data, "posedirs", 3)
    mean, components = mano_array(data, "hands_mean", 1), mano_array(data, "hands_components", 2)
    count = len(template)
    found = (shape_basis.shape, pose_basis.shape, mean.shape, components.shape)
    if found != ((count, 3, 10), (count, 3, 135), (45,), (45, 45)):
        raise refusal(path, f"blend shapes and components of the shapes {found}")
    return ManoModel(side, template, faces, weights, regressor, shape_basis, pose_basis, mean, components)
