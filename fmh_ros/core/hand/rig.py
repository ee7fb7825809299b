# SPDX-License-Identifier: Apache-2.0
"""An articulated right hand: mesh, skeleton, skinning and anatomical limits, posed differentiably in torch.

Only right hands exist behind detection; a left hand is the mirror image of one, and the caller mirrors.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fmh_ros.core.errors import ModelMissingError

FloatArray = NDArray[np.float64]

FINGER_NAMES: tuple[str, ...] = ("thumb", "index", "middle", "ring", "little")

#: The 15 joints that move, finger by finger from the base out. The wrist moves with T_camera_hand instead.
JOINT_NAMES: tuple[str, ...] = tuple(
    f"{finger}_{joint}"
    for finger in FINGER_NAMES
    for joint in (("cmc", "mcp", "ip") if finger == "thumb" else ("mcp", "pip", "dip"))
)

#: Joint that carries each of the 21 keypoints (-1 the palm). A finger's first keypoint is its base on the palm, its
#: last bone carries two.
KEYPOINT_JOINTS: tuple[int, ...] = (-1, *(-1 if k == 0 else 3 * f + min(k, 2) for f in range(5) for k in range(4)))

_ASSET = Path(__file__).parents[2] / "assets" / "hand" / "generic_right.npz"

_DEGREES = {
    "thumb_cmc": ((-25, 50), (-40, 40), (-35, 35)),
    "thumb_mcp": ((-15, 65), (-15, 15), (-10, 10)),
    "thumb_ip": ((-25, 85), (-5, 5), (-5, 5)),
    "mcp": ((-30, 95), (-22, 22), (-8, 8)),
    "pip": ((-8, 110), (-3, 3), (-3, 3)),
    "dip": ((-12, 85), (-3, 3), (-3, 3)),
}


def joint_limits() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return lower and upper bounds (15, 3) in radians of (flexion, abduction, twist) for each joint.

    Wide bounds of healthy adult hands relative to the flat rest pose, rounded up from goniometric norms; a joint that
    anatomy lets move in one plane keeps a few degrees of freedom in the others for the sake of fitting.
    """
    rows = [_DEGREES[name if name.startswith("thumb") else name.split("_")[1]] for name in JOINT_NAMES]
    limits = np.radians(np.array(rows, np.float64))
    return limits[..., 0], limits[..., 1]


def rotation_matrices(vectors: Tensor) -> Tensor:
    """Turn rotation vectors (..., 3), radians, into matrices (..., 3, 3); smooth at zero."""
    x, y, z = vectors.unbind(-1)
    zero = torch.zeros_like(x)
    skew = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).reshape(*vectors.shape, 3)
    # The tiny term keeps the derivative of the norm finite at zero; half angles keep 1 - cos exact near it.
    half = 0.5 * torch.sqrt((vectors * vectors).sum(-1) + 1e-20)[..., None, None]
    sinc = torch.sin(half) / half
    eye = torch.eye(3, dtype=vectors.dtype, device=vectors.device)
    return eye + sinc * torch.cos(half) * skew + 0.5 * sinc * sinc * (skew @ skew)


def hand_axes(wrist: FloatArray, index: FloatArray, middle: FloatArray, little: FloatArray) -> FloatArray:
    """Return (3, 3) whose rows are a right hand's frame axes, given the wrist and three knuckles (3,) each."""
    x = (middle - wrist) / np.linalg.norm(middle - wrist)
    z = np.cross(x, index - little)
    z /= np.linalg.norm(z)
    return np.stack([x, np.cross(z, x), z])


def joint_axes(along: FloatArray, dorsal: FloatArray) -> FloatArray:
    """Return (3, 3) whose columns are flexion, abduction and twist axis of a joint.

    Args:
        along: (3,) from the joint to the next one.
        dorsal: (3,) roughly out of the back of the finger.
    """
    twist = along / np.linalg.norm(along)
    flexion = np.cross(dorsal, twist)
    flexion /= np.linalg.norm(flexion)
    return np.stack([flexion, np.cross(twist, flexion), twist], 1)


@dataclass(frozen=True)
class HandRig:
    """A right hand at rest, in the hand frame of `core.hand.types`, and how it moves.

    name : which rig this is.
    vertices : (V, 3) float64 metres; faces : (F, 3) int64, closed, one body, outward winding.
    weights : (V, 16) float64, rows sum to 1; column 0 is the palm (wrist), column 1 + j is JOINT_NAMES[j].
    joints : (15, 3) float64 metres, rest positions.
    axes : (15, 3, 3) float64, rotations whose columns are each joint's flexion, abduction and twist axis at rest.
        A positive flexion curls towards the palm, a positive abduction turns towards the thumb side, the twist axis
        points along the bone.
    keypoints : (21, 3) float64 metres, rest positions, KEYPOINT_NAMES order; carried by KEYPOINT_JOINTS.
    vertex_finger : (V,) int64, index into FINGERS.
    """

    name: str
    vertices: NDArray[np.float64]
    faces: NDArray[np.int64]
    weights: NDArray[np.float64]
    joints: NDArray[np.float64]
    axes: NDArray[np.float64]
    keypoints: NDArray[np.float64]
    vertex_finger: NDArray[np.int64]

    def pose(
        self,
        joint_rotations: Tensor,
        bone_scale: Tensor | None = None,
        scale: Tensor | float = 1.0,
        *,
        palm_scale: Tensor | None = None,
        vertex_ids: NDArray[np.int64] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Pose the hand by forward kinematics and linear blend skinning.

        Args:
            joint_rotations: (15, 3) radians, rotation vectors in each joint's own axes, so that the components are
                flexion, abduction and twist; zeros give the rest pose. Sets dtype and device.
            bone_scale: (5, 2) length and thickness of each finger, or (5,) for length alone; ones by default.
            scale: overall size relative to the rig.
            palm_scale: (3,) length, width and depth of the palm; ones by default.
            vertex_ids: (n,) int64, pose only these vertices; all by default.

        Returns:
            Vertices (V or n, 3) and keypoints (21, 3), metres, hand frame.
        """
        like: dict[str, Any] = {"dtype": joint_rotations.dtype, "device": joint_rotations.device}
        palm = torch.ones(3, **like) if palm_scale is None else palm_scale
        matrices, origins = self._bones(joint_rotations, _finger_scale(bone_scale, like), palm)
        rest = self.vertices if vertex_ids is None else self.vertices[vertex_ids]
        weights = torch.as_tensor(self.weights if vertex_ids is None else self.weights[vertex_ids], **like)
        joints = torch.as_tensor(np.concatenate([np.zeros((1, 3)), self.joints]), **like)
        # One affine map per bone: x -> M x + t, blended per vertex.
        offsets = origins - torch.einsum("jab,jb->ja", matrices, joints)
        blended = torch.einsum("vj,jab->vab", weights, matrices)
        vertices = torch.einsum("vab,vb->va", blended, torch.as_tensor(rest, **like)) + weights @ offsets
        carrier = [j + 1 for j in KEYPOINT_JOINTS]
        keypoints = torch.einsum("kab,kb->ka", matrices[carrier], torch.as_tensor(self.keypoints, **like))
        return scale * vertices, scale * (keypoints + offsets[carrier])

    def _bones(self, rotations: Tensor, fingers: Tensor, palm: Tensor) -> tuple[Tensor, Tensor]:
        """Return linear maps (16, 3, 3) and joint positions (16, 3) of palm and bones, before the overall scale."""
        like: dict[str, Any] = {"dtype": rotations.dtype, "device": rotations.device}
        axes = torch.as_tensor(self.axes, **like)
        local = axes @ rotation_matrices(rotations) @ axes.transpose(1, 2)
        along = axes[:, :, 2]
        length, thickness = (fingers[:, k].repeat_interleave(3)[:, None, None] for k in (0, 1))
        projector = along[:, :, None] * along[:, None, :]
        stretch = length * projector + thickness * (torch.eye(3, **like) - projector)
        local = local.reshape(5, 3, 3, 3)
        stretch = stretch.reshape(5, 3, 3, 3)
        rest = torch.as_tensor(self.joints, **like).reshape(5, 3, 3)
        turn, position = local[:, 0], rest[:, 0] * palm
        matrices, origins = [turn @ stretch[:, 0]], [position]
        for level in (1, 2):
            step = (rest[:, level] - rest[:, level - 1])[:, :, None]
            position = position + (matrices[-1] @ step)[:, :, 0]
            turn = turn @ local[:, level]
            matrices.append(turn @ stretch[:, level])
            origins.append(position)
        root = torch.diag(palm)[None]
        matrix = torch.cat([root, torch.stack(matrices, 1).reshape(15, 3, 3)])
        return matrix, torch.cat([torch.zeros(1, 3, **like), torch.stack(origins, 1).reshape(15, 3)])

    def curl(
        self,
        flexion: NDArray[np.floating],
        spread: float = 0.0,
        opposition: float = 0.0,
    ) -> NDArray[np.float64]:
        """Return joint rotations (15, 3) of a hand described by a few numbers, clipped to the joint limits.

        Args:
            flexion: (5,) or (5, 3), 0 straight to 1 a fist, per finger, or per joint of each finger.
            spread: -1 fingers together to 1 fanned out.
            opposition: 0 thumb beside the palm to 1 thumb in front of the palm.
        """
        amount = np.asarray(flexion, np.float64)
        amount = np.repeat(amount[:, None], 3, 1) if amount.ndim == 1 else amount
        lower, upper = joint_limits()
        rotations = np.zeros((15, 3))
        full = np.radians([[20, 45, 70]] + 4 * [[80, 100, 65]])
        rotations[:, 0] = (amount * full).ravel()
        fan = np.radians(10.0) * spread * np.array([1.0, 0.15, -0.6, -1.2])
        rotations[3::3, 1] = fan * (1.0 - 0.8 * np.clip(amount[1:, 0], 0.0, 1.0))
        rotations[0] += np.radians([20.0, -35.0, 30.0]) * opposition
        return np.clip(rotations, lower, upper)


def _finger_scale(bone_scale: Tensor | None, like: dict[str, Any]) -> Tensor:
    if bone_scale is None:
        return torch.ones(5, 2, **like)
    if bone_scale.ndim == 1:
        return torch.stack([bone_scale, torch.ones_like(bone_scale)], 1)
    return bone_scale


def label_fingers(weights: FloatArray) -> NDArray[np.int64]:
    """Return which of FINGERS each vertex belongs to, from weights (V, 16); the thumb's root is palm."""
    strongest = weights[:, 1:].argmax(1)
    on_palm = (weights[:, 0] >= weights[:, 1:].max(1)) | (strongest == 0)
    return np.where(on_palm, 5, strongest // 3).astype(np.int64)


@lru_cache(maxsize=1)
def load_generic_rig() -> HandRig:
    """Load the freely licensed rig that ships with the package (``assets/hand/NOTICE``)."""
    if not _ASSET.is_file():
        raise ModelMissingError(
            f"The hand rig {_ASSET} is missing",
            expected="the file that ships with the package",
            change="Reinstall the package, or make the file with tools/make_hand_rig.py",
        )
    with np.load(_ASSET) as data:
        return HandRig(
            name="generic",
            vertices=data["vertices"].astype(np.float64),
            faces=data["faces"].astype(np.int64),
            weights=data["weights"].astype(np.float64),
            joints=data["joints"].astype(np.float64),
            axes=data["axes"].astype(np.float64),
            keypoints=data["keypoints"].astype(np.float64),
            vertex_finger=data["vertex_finger"].astype(np.int64),
        )


def make_generic(models: Mapping[str, Path], options: Mapping[str, Any], device: str) -> HandRig:
    """The generic hand, for the registry of back ends."""
    return load_generic_rig()
