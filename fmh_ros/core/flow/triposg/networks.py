# SPDX-License-Identifier: Apache-2.0
"""TripoSG's transformer and shape decoder, with the parameter names and shapes of the published checkpoint.

Only ``model`` imports this, inside functions: diffusers is optional.
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers.models.attention import FeedForward
from diffusers.models.attention_processor import Attention
from diffusers.models.embeddings import TimestepEmbedding, Timesteps
from diffusers.models.normalization import FP32LayerNorm
from torch import Tensor, nn
from torch.nn import functional as F


def split_heads(projected: tuple[Tensor, ...], heads: int) -> tuple[Tensor, ...]:
    """Split projections (B, N, C) into heads, (B, heads, N, C / heads) each.

    The checkpoint's projections were trained as one: a head owns consecutive channels of what their concatenation
    gives, and within these come query, key and value. Splitting each projection by itself would mix the heads.
    """
    joined = torch.cat(projected, -1).unflatten(-1, (heads, -1)).transpose(1, 2)
    return joined.chunk(len(projected), -1)


def keys_and_values(attention: Any, context: Tensor) -> tuple[Tensor, Tensor]:
    """Keys and values (B, heads, N, C / heads) of a cross-attention for a context (B, N, C)."""
    if attention.norm_cross is not None:
        context = attention.norm_cross(context)
    keys, values = split_heads((attention.to_k(context), attention.to_v(context)), attention.heads)
    return keys if attention.norm_k is None else attention.norm_k(keys), values


def attend(attention: Any, x: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Cross-attention of x (B, N, C) to given keys and values."""
    (queries,) = split_heads((attention.to_q(x),), attention.heads)
    return _mix(attention, queries, keys, values)


def _mix(attention: Any, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    if attention.norm_q is not None:
        queries = attention.norm_q(queries)
    mixed = F.scaled_dot_product_attention(queries.to(values.dtype), keys.to(values.dtype), values)
    result: Tensor = attention.to_out[0](mixed.transpose(1, 2).flatten(2))
    return result


class JointHeads:
    """Attention processor for diffusers' ``Attention`` with heads split as in ``split_heads``."""

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
    ) -> Tensor:
        """Attend to the context, or to the input itself without one; there are no masks."""
        if encoder_hidden_states is not None:
            return attend(attn, hidden_states, *keys_and_values(attn, encoder_hidden_states))
        projections = attn.to_q(hidden_states), attn.to_k(hidden_states), attn.to_v(hidden_states)
        queries, keys, values = split_heads(projections, attn.heads)
        return _mix(attn, queries, keys if attn.norm_k is None else attn.norm_k(keys), values)


class Block(nn.Module):
    """A pre-norm transformer block: self-attention, cross-attention, feed-forward, each where asked for.

    context : channels of what is attended to, None for no cross-attention. merges : joins the state of an earlier block
    first. The names of the parts are the checkpoint's.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        *,
        self_attention: bool = True,
        context: int | None = None,
        context_norm: str | None = None,
        query_key_norm: bool = False,
        merges: bool = False,
    ) -> None:
        super().__init__()
        norm = "rms_norm" if query_key_norm else None
        shared: dict[str, Any] = {"heads": heads, "dim_head": width // heads, "qk_norm": norm, "eps": 1e-6}
        shared |= {"bias": False, "processor": JointHeads()}
        self.norm1 = self.attn1 = self.norm2 = self.attn2 = self.skip_linear = self.skip_norm = None
        if self_attention:
            self.norm1, self.attn1 = FP32LayerNorm(width, 1e-5), Attention(width, **shared)
        if context is not None:
            self.norm2 = FP32LayerNorm(width, 1e-5)
            self.attn2 = Attention(width, cross_attention_dim=context, cross_attention_norm=context_norm, **shared)
        self.norm3 = FP32LayerNorm(width, 1e-5)
        self.ff = FeedForward(width, activation_fn="gelu", inner_dim=4 * width)
        if merges:
            self.skip_linear, self.skip_norm = nn.Linear(2 * width, width), FP32LayerNorm(width, 1e-5)

    def forward(self, x: Tensor, context: Tensor | None = None, earlier: Tensor | None = None) -> Tensor:
        """x, earlier : (B, N, width); context : (B, M, context)."""
        if self.skip_linear is not None and self.skip_norm is not None:
            assert earlier is not None
            x = self.skip_norm(self.skip_linear(torch.cat([earlier, x], -1)))
        if self.attn1 is not None and self.norm1 is not None:
            x = x + self.attn1(self.norm1(x))
        if self.attn2 is not None and self.norm2 is not None:
            x = x + self.attn2(self.norm2(x), encoder_hidden_states=context)
        result: Tensor = x + self.ff(self.norm3(x))
        return result


class FlowTransformer(nn.Module):
    """The denoiser: time as one token before the latent's, each block attending to image tokens, and the first half of
    the blocks joined to the last in reverse order, the middle one to none."""

    def __init__(self, channels: int, width: int, heads: int, layers: int, context: int) -> None:
        super().__init__()
        self.time_embed = Timesteps(width, flip_sin_to_cos=False, downscale_freq_shift=0)
        self.time_proj = TimestepEmbedding(width, 4 * width, act_fn="gelu", out_dim=width)
        self.proj_in = nn.Linear(channels, width)
        made = (
            Block(width, heads, context=context, query_key_norm=True, merges=layer > layers // 2)
            for layer in range(layers)
        )
        self.blocks = nn.ModuleList(made)
        self.norm_out = nn.LayerNorm(width)
        self.proj_out = nn.Linear(width, channels)

    def forward(self, latent: Tensor, time: Tensor, context: Tensor) -> Tensor:
        """latent (B, N, channels), time (B,) 0 at data and 1000 at noise, context (B, M, C) to data - noise."""
        embedded = self.time_proj(self.time_embed(time).to(latent.dtype))
        x = torch.cat([embedded[:, None], self.proj_in(latent)], 1)
        half, states = len(self.blocks) // 2, list[Tensor]()
        for layer, block in enumerate(self.blocks):
            x = block(x, context, states.pop() if layer > half else None)
            if layer < half:
                states.append(x)
        result: Tensor = self.proj_out(self.norm_out(x)[:, 1:])
        return result


class PointDecoder(nn.Module):
    """Self-attention over tokens, then one cross-attention from embedded points to them."""

    def __init__(self, features: int, width: int, heads: int, layers: int) -> None:
        super().__init__()
        made = [Block(width, heads) for _ in range(layers)]
        made.append(Block(width, heads, self_attention=False, context=width, context_norm="layer_norm"))
        self.blocks = nn.ModuleList(made)
        self.proj_query = nn.Linear(features, width)
        self.norm_out = nn.LayerNorm(width)
        self.proj_out = nn.Linear(width, 1)


class ShapeAutoencoder(nn.Module):
    """The decoding half of the autoencoder; frequencies : of the points' embedding, without pi."""

    def __init__(self, channels: int, width: int, heads: int, layers: int, frequencies: int) -> None:
        super().__init__()
        self.frequencies = frequencies
        self.post_quant = nn.Linear(channels, width)
        self.decoder = PointDecoder(3 * (2 * frequencies + 1), width, heads, layers)

    def embed(self, points: Tensor) -> Tensor:
        """Features (N, 3 + 6 F) of points (N, 3): themselves, then sines, then cosines of each coordinate times 2^k."""
        angles = (points[:, :, None] * 2.0 ** torch.arange(self.frequencies, device=points.device)).flatten(1)
        return torch.cat([points, angles.sin(), angles.cos()], -1)
