# SPDX-License-Identifier: Apache-2.0
"""The completed view: cube placement, virtual camera, and the generator's condition maps, on a sphere seen exactly."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fmh_ros.core.cues.completion import (
    FAR_Z,
    GRASP_Z,
    LATERAL_FILL,
    NEAR_Z,
    complete_view,
    place_cube,
    rotation_to_ray,
)
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


def _rod(near: float, far: float, grasp: float, stray: float = 0.0) -> Similarity:
    """The cube of a rod 2 cm wide that is seen from ``near`` to ``far``, running away from the camera; a share
    ``stray`` of its pixels, at its rim, shows the wall behind it."""
    camera = CameraModel(640, 480, np.array([[580.0, 0, 320], [0, 580.0, 240], [0, 0, 1]]))
    seen = np.zeros((480, 640), np.bool_)
    seen[228:252, 300:340] = True
    depth = np.full(seen.shape, np.nan, np.float32)
    depth[seen] = np.broadcast_to(np.linspace(near, far, 40), (24, 40)).ravel()
    depth[252 - round(24 * stray) : 252, 300:340] = 2.0
    masks = SceneMasks(np.zeros_like(seen), seen, seen.astype(np.float32), None, 1.0)
    hand = HandMesh(
        "right", Similarity(np.eye(3), np.array([0, 0, grasp])), np.zeros((1, 3)), np.zeros((1, 3), int),
        np.zeros(1, int), np.zeros((21, 3)), 1.0, 0.08, 0.0, 1.0,
    )  # fmt: skip
    return place_cube(camera, masks, PointMap(depth, None, "sensor", 0.01), hand)


@pytest.mark.parametrize("stray", [0.0, 0.08])
def test_a_cube_is_as_deep_as_what_is_seen_and_does_not_reach_for_the_wall(stray: float) -> None:
    cube = _rod(0.50, 0.70, 0.55, stray).inverse()
    # The 10th and the 95th percentile are columns 3 and 34 of the 36 that are left without the rim.
    ends = (0.50 + 0.20 * (2 + column) / 39 for column in (3, 34))
    assert [cube.apply(np.array([0.0, 0, z]))[2] for z in ends] == pytest.approx([NEAR_Z, FAR_Z], abs=0.01)
    flat = _rod(0.50, 0.505, 0.50)
    assert flat.scale == pytest.approx(20.5 / 580 * 0.5 / LATERAL_FILL, rel=0.1), (
        "nothing asks for more than its outline"
    )


@pytest.mark.parametrize("grasp", [0.40, 0.30])
def test_a_cube_reaches_from_a_grasp_before_what_is_seen_to_its_far_side(grasp: float) -> None:
    cube = _rod(0.50, 0.60, grasp).inverse()
    assert cube.apply(np.array([0, 0, grasp]))[2] == pytest.approx(GRASP_Z, abs=1e-6)
    assert cube.apply(np.array([0, 0, 0.60]))[2] < FAR_Z + 0.05


def test_condition_maps_hold_the_surface_in_cube_coordinates() -> None:
    frame, masks, points, hand = _scene(True)
    masks = replace(masks, amodal_probability=None)  # nobody says what is hidden
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
    masks = replace(masks, amodal_probability=None)  # nobody says what is hidden
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
