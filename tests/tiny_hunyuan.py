# SPDX-License-Identifier: Apache-2.0
"""The publisher's classes of Hunyuan3D at a tiny size, and a tiny flow over ellipsoids fitted with them in seconds."""

from __future__ import annotations

import importlib.util
from functools import cache
from typing import Any

import pytest
import torch
from tiny_vecset import CHANNELS, IMAGE_ENCODER, TOKENS
from torch import Tensor

from fmh_ros.core.flow.hunyuan.checkpoint import Checkpoint
from fmh_ros.core.flow.hunyuan.model import HunyuanOptions, HunyuanShapeModel
from fmh_ros.core.flow.hunyuan.networks import HunyuanNetworks, make_networks

needs_hunyuan = pytest.mark.skipif(
    importlib.util.find_spec("hy3dgen") is None,
    reason="hy3dgen is not installed (its licence restricts use): pip install --no-deps hy3dgen==2.0.2",
)


def tiny_config(turbo: bool = False, **vae: Any) -> dict[str, Any]:
    """A config in the publisher's layout."""
    scheduler = "ConsistencyFlowMatchEulerDiscreteScheduler" if turbo else "FlowMatchEulerDiscreteScheduler"
    shape = {
        "num_latents": TOKENS,
        "embed_dim": CHANNELS,
        "num_freqs": 4,
        "include_pi": False,
        "heads": 4,
        "width": 48,
        "num_decoder_layers": 1,
        "geo_decoder_mlp_expand_ratio": 2,
        "qkv_bias": False,
        "qk_norm": True,
        "scale_factor": 0.9990943042622529,
    }
    denoiser = {
        "in_channels": CHANNELS,
        "context_in_dim": 24,
        "hidden_size": 64,
        "mlp_ratio": 2.0,
        "num_heads": 4,
        "depth": 1,
        "depth_single_blocks": 1,
        "axes_dim": [16],
        "theta": 10000,
        "qkv_bias": True,
        "guidance_embed": turbo,
    }
    encoder = {"type": "DinoImageEncoder", "kwargs": {"config": IMAGE_ENCODER, "image_size": 28}}
    return {
        "model": {"target": "hy3dgen.shapegen.models.Hunyuan3DDiT", "params": denoiser},
        "vae": {"target": "hy3dgen.shapegen.models.ShapeVAE", "params": shape | vae},
        "conditioner": {
            "target": "hy3dgen.shapegen.models.SingleImageEncoder",
            "params": {"main_image_encoder": encoder},
        },
        "scheduler": {"target": f"hy3dgen.shapegen.schedulers.{scheduler}", "params": {"num_train_timesteps": 1000}},
        "image_processor": {
            "target": "hy3dgen.shapegen.preprocessors.ImageProcessorV2",
            "params": {"size": 64, "border_ratio": 0.15},
        },
    }


def random_networks(turbo: bool = False, **vae: Any) -> HunyuanNetworks:
    """Networks with random weights, the same on every call."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return make_networks(Checkpoint(tiny_config(turbo, **vae), {}))


def random_model(turbo: bool = False, **options: Any) -> HunyuanShapeModel:
    return HunyuanShapeModel(random_networks(turbo), HunyuanOptions(**options)).to("cpu")


#: Truncation of the fitted value, canonical units; deviation of the shape parameters, and of tokens about them.
TRUNCATION, SPREAD, TOKEN_NOISE = 0.15, 0.5, 0.1


def tokens_of(shape: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Latents (B, TOKENS, CHANNELS), in the flow's scale, of shape parameters (B, 6): each token repeats them."""
    padded = torch.nn.functional.pad(shape, (0, CHANNELS - 6))[:, None].expand(-1, TOKENS, -1)
    if generator is None:
        return padded.clone()
    return padded + TOKEN_NOISE * torch.randn(padded.shape, generator=generator)


def shape_distance(shape: Tensor, points: Tensor) -> Tensor:
    """Signed distance (B, N), exact near the surface, of bodies with parameters (B, 6) at points (B, N, 3): rounded
    boxes with centre 0.1 shape[:3] and half-axes 0.5 exp(0.3 shape[3:])."""
    centre, axes = 0.1 * shape[:, None, :3], 0.5 * torch.exp(0.3 * shape[:, None, 3:])
    q = (points - centre) / axes
    radius = (q.abs() + 1e-6).pow(4).sum(-1).pow(0.25)
    normal = (q.abs() + 1e-6).pow(3) / radius[..., None] ** 3 / axes
    return (radius - 1.0) / normal.norm(dim=-1)


def _rate(step: int, steps: int) -> float:
    return min(1.0, 20 * step / steps + 0.05) * (1.0 - step / steps)


def _fit(module: torch.nn.Module, loss: Any, steps: int, rate: float) -> None:
    module.requires_grad_(True)
    optimiser = torch.optim.Adam(module.parameters(), lr=rate, betas=(0.9, 0.98))
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = rate * _rate(step, steps)
        optimiser.zero_grad(set_to_none=True)
        loss().backward()
        optimiser.step()
    optimiser.zero_grad(set_to_none=True)
    module.requires_grad_(False)


@cache
def fitted_networks(vae_steps: int = 500, flow_steps: int = 250) -> HunyuanNetworks:
    """Networks whose autoencoder decodes ``tokens_of`` and whose flow generates such tokens, SPREAD about zero."""
    networks = random_networks()
    generator = torch.Generator().manual_seed(1)

    def decoding() -> Tensor:
        shape = 0.8 * torch.randn((8, 6), generator=generator)
        points = 2.02 * torch.rand((8, 320, 3), generator=generator) - 1.01
        tokens = networks.vae(tokens_of(shape, generator) / networks.vae.scale_factor)
        target = (-shape_distance(shape, points) / TRUNCATION).clamp(-1, 1)
        return (networks.vae.geo_decoder(queries=points, latents=tokens)[..., 0] - target).abs().mean()

    def flowing() -> Tensor:
        data = tokens_of(SPREAD * torch.randn((16, 6), generator=generator), generator)
        noise, sigma = torch.randn(data.shape, generator=generator), torch.rand(16, generator=generator)
        context = torch.zeros((16, 5, 24))
        x = (1 - sigma[:, None, None]) * noise + sigma[:, None, None] * data
        predicted = networks.denoiser(x, sigma, {"main": context}, guidance=None)
        return (predicted - (data - noise)).square().mean()

    _fit(networks.vae, decoding, vae_steps, 3e-3)
    _fit(networks.denoiser, flowing, flow_steps, 3e-3)
    return networks


def fitted_model(**options: Any) -> HunyuanShapeModel:
    """The fitted flow; its image encoder and so its conditions are random."""
    return HunyuanShapeModel(fitted_networks(), HunyuanOptions(**options)).to("cpu")
