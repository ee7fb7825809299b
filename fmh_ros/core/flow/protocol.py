# SPDX-License-Identifier: Apache-2.0
"""The shape generator's contract: a rectified flow in a latent space whose latents decode to an implicit field."""

from __future__ import annotations

from typing import Any, Protocol

import torch

from fmh_ros.core.cues.types import ObjectView
from fmh_ros.core.fields.protocol import ImplicitField
from fmh_ros.core.transforms import Similarity


class LatentShapeModel(Protocol):
    """sigma = 0 is noise and sigma = 1 is data: x_sigma = (1 - sigma) noise + sigma data, v = data - noise.

    temperature : deviation of the noise that sampling starts from; 1 as trained, less for fewer odd shapes.

    Optional members: ``device`` (torch.device), where velocities and fields are made, the CPU when there is none, and
    ``schedule(steps)``, the steps + 1 noise levels from 0 to 1 that the model was trained for (``sampler.schedule``).
    Latents are taken from any device.
    """

    name: str
    latent_shape: tuple[int, ...]
    bounds: float
    temperature: float

    def encode_condition(self, view: ObjectView) -> Any:
        """Turn the completed view into whatever ``velocity`` conditions on (opaque to the sampler)."""
        ...

    def velocity(self, latent: torch.Tensor, sigma: float, condition: Any) -> torch.Tensor:
        """Return v with the shape of ``latent`` (1, *latent_shape), float32, without gradient; classifier-free
        guidance is applied inside, at the model's own scale."""
        ...

    def decode(self, latent: torch.Tensor) -> ImplicitField:
        """Decode a clean latent (1, *latent_shape) to a field in the canonical frame, differentiable to it."""
        ...

    def canonical_to_view(self, view: ObjectView) -> Similarity | None:
        """Return T_camera_canonical when the model generates in the view's frame, or None when the pose of its
        canonical frame is unknown and registration must find it."""
        ...
