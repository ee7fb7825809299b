# SPDX-License-Identifier: Apache-2.0
"""Mixed precision for training on a CPU, where it is faster: decided once per process by a timed probe."""

from __future__ import annotations

from functools import lru_cache

import torch

from fmh_ros.core.flow.embedded.autoencoder import GridDecoder
from fmh_ros.core.flow.embedded.layout import LATENT_CHANNELS, LATENT_TOKENS
from fmh_ros.core.flow.embedded.precision import bfloat16_is_faster


@lru_cache(maxsize=1)
def _bfloat16() -> bool:
    # A batch as in training: small ones and frozen weights take other kernels.
    return bfloat16_is_faster(GridDecoder(), torch.zeros(8, LATENT_CHANNELS, *(LATENT_TOKENS,) * 3))


def fast_autocast() -> torch.autocast:
    """A context in which networks run in bfloat16 where that is faster, and as they are elsewhere."""
    return torch.autocast("cpu", torch.bfloat16, enabled=_bfloat16())
