# SPDX-License-Identifier: Apache-2.0
"""Which arithmetic is faster: processors with bfloat16 instructions gain several times by it, others lose as much."""

from __future__ import annotations

import time

import torch
from torch import Tensor, nn


@torch.enable_grad()
def bfloat16_is_faster(module: nn.Module, example: Tensor) -> bool:
    """Time a forward and a backward pass of a module both ways; the second of two runs counts.

    example : the module's input, for instance zeros of its shape; made to carry gradients.
    """
    seconds = []
    for enabled in (True, False):
        inputs = example.detach().clone().requires_grad_(True)
        for _ in range(2):
            begin = time.perf_counter()
            with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
                result = module(inputs)
            result.float().mean().backward()
            elapsed = time.perf_counter() - begin
        seconds.append(elapsed)
    return seconds[0] < seconds[1]
