# SPDX-License-Identifier: Apache-2.0
"""Registration recovers pose and scale from a surface seen from one side, where matching both ways is biased."""

from __future__ import annotations

import numpy as np
import pytest
import trimesh
from scipy.spatial.transform import Rotation

from fmh_ros.core.cues.types import ObjectView
from fmh_ros.core.errors import RegistrationError
from fmh_ros.core.frame.camera import CameraModel
from fmh_ros.core.registration.register import align_to_points, free_space_share, register, start_rotations
from fmh_ros.core.transforms import Similarity

SIZE = 96


def _shape() -> trimesh.Trimesh:
    """An asymmetric body: a box with a knob and a bar."""
    body = trimesh.creation.box([1.0, 1.6, 0.6])
    knob = trimesh.creation.icosphere(subdivisions=2, radius=0.35)
    knob.apply_translation([0.5, 0.6, 0.2])
    bar = trimesh.creation.box([1.5, 0.3, 0.3])
    bar.apply_translation([-0.5, -0.6, 0.1])
    return trimesh.util.concatenate([body, knob, bar])


def _view(shape: trimesh.Trimesh, pose: Similarity) -> ObjectView:
    camera = CameraModel(SIZE, SIZE, np.array([[260.0, 0, 47.5], [0, 260.0, 47.5], [0, 0, 1]]))
    mesh = shape.copy()
    mesh.vertices = pose.apply(mesh.vertices)
    rays = camera.rays(camera.pixel_grid()).reshape(-1, 3)
    location, index, _ = mesh.ray.intersects_location(np.zeros_like(rays), rays, multiple_hits=False)
    depth = np.full(SIZE * SIZE, np.nan, np.float32)
    depth[index] = location[:, 2]
    depth = depth.reshape(SIZE, SIZE)
    mask = np.isfinite(depth).astype(np.float32)
    cube = Similarity(np.eye(3), np.array([0, 0, 0.5]), 0.09)
    unknown = np.zeros((SIZE, SIZE), bool)
    return ObjectView(camera, mask, unknown, depth, None, np.zeros((SIZE, SIZE, 3), np.uint8), cube)


@pytest.mark.parametrize("known_scale", [True, False])
@pytest.mark.parametrize("turn", [[0.3, -0.2, 0.1], [2.0, 0.4, -0.6]])
def test_pose_is_recovered_from_one_side(known_scale: bool, turn: list[float]) -> None:
    shape = _shape()
    true = Similarity(Rotation.from_rotvec(turn).as_matrix(), np.array([0.01, -0.005, 0.5]), 0.055)
    found = register(shape, _view(shape, true), scale=0.055 if known_scale else None)
    estimate = found.T_view_canonical
    angle = np.linalg.norm(Rotation.from_matrix(estimate.rotation @ true.rotation.T).as_rotvec())
    assert np.degrees(angle) < 3
    assert estimate.scale == pytest.approx(true.scale, rel=0.03)
    moved = np.linalg.norm(estimate.apply(shape.vertices) - true.apply(shape.vertices), axis=1)
    assert moved.max() < 0.004
    assert found.free_space < 0.05


def test_icp_ends_at_the_pose_that_the_seen_points_were_taken_from() -> None:
    shape = _shape()
    true = Similarity(Rotation.from_rotvec([0.3, -0.2, 0.1]).as_matrix(), np.array([0.01, -0.005, 0.5]), 0.055)
    view = _view(shape, true)
    assert view.depth is not None
    seen = (view.camera.rays(view.camera.pixel_grid()) * view.depth[..., None])[np.isfinite(view.depth)]
    start = Similarity(Rotation.from_rotvec([0.35, -0.15, 0.14]).as_matrix(), np.array([0.014, -0.003, 0.507]), 0.06)
    found = align_to_points(shape, seen, start)
    assert found.scale == pytest.approx(true.scale, rel=0.02)
    assert np.linalg.norm(found.apply(shape.vertices) - true.apply(shape.vertices), axis=1).max() < 0.003
    kept = align_to_points(shape, seen, start, free_scale=False)
    assert kept.scale == start.scale


def test_free_space_sees_a_shape_beside_the_silhouette() -> None:
    shape = _shape()
    true = Similarity(np.eye(3), np.array([0.0, 0.0, 0.5]), 0.05)
    view = _view(shape, true)
    surface = true.apply(trimesh.sample.sample_surface(shape, 2000, seed=0)[0])
    assert free_space_share(surface, view) < 0.05
    assert free_space_share(surface + [0.04, 0, 0], view) > 0.2


def test_every_rotation_is_near_a_start() -> None:
    starts = Rotation.from_matrix(np.stack(start_rotations()))
    anywhere = Rotation.random(300, random_state=0)
    nearest = [min((start * r.inv()).magnitude() for start in starts) for r in anywhere]
    assert np.degrees(max(nearest)) < 45


def test_too_little_depth_is_a_typed_error() -> None:
    shape = _shape()
    view = _view(shape, Similarity(np.eye(3), np.array([0.0, 0.0, 0.5]), 0.05))
    bare = ObjectView(view.camera, view.mask, view.unknown, None, None, view.image, view.T_camera_view)
    with pytest.raises(RegistrationError, match="depth"):
        register(shape, bare)
