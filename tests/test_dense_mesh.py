# SPDX-License-Identifier: Apache-2.0
"""The dense differentiable mesh: closed and exact, its images those of the field, its gradients those of its images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
import trimesh
from guidance_scene import GaussianShapeModel, moved, observe, shape_grid, slab_hand
from scipy.spatial.transform import Rotation
from solids import box_distance, sample_grid, sphere_distance
from torch import Tensor

from fmh_ros.core.fields.dense import DenseMesh, dense_values, extract_mesh
from fmh_ros.core.fields.dense_render import outer_edges, render_dense, render_mesh
from fmh_ros.core.fields.grid import GridField
from fmh_ros.core.fields.pose import PoseParameters, TorchPose, torch_pose
from fmh_ros.core.fields.render import RenderedField, RenderSettings, Wanted, camera_rays, render
from fmh_ros.core.frame.camera import camera_from_field_of_view
from fmh_ros.core.guidance.config import preset
from fmh_ros.core.guidance.guide import GuidedSample, guide
from fmh_ros.core.transforms import Similarity

CAMERA = camera_from_field_of_view(48, 48, 24.0)
RESOLUTION = 33
SETTINGS = RenderSettings(RESOLUTION, softness_voxels=1.0)
POSE = Similarity(
    Rotation.from_euler("xyz", [20, 35, -10], degrees=True).as_matrix(), np.array([0.006, -0.004, 0.5]), 0.1
)
IMAGES = ("depth", "normals", "silhouette")


def _mesh(distance: Callable[[Tensor], Tensor], resolution: int = RESOLUTION) -> DenseMesh:
    return extract_mesh(sample_grid(distance, resolution, dtype=torch.float64), 1.0)


def _ball(p: Tensor) -> Tensor:
    return sphere_distance(p, (0.1, -0.05, 0.03), 0.5)


def _two_parts(p: Tensor) -> Tensor:
    return torch.minimum(box_distance(p, (0.45, 0.3, 0.2)) - 0.12, sphere_distance(p, (0.3, 0.3, 0.2), 0.3))


def _solid(mesh: DenseMesh) -> trimesh.Trimesh:
    return trimesh.Trimesh(mesh.vertices.numpy(), mesh.faces.numpy(), process=False)


@pytest.mark.parametrize("distance", [_ball, _two_parts])
def test_the_mesh_is_closed_with_outward_winding_and_lies_on_the_surface(distance: Callable[[Tensor], Tensor]) -> None:
    mesh = _mesh(distance)
    solid = _solid(mesh)
    assert solid.is_watertight and solid.is_winding_consistent and solid.euler_number == 2
    # Positive only when the winding is outward; a cell's vertex is inside the surface by a part of its sagitta.
    inside = (sample_grid(distance, 129) < 0).double().mean() * 8.0 * (129 / 128) ** 3
    assert solid.volume == pytest.approx(float(inside), rel=0.02)
    assert float(distance(mesh.vertices).abs().max()) < 0.25 * 2.0 / (RESOLUTION - 1)


def test_planes_are_exact_and_the_error_falls_with_the_square_of_the_spacing() -> None:
    flat = _mesh(lambda p: p @ torch.tensor([0.6, 0.0, 0.8], dtype=p.dtype) - 0.123)
    height = flat.vertices @ torch.tensor([0.6, 0.0, 0.8], dtype=torch.float64) - 0.123
    torch.testing.assert_close(height, torch.zeros_like(height), atol=1e-12, rtol=0)
    errors = [float(_ball(_mesh(_ball, resolution).vertices).abs().mean()) for resolution in (17, 33, 65)]
    assert errors[0] / errors[1] > 3.3 and errors[1] / errors[2] > 3.3


def test_nothing_is_made_of_a_field_without_a_surface_and_its_images_are_empty() -> None:
    mesh = _mesh(lambda p: torch.ones_like(p[..., 0]))
    assert mesh.vertices.shape == (0, 3) and mesh.faces.shape == (0, 3)
    image = render_mesh(mesh, 1.0, torch_pose(POSE), camera_rays(CAMERA), SETTINGS)
    assert image.depth.isnan().all() and image.normals.isnan().all()
    assert not image.hit.any() and not image.silhouette.any()


def test_a_surface_that_leaves_the_cube_is_open_there() -> None:
    mesh = _mesh(lambda p: p[..., 0] - 0.5 * p[..., 1] - 0.1)
    solid = _solid(mesh)
    assert len(mesh.faces) > 500 and not solid.is_watertight and solid.is_winding_consistent
    assert float(mesh.vertices.abs().max()) <= 1.0


def test_a_gradient_step_of_the_values_moves_vertices_along_the_normal_as_the_implicit_function_says() -> None:
    values = sample_grid(_ball, RESOLUTION, dtype=torch.float64).requires_grad_()
    mesh = extract_mesh(values, 1.0)
    centre = torch.tensor([0.1, -0.05, 0.03], dtype=torch.float64)
    radius = torch.linalg.vector_norm(mesh.vertices - centre, dim=-1).mean()
    (grad,) = torch.autograd.grad(radius, values)
    # All values up by one: a distance field's surface shrinks by one.
    assert float(grad.sum()) == pytest.approx(-1.0, abs=0.01)


def _image(rendered: RenderedField, what: str, weights: Tensor, keep: Tensor) -> Tensor:
    """A weighted sum of one image over the pixels ``keep``; a silhouette's softness has no edge to keep away from."""
    image = {"depth": rendered.depth[..., None], "normals": rendered.normals}.get(what)
    if image is None:
        return (rendered.silhouette * weights[..., 0]).sum()
    return (image * weights[..., : image.shape[-1]])[keep].sum()


@cache
def _scene() -> tuple[Tensor, Tensor, Tensor]:
    """Grid, rays, and pixels away from every edge in the image, where a finite step uncovers nothing."""
    grid, rays = sample_grid(_two_parts, RESOLUTION, dtype=torch.float64), camera_rays(CAMERA, torch.float64)
    image = render_dense(GridField(grid), _pose(torch.zeros(7, dtype=torch.float64)), rays, SETTINGS)
    pool = torch.nn.functional.max_pool2d
    border = pool((~image.hit).double()[None, None], 3, 1, 1)[0, 0] > 0
    depth = image.depth.nan_to_num(0.0)[None, None]
    keep = ~border & ((pool(depth, 3, 1, 1) + pool(-depth, 3, 1, 1))[0, 0] < 0.012)
    assert int(keep.sum()) > 250
    return grid, rays, keep


def _pose(vector: Tensor) -> TorchPose:
    """The pose corrected by log-scale, rotation vector and translation (7,), differentiable to them."""
    parameters = PoseParameters(POSE, np.array([0.05, 0.0, 0.02]), torch.float64)
    parameters.log_scale, parameters.rotation, parameters.translation = vector[0], vector[1:4], vector[4:7]
    return parameters.pose()


def _patterns(keep: Tensor) -> list[Tensor]:
    """Smooth signed weights (H, W, 3) of the pixels, so that errors of some cannot hide behind others."""
    v, u = torch.meshgrid(*(torch.linspace(-1, 1, n, dtype=torch.float64) for n in keep.shape), indexing="ij")
    maps = [torch.ones_like(u), u, v, torch.sin(3 * u) * torch.cos(2 * v)]
    return [torch.stack([maps[k], maps[(k + 1) % 4], maps[(k + 2) % 4]], -1) for k in range(3)]


def _assert_gradient(function: Callable[[Tensor, Tensor], Tensor], size: int, step: float, keep: Tensor) -> None:
    """Each entry of the gradient of each pattern's sum against central differences, within 2 % of the largest that
    any pattern has there."""
    analytic, finite = [], []
    for weights in _patterns(keep):
        leaf = torch.zeros(size, dtype=torch.float64, requires_grad=True)
        analytic.append(torch.autograd.grad(function(leaf, weights), leaf)[0])
        with torch.no_grad():
            steps = step * torch.eye(size, dtype=torch.float64)
            finite.append(torch.stack([function(s, weights) - function(-s, weights) for s in steps]) / (2 * step))
    exact, scale = torch.stack(finite), torch.stack(finite).abs().amax(0)
    assert (scale > 0).all()
    error = ((torch.stack(analytic) - exact).abs() / scale).amax(0)
    assert (error < 0.02).all(), error


@pytest.mark.parametrize("what", IMAGES)
def test_gradient_to_the_pose_agrees_with_finite_differences_in_every_component(what: str) -> None:
    grid, rays, keep = _scene()
    mesh = extract_mesh(grid, 1.0)

    def value(vector: Tensor, weights: Tensor) -> Tensor:
        return _image(render_mesh(mesh, 1.0, _pose(vector), rays, SETTINGS), what, weights, keep)

    _assert_gradient(value, 7, 1e-5, keep)


@pytest.mark.parametrize("what", IMAGES)
def test_gradient_to_the_grid_agrees_with_finite_differences(what: str) -> None:
    grid, rays, keep = _scene()
    pose = _pose(torch.zeros(7, dtype=torch.float64))
    coarse = torch.randn((5, 1, 5, 5, 5), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    waves = torch.nn.functional.interpolate(coarse, (RESOLUTION,) * 3, mode="trilinear", align_corners=True)[:, 0]

    def value(amounts: Tensor, weights: Tensor) -> Tensor:
        field = extract_mesh(grid + torch.einsum("n,nxyz->xyz", amounts, waves), 1.0)
        return _image(render_mesh(field, 1.0, pose, rays, SETTINGS), what, weights, keep)

    _assert_gradient(value, 5, 1e-6, keep)


@pytest.mark.parametrize("what", IMAGES)
def test_gradient_to_the_latent_agrees_with_finite_differences(what: str) -> None:
    rays, latent = camera_rays(CAMERA, torch.float64), torch.tensor([0.3, -0.2, 0.1, 0.3, -0.2, 0.4]).double()
    pose = _pose(torch.zeros(7, dtype=torch.float64))

    def image(change: Tensor) -> RenderedField:
        return render_mesh(extract_mesh(shape_grid(latent + change, RESOLUTION), 1.0), 1.0, pose, rays, SETTINGS)

    hit = image(torch.zeros(6)).hit
    keep = torch.nn.functional.max_pool2d((~hit).double()[None, None], 3, 1, 1)[0, 0] == 0
    _assert_gradient(lambda change, weights: _image(image(change), what, weights, keep), 6, 1e-5, keep)


def test_images_are_those_of_the_traced_field() -> None:
    field, rays = GridField(sample_grid(_two_parts, 65)), camera_rays(CAMERA)
    settings = RenderSettings(65, 1.5)
    traced, meshed = (how(field, torch_pose(POSE), rays, settings) for how in (render, render_dense))
    assert int((traced.hit != meshed.hit).sum()) <= 4
    both = traced.hit & meshed.hit
    assert float((traced.depth - meshed.depth)[both].abs().median()) < 1e-4
    assert float((traced.normals * meshed.normals).sum(-1)[both].mean()) > 0.999
    soft = (traced.silhouette > 0.02) & (traced.silhouette < 0.98)
    assert float((traced.silhouette - meshed.silhouette)[soft].abs().mean()) < 0.02


def test_only_wanted_pixels_are_rendered_and_they_are_the_same() -> None:
    _, rays, _ = _scene()
    mesh, pose = _mesh(_two_parts), _pose(torch.zeros(7, dtype=torch.float64))
    left = torch.zeros(rays.shape[:2], dtype=torch.bool)
    left[:, :24] = True
    whole = render_mesh(mesh, 1.0, pose, rays, SETTINGS)
    part = render_mesh(mesh, 1.0, pose, rays, SETTINGS, Wanted(left, left, left))
    for name in ("depth", "normals", "silhouette", "hit"):
        torch.testing.assert_close(getattr(part, name)[left], getattr(whole, name)[left], equal_nan=True)
    assert part.depth[~left].isnan().all() and not part.hit[~left].any() and not part.silhouette[~left].any()


def test_the_outline_of_a_ring_includes_its_hole_and_nothing_within() -> None:
    def ring(p: Tensor) -> Tensor:
        return torch.sqrt((torch.sqrt(p[..., 0] ** 2 + p[..., 1] ** 2) - 0.5) ** 2 + p[..., 2] ** 2) - 0.2

    mesh = _mesh(ring, 65)
    pose = Similarity(np.eye(3), np.array([0.0, 0.0, 1.0]), 0.1)
    vertices = torch_pose(pose, torch.float64).apply(mesh.vertices)
    ends = vertices[outer_edges(vertices, mesh.faces, 1e-3)]
    radius = (ends / ends[..., 2:])[..., :2].norm(dim=-1).flatten()
    outer = radius > 0.05
    assert outer.any() and (~outer).any()
    assert float((radius[outer] - 0.07).abs().max()) < 0.001
    assert float((radius[~outer] - 0.03).abs().max()) < 0.001


def _guided(surface: str) -> GuidedSample:
    latent = torch.tensor([0.3, -0.2, 0.1, 0.3, -0.2, 0.4])
    scene = observe(latent, replace(POSE, scale=0.07), slab_hand(), True)
    config = replace(preset("paper"), object_surface=surface, render_size=48)
    counts = {"hand": 2, "object": 15, "joint": 1}
    phases = {name: replace(getattr(config, name), iterations=count) for name, count in counts.items()}
    start = moved(scene.T_camera_object, (0.012, -0.01, 0.0))
    model = GaussianShapeModel(tuple(latent.tolist()), 0.02)
    generator = torch.Generator().manual_seed(0)
    return guide(
        model, None, start, scene.hand, scene.hand_field, scene.supervision, replace(config, **phases),
        generator=generator,
    )  # fmt: skip


def test_the_paper_preset_runs_on_the_dense_mesh_and_ends_where_the_traced_field_does() -> None:
    dense, implicit = _guided("dense_mesh"), _guided("implicit")
    assert [phase.name for phase in dense.phases] == ["hand", "object", "joint"]
    held = dense.phases[1]
    assert held.loss_last < 0.5 * held.loss_first and not held.rolled_back
    truth = np.array([0.006, -0.004, 0.5])
    shifts = [float(np.linalg.norm(each.T_camera_canonical.translation - truth)) for each in (dense, implicit)]
    assert shifts[0] < 0.008 and abs(shifts[0] - shifts[1]) < 0.004


def test_dense_values_are_the_field_on_its_grid_and_differentiable() -> None:
    values = sample_grid(_ball, 33).requires_grad_()
    dense = dense_values(GridField(values), 33)
    torch.testing.assert_close(dense, values, atol=1e-6, rtol=0)
    (grad,) = torch.autograd.grad(dense.sum(), values)
    assert float(grad.sum()) == pytest.approx(33**3, rel=1e-4)
