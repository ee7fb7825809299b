# SPDX-License-Identifier: Apache-2.0
"""Similarity poses in torch, and the free parameters a guidance phase moves them with."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fmh_ros.core.transforms import Similarity, nearest_rotation


@dataclass(frozen=True)
class TorchPose:
    """``x_a = scale * rotation @ x_b + translation`` as tensors: scale (), rotation (3, 3), translation (3,)."""

    scale: Tensor
    rotation: Tensor
    translation: Tensor

    def apply(self, points: Tensor) -> Tensor:
        """Map points (N, 3) from b to a."""
        return self.scale * (points @ self.rotation.T) + self.translation

    def apply_inverse(self, points: Tensor) -> Tensor:
        """Map points (N, 3) from a to b."""
        return (points - self.translation) @ self.rotation / self.scale

    def compose(self, other: TorchPose) -> TorchPose:
        """Return T_a_c for self = T_a_b and other = T_b_c."""
        return TorchPose(
            self.scale * other.scale, self.rotation @ other.rotation, self.apply(other.translation[None])[0]
        )

    def detach(self) -> TorchPose:
        """Return the same pose without gradient."""
        return TorchPose(self.scale.detach(), self.rotation.detach(), self.translation.detach())

    def similarity(self) -> Similarity:
        """Return the pose as float64 numbers, its rotation made exactly orthonormal."""
        rotation = nearest_rotation(self.rotation.detach().double().cpu().numpy())
        return Similarity(rotation, self.translation.detach().double().cpu().numpy(), float(self.scale.detach()))


def torch_pose(
    transform: Similarity, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
) -> TorchPose:
    """Convert a Similarity."""
    return TorchPose(
        torch.tensor(transform.scale, dtype=dtype, device=device),
        torch.as_tensor(transform.rotation, dtype=dtype, device=device),
        torch.as_tensor(transform.translation, dtype=dtype, device=device),
    )


def rotation_from_vector(vector: Tensor) -> Tensor:
    """Rotation (3, 3) of an axis-angle vector (3,), radians; smooth at zero."""
    x, y, z = vector.unbind()
    zero = torch.zeros_like(x)
    skew = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero]).view(3, 3)
    return torch.linalg.matrix_exp(skew)


class PoseParameters:
    """A correction of an initial pose: log-scale (), rotation vector (3,) radians and translation (3,) in a's units.

    Rotation and scale act about ``centre`` (3,) in b, so that they neither move the body nor mix with translation.
    """

    def __init__(
        self,
        initial: Similarity,
        centre: NDArray[np.floating],
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        self.initial = torch_pose(initial, dtype, device)
        self.centre = torch.as_tensor(np.array(centre), dtype=dtype, device=device)
        self.centre_in_a = torch.as_tensor(initial.apply(centre), dtype=dtype, device=device)
        self.log_scale = torch.zeros((), dtype=dtype, device=device, requires_grad=True)
        self.rotation = torch.zeros(3, dtype=dtype, device=device, requires_grad=True)
        self.translation = torch.zeros(3, dtype=dtype, device=device, requires_grad=True)

    def leaves(self) -> tuple[Tensor, Tensor, Tensor]:
        """The free tensors: log-scale, rotation vector, translation."""
        return self.log_scale, self.rotation, self.translation

    def pose(self) -> TorchPose:
        """Return the corrected pose, differentiable to the leaves."""
        scale = self.initial.scale * self.log_scale.exp()
        rotation = rotation_from_vector(self.rotation) @ self.initial.rotation
        translation = self.centre_in_a + self.translation - scale * (rotation @ self.centre)
        return TorchPose(scale, rotation, translation)

    def state(self) -> tuple[Tensor, ...]:
        """Return a copy of the leaves' values."""
        return tuple(leaf.detach().clone() for leaf in self.leaves())

    def load(self, state: tuple[Tensor, ...]) -> None:
        """Put values from ``state`` back."""
        with torch.no_grad():
            for leaf, value in zip(self.leaves(), state, strict=True):
                leaf.copy_(value)
