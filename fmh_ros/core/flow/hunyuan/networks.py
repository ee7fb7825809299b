# SPDX-License-Identifier: Apache-2.0
"""The networks of a checkpoint, made from its config; without weights they are random, which tests make use of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fmh_ros.core.errors import ModelFileError
from fmh_ros.core.flow.hunyuan.checkpoint import Checkpoint
from fmh_ros.core.flow.hunyuan.library import build
from fmh_ros.core.flow.vecset.loading import empty_weights, fill, make_image_encoder

#: Parts of a published autoencoder that only training needs; old code does not know their parameters.
_ENCODER_PARTS = ("encoder", "pre_kl")
_ENCODER_PARAMETERS = (
    "num_encoder_layers",
    "pc_size",
    "pc_sharpedge_size",
    "point_feats",
    "downsample_ratio",
    "use_ln_post",
    "ckpt_path",
)


@dataclass(frozen=True)
class PictureFormat:
    """What the image encoder is fed with.

    size : pixels a side of the prepared picture, the object in its middle; border : free share of it around the object;
    encoder_size : pixels a side after resizing for the encoder; class_token : whether that token is kept.
    """

    size: int = 512
    border: float = 0.15
    encoder_size: int = 518
    class_token: bool = True


@dataclass(frozen=True)
class HunyuanNetworks:
    """What a variant consists of.

    denoiser(x (B, N, C), sigma (B,), {"main": tokens}, guidance=) predicts data - noise; vae decodes; image_encoder is
    a DINOv2. shift : of the noise schedule. phases : number of phases of a consistency-trained schedule, else None.
    """

    denoiser: Any
    vae: Any
    image_encoder: Any
    picture: PictureFormat
    shift: float = 1.0
    phases: int | None = None

    @property
    def guidance_embedded(self) -> bool:
        """Whether the denoiser takes the guidance scale as an input in place of a second, unconditional pass."""
        return bool(getattr(self.denoiser, "guidance_embed", False))

    def modules(self) -> tuple[nn.Module, ...]:
        """Denoiser, autoencoder, image encoder."""
        return self.denoiser, self.vae, self.image_encoder


def make_networks(checkpoint: Checkpoint, vae: Checkpoint | None = None) -> HunyuanNetworks:
    """Build the networks of a checkpoint with its weights, or with random ones when it has none.

    vae : another autoencoder for the same latents, for instance the publisher's faster one.
    Raises ModelFileError when config, weights and code do not fit together, and ModelMissingError.
    """
    config = checkpoint.config
    try:
        conditioner = config["conditioner"]["params"]["main_image_encoder"]["kwargs"]
        scheduler = config["scheduler"].get("params") or {}
        turbo = "Consistency" in config["scheduler"]["target"]
        processor = config.get("image_processor", {}).get("params") or {}
        with empty_weights(bool(checkpoint.weights)):
            denoiser = build(_class_name(config["model"]), dict(config["model"]["params"]))
        made_vae = _make_vae(config["vae"], checkpoint.part("vae")) if vae is None else _separate_vae(vae)
    except (KeyError, TypeError, AttributeError) as error:
        raise ModelFileError(
            f"The config of Hunyuan3D does not fit the installed code: {type(error).__name__} {error}",
            expected="a config of the publisher with code of the same version",
            change="Install the newer code of the publisher's repository",
        ) from error
    fill(denoiser, checkpoint.part("model"), "the denoiser")
    picture = PictureFormat(
        int(processor.get("size", 512)),
        float(processor.get("border_ratio") or 0.15),
        int(conditioner.get("image_size", 224)),
        bool(conditioner.get("use_cls_token", True)),
    )
    encoder = make_image_encoder(conditioner["config"], _image_weights(checkpoint.part("conditioner")))
    phases = int(scheduler.get("pcm_timesteps", 50)) if turbo else None
    return HunyuanNetworks(denoiser, made_vae, encoder, picture, float(scheduler.get("shift", 1.0)), phases)


def _class_name(section: Mapping[str, Any]) -> str:
    """The class of a config's section, whatever package it names: the same class moved between releases."""
    return str(section["target"]).rpartition(".")[2]


def _separate_vae(checkpoint: Checkpoint) -> nn.Module:
    weights = checkpoint.part("vae") or checkpoint.weights
    return _make_vae(checkpoint.config, weights)


def _make_vae(section: Mapping[str, Any], weights: dict[str, Tensor]) -> nn.Module:
    """Build an autoencoder without the parts that only encode."""
    parameters = {k: v for k, v in section["params"].items() if k not in _ENCODER_PARAMETERS}
    with empty_weights(bool(weights)):
        vae: nn.Module = build("ShapeVAE", parameters)
    for part in _ENCODER_PARTS:
        if hasattr(vae, part):
            delattr(vae, part)
    fill(vae, {k: v for k, v in weights.items() if k.partition(".")[0] not in _ENCODER_PARTS}, "the autoencoder")
    return vae


def _image_weights(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights of the DINOv2 among the conditioner's, by the library's names."""
    prefix = "main_image_encoder.model."
    return {key[len(prefix) :]: value for key, value in weights.items() if key.startswith(prefix)}


def freeze(networks: HunyuanNetworks, device: torch.device, dtype: torch.dtype) -> None:
    """Move the networks, for inference only: nothing is ever differentiated by a weight.

    The frequencies that points are embedded with stay float32: rounded ones would move the surface.
    """
    embedder = networks.vae.fourier_embedder
    exact = embedder.frequencies.float().clone()
    for module in networks.modules():
        module.requires_grad_(False).eval().to(device, dtype)
    embedder.frequencies = exact.to(device)
