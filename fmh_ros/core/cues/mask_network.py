# SPDX-License-Identifier: Apache-2.0
"""The mask network: a small pretrained image encoder, a guidance encoder and a decoder.

The image encoder is EfficientNet-Lite0 (public architecture) up to stride 32, without its last stage and classifier.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from fmh_ros.core.cues.mask_inputs import MAP_COUNT
from fmh_ros.core.cues.shipped_weights import read_into

#: Inverted residual blocks: input and output channels, kernel, stride, expansion.
_BLOCKS: tuple[tuple[int, int, int, int, int], ...] = (
    (32, 16, 3, 1, 1),
    (16, 24, 3, 2, 6),
    (24, 24, 3, 1, 6),
    (24, 40, 5, 2, 6),
    (40, 40, 5, 1, 6),
    (40, 80, 3, 2, 6),
    (80, 80, 3, 1, 6),
    (80, 80, 3, 1, 6),
    (80, 112, 5, 1, 6),
    (112, 112, 5, 1, 6),
    (112, 112, 5, 1, 6),
    (112, 192, 5, 2, 6),
    (192, 192, 5, 1, 6),
)
#: Blocks whose outputs the decoder uses: strides 2, 4, 8, 16, 32.
_TAPS = (0, 2, 4, 10, 12)
_TAP_CHANNELS = (16, 24, 40, 112, 192)
_GUIDE_CHANNELS = (16, 24, 32, 48, 64)
_DECODER_CHANNELS = (24, 40, 64, 96, 128)


@dataclass(frozen=True)
class MaskOutput:
    """Raw outputs for a batch of N crops, at half the crop's resolution.

    classes : (N, 3, H, W) logits of background, hand with forearm, object; amodal : (N, H, W) logit of the whole
    object; normals : (N, 3, H, W) unit, camera frame; depth : (N, H, W) z minus the wrist's, in hand lengths (wrist
    to the middle finger's knuckle); holds : (N,) logit that the hand holds something.
    """

    classes: Tensor
    amodal: Tensor
    normals: Tensor
    depth: Tensor
    holds: Tensor


def _same_padding(kernel: int, stride: int) -> nn.Module:
    """The padding that the pretrained weights expect of even sizes: the odd pixel goes to the right and bottom."""
    total = kernel - stride
    return nn.ZeroPad2d((total // 2, total - total // 2, total // 2, total - total // 2))


class _InvertedResidual(nn.Module):
    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        self.expand = (
            nn.Sequential(nn.Conv2d(inputs, hidden, 1, bias=False), nn.BatchNorm2d(hidden, eps=1e-3), nn.ReLU6())
            if expansion > 1
            else nn.Identity()
        )
        self.depthwise = nn.Sequential(
            _same_padding(kernel, stride),
            nn.Conv2d(hidden, hidden, kernel, stride, groups=hidden, bias=False),
            nn.BatchNorm2d(hidden, eps=1e-3),
            nn.ReLU6(),
        )
        self.project = nn.Sequential(nn.Conv2d(hidden, outputs, 1, bias=False), nn.BatchNorm2d(outputs, eps=1e-3))
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.project(self.depthwise(self.expand(x)))
        return x + y if self.residual else y


class ImageEncoder(nn.Module):
    """Features of strides 2 to 32 of images (N, 3, H, W) normalised to (value - 127) / 128."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            _same_padding(3, 2), nn.Conv2d(3, 32, 3, 2, bias=False), nn.BatchNorm2d(32, eps=1e-3), nn.ReLU6()
        )
        self.blocks = nn.ModuleList(_InvertedResidual(*block) for block in _BLOCKS)

    def forward(self, x: Tensor, frozen_blocks: int = 0) -> list[Tensor]:
        """Return the five taps; no gradient flows into the stem and the first ``frozen_blocks`` blocks."""
        taps = []
        with torch.set_grad_enabled(torch.is_grad_enabled() and frozen_blocks == 0):
            x = self.stem(x)
        for index, block in enumerate(self.blocks):
            with torch.set_grad_enabled(torch.is_grad_enabled() and index >= frozen_blocks):
                x = block(x)
            if index in _TAPS:
                taps.append(x)
        return taps


def _norm(channels: int) -> nn.Module:
    return nn.GroupNorm(8, channels)


class _Mix(nn.Module):
    """Pointwise fusion followed by a depthwise-separable residual."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 5) -> None:
        super().__init__()
        self.fuse = nn.Sequential(nn.Conv2d(inputs, outputs, 1), _norm(outputs), nn.ReLU())
        self.spread = nn.Sequential(
            nn.Conv2d(outputs, outputs, kernel, 1, kernel // 2, groups=outputs),
            nn.Conv2d(outputs, outputs, 1),
            _norm(outputs),
            nn.ReLU(),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.fuse(x)
        y: Tensor = self.spread(x)
        return x + y


class MaskNetwork(nn.Module):
    """Classes, amodal mask, normals and depth of a crop round a right hand."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = ImageEncoder()
        guide: list[nn.Module] = []
        inputs = MAP_COUNT
        for level, channels in enumerate(_GUIDE_CHANNELS):
            guide.append(
                nn.Sequential(nn.Conv2d(inputs, channels, 3, 1 if level == 0 else 2, 1), _norm(channels), nn.ReLU())
            )
            inputs = channels
        self.guide = nn.ModuleList(guide)
        mixes: list[nn.Module] = []
        for level in range(5):
            below = _DECODER_CHANNELS[level + 1] if level < 4 else 0
            width = _TAP_CHANNELS[level] + _GUIDE_CHANNELS[level] + below
            mixes.append(_Mix(width, _DECODER_CHANNELS[level], 3 if level == 0 else 5))
        self.mixes = nn.ModuleList(mixes)
        self.context = nn.Sequential(_Mix(_DECODER_CHANNELS[4], _DECODER_CHANNELS[4]))
        self.middle = nn.Sequential(_Mix(_DECODER_CHANNELS[3], _DECODER_CHANNELS[3]))
        self.head = nn.Conv2d(_DECODER_CHANNELS[0], 8, 3, 1, 1)
        self.holds = nn.Sequential(
            nn.Linear(_DECODER_CHANNELS[4] + _DECODER_CHANNELS[3], 64), nn.ReLU(), nn.Linear(64, 1)
        )

    @classmethod
    def from_file(cls, path: Path) -> MaskNetwork:
        """Load weights for inference. Raises ModelMissingError when they are missing or of another network."""
        network = cls()
        read_into(network, path, "mask network", "fmh_ros.training.masks")
        return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]

    def forward(self, image: Tensor, maps: Tensor, frozen_blocks: int = 0) -> MaskOutput:
        """Run on images (N, 3, CROP_SIZE, CROP_SIZE) in 0..255 and guidance maps (N, MAP_COUNT, half, half)."""
        taps = self.encoder((image - 127.0) / 128.0, frozen_blocks)
        guides = []
        for layer in self.guide:
            maps = layer(maps)
            guides.append(maps)
        x = self.context(self.mixes[4](torch.cat([taps[4], guides[4]], 1)))
        pooled = [x.mean((2, 3))]
        for level in (3, 2, 1, 0):
            up = nn.functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
            x = self.mixes[level](torch.cat([taps[level], guides[level], up], 1))
            if level == 3:
                x = self.middle(x)
                pooled.append(x.amax((2, 3)))
        out = self.head(x).float()
        normals = nn.functional.normalize(out[:, 4:7] + out.new_tensor([0, 0, -1.0])[:, None, None], dim=1)
        holds = self.holds(torch.cat(pooled, 1)).float()[:, 0]
        return MaskOutput(out[:, :3], out[:, 3], normals, out[:, 7], holds)
