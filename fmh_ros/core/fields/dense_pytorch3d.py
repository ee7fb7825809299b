# SPDX-License-Identifier: Apache-2.0
"""Depth, normals and soft silhouettes of a differentiable mesh by PyTorch3D: the published method's own rasteriser.

The same images as ``dense_render.render_mesh``, from the library that the published method uses, for comparisons. The
silhouette is the library's product over the nearest faces; with several faces at an edge it lies a little outside of
ours, which is 0.5 on the outline. PyTorch3D is the user's to install (docs/models.md).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fmh_ros.core.fields.dense import DenseMesh
from fmh_ros.core.fields.dense_render import vertex_normals
from fmh_ros.core.fields.pose import TorchPose
from fmh_ros.core.fields.render import RenderedField, RenderSettings, Wanted
from fmh_ros.core.pretrained import library, library_class

INSTALL = "pip install --no-build-isolation git+https://github.com/facebookresearch/pytorch3d.git"
#: Faces that a pixel's silhouette is made of, as published.
FACES_PER_PIXEL = 100


def pytorch3d_camera(rays: Tensor) -> Any:
    """Return PyTorch3D's camera of the pinhole camera with ``rays`` (H, W, 3), which have z = 1.

    Ours has x right, y down, z forward, and integers at pixel centres; PyTorch3D's has x left, y up, z forward, takes
    points as rows, and integers at pixel edges. Raises ModelMissingError.
    """
    kind = library_class("pytorch3d.renderer", "PerspectiveCameras", INSTALL)
    corner = rays[0, 0, :2]
    focal = 1.0 / torch.stack([rays[0, 1, 0] - corner[0], rays[1, 0, 1] - corner[1]])
    return kind(
        focal_length=focal.float()[None],
        principal_point=(0.5 - corner * focal).float()[None],
        R=torch.diag(rays.new_tensor([-1.0, -1.0, 1.0])).float()[None],
        T=rays.new_zeros(1, 3).float(),
        in_ndc=False,
        image_size=[tuple(rays.shape[:2])],
        device=rays.device,
    )


def rasterise_mesh(
    mesh: DenseMesh,
    bounds: float,
    T_camera_field: TorchPose,
    rays: Tensor,
    settings: RenderSettings | None = None,
    wanted: Wanted | None = None,
) -> RenderedField:
    """Render a mesh seen along ``rays`` (H, W, 3), which have z = 1 in the camera frame, in float32 inside.

    Pixels that nothing is wanted of are rendered too, and left out of the result. The silhouette is as soft as that of
    a field with these ``bounds`` under the same settings. Raises ModelMissingError.
    """
    settings = settings or RenderSettings()
    camera = pytorch3d_camera(rays)
    shape = rays.shape[:2]
    surface = contour = torch.ones(shape, dtype=torch.bool, device=rays.device)
    if wanted is not None:
        surface, contour = wanted.surface, wanted.contour
    vertices = T_camera_field.apply(mesh.vertices.to(rays.dtype)).float()
    if len(mesh.faces) == 0:
        empty = torch.full(shape, torch.nan, dtype=rays.dtype, device=rays.device)
        nothing = torch.zeros(shape, dtype=torch.bool, device=rays.device)
        return RenderedField(empty, empty[..., None].expand(*shape, 3), torch.zeros_like(empty), nothing)

    first = _fragments(camera, vertices, mesh.faces, shape)
    face, weights = first.pix_to_face[0, ..., 0], first.bary_coords[0, ..., 0, :, None]
    hit = face >= 0
    seen = hit & surface
    depth = torch.where(seen, first.zbuf[0, ..., 0], torch.nan)
    corners = vertex_normals(vertices, mesh.faces)[mesh.faces[face.clamp_min(0)]]
    normals = torch.nn.functional.normalize((corners * weights).sum(-2), dim=-1, eps=1e-12)
    normals = torch.where(seen[..., None], normals, torch.nan)

    softness = _softness_ndc(bounds, T_camera_field, rays, settings)
    near = _fragments(camera, vertices, mesh.faces, shape, (settings.saturation * softness) ** 2, FACES_PER_PIXEL)
    share = torch.sigmoid(-near.dists[0] / softness**2) * (near.pix_to_face[0] >= 0)
    silhouette = torch.where(contour | hit, 1.0 - (1.0 - share).prod(-1), 0.0)
    wanted_at_all = surface | contour
    silhouette = torch.where(wanted_at_all, silhouette, 0.0)
    return RenderedField(depth.to(rays.dtype), normals.to(rays.dtype), silhouette.to(rays.dtype), seen)


def _fragments(
    camera: Any, vertices: Tensor, faces: Tensor, shape: torch.Size, blur_radius: float = 0.0, count: int = 1
) -> Any:
    """The nearest ``count`` faces at every pixel of an image of this shape, within a squared NDC distance."""
    renderer, structures = (library(f"pytorch3d.{part}", INSTALL) for part in ("renderer", "structures"))
    # Bins that are too small lose faces: none are used, as published.
    settings = renderer.RasterizationSettings(
        image_size=(shape[0], shape[1]), blur_radius=blur_radius, faces_per_pixel=count, bin_size=0,
        perspective_correct=True, clip_barycentric_coords=blur_radius > 0, cull_backfaces=False,
    )  # fmt: skip
    return renderer.MeshRasterizer(camera, settings)(structures.Meshes([vertices], [faces]))


def _softness_ndc(bounds: float, T_camera_field: TorchPose, rays: Tensor, settings: RenderSettings) -> float:
    """Width of the silhouette at the body's distance, in units of half the image's shorter side."""
    metres = float(T_camera_field.scale.detach()) * settings.softness_voxels * 2.0 * bounds / (settings.resolution - 1)
    distance = max(float(T_camera_field.translation.detach()[2]), 1e-3)
    pixel = float(rays[0, 1, 0] - rays[0, 0, 0])
    return metres / distance / pixel * 2.0 / min(rays.shape[:2])
