# SPDX-License-Identifier: Apache-2.0
"""TripoSG's autoencoder as a ``TokenDecoder``: keys and values of the tokens computed once per decode."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fmh_ros.core.flow.vecset.decoder import Memory, last_layer, run_layers

#: Half side of the cube that the publisher meshes.
BOUNDS = 1.005
#: Should the published network's distances be truncated, then at -1 and 1. Where they are not, values near the surface
#: stay below this and it has no effect.
LINEAR_UNTIL = 0.9
#: Activations kept for the backward pass, in widths of the network, per queried point.
_POINT_WIDTHS = 15


class TripoSGDecoder:
    """Evaluates points with a ``ShapeAutoencoder``. Points are embedded, and the last layer is computed, in float32
    (float64 for a float64 network)."""

    def __init__(self, vae: Any, memory_mb: int, bounds: float = BOUNDS) -> None:
        self.vae = vae
        self.bounds = bounds
        self.linear_until: float | None = LINEAR_UNTIL
        self.memory_mb = memory_mb
        weight = self.vae.post_quant.weight
        self.device: torch.device = weight.device
        self.dtype: torch.dtype = weight.dtype
        self.bytes_per_point: int = _POINT_WIDTHS * weight.shape[0] * weight.element_size()

    def remember(self, latent: Tensor) -> Memory:
        """Keys and values (1, heads, tokens, channels) of a latent (1, tokens, channels)."""
        from fmh_ros.core.flow.triposg.networks import keys_and_values

        *blocks, last = self.vae.decoder.blocks
        tokens = self.vae.post_quant(latent.to(self.device, self.dtype))
        tokens = run_layers(blocks, tokens, self.memory_mb)
        return keys_and_values(last.attn2, tokens)

    def values(self, memory: Memory, points: Tensor) -> Tensor:
        """The network's own output (N,), which is negative inside: the publisher negates it before meshing."""
        from fmh_ros.core.flow.triposg.networks import attend

        network = self.vae.decoder
        last = network.blocks[-1]
        x = network.proj_query(self.vae.embed(points).to(self.dtype))[None]
        x = x + attend(last.attn2, last.norm2(x), *memory)
        x = network.norm_out(x + last.ff(last.norm3(x)))
        return last_layer(network.proj_out, x)[0, :, 0].to(points.dtype)
