# SPDX-License-Identifier: Apache-2.0
"""Depth, normals and soft silhouettes of an implicit field, differentiable to the field and to its pose.

Rays are traced without gradient; at the points found, the field is queried again with gradient and the results are
attached by the implicit function theorem: no mesh and no graph through the search.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from fmh_ros.core.fields.grid import central_differences
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


@dataclass(frozen=True)
class Wanted:
    """Which pixels (H, W) bool something depends on; queries cost, so the rest is left out.

    surface : depth is wanted; normals : normals too (within ``surface``); contour : the silhouette.
    Pixels in neither are not traced: NaN, silhouette 0, no hit.
    """

    surface: Tensor
    normals: Tensor
    contour: Tensor

    @classmethod
    def everything(cls, shape: tuple[int, ...], device: torch.device) -> Wanted:
        """All pixels, for everything."""
        everywhere = torch.ones(shape, dtype=torch.bool, device=device)
        return cls(everywhere, everywhere, everywhere)


def render(
    field: ImplicitField,
    T_camera_field: TorchPose,
    rays: Tensor,
    settings: RenderSettings | None = None,
    wanted: Wanted | None = None,
) -> RenderedField:
    """Render a field seen along ``rays`` (H, W, 3), which have z = 1 in the camera frame."""
    settings = settings or RenderSettings()
    shape = rays.shape[:2]
    count = shape[0] * shape[1]
    wanted = wanted or Wanted.everything(shape, rays.device)
    surface, facing, contour = (mask.reshape(-1) for mask in (wanted.surface, wanted.normals, wanted.contour))
    traced = torch.nonzero(surface | contour)[:, 0]
    directions = rays.reshape(-1, 3)[traced] @ T_camera_field.rotation / T_camera_field.scale
    origin = T_camera_field.apply_inverse(torch.zeros_like(T_camera_field.translation)[None])[0]
    voxel = 2.0 * field.bounds / (settings.resolution - 1)
    softness = settings.softness_voxels * voxel
    limit = settings.saturation * softness
    found = trace(field.grid(settings.resolution), field.bounds, origin, directions, limit)

    hit = ~found.hit.isnan()
    at = torch.nonzero(hit & surface[traced])[:, 0]
    rim = torch.nonzero((found.lowest_value.abs() < limit) & contour[traced])[:, 0]
    t = found.hit[at].to(rays.dtype)
    low = found.lowest[rim].to(rays.dtype)
    step = MINIMUM_OFFSET_VOXELS * voxel / torch.linalg.vector_norm(directions[rim].detach(), dim=-1)
    near = origin + (low - step)[:, None] * directions[rim]
    far = origin + (low + step)[:, None] * directions[rim]
    values = field.query(torch.cat([origin + t[:, None] * directions[at], near, far]))
    f_hit, f_near, f_far = values.split([len(at), len(rim), len(rim)])

    depth_hit = _attach_depth(t, f_hit, found.slope[at].to(rays.dtype), directions[at], voxel)
    depth = rays.new_full((count,), torch.nan).index_put((traced[at],), depth_hit)
    turned = torch.nonzero(facing[traced[at]])[:, 0]
    where = origin + depth_hit[turned, None] * directions[at[turned]]
    normals = rays.new_full((count, 3), torch.nan)
    normals = normals.index_put((traced[at[turned]],), _normals(field, where, voxel) @ T_camera_field.rotation.T)

    weight = found.weight[rim].to(rays.dtype)
    lowest = rays.new_full((count,), limit)
    lowest[traced] = found.lowest_value.to(rays.dtype).clamp(-limit, limit)
    lowest = lowest.index_put((traced[rim],), weight * f_near + (1.0 - weight) * f_far)
    was_hit = torch.zeros(count, dtype=torch.bool, device=rays.device)
    was_hit[traced] = hit
    silhouette = soft_silhouette(lowest, softness, settings.saturation)
    return RenderedField(
        depth.view(shape), normals.view(*shape, 3), silhouette.view(shape), (was_hit & surface).view(shape)
    )


def _attach_depth(t: Tensor, values: Tensor, slope: Tensor, directions: Tensor, voxel: float) -> Tensor:
    """Newton step from the traced t (N,), which is also the implicit derivative of the depth.

    The slope of a grazing ray goes to zero and its derivative to infinity: bounded, as is the step.
    """
    length = torch.linalg.vector_norm(directions.detach(), dim=-1)
    slope = torch.minimum(slope, -0.02 * length)
    return t + (-values / slope).clamp(-voxel / length, voxel / length)


def _normals(field: ImplicitField, points: Tensor, voxel: float) -> Tensor:
    """Unit gradients (N, 3) by central differences one voxel wide: first order in the field's values."""
    return torch.nn.functional.normalize(central_differences(field.query, points, voxel), dim=-1, eps=1e-9)


def soft_silhouette(lowest: Tensor, softness: float | Tensor, saturation: float) -> Tensor:
    """Sigmoid of -lowest / softness, stretched to reach exactly 0 and 1 at +-saturation softnesses."""
    floor = 1.0 / (1.0 + math.exp(saturation))
    scaled = (-lowest / softness).clamp(-saturation, saturation)
    return (torch.sigmoid(scaled) - floor) / (1.0 - 2.0 * floor)
