# SPDX-License-Identifier: Apache-2.0
"""What the embedded flow is conditioned on: a single view lifted into the view cube, one feature per latent token."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fmh_ros.core.flow.embedded.autoencoder import Residual
from fmh_ros.core.flow.embedded.layout import LATENT_TOKENS, MAP_CHANNELS

#: Resolution of the lifted volume, and cube units over which the observed depth's distance saturates.
VOLUME = 32
DEPTH_REACH = 0.25
#: Channels of the lifted volume, and how many of them the coarse branch of the encoder reads.
LIFTED, COARSE = 8, 5
#: Voxels along each side of the cells that the fine branch reads whole, and its width.
CELL, FINE_WIDTH = 4, 96


def lift_maps(maps: Tensor, distance: Tensor) -> Tensor:
    """Project every voxel of the view cube into the maps.

    maps : (B, 8, S, S), indexed [row, column]; distance : (B,), camera distance in cube units. Returns (B, 8, V, V, V)
    indexed [x, y, z]: mask, unknown, known depth, signed distance along the ray to the observed surface (positive in
    front of it, saturated, 0 where unknown), the voxel's own z, and the seen normal (0 where unknown).
    """
    batch = maps.shape[0]
    axis = torch.linspace(-1, 1, VOLUME)
    x, y, z = torch.meshgrid(axis, axis, axis, indexing="ij")
    d = distance.view(-1, 1, 1, 1)
    shrink = d / (d + z[None])
    where = torch.stack([x[None] * shrink, y[None] * shrink], -1).view(batch, VOLUME * VOLUME, VOLUME, 2)
    normals = maps[:, 4:7] * maps[:, 7:8]
    chosen = torch.cat([maps[:, 0:1], 1 - maps[:, 1:2], maps[:, 2:3] * maps[:, 3:4], maps[:, 3:4], normals], 1)
    # Zero padding makes what lies outside the maps "not mask" and "not (not unknown)", that is unknown.
    seen = F.grid_sample(chosen, where, mode="bilinear", padding_mode="zeros", align_corners=False)
    seen = seen.view(batch, 7, VOLUME, VOLUME, VOLUME)
    known = seen[:, 3:4]
    surface = seen[:, 2:3] / known.clamp(min=1e-3)
    ahead = ((surface - z[None, None]) / DEPTH_REACH).clamp(-1, 1) * (known > 0.5)
    own = z.expand(batch, 1, VOLUME, VOLUME, VOLUME)
    return torch.cat([seen[:, 0:1], 1 - seen[:, 1:2], (known > 0.5).float(), ahead, own, seen[:, 4:]], 1)


def _cells(volume: Tensor) -> Tensor:
    """(B, C, V, V, V) to (B, C * CELL^3, V / CELL, ...): every cell's voxels become its features."""
    b, c, v = volume.shape[:3]
    n = v // CELL
    cells = volume.view(b, c, n, CELL, n, CELL, n, CELL).permute(0, 1, 3, 5, 7, 2, 4, 6)
    return cells.reshape(b, c * CELL**3, n, n, n)


class _FineBranch(nn.Module):
    """What the strided convolutions of the coarse branch blur: where exactly the surface lies in each cell.

    The last layer begins at zero, so that the branch can be added to a trained network.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.enter = nn.Conv3d(LIFTED * CELL**3, FINE_WIDTH, 1)
        self.mix = Residual(FINE_WIDTH)
        self.leave = nn.Conv3d(FINE_WIDTH, width, 2, 2)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)  # type: ignore[arg-type]

    def forward(self, volume: Tensor) -> Tensor:
        """(B, LIFTED, V, V, V) to (B, width, 4, 4, 4)."""
        result: Tensor = self.leave(F.silu(self.mix(self.enter(_cells(volume)))))
        return result


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
            nn.Conv3d(COARSE, 16, 4, 2, 1),
            nn.SiLU(),
            nn.Conv3d(16, 48, 4, 2, 1),
            nn.SiLU(),
            nn.Conv3d(48, width, 4, 2, 1),
        )
        self.fine = _FineBranch(width)
        self.distance = nn.Sequential(nn.Linear(1, 64), nn.SiLU(), nn.Linear(64, width))

    def forward(self, maps: Tensor, distance: Tensor) -> Tensor:
        """maps (B, 8, 64, 64), distance (B,) to tokens (B, 64, width), token order [x, y, z] flattened."""
        flat = self.image(maps).transpose(-1, -2)  # rows are y, tokens count x first
        volume = lift_maps(maps, distance)
        features = (
            self.volume(volume[:, :COARSE]) + self.fine(volume) + flat[..., None].expand(*flat.shape, LATENT_TOKENS)
        )
        far = self.distance(torch.log(distance)[:, None] - 1.8)
        tokens: Tensor = features.flatten(2).transpose(1, 2) + far[:, None]
        return tokens
