# SPDX-License-Identifier: Apache-2.0
"""Finds, without gradient, where camera rays meet an implicit field. ``render`` puts the gradient back."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import warp as wp
from torch import Tensor

from fmh_ros.core.fields.kernels import trace_rays
from fmh_ros.core.fields.warp_runtime import start_warp

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


def trace(grid: Tensor, bounds: float, origin: Tensor, directions: Tensor, saturation: float) -> RayTrace:
    """Follow rays through a grid of signed distances.

    grid : (R, R, R) values on [-bounds, bounds]^3; origin : (3,) and directions : (N, 3) in the field's frame, the
    directions of any length; saturation : depth below which a ray need not be followed further, field units.
    Each ray goes on past its first hit to its deepest point: stopping at the hit would report a smallest value of
    about zero for every ray inside the silhouette.
    """
    start_warp()
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
