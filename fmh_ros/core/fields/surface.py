# SPDX-License-Identifier: Apache-2.0
"""Points on a field's zero surface, all around, without making a mesh."""

from __future__ import annotations

import torch
from torch import Tensor

from fmh_ros.core.fields.grid import GridField, central_differences, crossed_edges
from fmh_ros.core.fields.protocol import ImplicitField


def surface_points(field: ImplicitField, resolution: int, count: int) -> Tensor:
    """Return at most ``count`` points (N, 3) spread over the zero surface, field units; N is 0 without a surface.

    Points are where grid edges cross zero, every n-th of them, so the choice is deterministic. They are attached to
    the field: moving its values moves them along the normal (implicit function theorem).
    """
    values = field.grid(resolution)
    voxel = 2.0 * field.bounds / (resolution - 1)
    lower, upper = crossed_edges(values)
    a, b = (values[tuple(end.unbind(-1))] for end in (lower, upper))
    points = (lower + (a / (a - b))[:, None] * (upper - lower)) * voxel - field.bounds
    if len(points) == 0:
        return points
    points = points[torch.argsort(points @ points.new_tensor([1.0, 1e-3, 1e-6]))]
    stride = -(-len(points) // count)
    points = points[::stride]
    with torch.no_grad():
        # Where queries cost so much that a field can follow another, the grid knows the step's direction well enough.
        slopes = GridField(values, field.bounds) if hasattr(field, "follow") else field
        gradient = central_differences(slopes.query, points, voxel) / (2.0 * voxel)
        squared = (gradient**2).sum(-1, keepdim=True).clamp_min(0.05)
    step = field.query(points)[:, None] * gradient / squared
    return points - step.clamp(-voxel, voxel)
