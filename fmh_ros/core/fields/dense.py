# SPDX-License-Identifier: Apache-2.0
"""A mesh of a field's zero level whose vertices are differentiable: the dense decoding of the published method.

One vertex per grid cell that the surface passes, at the mean of the points where the cell's edges cross zero, and one
quadrilateral per crossed edge (surface nets; Gibson, "Constrained elastic surface nets", 1998). That is what FlexiCubes
extracts when its weights are not learned, as in the published method, but for cells that the surface passes twice,
whose two vertices are one here. What is connected to what has no gradient; where the vertices are has.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fmh_ros.core.fields.protocol import ImplicitField

#: Samples per axis of the published method's grid.
DENSE_RESOLUTION = 65


@dataclass(frozen=True)
class DenseMesh:
    """vertices : (V, 3), field units, differentiable to the grid's values; faces : (F, 3) int64, outward winding."""

    vertices: Tensor
    faces: Tensor


def dense_values(
    field: ImplicitField, resolution: int = DENSE_RESOLUTION, device: torch.device | str = "cpu"
) -> Tensor:
    """Query a field at all points of its grid, (R, R, R) float32 indexed [x, y, z], differentiable to what made it."""
    axis = torch.linspace(-field.bounds, field.bounds, resolution, device=device)
    return field.query(torch.cartesian_prod(axis, axis, axis)).view((resolution,) * 3)


def extract_mesh(values: Tensor, bounds: float) -> DenseMesh:
    """Mesh the zero level of values (R, R, R), negative inside, on ``linspace(-bounds, bounds, R)``.

    Open where the surface leaves the cube; without vertices and faces when there is no surface.
    """
    resolution = values.shape[0]
    inside = values.detach() < 0
    stride = values.new_tensor([resolution**2, resolution, 1], dtype=torch.long)
    points, cells, quads = [], [], []
    for axis in range(3):
        first = inside.narrow(axis, 0, resolution - 1)
        crossed = torch.nonzero(first != inside.narrow(axis, 1, resolution - 1))
        points.append(_crossings(values, crossed, axis))
        around, complete = _cells_around(crossed, axis, resolution)
        cells.append(torch.where(complete, (around * stride).sum(-1), -1))
        leaves = first[tuple(crossed.unbind(-1))]
        # Seen from where the axis points to, the four cells run counter-clockwise; the outside has to be there.
        quads.append(torch.where(leaves[:, None], cells[-1], cells[-1].flip(-1)))
    cell, crossing = torch.cat(cells), torch.cat(points)
    used, which = torch.unique(cell[cell >= 0], return_inverse=True)
    share = crossing[:, None].expand(-1, 4, 3)[cell >= 0]
    sums = crossing.new_zeros(len(used), 3).index_add(0, which, share)
    count = torch.bincount(which, minlength=len(used)).to(crossing.dtype)
    vertices = sums / count[:, None] * (2.0 * bounds / (resolution - 1)) - bounds
    quad = torch.cat(quads)
    corners = torch.searchsorted(used, quad[(quad >= 0).all(-1)])
    return DenseMesh(vertices, _triangles(vertices.detach(), corners))


def _crossings(values: Tensor, edges: Tensor, axis: int) -> Tensor:
    """Where grid edges cross zero, (E, 3) in grid steps, by linear interpolation; edges : (E, 3) lower end."""
    other = edges.clone()
    other[:, axis] += 1
    a, b = (values[tuple(end.unbind(-1))] for end in (edges, other))
    along = torch.nn.functional.one_hot(torch.tensor(axis), 3).to(values)
    return edges.to(values.dtype) + (a / (a - b))[:, None] * along


def _cells_around(edges: Tensor, axis: int, resolution: int) -> tuple[Tensor, Tensor]:
    """The four cells (E, 4, 3) around each edge, in a circle about its axis, and whether each exists (E, 4)."""
    circle = edges.new_zeros(4, 3)
    # Each cell by how far it lies below the edge; this order runs counter-clockwise seen against the axis.
    circle[:, (axis + 1) % 3] = edges.new_tensor([1, 0, 0, 1])
    circle[:, (axis + 2) % 3] = edges.new_tensor([1, 1, 0, 0])
    around = edges[:, None] - circle
    return around, ((around >= 0) & (around < resolution - 1)).all(-1)


def _triangles(vertices: Tensor, quads: Tensor) -> Tensor:
    """Split quadrilaterals (Q, 4) along their shorter diagonals into triangles (2 Q, 3).

    Where both are as long, as on a flat side, rounding must not choose.
    """
    corner = vertices[quads]
    even = torch.linalg.vector_norm(corner[:, 0] - corner[:, 2], dim=-1)
    odd = torch.linalg.vector_norm(corner[:, 1] - corner[:, 3], dim=-1)
    turned = torch.where((even <= 1.01 * odd)[:, None], quads, quads.roll(-1, 1))
    return torch.cat([turned[:, [0, 1, 2]], turned[:, [0, 2, 3]]])
