# SPDX-License-Identifier: Apache-2.0
"""The publisher's ShapeVAE as a ``TokenDecoder``: its own layers, its keys and values computed once per decode."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from fmh_ros.core.flow.vecset.decoder import Memory, last_layer, run_layers

#: Half side of the cube that the publisher meshes by default.
BOUNDS = 1.01
#: The network is trained on distances truncated to -1..1; the publisher's own coarse-to-fine decoding takes values
#: within 0.95 as near the surface.
LINEAR_UNTIL = 0.9
#: Activations kept for the backward pass, in widths of the network: per queried point with an MLP of ratio 1, and for
#: each further ratio.
_POINT_WIDTHS, _MLP_WIDTHS = 7, 2


class HunyuanDecoder:
    """Evaluates points with the cross-attention decoder of a ShapeVAE, whose logits are positive inside.

    The publisher's own call computes keys and values of all tokens again for every chunk of points; here a decode
    computes them once. Points are embedded and the last layer is computed in float32 (float64 for a float64 network).
    """

    def __init__(self, vae: Any, memory_mb: int, bounds: float = BOUNDS) -> None:
        self.vae = vae
        self.bounds = bounds
        self.linear_until: float | None = LINEAR_UNTIL
        self.memory_mb = memory_mb
        weight: Tensor = self.vae.post_kl.weight
        self.device, self.dtype = weight.device, weight.dtype
        block = self.vae.geo_decoder.cross_attn_decoder
        width = int(block.ln_1.normalized_shape[0])
        ratio = int(block.mlp.c_fc.out_features) // width
        self.bytes_per_point = (_POINT_WIDTHS + _MLP_WIDTHS * ratio) * width * weight.element_size()

    def remember(self, latent: Tensor) -> Memory:
        """Keys and values (1, heads, tokens, channels) of a latent (1, tokens, channels) at the flow's scale."""
        vae, geometry = self.vae, self.vae.geo_decoder
        tokens = vae.post_kl((latent.to(self.device) / vae.scale_factor).to(self.dtype))
        tokens = run_layers(vae.transformer.resblocks, tokens, self.memory_mb)
        if geometry.downsample_ratio != 1:
            tokens = geometry.latents_proj(tokens)
        block = geometry.cross_attn_decoder
        attention = block.attn.attention
        both = block.attn.c_kv(block.ln_2(tokens)).unflatten(-1, (attention.heads, -1))
        keys, values = both.chunk(2, -1)
        return attention.k_norm(keys).transpose(1, 2), values.transpose(1, 2)

    def values(self, memory: Memory, points: Tensor) -> Tensor:
        """Negated logits (N,): the one place where the sign is converted."""
        geometry = self.vae.geo_decoder
        block = geometry.cross_attn_decoder
        attention = block.attn.attention
        keys, values = memory
        x = geometry.query_proj(self._embed(points).to(self.dtype))[None]
        queries = attention.q_norm(block.attn.c_q(block.ln_1(x)).unflatten(-1, (attention.heads, -1)))
        attended = F.scaled_dot_product_attention(queries.transpose(1, 2), keys, values)
        x = x + block.attn.c_proj(attended.transpose(1, 2).flatten(2))
        x = x + block.mlp(block.ln_3(x))
        if geometry.enable_ln_post:
            x = geometry.ln_post(x)
        return -last_layer(geometry.output_proj, x)[0, :, 0].to(points.dtype)

    def _embed(self, points: Tensor) -> Tensor:
        """Point features in the points' own precision, whatever the networks'."""
        return torch.as_tensor(self.vae.fourier_embedder(points))
