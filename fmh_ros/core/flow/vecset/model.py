# SPDX-License-Identifier: Apache-2.0
"""What generators over vector sets do alike behind the LatentShapeModel protocol."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from fmh_ros.core.cues.types import ObjectView
from fmh_ros.core.flow.vecset.decoder import DecodeSettings, TokenDecoder
from fmh_ros.core.flow.vecset.field import VecsetField
from fmh_ros.core.transforms import Similarity


@dataclass(frozen=True, kw_only=True)
class GeneratorOptions:
    """Options that every generator has.

    dtype : of the networks, "auto" for bfloat16 on a GPU and float32 on a CPU. guidance_scale : of classifier-free
    guidance. memory_mb, mesh_resolution : see ``DecodeSettings``. compile : compile the networks that run often.
    """

    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    guidance_scale: float
    memory_mb: int = 4096
    mesh_resolution: int = 256
    compile: bool = False


@dataclass(frozen=True)
class ImageTokens:
    """What velocities are conditioned on: image tokens (B, T, C), zeros where nothing is seen.

    B is 2, the picture's and none in the publisher's order, or 1 for a network with distilled guidance.
    """

    tokens: Tensor


class VecsetShapeModel(ABC):
    """A flow and its autoencoder; networks are frozen, latents and velocities are float32.

    device, dtype : of the networks, float32 on the CPU before they are moved.
    """

    temperature = 1.0
    options: GeneratorOptions

    def __init__(self) -> None:
        self.device = torch.device("cpu")
        self.dtype = torch.float32

    @abstractmethod
    def make_decoder(self) -> TokenDecoder:
        """The autoencoder, ready to decode latents."""

    def decode(self, latent: Tensor) -> VecsetField:
        """Decode a clean latent (1, tokens, channels) to a field, differentiable to it."""
        decoder = self.make_decoder()
        settings = DecodeSettings(self.options.memory_mb, self.options.mesh_resolution)
        return VecsetField(decoder, decoder.remember(latent), settings)

    def canonical_to_view(self, view: ObjectView) -> Similarity | None:
        """None: how the generated shape stands in the view is not known, so registration finds it."""
        return None


def shifted(level: float, shift: float) -> float:
    """A noise level from 0 to 1, moved by a schedule's shift; 0 and 1 stay (Esser et al. 2024, Eq. 23)."""
    return shift * level / (1.0 + (shift - 1.0) * level)
