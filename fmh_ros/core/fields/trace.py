# SPDX-License-Identifier: Apache-2.0
"""Finds, without gradient, where camera rays meet an implicit field. ``render`` puts the gradient back."""

from __future__ import annotations

import ctypes
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

#: Offset, in voxels, at which the two sides of a ray's minimum are looked at.
MINIMUM_OFFSET_VOXELS = 0.02


@dataclass(frozen=True)
class RayTrace:
    """What each of N rays ``origin + t * direction`` meets; float32, t in units of the direction's length.

    hit : (N,) t of the first zero, NaN where the ray misses; slope : (N,) d value / dt there, negative.
    lowest : (N,) t of the smallest value on the ray, or of the first value below -saturation; NaN where the ray
        misses the cube; lowest_value : (N,) that value, huge where the ray misses the cube.
    weight : (N,) share of the near side of ``lowest`` in the derivative of the smallest value (see ``render``).
    """

    hit: Tensor
    slope: Tensor
    lowest: Tensor
    lowest_value: Tensor
    weight: Tensor


def _has_cuda_driver() -> bool:
    """Whether the CUDA driver library can be loaded."""
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True


@contextmanager
def _without_driver_warning() -> Iterator[None]:
    """Keep Warp's native code from writing to the process's stderr that there is no CUDA driver: that is normal."""
    if _has_cuda_driver():
        yield
        return
    sys.stderr.flush()
    kept, sink = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(sink, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(sink)


@lru_cache(maxsize=1)
def prepare_warp() -> None:
    """Start Warp quietly, with a kernel cache that can be written; call it before the first launch."""
    import warp as wp

    if hasattr(wp.config, "log_level"):
        wp.config.log_level = wp.LOG_ERROR
    else:
        wp.config.quiet = True
    if wp.config.kernel_cache_dir is None and "WARP_CACHE_PATH" not in os.environ:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        while not base.exists():
            base = base.parent
        if not os.access(base, os.W_OK):
            wp.config.kernel_cache_dir = tempfile.mkdtemp(prefix="fmh-warp-")
    with _without_driver_warning():
        wp.init()


def trace(grid: Tensor, bounds: float, origin: Tensor, directions: Tensor, saturation: float) -> RayTrace:
    """Follow rays through a grid of signed distances.

    grid : (R, R, R) values on [-bounds, bounds]^3; origin : (3,) and directions : (N, 3) in the field's frame, the
    directions of any length; saturation : depth below which a ray need not be followed further, field units.
    Each ray goes on past its first hit to its deepest point: stopping at the hit would report a smallest value of
    about zero for every ray inside the silhouette.
    """
    import warp as wp

    prepare_warp()
    from fmh_ros.core.fields.kernels import trace_rays

    values = grid.detach().float().contiguous()
    rays = directions.detach().to(values.device, torch.float32).contiguous()
    count = rays.shape[0]
    outputs = [torch.empty(count, device=values.device) for _ in range(5)]
    device = "cpu" if values.device.type == "cpu" else f"cuda:{values.device.index or 0}"
    start = wp.vec3(*origin.detach().double().cpu().tolist())
    stream = wp.stream_from_torch(torch.cuda.current_stream(values.device)) if device != "cpu" else None
    wp.launch(
        trace_rays,
        dim=count,
        inputs=[
            wp.from_torch(values),
            float(bounds),
            start,
            wp.from_torch(rays, dtype=wp.vec3),
            float(saturation),
            *(wp.from_torch(output) for output in outputs),
        ],
        device=device,
        stream=stream,
    )
    return RayTrace(*outputs)
