# SPDX-License-Identifier: Apache-2.0
"""The velocity network: a small transformer over the 4^3 latent tokens, modulated by the flow time."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fmh_ros.core.flow.embedded.condition import ConditionEncoder
from fmh_ros.core.flow.embedded.layout import LATENT_CHANNELS, LATENT_TOKENS

WIDTH, DEPTH, HEADS = 192, 7, 6


def time_features(sigma: Tensor, width: int) -> Tensor:
    """Sinusoidal features (B, width) of sigma (B,) in 0..1."""
    half = width // 2
    frequencies = torch.exp(torch.arange(half) * (-math.log(10_000.0) / half)) * 1000.0
    angles = sigma.float()[:, None] * frequencies[None]
    return torch.cat([angles.sin(), angles.cos()], 1)


class _Block(nn.Module):
    """Self-attention and MLP, each normalised, shifted, scaled and gated by the flow time."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(6, WIDTH) * 0.02)
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        self.out = nn.Linear(WIDTH, WIDTH)
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(approximate="tanh"), nn.Linear(4 * WIDTH, WIDTH))

    def forward(self, x: Tensor, modulation: Tensor) -> Tensor:
        """x (B, T, WIDTH), modulation (B, 6, WIDTH)."""
        shift1, scale1, gate1, shift2, scale2, gate2 = (modulation + self.table)[:, :, None].unbind(1)
        h = F.layer_norm(x, (WIDTH,)) * (1 + scale1) + shift1
        q, k, v = self.qkv(h).view(*h.shape[:2], 3, HEADS, -1).permute(2, 0, 3, 1, 4)
        # Written out: with 64 tokens the fused kernel's backward pass is several times slower on a CPU.
        weights = torch.softmax(q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5, -1)
        attended = (weights.to(v.dtype) @ v).transpose(1, 2).flatten(2)
        x = x + gate1 * self.out(attended)
        h = F.layer_norm(x, (WIDTH,)) * (1 + scale2) + shift2
        return x + gate2 * self.mlp(h)


class VelocityNetwork(nn.Module):
    """v(latent, sigma, condition tokens)."""

    def __init__(self) -> None:
        super().__init__()
        count = LATENT_TOKENS**3
        self.enter = nn.Linear(LATENT_CHANNELS, WIDTH)
        self.position = nn.Parameter(torch.randn(count, WIDTH) * 0.02)
        self.condition = ConditionEncoder(WIDTH)
        self.time = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.SiLU(), nn.Linear(WIDTH, 6 * WIDTH))
        self.blocks = nn.ModuleList(_Block() for _ in range(DEPTH))
        self.leave = nn.Linear(WIDTH, LATENT_CHANNELS)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)

    def forward(self, latent: Tensor, sigma: Tensor, tokens: Tensor) -> Tensor:
        """latent (B, C, 4, 4, 4), sigma (B,), tokens (B, 64, WIDTH) from ``condition``; returns the latent's shape."""
        x = self.enter(latent.flatten(2).transpose(1, 2)) + self.position + tokens
        modulation = self.time(time_features(sigma, WIDTH)).view(-1, 6, WIDTH)
        for block in self.blocks:
            x = block(x, modulation)
        velocity = self.leave(F.layer_norm(x, (WIDTH,)))
        return velocity.transpose(1, 2).reshape(latent.shape)
