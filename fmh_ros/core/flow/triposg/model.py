# SPDX-License-Identifier: Apache-2.0
"""TripoSG behind the LatentShapeModel protocol, from the publisher's folder of weights.

Conventions of the publisher and how they are met: its noise level runs from 1 at noise to 0 at data, so ``its_time``
turns ours into the time that the network is given; the network predicts data - noise, as here, since its steps add the
prediction times the fall of the level; a batch for guidance is [unconditional, conditional], the former zeros in place
of image tokens; latents are decoded as they are. Its canonical frame (cube of half side 1.005; the publisher writes its
meshes to glTF files, which have y up, without turning them) is kept as it is: registration finds where it stands in the
camera frame.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from fmh_ros.core.cues.types import ObjectView
from fmh_ros.core.errors import ModelFileError, ModelMissingError
from fmh_ros.core.flow.sampler import sigmas
from fmh_ros.core.flow.triposg.decoder import BOUNDS, TripoSGDecoder
from fmh_ros.core.flow.triposg.picture import EncoderFormat, encoder_input, prepare_picture
from fmh_ros.core.flow.vecset.loading import (
    empty_weights,
    fill,
    make_image_encoder,
    parse_options,
)
from fmh_ros.core.flow.vecset.model import GeneratorOptions, ImageTokens, VecsetShapeModel, shifted
from fmh_ros.core.pretrained import library, local_path, network_dtype, shared

#: Catalogue's id of the model.
MODEL_ID = "triposg"
#: Files of the publisher's repository that are read.
CONFIGS = {
    "transformer": "transformer/config.json",
    "vae": "vae/config.json",
    "encoder": "image_encoder_dinov2/config.json",
    "picture": "feature_extractor_dinov2/preprocessor_config.json",
    "scheduler": "scheduler/scheduler_config.json",
}
WEIGHTS = {
    "transformer": "transformer/diffusion_pytorch_model.safetensors",
    "vae": "vae/diffusion_pytorch_model.safetensors",
    "encoder": "image_encoder_dinov2/model.safetensors",
}
#: Parts of the published autoencoder that only encode.
_ENCODER_PARTS = ("encoder", "quant")


def its_time(sigma: float) -> float:
    """The publisher's time, 1000 at noise and 0 at data, of our noise level, 0 at noise and 1 at data."""
    return 1000.0 * (1.0 - sigma)


@dataclass(frozen=True, kw_only=True)
class TripoSGOptions(GeneratorOptions):
    """Options of the generator, beside those of every one.

    tokens : of the latent; the published weights were trained with up to 2048.
    """

    tokens: int = 2048
    guidance_scale: float = 7.0


@dataclass(frozen=True)
class TripoSGNetworks:
    """What the model consists of.

    denoiser : a ``FlowTransformer``; vae : a ``ShapeAutoencoder``; image_encoder : a DINOv2; picture : what that one is
    fed with; shift : of the noise schedule.
    """

    denoiser: nn.Module
    vae: nn.Module
    image_encoder: nn.Module
    picture: EncoderFormat
    shift: float = 1.0


class TripoSGShapeModel(VecsetShapeModel):
    """The flow and its autoencoder. Conditions are [zeros, the picture's tokens]."""

    name = "triposg"
    bounds = BOUNDS
    options: TripoSGOptions

    def __init__(self, networks: TripoSGNetworks, options: TripoSGOptions | None = None) -> None:
        super().__init__()
        self.networks = networks
        self.options = options or TripoSGOptions()
        denoiser: Any = networks.denoiser
        self.latent_shape: tuple[int, ...] = (self.options.tokens, denoiser.proj_out.out_features)

    @classmethod
    def load(cls, folder: Path, options: TripoSGOptions, device: str = "cpu") -> TripoSGShapeModel:
        """Load a copy of the publisher's repository. Raises ModelMissingError and ModelFileError."""
        key = (MODEL_ID, folder, device, options.dtype, options.compile)
        return cls(shared(key, lambda: load_networks(folder)), options).to(device)

    def to(self, device: str | torch.device, dtype: torch.dtype | None = None) -> TripoSGShapeModel:
        """Move the networks; without a dtype it is the options' one."""
        self.device = torch.device(device)
        self.dtype = dtype or network_dtype(self.options.dtype, self.device.type)
        for module in (self.networks.denoiser, self.networks.vae, self.networks.image_encoder):
            module.requires_grad_(False).eval().to(self.device, self.dtype)
        if self.options.compile:
            self.networks.denoiser.compile()
        return self

    def schedule(self, steps: int) -> tuple[float, ...]:
        """The steps + 1 noise levels, 0 to 1: the publisher's shifted ones, turned round."""
        return tuple(1.0 - shifted(1.0 - level, self.networks.shift) for level in sigmas(steps))

    @torch.no_grad()
    def encode_condition(self, view: ObjectView) -> ImageTokens:
        """Encode the completed view's picture. Raises EmptyObjectMaskError."""
        picture = encoder_input(prepare_picture(view), self.networks.picture).to(self.device, self.dtype)
        tokens: Tensor = self.networks.image_encoder(picture).last_hidden_state
        return ImageTokens(torch.cat([torch.zeros_like(tokens), tokens]))

    @torch.no_grad()
    def velocity(self, latent: Tensor, sigma: float, condition: ImageTokens) -> Tensor:
        """Guided velocity, float32, on the networks' device."""
        x = latent.to(self.device, self.dtype).expand(2, *latent.shape[1:])
        time = torch.full((2,), its_time(sigma), device=self.device)
        free, conditioned = self.networks.denoiser(x, time, condition.tokens).float().chunk(2)
        result: Tensor = free + self.options.guidance_scale * (conditioned - free)
        return result

    def make_decoder(self) -> TripoSGDecoder:
        """The decoding half of the autoencoder."""
        return TripoSGDecoder(self.networks.vae, self.options.memory_mb)


def make_networks(
    configs: Mapping[str, Mapping[str, Any]], weights: Mapping[str, dict[str, Tensor]]
) -> TripoSGNetworks:
    """Build the networks of the publisher's configs (keys of ``CONFIGS``) with weights (keys of ``WEIGHTS``), or with
    random ones where there are none. Raises ModelMissingError and ModelFileError."""
    library("diffusers")
    from fmh_ros.core.flow.triposg.networks import FlowTransformer, ShapeAutoencoder

    flow, shape = configs["transformer"], configs["vae"]
    decoding = {k: v for k, v in weights.get("vae", {}).items() if k.partition(".")[0] not in _ENCODER_PARTS}
    try:
        if flow.get("use_cross_attention_2"):
            raise ValueError("a second condition")
        heads, context = flow["num_attention_heads"], flow["cross_attention_dim"]
        with empty_weights(bool(weights.get("transformer"))):
            denoiser = FlowTransformer(flow["in_channels"], flow["width"], heads, flow["num_layers"], context)
        with empty_weights(bool(decoding)):
            size = shape["width_decoder"], shape["num_attention_heads"], shape["num_layers_decoder"]
            vae = ShapeAutoencoder(shape["latent_channels"], *size, shape["embed_frequency"])
    except (KeyError, TypeError, ValueError) as error:
        raise ModelFileError(
            f"The config of TripoSG is another one than expected: {type(error).__name__} {error}",
            expected="the config of VAST-AI/TripoSG, the model conditioned on one image",
            change="Run `fmh models verify`",
        ) from error
    fill(denoiser, weights.get("transformer", {}), "the denoiser")
    fill(vae, decoding, "the autoencoder")
    encoder = make_image_encoder(configs["encoder"], weights.get("encoder", {}))
    picture = EncoderFormat.from_config(configs["picture"])
    return TripoSGNetworks(denoiser, vae, encoder, picture, float(configs["scheduler"].get("shift", 1.0)))


def load_networks(folder: Path) -> TripoSGNetworks:
    """Read configs and weights (memory-mapped) of the publisher's folder."""
    missing = [path for path in (*CONFIGS.values(), *WEIGHTS.values()) if not (folder / path).exists()]
    if missing:
        raise ModelMissingError(
            f"TripoSG is not complete in {folder}: there is no {missing[0]}",
            expected="the publisher's folder with transformer, vae, image_encoder_dinov2 and their configs",
            change="Run `fmh models pull` with the profile's name",
        )
    try:
        configs = {name: _read_config(folder, path) for name, path in CONFIGS.items()}
        weights = {name: load_file(folder / path) for name, path in WEIGHTS.items()}
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise ModelFileError(
            f"A file of TripoSG in {folder} cannot be read: {error}",
            expected="the publisher's files as published",
            change="Run `fmh models verify`",
        ) from error
    return make_networks(configs, weights)


def _read_config(folder: Path, path: str) -> dict[str, Any]:
    """Content of a JSON file. Raises OSError and ValueError."""
    content = json.loads((folder / path).read_text())
    if not isinstance(content, dict):
        raise ValueError(f"{path} is not a mapping")
    return content


def make_triposg(models: Mapping[str, Path], options: Mapping[str, Any], device: str) -> TripoSGShapeModel:
    """Load the generator of a profile; needs the model "triposg".

    options : fields of ``TripoSGOptions``. Raises UsageError, ModelMissingError and ModelFileError.
    """
    chosen = parse_options(TripoSGOptions, options, "The TripoSG generator")
    return TripoSGShapeModel.load(local_path(models, MODEL_ID), chosen, device)
