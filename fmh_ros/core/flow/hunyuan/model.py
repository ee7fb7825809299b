# SPDX-License-Identifier: Apache-2.0
"""Hunyuan3D-2 behind the LatentShapeModel protocol.

Conventions of the publisher that hold here: sigma 0 is noise and 1 data, the network predicts data - noise and takes
sigma itself as time, so nothing is converted; a batch for guidance is [conditional, unconditional], the latter zeros in
place of image tokens; latents are divided by the autoencoder's scale before decoding (``HunyuanDecoder``). Its
canonical frame (y up, z towards the viewer of the picture, cube of half side 1.01) is kept as it is: registration finds
where it stands in the camera frame.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from fmh_ros.core.cues.types import ObjectView
from fmh_ros.core.errors import UsageError
from fmh_ros.core.flow.hunyuan.checkpoint import FOLDERS, read_checkpoint, variant_folder
from fmh_ros.core.flow.hunyuan.decoder import BOUNDS, HunyuanDecoder
from fmh_ros.core.flow.hunyuan.networks import HunyuanNetworks, freeze, make_networks
from fmh_ros.core.flow.hunyuan.picture import encoder_input, prepare_picture
from fmh_ros.core.flow.sampler import sigmas
from fmh_ros.core.flow.vecset.loading import parse_options
from fmh_ros.core.flow.vecset.model import GeneratorOptions, ImageTokens, VecsetShapeModel, shifted
from fmh_ros.core.pretrained import local_path, network_dtype, shared

#: Catalogue's id of each variant, and of the publisher's faster autoencoders that may replace a variant's own.
MODEL_IDS = {variant: f"hunyuan3d-{variant}" for variant in FOLDERS}
VAE_IDS = {"2.0": "hunyuan3d-vae-2.0-turbo", "mini": "hunyuan3d-vae-mini-turbo"}


@dataclass(frozen=True, kw_only=True)
class HunyuanOptions(GeneratorOptions):
    """Options of the generator, beside those of every one.

    variant : one of ``checkpoint.FOLDERS``. guidance_scale : for distilled networks their input for it.
    guidance_schedule : "constant", as the paper says, or "decaying", as its public code does: from the middle of the
        flow on, the scale times (1 - sigma), which ends below 1 and so away from the condition.
    fast_vae : decode with the publisher's faster autoencoder.
    """

    variant: str = "2.0"
    guidance_scale: float = 5.0
    guidance_schedule: Literal["constant", "decaying"] = "constant"
    fast_vae: bool = False

    def scale_at(self, sigma: float) -> float:
        """Guidance scale at a noise level."""
        decays = self.guidance_schedule == "decaying" and sigma > 0.5
        return self.guidance_scale * (1.0 - sigma) if decays else self.guidance_scale


class HunyuanShapeModel(VecsetShapeModel):
    """The flow and the autoencoder of one variant. Conditions are [the picture's tokens, zeros]."""

    bounds = BOUNDS
    options: HunyuanOptions

    def __init__(self, networks: HunyuanNetworks, options: HunyuanOptions | None = None) -> None:
        super().__init__()
        self.networks = networks
        self.options = options or HunyuanOptions()
        self.name = f"hunyuan3d-{self.options.variant}"
        self.latent_shape: tuple[int, ...] = tuple(networks.vae.latent_shape)

    @classmethod
    def load(
        cls, folder: Path, options: HunyuanOptions, device: str = "cpu", vae: Path | None = None
    ) -> HunyuanShapeModel:
        """Load a variant from the publisher's files; ``vae`` is the folder of another autoencoder for it.

        Raises ModelMissingError, ModelFileError and UsageError.
        """

        def make() -> HunyuanNetworks:
            checkpoint = read_checkpoint(variant_folder(folder, options.variant))
            return make_networks(checkpoint, None if vae is None else read_checkpoint(vae))

        key = ("hunyuan", folder, options.variant, vae, device, options.dtype, options.compile)
        model = cls(shared(key, make), options)
        model.to(device)
        return model

    def to(self, device: str | torch.device, dtype: torch.dtype | None = None) -> HunyuanShapeModel:
        """Move the networks; without a dtype it is the options' one."""
        self.device = torch.device(device)
        self.dtype = dtype or network_dtype(self.options.dtype, self.device.type)
        freeze(self.networks, self.device, self.dtype)
        if self.options.compile:
            self.networks.denoiser.compile()
            # Its layers, since they are what ``HunyuanDecoder`` calls.
            for layer in self.networks.vae.transformer.resblocks:
                layer.compile()
        return self

    def schedule(self, steps: int) -> tuple[float, ...]:
        """The steps + 1 noise levels, 0 to 1, that this variant was made for.

        A consistency-trained one knows only the beginnings of its phases, which are the publisher's 1000 training
        levels at every (1000 / phases)-th, so steps begin there.
        """
        shift, phases = self.networks.shift, self.networks.phases
        if phases is None:
            return tuple(shifted(level, shift) for level in sigmas(steps))
        if steps > phases:
            raise UsageError(f"{steps} flow steps", expected=f"at most {phases} with Hunyuan3D {self.options.variant}")
        chosen = [step * phases // steps for step in range(steps)]
        return (*((max(k * (1000 // phases) - 1, 0)) / 999 for k in chosen), 1.0)

    @torch.no_grad()
    def encode_condition(self, view: ObjectView) -> ImageTokens:
        """Encode the completed view's picture. Raises EmptyObjectMaskError."""
        how, encoder = self.networks.picture, self.networks.image_encoder
        picture = encoder_input(prepare_picture(view, how), how).to(self.device, self.dtype)
        tokens: Tensor = encoder(picture).last_hidden_state
        if not how.class_token:
            tokens = tokens[:, 1:]
        if self.networks.guidance_embedded:
            return ImageTokens(tokens)
        return ImageTokens(torch.cat([tokens, torch.zeros_like(tokens)]))

    @torch.no_grad()
    def velocity(self, latent: Tensor, sigma: float, condition: ImageTokens) -> Tensor:
        """Guided velocity, float32, on the networks' device."""
        tokens = condition.tokens
        batch = tokens.shape[0]
        x = latent.to(self.device, self.dtype).expand(batch, *latent.shape[1:])
        time = torch.full((batch,), sigma, device=self.device)
        scale = self.options.scale_at(sigma)
        if self.networks.guidance_embedded:
            guidance = torch.full((batch,), scale, device=self.device, dtype=self.dtype)
            distilled: Tensor = self.networks.denoiser(x, time, {"main": tokens}, guidance=guidance)
            return distilled.float()
        conditioned, free = self.networks.denoiser(x, time, {"main": tokens}, guidance=None).float().chunk(2)
        result: Tensor = free + scale * (conditioned - free)
        return result

    def make_decoder(self) -> HunyuanDecoder:
        """The variant's autoencoder."""
        return HunyuanDecoder(self.networks.vae, self.options.memory_mb)


def make_hunyuan(models: Mapping[str, Path], options: Mapping[str, Any], device: str) -> HunyuanShapeModel:
    """Load the generator of a profile; needs the model ``MODEL_IDS[variant]``, and with fast_vae ``VAE_IDS`` too.

    options : fields of ``HunyuanOptions``. Raises UsageError, ModelMissingError and ModelFileError.
    """
    chosen = parse_options(HunyuanOptions, options, "The Hunyuan3D generator")
    folder = local_path(models, MODEL_IDS.get(chosen.variant, chosen.variant))
    vae = None
    if chosen.fast_vae:
        family = "mini" if chosen.variant.startswith("mini") else "2.0"
        vae = local_path(models, VAE_IDS[family])
    return HunyuanShapeModel.load(folder, chosen, device, vae)
