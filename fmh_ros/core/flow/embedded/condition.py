# SPDX-License-Identifier: Apache-2.0
"""What the embedded flow is conditioned on: a single view lifted into the view cube, one feature per latent token."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fmh_ros.core.flow.embedded.layout import LATENT_TOKENS, MAP_CHANNELS

#: Resolution of the lifted volume, and cube units over which the observed depth's distance saturates.
VOLUME = 32
DEPTH_REACH = 0.25


def lift_maps(maps: Tensor, distance: Tensor) -> Tensor:
    """Project every voxel of the view cube into the maps.

    maps : (B, 8, S, S), indexed [row, column]; distance : (B,), camera distance in cube units. Returns (B, 5, V, V, V)
    indexed [x, y, z]: mask, unknown, known depth, signed distance along the ray to the observed surface (positive in
    front of it, saturated, 0 where unknown), and the voxel's own z.
    """
    batch = maps.shape[0]
    axis = torch.linspace(-1, 1, VOLUME)
    x, y, z = torch.meshgrid(axis, axis, axis, indexing="ij")
    d = distance.view(-1, 1, 1, 1)
    shrink = d / (d + z[None])
    where = torch.stack([x[None] * shrink, y[None] * shrink], -1).view(batch, VOLUME * VOLUME, VOLUME, 2)
    chosen = torch.cat([maps[:, 0:1], 1 - maps[:, 1:2], maps[:, 2:3] * maps[:, 3:4], maps[:, 3:4]], 1)
    # Zero padding makes what lies outside the maps "not mask" and "not (not unknown)", that is unknown.
    seen = F.grid_sample(chosen, where, mode="bilinear", padding_mode="zeros", align_corners=False)
    seen = seen.view(batch, 4, VOLUME, VOLUME, VOLUME)
    known = seen[:, 3:4]
    surface = seen[:, 2:3] / known.clamp(min=1e-3)
    ahead = ((surface - z[None, None]) / DEPTH_REACH).clamp(-1, 1) * (known > 0.5)
    own = z.expand(batch, 1, VOLUME, VOLUME, VOLUME)
    return torch.cat([seen[:, 0:1], 1 - seen[:, 1:2], (known > 0.5).float(), ahead, own], 1)


class ConditionEncoder(nn.Module):
    """Maps of one view to one feature per latent token."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.image = nn.Sequential(
            nn.Conv2d(MAP_CHANNELS, 32, 4, 2, 1),
            nn.SiLU(),
            nn.Conv2d(32, 64, 4, 2, 1),
            nn.SiLU(),
            nn.Conv2d(64, 128, 4, 2, 1),
            nn.SiLU(),
            nn.Conv2d(128, width, 4, 2, 1),
        )
        self.volume = nn.Sequential(
            nn.Conv3d(5, 16, 4, 2, 1),
            nn.SiLU(),
            nn.Conv3d(16, 48, 4, 2, 1),
            nn.SiLU(),
            nn.Conv3d(48, width, 4, 2, 1),
        )
        self.distance = nn.Sequential(nn.Linear(1, 64), nn.SiLU(), nn.Linear(64, width))

    def forward(self, maps: Tensor, distance: Tensor) -> Tensor:
        """maps (B, 8, 64, 64), distance (B,) to tokens (B, 64, width), token order [x, y, z] flattened."""
        flat = self.image(maps).transpose(-1, -2)  # rows are y, tokens count x first
        lifted = self.volume(lift_maps(maps, distance))
        features = lifted + flat[..., None].expand(*flat.shape, LATENT_TOKENS)
        far = self.distance(torch.log(distance)[:, None] - 1.8)
        tokens: Tensor = features.flatten(2).transpose(1, 2) + far[:, None]
        return tokens
