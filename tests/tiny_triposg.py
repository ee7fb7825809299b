# SPDX-License-Identifier: Apache-2.0
"""TripoSG's networks at a tiny size, random, in the publisher's layout."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from tiny_vecset import CHANNELS, IMAGE_ENCODER, TOKENS
from torch import Tensor

from fmh_ros.core.flow.triposg.model import (
    CONFIGS,
    WEIGHTS,
    TripoSGNetworks,
    TripoSGOptions,
    TripoSGShapeModel,
    make_networks,
)

needs_triposg = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("diffusers", "transformers", "accelerate")),
    reason="optional libraries are not installed: pip install 'fmh-ros[foundation]'",
)


def tiny_configs() -> dict[str, dict[str, Any]]:
    """Configs with the publisher's names, and entries that are not read."""
    return {
        "transformer": {
            "_class_name": "TripoSGDiTModel",
            "cross_attention_dim": 24,
            "in_channels": CHANNELS,
            "num_attention_heads": 4,
            "num_layers": 5,
            "width": 32,
        },
        "vae": {
            "_class_name": "TripoSGVAEModel",
            "embed_frequency": 4,
            "embed_include_pi": False,
            "embedding_type": "frequency",
            "in_channels": 3,
            "latent_channels": CHANNELS,
            "num_attention_heads": 4,
            "num_layers_decoder": 1,
            "num_layers_encoder": 1,
            "width_decoder": 48,
            "width_encoder": 16,
        },
        "encoder": IMAGE_ENCODER,
        "picture": {
            "crop_size": {"height": 28, "width": 28},
            "do_center_crop": True,
            "do_resize": True,
            "image_mean": [0.485, 0.456, 0.406],
            "image_std": [0.229, 0.224, 0.225],
            "resample": 3,
            "size": {"shortest_edge": 32},
        },
        "scheduler": {"num_train_timesteps": 1000, "shift": 1.0, "use_dynamic_shifting": False},
    }


def random_networks() -> TripoSGNetworks:
    """Networks with random weights, the same on every call, large enough that all parts matter."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        networks = make_networks(tiny_configs(), {})
        for module in (networks.denoiser, networks.vae):
            for parameter in module.parameters():
                torch.nn.init.normal_(parameter, std=0.25)
    return networks


def random_model(**options: Any) -> TripoSGShapeModel:
    return TripoSGShapeModel(random_networks(), TripoSGOptions(**{"tokens": TOKENS, **options})).to("cpu")


def save_published(networks: TripoSGNetworks, folder: Path) -> None:
    """Write networks as the publisher lays them out, with the encoding half of the autoencoder, which is not read."""
    half = {"encoder.proj_in.weight": torch.zeros(16, 30), "quant.bias": torch.zeros(2 * CHANNELS)}
    parts: dict[str, dict[str, Tensor]] = {
        "transformer": networks.denoiser.state_dict(),
        "vae": {**networks.vae.state_dict(), **half},
        "encoder": networks.image_encoder.state_dict(),
    }
    for name, path in WEIGHTS.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        save_file({key: value.contiguous() for key, value in parts[name].items()}, folder / path)
    for name, path in CONFIGS.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(json.dumps(tiny_configs()[name]))
