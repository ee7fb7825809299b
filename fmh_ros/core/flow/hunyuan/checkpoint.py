# SPDX-License-Identifier: Apache-2.0
"""Checkpoints as their publisher lays them out: a folder per variant with config.yaml and one file of all weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
import yaml
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from fmh_ros.core.errors import ModelFileError, ModelMissingError, UsageError

#: Folder of each variant in the publisher's repositories.
FOLDERS = {
    "2.0": "hunyuan3d-dit-v2-0",
    "2.0-fast": "hunyuan3d-dit-v2-0-fast",
    "2.0-turbo": "hunyuan3d-dit-v2-0-turbo",
    "mini": "hunyuan3d-dit-v2-mini",
    "mini-fast": "hunyuan3d-dit-v2-mini-fast",
    "mini-turbo": "hunyuan3d-dit-v2-mini-turbo",
    "2.1": "hunyuan3d-dit-v2-1",
}
#: File names of the weights, the preferred one first.
WEIGHTS = ("model.fp16.safetensors", "model.safetensors", "model.fp16.ckpt", "model.ckpt")


@dataclass(frozen=True)
class Checkpoint:
    """config : the YAML's content; weights : name in the checkpoint to tensor, as stored."""

    config: dict[str, Any]
    weights: dict[str, Tensor]

    def part(self, name: str) -> dict[str, Tensor]:
        """The tensors of one network, without its prefix; empty when there are none."""
        prefix = name + "."
        return {key[len(prefix) :]: value for key, value in self.weights.items() if key.startswith(prefix)}


def variant_folder(folder: Path, variant: str) -> Path:
    """Folder of a variant in a copy of the publisher's repository, or ``folder`` itself when it is that one already.

    Raises UsageError for an unknown variant and ModelMissingError when there is no config.
    """
    if variant not in FOLDERS:
        raise UsageError(f"There is no Hunyuan3D variant {variant!r}", expected=f"one of {', '.join(FOLDERS)}")
    for candidate in (folder / FOLDERS[variant], folder):
        if (candidate / "config.yaml").exists():
            return candidate
    raise ModelMissingError(
        f"Hunyuan3D {variant} is not in {folder}",
        expected=f"{FOLDERS[variant]}/config.yaml and its weights there",
        change="Run `fmh models pull` with the profile's name",
    )


def read_checkpoint(folder: Path) -> Checkpoint:
    """Read config and weights (memory-mapped where the format allows). Raises ModelMissingError and ModelFileError."""
    path = next((folder / name for name in WEIGHTS if (folder / name).exists()), None)
    if path is None:
        raise ModelMissingError(
            f"There are no weights in {folder}",
            expected="one of " + ", ".join(WEIGHTS),
            change="Run `fmh models pull` with the profile's name",
        )
    try:
        config = yaml.safe_load((folder / "config.yaml").read_text())
        tensors = load_file(path) if path.suffix == ".safetensors" else _read_pickle(path)
    except (OSError, ValueError, RuntimeError, SafetensorError, UnpicklingError, yaml.YAMLError) as error:
        raise ModelFileError(
            f"{path} or the config beside it cannot be read: {error}",
            expected="the publisher's files as published",
            change="Run `fmh models verify`",
        ) from error
    if not isinstance(config, dict):
        raise ModelFileError(f"{folder / 'config.yaml'} is not a mapping", expected="the publisher's config")
    return Checkpoint(config, tensors)


def _read_pickle(path: Path) -> dict[str, Tensor]:
    """Flat tensors of a .ckpt, which nests them one mapping deep; nothing but tensors is unpickled.

    What is not a tensor, such as a trainer's counters, is passed over. Raises ValueError for what is not a mapping.
    """
    content = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(content, Mapping):
        raise ValueError(f"it holds a {type(content).__name__} and not a mapping of weights")
    flat: dict[str, Any] = {}
    for name, value in content.items():
        flat |= {f"{name}.{key}": each for key, each in value.items()} if isinstance(value, Mapping) else {name: value}
    return {name: value for name, value in flat.items() if isinstance(value, Tensor)}
