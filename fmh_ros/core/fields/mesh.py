# SPDX-License-Identifier: Apache-2.0
"""A closed mesh as a field, so that one renderer serves hand and object."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from fmh_ros.core.fields.grid import GridField, grid_points
from fmh_ros.core.fields.mesh_queries import MeshQueries
from fmh_ros.core.transforms import Similarity

#: Fingers are about 15 mm thick: seven samples across.
VOXEL_M = 0.0021

BAND_VOXELS = 4


@dataclass(frozen=True)
class MeshField:
    """Signed distance of a closed mesh in metres, sampled once; it is moved by its pose and never deformed.

    field : the distances, in a frame with the mesh's axes and its origin at the centre of the mesh's bounding box.
    T_mesh_field : that frame in the mesh's own frame (a translation).
    """

    field: GridField
    T_mesh_field: Similarity

    @property
    def resolution(self) -> int:
        """Samples per axis."""
        return int(self.field.values.shape[0])

    def to(self, device: torch.device) -> MeshField:
        """The same field on a device."""
        return replace(self, field=GridField(self.field.values.to(device), self.field.bounds))


def mesh_field(vertices: NDArray[np.floating], faces: NDArray[np.integer], voxel: float = VOXEL_M) -> MeshField:
    """Sample the signed distance of a closed mesh: vertices (V, 3) metres, faces (F, 3) with outward winding.

    The sign comes from the winding number, so a posed hand whose fingers cross the palm is still inside throughout.
    Distances are exact in a band of BAND_VOXELS around the surface and interpolated from a coarser grid elsewhere.
    """
    low, high = vertices.min(0), vertices.max(0)
    centre = 0.5 * (low + high)
    bounds = float((high - low).max()) / 2 + 6 * voxel
    resolution = math.ceil(2 * bounds / voxel) + 1
    coarse_resolution = max(resolution // 3, 8)
    queries = MeshQueries(vertices - centre, faces)

    def distance(points: Tensor) -> Tensor:
        return torch.from_numpy(queries.nearest(points.numpy()).signed_distance).float()

    coarse = distance(grid_points(coarse_resolution, bounds)).view((coarse_resolution,) * 3)
    values = F.interpolate(coarse[None, None], (resolution,) * 3, mode="trilinear", align_corners=True).view(-1)
    # Interpolation is off by at most half the diagonal of a coarse cell.
    reach = BAND_VOXELS * voxel + math.sqrt(3) * bounds / (coarse_resolution - 1)
    band = torch.nonzero(values.abs() < reach)[:, 0]
    values[band] = distance(grid_points(resolution, bounds)[band])
    field = GridField(values.view((resolution,) * 3), bounds)
    return MeshField(field, Similarity(np.eye(3), centre.astype(np.float64)))
