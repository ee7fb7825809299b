# SPDX-License-Identifier: Apache-2.0
"""Points on a field's zero surface, all around, without making a mesh."""

from __future__ import annotations

import torch
from torch import Tensor

from fmh_ros.core.fields.grid import GridField
from fmh_ros.core.fields.protocol import ImplicitField


def surface_points(field: ImplicitField, resolution: int, count: int) -> Tensor:
    """Return at most ``count`` points (N, 3) spread over the zero surface, field units; N is 0 without a surface.

    Points are where grid edges cross zero, every n-th of them, so the choice is deterministic. They are attached to
    the field: moving its values moves them along the normal (implicit function theorem).
    """
    values = field.grid(resolution)
    voxel = 2.0 * field.bounds / (resolution - 1)
    inside = values < 0
    crossings = []
    for axis in range(3):
        first = inside.narrow(axis, 0, resolution - 1)
        second = inside.narrow(axis, 1, resolution - 1)
        index = torch.nonzero(first != second)
        other = index.clone()
        other[:, axis] += 1
        a = values[index[:, 0], index[:, 1], index[:, 2]]
        b = values[other[:, 0], other[:, 1], other[:, 2]]
        corner = index.to(values.dtype)
        corner[:, axis] += a / (a - b)
        crossings.append(corner)
    # Sorted along x: every n-th point is then spread over the whole surface, whatever axis its edge had.
    points = torch.cat(crossings) * voxel - field.bounds
    if len(points) == 0:
        return points
    points = points[torch.argsort(points @ points.new_tensor([1.0, 1e-3, 1e-6]))]
    stride = -(-len(points) // count)
    points = points[::stride]
    with torch.no_grad():
        offsets = voxel * torch.eye(3, dtype=points.dtype, device=points.device)
        around = torch.cat([points[None] + offsets[:, None], points[None] - offsets[:, None]])
        # Where queries cost so much that a field can follow another, the grid knows the step's direction well enough.
        slopes = GridField(values, field.bounds) if hasattr(field, "follow") else field
        sides = slopes.query(around.reshape(-1, 3)).view(2, 3, -1)
        gradient = ((sides[0] - sides[1]) / (2.0 * voxel)).T
        squared = (gradient**2).sum(-1, keepdim=True).clamp_min(0.05)
    step = field.query(points)[:, None] * gradient / squared
    return points - step.clamp(-voxel, voxel)
