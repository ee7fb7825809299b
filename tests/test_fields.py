# SPDX-License-Identifier: Apache-2.0
"""Fields, tracing and rendering against closed-form answers."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
import trimesh
from scipy.spatial.transform import Rotation
from solids import box_distance, sample_grid, sphere_distance

from fmh_ros.core.fields.grid import GridField
from fmh_ros.core.fields.mesh import mesh_field
from fmh_ros.core.fields.pose import PoseParameters, torch_pose
from fmh_ros.core.fields.render import RenderSettings, camera_rays, render
from fmh_ros.core.fields.surface import surface_points
from fmh_ros.core.fields.trace import trace
from fmh_ros.core.frame.camera import camera_from_field_of_view
from fmh_ros.core.transforms import Similarity

CAMERA = camera_from_field_of_view(96, 96, 24.0)
RADIUS = 0.5


def _sphere(resolution: int = 64) -> GridField:
    return GridField(sample_grid(lambda p: sphere_distance(p, (0.0, 0.0, 0.0), RADIUS), resolution))


def test_rendered_sphere_has_the_depth_normals_and_outline_of_a_sphere() -> None:
    scale, distance = 0.1, 0.5
    centre = np.array([0.01, -0.005, distance])
    pose = torch_pose(Similarity(Rotation.from_euler("y", 40, degrees=True).as_matrix(), centre, scale))
    rays = camera_rays(CAMERA)
    image = render(_sphere(), pose, rays)
    unit = torch.nn.functional.normalize(rays, dim=-1).double()
    middle = torch.as_tensor(centre)
    along = (unit * middle).sum(-1)
    off = torch.sqrt((middle**2).sum() - along**2)
    radius = RADIUS * scale
    truth = (along - torch.sqrt((radius**2 - off**2).clamp_min(0))) * unit[..., 2]
    clear = off < 0.9 * radius
    assert image.hit[off < 0.98 * radius].all() and not image.hit[off > 1.02 * radius].any()
    assert (image.depth[clear] - truth[clear]).abs().max() < 2e-4
    points = rays.double() * truth[..., None]
    normals = (points - middle) / radius
    assert (image.normals[clear] * normals[clear]).sum(-1).min() > 0.999
    # A ray's smallest distance is its distance from the centre less the radius, on both sides of the outline.
    voxel = 2.0 / 63
    expected = torch.sigmoid(-(off / scale - RADIUS) / voxel)
    band = (off / scale - RADIUS).abs() < 2.5 * voxel
    floor = torch.sigmoid(torch.tensor(-3.0))
    assert (image.silhouette[band] * (1 - 2 * floor) + floor - expected[band]).abs().max() < 0.02
    assert (image.silhouette[off / scale < RADIUS - 3.2 * voxel] == 1).all()
    assert (image.silhouette[off / scale > RADIUS + 3.2 * voxel] == 0).all()


def test_a_ray_reports_its_deepest_point_not_its_first_hit() -> None:
    field = _sphere()
    origin, direction = torch.tensor([0.42, 0.0, -3.0]), torch.tensor([[0.0, 0.0, 1.0]])
    found = trace(field.values, 1.0, origin, direction, 0.2)
    assert found.hit.item() == pytest.approx(3.0 - np.sqrt(RADIUS**2 - 0.42**2), abs=2e-3)
    assert found.lowest.item() == pytest.approx(3.0, abs=0.02)
    assert found.lowest_value.item() == pytest.approx(-0.08, abs=2e-3)


def test_a_thin_wall_is_not_stepped_over() -> None:
    wall = sample_grid(lambda p: box_distance(p, (0.8, 0.8, 0.02)).clamp(-0.1, 0.1), 64)
    u = torch.linspace(-0.7, 0.7, 200)
    directions = torch.stack([u / 3, -u / 3, torch.ones(200)], -1)
    found = trace(wall, 1.0, torch.tensor([0.0, 0.0, -3.0]), directions, 0.1)
    # All rays start 3 before the middle of the wall, along z = 1.
    torch.testing.assert_close(found.hit, torch.full((200,), 3.0 - 0.02), atol=1e-3, rtol=0)
    torch.testing.assert_close(found.slope, torch.full((200,), -1.0), atol=1e-3, rtol=0)


def test_a_field_stays_positive_outside_its_cube_and_grows_with_distance() -> None:
    field = _sphere()
    points = torch.tensor([[1.5, 0.0, 0.0], [3.0, 2.0, -2.0], [0.0, -9.0, 0.0]])
    values = field.query(points)
    inside = points.clamp(-1, 1)
    expected = (inside.norm(dim=-1) - RADIUS) + (points - inside).norm(dim=-1)
    torch.testing.assert_close(values, expected, atol=2e-3, rtol=0)


def test_query_is_differentiable_to_points_and_values() -> None:
    generator = torch.Generator().manual_seed(1)
    values = torch.randn((6, 6, 6), generator=generator, dtype=torch.float64).requires_grad_()
    points = (torch.rand((7, 3), generator=generator, dtype=torch.float64) * 2.6 - 1.3).requires_grad_()
    assert torch.autograd.gradcheck(lambda v, p: GridField(v).query(p), (values, points))


def test_mesh_field_is_the_signed_distance_of_a_thin_mesh() -> None:
    capsule = trimesh.creation.capsule(height=0.06, radius=0.0075).apply_translation((0.03, 0.01, 0.05))
    field = mesh_field(capsule.vertices, capsule.faces)
    assert field.field.voxel <= 0.0022
    points = np.random.default_rng(0).uniform(capsule.bounds[0] - 0.01, capsule.bounds[1] + 0.01, (500, 3))
    truth = -trimesh.proximity.signed_distance(capsule, points)
    local = field.T_mesh_field.inverse().apply(points)
    mine = field.field.query(torch.as_tensor(local)).numpy()
    near = np.abs(truth) < 4 * field.field.voxel
    assert near.sum() > 100
    assert np.abs(mine - truth)[near].max() < 8e-4
    assert (np.sign(mine) == np.sign(truth))[np.abs(truth) > 8e-4].all()


def test_surface_points_lie_on_the_surface_all_around_and_follow_the_field() -> None:
    values = sample_grid(lambda p: sphere_distance(p, (0.1, 0.0, -0.1), RADIUS), 48, dtype=torch.float64)
    values.requires_grad_()
    points = surface_points(GridField(values), 48, 600)
    centre = torch.tensor([0.1, 0.0, -0.1], dtype=torch.float64)
    directions = (points - centre).detach() / RADIUS
    assert 300 < len(points) <= 600
    assert (directions.norm(dim=-1) - 1).abs().max() < 0.01
    assert directions.mean(0).norm() < 0.1
    # Raising every value by a shrinks the sphere by a, so each point's radial move is the sum of its gradient.
    (gradient,) = torch.autograd.grad((points * directions).sum() / len(points), values)
    assert float(gradient.sum()) == pytest.approx(-1.0, abs=0.02)


def test_a_field_without_surface_has_no_points_and_an_empty_silhouette() -> None:
    field = GridField(torch.full((16, 16, 16), 0.5))
    image = render(field, torch_pose(Similarity(np.eye(3), np.array([0, 0, 0.5]), 0.1)), camera_rays(CAMERA))
    assert len(surface_points(field, 16, 100)) == 0
    assert not image.hit.any() and not image.silhouette.any()


def test_scale_and_rotation_leave_the_centre_in_place() -> None:
    start = Similarity(Rotation.from_euler("xyz", [10, 50, 30], degrees=True).as_matrix(), np.array([0, 0.1, 0.6]), 0.2)
    centre = np.array([0.3, -0.2, 0.1])
    parameters = PoseParameters(start, centre, torch.float64)
    assert np.allclose(parameters.pose().similarity().matrix(), start.matrix())
    vector = torch.tensor([0.1, -0.4, 0.2], dtype=torch.float64)
    parameters.load((torch.tensor(0.3), vector, torch.zeros(3)))
    moved = parameters.pose().similarity()
    assert np.allclose(moved.apply(centre), start.apply(centre))
    assert moved.scale == pytest.approx(0.2 * np.exp(0.3))
    turn = moved.rotation @ start.rotation.T
    assert np.allclose(Rotation.from_matrix(turn).as_rotvec(), vector.numpy())


def test_resampled_grid_and_settings_of_another_resolution_render_the_same_sphere() -> None:
    pose = torch_pose(Similarity(np.eye(3), np.array([0, 0, 0.5]), 0.1))
    rays = camera_rays(CAMERA)
    fine = render(_sphere(96), pose, rays, RenderSettings(96))
    coarse = render(_sphere(96), pose, rays, RenderSettings(48))
    both = fine.hit & coarse.hit
    # Depth is corrected by the field itself, so tracing a coarser grid changes it little.
    assert (fine.depth - coarse.depth)[both].abs().median() < 1e-4


def test_importing_and_tracing_prints_nothing() -> None:
    code = (
        "import torch; from fmh_ros.core.fields.trace import trace; "
        "trace(torch.ones(8, 8, 8), 1.0, torch.zeros(3), torch.ones(2, 3), 0.1)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert done.stdout == b"" and done.stderr == b""
