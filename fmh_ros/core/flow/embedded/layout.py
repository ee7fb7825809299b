# SPDX-License-Identifier: Apache-2.0
"""The embedded generator's fixed conventions, shared by training and inference."""

from __future__ import annotations

#: Resolution of the distance grid over the view cube [-1, 1]^3.
GRID = 64
#: Truncation of the distance grid, in cube units.
TRUNCATION = 0.1
#: Tokens along each axis of the latent, and channels of each token.
LATENT_TOKENS = 4
LATENT_CHANNELS = 24
#: Pixels along each side of the conditioning maps; the cube's middle slice fills them.
MAP_SIZE = 64
#: Channels of the conditioning maps: mask, unknown, depth, depth known, normal x, y, z, normal known.
MAP_CHANNELS = 8
