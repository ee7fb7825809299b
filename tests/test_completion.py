# SPDX-License-Identifier: Apache-2.0
"""The completed view: cube placement, virtual camera, and the generator's condition maps, on a sphere seen exactly."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fmh_ros.core.cues.completion import LATERAL_FILL, NEAR_Z, complete_view, rotation_to_ray
from fmh_ros.core.cues.types import PointMap, SceneMasks
from fmh_ros.core.errors import EmptyObjectMaskError
from fmh_ros.core.flow.embedded.model import condition_maps
from fmh_ros.core.frame.camera import CameraModel
from fmh_ros.core.frame.frame import Frame
from fmh_ros.core.hand.types import HandMesh
from fmh_ros.core.transforms import Similarity

CENTRE, RADIUS = np.array([0.12, -0.07, 0.62]), 0.045


def _scene(with_depth: bool) -> tuple[Frame, SceneMasks, PointMap | None, HandMesh]:
    camera = CameraModel(640, 480, np.array([[580.0, 0, 300], [0, 590.0, 250], [0, 0, 1]]))
    rays = camera.rays(camera.pixel_grid())
    a, b = (rays**2).sum(-1), rays @ CENTRE
    root = b**2 - a * (CENTRE @ CENTRE - RADIUS**2)
    hit = root > 0
    depth = np.where(hit, (b - np.sqrt(np.maximum(root, 0))) / a, np.nan).astype(np.float32)
    hand_mask = np.zeros_like(hit)
    hand_mask[:, 430:] = True
    masks = SceneMasks(hand_mask, hit & ~hand_mask, hit.astype(np.float32), hit.astype(np.float32), 1.0)
    normals = (rays * depth[..., None] - CENTRE) / RADIUS
    points = PointMap(depth, normals.astype(np.float32), "sensor", 0.01) if with_depth else None
    hand = HandMesh(
        "right", Similarity(np.eye(3), CENTRE), np.zeros((1, 3)), np.zeros((1, 3), int), np.zeros(1, int),
        np.zeros((21, 3)), 1.0, 0.08, 0.0, 1.0,
    )  # fmt: skip
    return Frame(np.full((480, 640, 3), 90, np.uint8), camera), masks, points, hand


@pytest.mark.parametrize("with_depth", [True, False])
def test_cube_holds_the_sphere_where_training_puts_it(with_depth: bool) -> None:
    frame, masks, points, hand = _scene(with_depth)
    view = complete_view(frame, masks, points, hand)
    in_cube = view.T_camera_view.inverse().apply(CENTRE)
    radius = RADIUS / view.T_camera_view.scale
    assert np.abs(in_cube[:2]).max() < 0.02
    assert radius == pytest.approx(LATERAL_FILL, abs=0.06)
    if with_depth:
        # The visible cap's 10th depth percentile lies a little behind the foremost point.
        assert NEAR_Z - 0.12 < in_cube[2] - radius < NEAR_Z
    else:
        assert abs(in_cube[2]) < 0.02


def test_what_the_hand_hides_is_expected_up_to_the_middle_of_the_grasp() -> None:
    frame, masks, points, hand = _scene(True)
    seen = SceneMasks(masks.hand, masks.object, masks.object_probability, None, 1.0)
    around = complete_view(frame, seen, points, hand).T_camera_view
    beyond = CENTRE + np.array([4 * RADIUS, 0.0, 0.0])
    far = replace(hand, T_camera_hand=Similarity(np.eye(3), beyond))
    cube = complete_view(frame, seen, points, far).T_camera_view
    assert cube.scale > 1.5 * around.scale
    left, right = (cube.inverse().apply(point) for point in (CENTRE - [RADIUS, 0, 0], beyond))
    # Both ends are equally far from the middle, and fill as much of the cube as whole objects do in training.
    edges = [np.array([point[0], point[2]]) for point in (left, right)]
    distance = np.linalg.norm(cube.translation) / cube.scale
    x = [edge[0] * distance / (edge[1] + distance) for edge in edges]
    assert x == pytest.approx([-LATERAL_FILL, LATERAL_FILL], abs=0.03)


def test_condition_maps_hold_the_surface_in_cube_coordinates() -> None:
    frame, masks, points, hand = _scene(True)
    view = complete_view(frame, masks, points, hand)
    maps, distance = condition_maps(view)
    known = maps[3] > 0
    assert known.sum() > 300
    size = maps.shape[-1]
    rows, columns = np.nonzero(known)
    z = maps[2][known]
    # The map camera of the training views: the middle slice spans the map.
    x = ((columns + 0.5) * 2 / size - 1) * (z + distance) / distance
    y = ((rows + 0.5) * 2 / size - 1) * (z + distance) / distance
    centre, radius = view.T_camera_view.inverse().apply(CENTRE), RADIUS / view.T_camera_view.scale
    offset = np.stack([x, y, z], 1) - centre
    assert np.abs(np.linalg.norm(offset, axis=1) - radius).max() < 0.06
    normals = maps[4:7][:, known].T
    assert ((normals * offset / radius).sum(1)).min() > 0.93
    assert maps[1].any()
    assert not (maps[0] * maps[1]).any()


def test_hidden_side_is_unknown_and_not_background() -> None:
    frame, masks, points, hand = _scene(True)
    view = complete_view(frame, masks, points, hand)
    cube_x = np.linspace(-1, 1, view.mask.shape[1])
    assert view.unknown[:, cube_x > 0.6].mean() > 0.9
    assert view.mask[view.unknown].max() <= 0.5


def test_rotation_to_ray_is_proper_and_hits_the_ray() -> None:
    rng = np.random.default_rng(0)
    for ray in [*rng.normal(size=(20, 3)), np.array([0.0, 0, 1])]:
        R = rotation_to_ray(ray)
        assert np.allclose(R @ R.T, np.eye(3))
        assert np.linalg.det(R) == pytest.approx(1)
        assert np.allclose(R[:, 2], ray / np.linalg.norm(ray))


def test_nothing_visible_is_an_error_that_says_what_to_do() -> None:
    frame, masks, points, hand = _scene(True)
    empty = SceneMasks(masks.hand, np.zeros_like(masks.object), masks.object_probability, None, 0.0)
    with pytest.raises(EmptyObjectMaskError, match="--object-box"):
        complete_view(frame, empty, points, hand)


def test_without_depth_the_outline_is_taken_to_be_round() -> None:
    frame, masks, points, hand = _scene(False)
    view = complete_view(frame, masks, points, hand)
    assert view.depth is None
    assert view.normals is not None
    seen = np.isfinite(view.normals[..., 0])
    assert np.array_equal(seen, view.mask > 0.5)
    assert np.allclose(np.linalg.norm(view.normals[seen], axis=1), 1, atol=1e-5)
    # The scene is a ball, so the guess is nearly the truth: outward at the rim, towards the camera in the middle.
    exact = view.camera.rays(view.camera.pixel_grid())
    centre = view.T_camera_view.inverse().apply(CENTRE)
    radius = RADIUS / view.T_camera_view.scale
    across = exact[..., :2] * view.camera.K[0, 0] / (view.camera.width / 2) - centre[:2]
    height = np.sqrt(np.maximum(radius**2 - (across**2).sum(-1), 0))
    truth = np.concatenate([across, -height[..., None]], -1) / radius
    cosine = (truth * view.normals).sum(-1)[seen]
    assert np.median(cosine) > 0.93
