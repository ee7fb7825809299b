# SPDX-License-Identifier: Apache-2.0
"""Every gradient of the field renderer against central finite differences, in float64, as full vectors."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from solids import box_distance, sample_grid, sphere_distance
from torch import Tensor

from fmh_ros.core.fields.grid import GridField
from fmh_ros.core.fields.pose import PoseParameters
from fmh_ros.core.fields.render import RenderedField, RenderSettings, Wanted, camera_rays, render
from fmh_ros.core.frame.camera import camera_from_field_of_view
from fmh_ros.core.transforms import Similarity

RESOLUTION = 48
CAMERA = camera_from_field_of_view(64, 64, 24.0)
START = Similarity(
    Rotation.from_euler("xyz", [20, 35, -10], degrees=True).as_matrix(), np.array([0.006, -0.004, 0.5]), 0.1
)
NAMES = ("log_scale", "rotation x", "rotation y", "rotation z", "x", "y", "z")


def _solid(kind: str) -> Tensor:
    def distance(p: Tensor) -> Tensor:
        if kind == "sphere":
            return sphere_distance(p, (0.1, -0.05, 0.0), 0.5)
        rounded_box = box_distance(p, (0.45, 0.3, 0.2)) - 0.12
        return torch.minimum(rounded_box, sphere_distance(p, (0.3, 0.3, 0.2), 0.3))

    return sample_grid(distance, RESOLUTION, dtype=torch.float64)


def _parameters(vector: Tensor) -> PoseParameters:
    parameters = PoseParameters(START, np.array([0.05, 0.0, 0.02]), torch.float64)
    parameters.load((vector[0], vector[1:4], vector[4:7]))
    return parameters


def _image(rendered: RenderedField, what: str, weights: Tensor, keep: Tensor) -> Tensor:
    """A weighted sum of one image: signed random weights, so that errors of pixels cannot hide in a mean."""
    if what == "silhouette":
        return (rendered.silhouette * weights[..., 0]).sum()
    if what == "depth":
        return (rendered.depth * weights[..., 0])[keep].sum()
    return (rendered.normals * weights)[keep].sum()


def _scene(kind: str) -> tuple[Tensor, Tensor, Tensor, RenderSettings]:
    """Grid, rays, the pixels far enough from the contour that a finite step cannot uncover them, settings."""
    grid, rays = _solid(kind), camera_rays(CAMERA, torch.float64)
    settings = RenderSettings(RESOLUTION, softness_voxels=1.5)
    rendered = render(GridField(grid), _parameters(torch.zeros(7)).pose(), rays, settings)
    facing = (torch.nan_to_num(rendered.normals) * torch.nn.functional.normalize(rays, dim=-1)).sum(-1)
    outside = (~rendered.hit).double()[None, None]
    interior = torch.nn.functional.max_pool2d(outside, 3, 1, 1)[0, 0] == 0
    # An edge inside the outline (one part before another) makes depth jump.
    depth = rendered.depth.nan_to_num(0.0)[None, None]
    jump = torch.nn.functional.max_pool2d(depth, 3, 1, 1) + torch.nn.functional.max_pool2d(-depth, 3, 1, 1)
    keep = rendered.hit & interior & (facing < -0.25) & (jump[0, 0] < 0.012)
    assert int(keep.sum()) > 300
    return grid, rays, keep, settings


def _finite(function: Callable[[Tensor], Tensor], size: int, step: float) -> Tensor:
    result = torch.zeros(size, dtype=torch.float64)
    for i in range(size):
        offset = torch.zeros(size, dtype=torch.float64)
        offset[i] = step
        result[i] = (function(offset) - function(-offset)) / (2 * step)
    return result


def _weights(what: str, keep: Tensor) -> list[Tensor]:
    """All ones, and smooth signed patterns that make each pose direction matter."""
    v, u = torch.meshgrid(*(torch.linspace(-1, 1, n, dtype=torch.float64) for n in keep.shape), indexing="ij")
    patterns = [torch.ones_like(u), u, v, torch.sin(3 * u) * torch.cos(2 * v)]
    if what == "normals":
        return [
            torch.stack([p, q, r], -1) for p, q, r in zip(patterns, patterns[1:] + patterns[:1], patterns, strict=True)
        ]
    return [p[..., None] for p in patterns]


@pytest.mark.parametrize("kind", ["sphere", "solid"])
@pytest.mark.parametrize("what", ["depth", "normals", "silhouette"])
def test_gradient_to_the_pose_agrees_with_finite_differences_in_every_component(kind: str, what: str) -> None:
    grid, rays, keep, settings = _scene(kind)
    field = GridField(grid)
    columns_analytic, columns_finite = [], []
    for weights in _weights(what, keep):

        def value(vector: Tensor, weights: Tensor = weights) -> Tensor:
            return _image(render(field, _parameters(vector).pose(), rays, settings), what, weights, keep)

        parameters = _parameters(torch.zeros(7))
        total = _image(render(field, parameters.pose(), rays, settings), what, weights, keep)
        grads = torch.autograd.grad(total, parameters.leaves())
        columns_analytic.append(torch.cat([g.reshape(-1) for g in grads]))
        with torch.no_grad():
            columns_finite.append(_finite(value, 7, 1e-4))
    analytic, finite = torch.stack(columns_analytic), torch.stack(columns_finite)
    _assert_same_vectors(analytic, finite, NAMES)


def _assert_same_vectors(analytic: Tensor, finite: Tensor, names: tuple[str, ...]) -> None:
    """Each column (one parameter, several images) within 1 % of its own largest entry: no component may hide behind
    a bigger one."""
    scale = finite.abs().amax(0)
    assert (scale > 0).all()
    error = ((analytic - finite).abs() / scale).amax(0)
    assert (error < 0.01).all(), dict(zip(names, error.tolist(), strict=True))


@pytest.mark.parametrize("what", ["depth", "normals", "silhouette"])
def test_gradient_to_the_grid_agrees_with_finite_differences(what: str) -> None:
    grid, rays, keep, settings = _scene("solid")
    pose = _parameters(torch.zeros(7)).pose().detach()
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randn((12, 1, 9, 9, 9), generator=generator, dtype=torch.float64)
    directions = torch.nn.functional.interpolate(coarse, (RESOLUTION,) * 3, mode="trilinear", align_corners=True)[:, 0]
    analytic, finite = [], []
    for weights in _weights(what, keep):

        def value(amounts: Tensor, weights: Tensor = weights) -> Tensor:
            moved = GridField(grid + torch.einsum("n,nxyz->xyz", amounts, directions))
            return _image(render(moved, pose, rays, settings), what, weights, keep)

        values = grid.clone().requires_grad_()
        total = _image(render(GridField(values), pose, rays, settings), what, weights, keep)
        (grad,) = torch.autograd.grad(total, values)
        analytic.append(torch.einsum("nxyz,xyz->n", directions, grad))
        finite.append(_finite(value, 12, 1e-5))
    names = tuple(f"pattern {i}" for i in range(12))
    _assert_same_vectors(torch.stack(analytic), torch.stack(finite), names)


def test_gradient_reaches_only_the_wanted_pixels() -> None:
    grid, rays, _, settings = _scene("sphere")
    left = torch.zeros(rays.shape[:2], dtype=torch.bool)
    left[:, :32] = True
    pose = _parameters(torch.zeros(7)).pose().detach()
    values = grid.clone().requires_grad_()
    whole = render(GridField(values), pose, rays, settings)
    part = render(GridField(values), pose, rays, settings, Wanted(left, left, left))
    (of_part,) = torch.autograd.grad(part.silhouette.sum() + part.depth[part.hit].sum(), values)
    (of_left,) = torch.autograd.grad(whole.silhouette[left].sum() + whole.depth[whole.hit & left].sum(), values)
    torch.testing.assert_close(of_part, of_left)
    torch.testing.assert_close(part.silhouette[left], whole.silhouette[left])
    assert part.normals.isnan().any(-1)[~left].all()
    assert not part.hit[~left].any()
