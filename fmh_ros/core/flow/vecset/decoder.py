# SPDX-License-Identifier: Apache-2.0
"""What a vector-set autoencoder has to offer, whatever library its networks come from, and how it is evaluated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

#: What one decode computes once and every query reads: for instance keys and values of the last cross-attention.
Memory = tuple[Tensor, ...]
#: Activations that a transformer layer keeps for the backward pass, in widths of the network per token.
TOKEN_WIDTHS = 20


class TokenDecoder(Protocol):
    """The frozen decoder of a vector-set autoencoder.

    bounds : half side of the cube that shapes live in, canonical units; device : where the networks are.
    linear_until : size of the network's value up to which it grows linearly with the distance to the surface, as a
        truncated distance in -1..1 does nearly to its ends; None for a value that does so everywhere.
    bytes_per_point : memory that one queried point's activations take while a gradient is wanted.
    """

    bounds: float
    device: torch.device
    linear_until: float | None
    bytes_per_point: int

    def remember(self, latent: Tensor) -> Memory:
        """Run the part that does not depend on points on a latent (1, tokens, channels), differentiable to it."""
        ...

    def values(self, memory: Memory, points: Tensor) -> Tensor:
        """Return the network's values (N,) at points (N, 3) on its device: negative inside (the sign is converted
        here and nowhere else), in the points' dtype, differentiable to the points and to the memory."""
        ...


@dataclass(frozen=True)
class DecodeSettings:
    """How fields are decoded.

    memory_mb : what the activations of one query may take. More points than fit are evaluated chunk by chunk, and with
        a gradient they are evaluated again in the backward pass instead of being kept.
    mesh_resolution : grid points a side of the final mesh.
    units_per_value : canonical units per unit of the network's value, or None to measure it on each decoded surface.
    """

    memory_mb: int = 4096
    mesh_resolution: int = 256
    units_per_value: float | None = None


def evaluate(decoder: TokenDecoder, memory: Memory, points: Tensor, memory_mb: int) -> Tensor:
    """Return the network's values (N,) at points (N, 3), within ``memory_mb`` of activations at a time."""
    count = max(memory_mb * 2**20 // decoder.bytes_per_point, 1)
    if len(points) <= count:
        return decoder.values(memory, points)
    keep = torch.is_grad_enabled() and (points.requires_grad or any(each.requires_grad for each in memory))
    parts = []
    for part in points.split(count):
        if keep:
            parts.append(checkpoint(decoder.values, memory, part, use_reentrant=False))
        else:
            parts.append(decoder.values(memory, part))
    return torch.cat(parts)


def run_layers(layers: Sequence[Any], tokens: Tensor, memory_mb: int) -> Tensor:
    """Run transformer layers on tokens (1, N, C).

    With a gradient, and more than ``memory_mb`` of activations, these are not kept but computed again in the backward
    pass, layer by layer.
    """
    needed = TOKEN_WIDTHS * tokens.numel() * tokens.element_size() * len(layers)
    sparing = torch.is_grad_enabled() and tokens.requires_grad and needed > memory_mb * 2**20
    for layer in layers:
        tokens = checkpoint(layer, tokens, use_reentrant=False) if sparing else layer(tokens)
    return tokens


def last_layer(layer: Any, x: Tensor) -> Tensor:
    """Apply a linear layer in float32 at least, whatever the network's dtype: rounded values would move the surface."""
    exact = torch.promote_types(x.dtype, torch.float32)
    return F.linear(x.to(exact), layer.weight.to(exact), layer.bias.to(exact))
