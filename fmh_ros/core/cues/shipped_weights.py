# SPDX-License-Identifier: Apache-2.0
"""Reads the weights that ship with the package into a network."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import load_file
from torch import nn

from fmh_ros.core.errors import ModelMissingError


def read_into(network: nn.Module, path: Path, name: str, module: str) -> None:
    """Load safetensors of any floating type into ``network``, in fp32, and make it ready for inference.

    name : of the network, for people; module : that trains it. Raises ModelMissingError when the file is missing or
    belongs to another network.
    """
    if not path.is_file():
        raise ModelMissingError(
            f"The {name}'s weights {path} are missing",
            expected="the file that ships with the package",
            change=f"Reinstall the package, or train it with python -m {module}",
        )
    state = {key: value.float() for key, value in load_file(path).items()}
    own = network.state_dict()
    wanted = {key for key in own if not key.endswith("num_batches_tracked")}
    wrong = sorted(wanted.symmetric_difference(state)) or [k for k in state if state[k].shape != own[k].shape]
    if wrong:
        raise ModelMissingError(
            f"{path} does not fit the {name}: {', '.join(wrong[:4])}",
            expected="the weights that ship with this version",
            change="Reinstall the package",
        )
    network.load_state_dict(state, strict=False)
    network.requires_grad_(False).eval()
