# SPDX-License-Identifier: Apache-2.0
"""The convolutional grid autoencoder: a 64^3 truncated distance grid to 4^3 tokens and back.

A dense decoder over a small token grid learns faster and decodes tens of times cheaper on a CPU than cross-attention
queries do, and hands the renderer a whole grid at once.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fmh_ros.core.flow.embedded.layout import LATENT_CHANNELS


def _onednn(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Convolution of stride 1 that keeps the size, by oneDNN whatever the batch."""
    padding = [size // 2 for size in weight.shape[2:]]
    result: Tensor = torch.ops.aten.mkldnn_convolution.default(x, weight, bias, padding, [1] * 3, [1] * 3, 1)
    return result


class _FrozenConvolution(torch.autograd.Function):
    """A convolution with constant weights of which the input alone has a gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(weight)
        return _onednn(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        (weight,) = ctx.saved_tensors
        return _onednn(grad.contiguous(), weight.flip(2, 3, 4).transpose(0, 1).contiguous(), None), None, None


class _Conv3d(nn.Conv3d):
    """A convolution that takes oneDNN also where torch would not.

    For a single small volume torch has kernels of its own, which are up to ten times slower: a guided flow, which
    decodes one shape at a time in float32, spent most of its time there. It is kept for training, and where oneDNN is
    missing.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, D, H, W) to (B, C', D', H', W')."""
        plain = x.device.type == "cpu" and x.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
        simple = self.stride == (1, 1, 1) and all(
            p == k // 2 for p, k in zip(self.padding, self.kernel_size, strict=True)
        )
        if not (plain and simple and torch.backends.mkldnn.is_available()) or self.weight.requires_grad:
            return super().forward(x)
        result: Tensor = _FrozenConvolution.apply(x, self.weight, self.bias)
        return result


class _Residual(nn.Module):
    """Two 3^3 convolutions with group normalisation and a skip connection."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(8, channels)
        self.first = _Conv3d(channels, channels, 3, padding=1)
        self.second = _Conv3d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, D, H, W) to the same shape."""
        return x + self.second(F.silu(self.first(F.silu(self.norm(x)))))


class _Up(nn.Module):
    """Doubles the resolution: 1^3 convolution, voxel shuffle, 3^3 convolution."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.expand = _Conv3d(inputs, outputs * 8, 1)
        self.mix = _Conv3d(outputs, outputs, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inputs, D, H, W) to (B, outputs, 2D, 2H, 2W)."""
        x = _voxel_shuffle(self.expand(x))
        return F.silu(self.mix(F.silu(x)))


def _voxel_shuffle(x: Tensor) -> Tensor:
    """(B, 8C, D, H, W) to (B, C, 2D, 2H, 2W)."""
    b, c, d, h, w = x.shape
    x = x.view(b, c // 8, 2, 2, 2, d, h, w).permute(0, 1, 5, 2, 6, 3, 7, 4)
    return x.reshape(b, c // 8, 2 * d, 2 * h, 2 * w)


class GridEncoder(nn.Module):
    """Grid to the mean and log variance of its latent; only training needs it."""

    def __init__(self, channels: int = LATENT_CHANNELS) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            _Conv3d(1, 16, 4, stride=2, padding=1),
            nn.SiLU(),
            _Conv3d(16, 32, 4, stride=2, padding=1),
            _Residual(32),
            nn.SiLU(),
            _Conv3d(32, 96, 4, stride=2, padding=1),
            _Residual(96),
            nn.SiLU(),
            _Conv3d(96, 160, 4, stride=2, padding=1),
            _Residual(160),
            _Residual(160),
            nn.SiLU(),
            _Conv3d(160, 2 * channels, 1),
        )

    def forward(self, grid: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 1, 64, 64, 64) in -1..1 to mean and log variance, each (B, C, 4, 4, 4)."""
        mean, log_variance = self.layers(grid).chunk(2, 1)
        return mean, log_variance.clamp(-12, 4)


class GridDecoder(nn.Module):
    """Latent to grid; values are distances over the truncation, about -1 to 1."""

    def __init__(self, channels: int = LATENT_CHANNELS) -> None:
        super().__init__()
        self.enter = _Conv3d(channels, 128, 1)
        self.deep = nn.Sequential(_Residual(128), _Residual(128))
        self.up1 = _Up(128, 96)
        self.mid = _Residual(96)
        self.up2 = _Up(96, 32)
        self.fine = _Residual(32)
        self.up3 = _Up(32, 16)
        self.detail = _Residual(16)
        self.leave = _Conv3d(16, 8, 3, padding=1)

    def forward(self, latent: Tensor) -> Tensor:
        """(B, C, 4, 4, 4) to (B, 1, 64, 64, 64)."""
        x = self.deep(self.enter(latent))
        x = self.mid(self.up1(x))
        x = self.fine(self.up2(x))
        x = self.detail(self.up3(x))
        return _voxel_shuffle(self.leave(F.silu(x)))


class GridAutoencoder(nn.Module):
    """Encoder and decoder together, as trained."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = GridEncoder()
        self.decoder = GridDecoder()

    def forward(self, grid: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the reconstruction of (B, 1, 64, 64, 64), and the latent's mean and log variance."""
        mean, log_variance = self.encoder(grid)
        noise = torch.randn_like(mean)
        return self.decoder(mean + noise * torch.exp(0.5 * log_variance)), mean, log_variance
