# SPDX-License-Identifier: Apache-2.0
"""Depth, normals and soft silhouettes of an implicit field, differentiable to the field and to its pose.

Rays are traced without gradient; at the points found, the field is queried again with gradient and the results are
attached by the implicit function theorem: no mesh and no graph through the search.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fmh_ros.core.fields.pose import TorchPose
from fmh_ros.core.fields.protocol import ImplicitField
from fmh_ros.core.fields.trace import MINIMUM_OFFSET_VOXELS, trace
from fmh_ros.core.frame.camera import CameraModel


@dataclass(frozen=True)
class RenderSettings:
    """How a field is rendered.

    resolution : samples per axis of the grid that is traced.
    softness_voxels : width of the silhouette's sigmoid; under one voxel its gradient is noise of the interpolation.
    saturation : in units of the softness; beyond it the silhouette is exactly 0 or 1, without gradient. Three keeps
        the band inside a distance truncated at 0.1 of a 64^3 cube.
    """

    resolution: int = 64
    softness_voxels: float = 1.0
    saturation: float = 3.0


@dataclass(frozen=True)
class RenderedField:
    """Images (H, W) in the dtype of the pose.

    depth : metres along z, NaN where not hit; normals : (H, W, 3) unit, outward, camera frame, NaN where not hit.
    silhouette : 0 to 1, 0.5 on the contour; hit : bool, whether the ray meets the surface.
    """

    depth: Tensor
    normals: Tensor
    silhouette: Tensor
    hit: Tensor


def camera_rays(camera: CameraModel, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu") -> Tensor:
    """Return directions (H, W, 3) with z = 1 through every pixel centre of a camera."""
    return torch.as_tensor(camera.rays(camera.pixel_grid()), dtype=dtype, device=device)


def render(
    field: ImplicitField,
    T_camera_field: TorchPose,
    rays: Tensor,
    settings: RenderSettings | None = None,
    *,
    surface_wanted: Tensor | None = None,
    contour_wanted: Tensor | None = None,
) -> RenderedField:
    """Render a field seen along ``rays`` (H, W, 3), which have z = 1 in the camera frame.

    surface_wanted, contour_wanted : (H, W) bool; where given, depth and normals (the silhouette) get a gradient only
    where True. Elsewhere depth and silhouette have their values but no gradient and normals are NaN: queries cost.
    """
    settings = settings or RenderSettings()
    shape = rays.shape[:2]
    directions = rays.reshape(-1, 3) @ T_camera_field.rotation / T_camera_field.scale
    origin = T_camera_field.apply_inverse(torch.zeros_like(T_camera_field.translation)[None])[0]
    voxel = 2.0 * field.bounds / (settings.resolution - 1)
    softness = settings.softness_voxels * voxel
    limit = settings.saturation * softness
    found = trace(field.grid(settings.resolution), field.bounds, origin, directions, limit)

    hit = ~found.hit.isnan()
    surface = hit if surface_wanted is None else hit & surface_wanted.reshape(-1)
    band = found.lowest_value.abs() < limit
    if contour_wanted is not None:
        band = band & contour_wanted.reshape(-1)
    at = torch.nonzero(surface)[:, 0]
    rim = torch.nonzero(band)[:, 0]
    dtype = rays.dtype
    t = found.hit[at].to(dtype)
    step = MINIMUM_OFFSET_VOXELS * voxel / torch.linalg.vector_norm(directions[rim].detach(), dim=-1)
    low = found.lowest[rim].to(dtype)
    points = torch.cat(
        [
            origin + t[:, None] * directions[at],
            origin + (low - step)[:, None] * directions[rim],
            origin + (low + step)[:, None] * directions[rim],
        ]
    )
    values = field.query(points)
    f_hit, f_near, f_far = values.split([len(at), len(rim), len(rim)])

    # The slope of a grazing ray goes to zero and its depth gradient to infinity: bounded.
    length = torch.linalg.vector_norm(directions[at].detach(), dim=-1)
    slope = torch.minimum(found.slope[at].to(dtype), -0.02 * length)
    depth_hit = t + (-f_hit / slope).clamp(-voxel / length, voxel / length)
    depth = found.hit.to(dtype).index_put((at,), depth_hit)
    where = origin + depth_hit[:, None] * directions[at]
    normals = rays.new_full((rays.shape[0] * rays.shape[1], 3), torch.nan)
    normals = normals.index_put((at,), _normals(field, where, voxel) @ T_camera_field.rotation.T)

    weight = found.weight[rim].to(dtype)
    smallest = found.lowest_value.to(dtype).clamp(-limit, limit)
    smallest = smallest.index_put((rim,), weight * f_near + (1.0 - weight) * f_far)
    return RenderedField(
        depth.view(shape), normals.view(*shape, 3), _soft(smallest, softness, limit).view(shape), hit.view(shape)
    )


def _normals(field: ImplicitField, points: Tensor, voxel: float) -> Tensor:
    """Unit gradients (N, 3) by central differences one voxel wide: first order in the field's values."""
    offsets = voxel * torch.eye(3, dtype=points.dtype, device=points.device)
    around = torch.cat([points[None] + offsets[:, None], points[None] - offsets[:, None]])
    values = field.query(around.reshape(-1, 3)).view(2, 3, -1)
    return torch.nn.functional.normalize((values[0] - values[1]).T, dim=-1, eps=1e-9)


def _soft(smallest: Tensor, softness: float, limit: float) -> Tensor:
    """Sigmoid of -value / softness, stretched to reach exactly 0 and 1 at +-limit."""
    floor = torch.sigmoid(torch.tensor(-limit / softness, dtype=smallest.dtype))
    return (torch.sigmoid(-smallest.clamp(-limit, limit) / softness) - floor) / (1.0 - 2.0 * floor)
