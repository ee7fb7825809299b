# SPDX-License-Identifier: Apache-2.0
"""What every training of a network does: a schedule of the rate, an average of recent weights, a file of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn


def scheduled_rate(peak: float, step: int, progress: float) -> float:
    """A hundred steps of warm-up, then half a cosine down to a fiftieth at ``progress`` 1."""
    return float(peak * min(1.0, (step + 1) / 100) * (0.02 + 0.98 * 0.5 * (1 + np.cos(np.pi * progress))))


def recent_average(network: nn.Module) -> AveragedModel:
    """The network with an exponential average of its weights over some 200 steps, statistics included."""
    return AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(0.995), use_buffers=True)


def write_half(state: Mapping[str, Tensor], path: Path) -> None:
    """Write weights as fp16 safetensors, atomically: whoever reads the file meanwhile gets the old ones."""
    temporary = path.with_suffix(".part")
    save_file({key: value.detach().half().contiguous() for key, value in state.items()}, temporary)
    temporary.rename(path)
