# SPDX-License-Identifier: Apache-2.0
"""Joining the pieces of a shape: two balls, and a hand before the space between them or not."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import trimesh
from numpy.typing import NDArray
from scipy import ndimage

from fmh_ros.core.cues.types import SceneMasks
from fmh_ros.core.fields.grid import GridField
from fmh_ros.core.frame.camera import CameraModel
from fmh_ros.core.reconstruction.bodies import Sight, join_bodies
from fmh_ros.core.reconstruction.mesh import field_to_mesh
from fmh_ros.core.transforms import Similarity

SIZE, RESOLUTION = 200, 64
CAMERA = CameraModel(SIZE, SIZE, np.array([[400.0, 0, 99.5], [0, 400, 99.5], [0, 0, 1]]))
T_CAMERA_FIELD = Similarity(np.eye(3), np.array([0, 0, 0.5]), 0.1)
AXIS = np.linspace(-1, 1, RESOLUTION)
POINTS = np.stack(np.meshgrid(AXIS, AXIS, AXIS, indexing="ij"), -1)
LEFT, RIGHT, RADIUS = np.array([-0.5, 0.1, 0]), np.array([0.5, -0.1, 0.1]), 0.25
COLUMNS = np.arange(SIZE)[None] - 99.5


def _balls(*centres: NDArray[np.floating], radius: float = RADIUS) -> NDArray[np.float32]:
    distances = [np.linalg.norm(POINTS - centre, axis=-1) - radius for centre in centres]
    return np.min(distances, axis=0).astype(np.float32)


def _sight(hand: NDArray[np.bool_], held: NDArray[np.floating]) -> Sight:
    """The object's pixels are those of the field, but for the hand's."""
    inside = POINTS[held < 0]
    pixels = np.round(CAMERA.project(T_CAMERA_FIELD.apply(inside))).astype(int)
    seen = np.zeros((SIZE, SIZE), bool)
    for dx in (0, 1, 2):
        for dy in (0, 1, 2):
            seen[np.clip(pixels[:, 1] + dy - 1, 0, SIZE - 1), np.clip(pixels[:, 0] + dx - 1, 0, SIZE - 1)] = True
    seen &= ~hand
    return Sight(CAMERA, SceneMasks(hand, seen, seen.astype(np.float32), None, 1.0))


#: A hand in front of the middle, up and down through the whole picture; one far away from it.
BETWEEN = np.broadcast_to(np.abs(COLUMNS) < 25, (SIZE, SIZE)).copy()
ASIDE = np.broadcast_to(COLUMNS > 92, (SIZE, SIZE)).copy()


def test_pieces_with_the_hand_between_them_become_one_closed_body() -> None:
    values = _balls(LEFT, RIGHT)
    alone = field_to_mesh(GridField(torch.from_numpy(values), 1.0), T_CAMERA_FIELD, RESOLUTION)
    whole = field_to_mesh(GridField(torch.from_numpy(values), 1.0), T_CAMERA_FIELD, RESOLUTION, _sight(BETWEEN, values))
    ball = 4 / 3 * np.pi * (RADIUS * 0.1) ** 3
    assert alone.volume_m3 == pytest.approx(ball, rel=0.03)
    assert whole.watertight
    assert trimesh.Trimesh(whole.vertices, whole.faces).body_count == 1
    assert 2.02 * ball < whole.volume_m3 < 2.8 * ball
    ends = whole.T_camera_object.inverse().apply(T_CAMERA_FIELD.apply(np.stack([LEFT, RIGHT])))
    assert (np.abs(ends) < whole.extents_m / 2).all()


def test_a_piece_that_looks_out_from_behind_the_hand_a_little_is_joined() -> None:
    values = _balls(LEFT, RIGHT)
    over = np.broadcast_to((COLUMNS > -25) & (COLUMNS < 52), (SIZE, SIZE)).copy()
    sight = _sight(over, values)
    ball = T_CAMERA_FIELD.apply(POINTS[_balls(RIGHT) < 0])
    shown, hidden = sight.at(ball)
    assert 0.05 < shown.mean() < 0.12 and (shown | hidden).all()
    mesh = field_to_mesh(GridField(torch.from_numpy(values), 1.0), T_CAMERA_FIELD, RESOLUTION, sight)
    assert trimesh.Trimesh(mesh.vertices, mesh.faces).body_count == 1
    assert mesh.extents_m[0] > 0.1 * (1 + 1.9 * RADIUS)


def test_pieces_with_a_visible_gap_stay_apart() -> None:
    values = _balls(LEFT, RIGHT)
    np.testing.assert_array_equal(join_bodies(values, 1.0, T_CAMERA_FIELD, _sight(ASIDE, values)), values)


def test_a_neck_that_the_mask_shows_and_the_shape_lost_is_put_back() -> None:
    values = _balls(LEFT, RIGHT)
    seen = _sight(ASIDE, values)
    neck = seen.masks.object.copy()
    neck[96:104, 60:140] = True
    sight = Sight(CAMERA, SceneMasks(ASIDE, neck, seen.masks.object_probability, None, 1.0))
    mesh = field_to_mesh(GridField(torch.from_numpy(values), 1.0), T_CAMERA_FIELD, RESOLUTION, sight)
    assert trimesh.Trimesh(mesh.vertices, mesh.faces).body_count == 1
    assert mesh.extents_m[0] > 0.1 * (1 + 1.9 * RADIUS)


def test_a_piece_that_the_image_does_not_show_is_not_joined() -> None:
    values = _balls(LEFT, RIGHT)
    sight = _sight(BETWEEN, _balls(LEFT))
    np.testing.assert_array_equal(join_bodies(values, 1.0, T_CAMERA_FIELD, sight), values)


def test_one_body_and_specks_are_left_as_they_are() -> None:
    values = np.minimum(_balls(LEFT), _balls(RIGHT, radius=0.04))
    sight = _sight(BETWEEN, values)
    np.testing.assert_array_equal(join_bodies(values, 1.0, T_CAMERA_FIELD, sight), values)


def test_three_pieces_are_joined_one_after_the_other() -> None:
    values = _balls(LEFT, np.array([0, 0, 0.05]), RIGHT, radius=0.15)
    wide = np.broadcast_to(np.abs(COLUMNS) < 36, (SIZE, SIZE)).copy()
    seen = _sight(wide, values)
    middle = np.zeros((SIZE, SIZE), bool)
    middle[80:120, 92:108] = True  # the middle one looks out between two fingers
    sight = Sight(
        CAMERA, SceneMasks(wide & ~middle, seen.masks.object | middle, seen.masks.object_probability, None, 1)
    )
    mesh = field_to_mesh(GridField(torch.from_numpy(values), 1.0), T_CAMERA_FIELD, RESOLUTION, sight)
    assert trimesh.Trimesh(mesh.vertices, mesh.faces).body_count == 1
    assert mesh.extents_m[0] > 0.1 * (1 + 2 * 0.15)


def test_ends_far_apart_along_the_line_of_sight_are_joined_and_farther_than_a_hand_holds_are_not() -> None:
    near, far = np.array([-0.12, 0, -0.75]), np.array([0.2, 0, 0.75])
    values = _balls(near, far, radius=0.15)
    larger, too_large = (Similarity(np.eye(3), T_CAMERA_FIELD.translation, scale) for scale in (0.15, 0.3))
    for pose, bodies in ((larger, 1), (too_large, 2)):
        inside = pose.apply(POINTS[values < 0])
        pixels = np.round(CAMERA.project(inside)).astype(int)
        shown = np.zeros((SIZE, SIZE), bool)
        shown[pixels[:, 1], pixels[:, 0]] = True
        hand = np.ones((SIZE, SIZE), bool) & ~shown
        sight = Sight(CAMERA, SceneMasks(hand, shown, shown.astype(np.float32), None, 1.0))
        joined = join_bodies(values, 1.0, pose, sight)
        assert ndimage.label(joined < 0)[1] == bodies
