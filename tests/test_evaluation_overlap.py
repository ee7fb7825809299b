# SPDX-License-Identifier: Apache-2.0
"""Shared volume, depth and contacts, on shapes whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest
import trimesh
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from fmh_ros.evaluation.contact import compare_contacts, touched_points
from fmh_ros.evaluation.overlap import (
    Solid,
    exact_intersection,
    make_solid,
    penetration_depth,
    signed_volume,
    voxel_intersection,
)

R = 0.04


def solid(mesh: trimesh.Trimesh) -> Solid:
    return make_solid(np.asarray(mesh.vertices), np.asarray(mesh.faces))


def ball(at: tuple[float, float, float], radius: float = R) -> Solid:
    mesh = trimesh.creation.icosphere(5, radius)
    return solid(mesh.apply_translation(at))


@pytest.mark.parametrize("distance", [0.02, 0.05, 0.074])
def test_shifted_spheres_share_a_lens(distance: float) -> None:
    a, b = ball((0, 0, 0.5)), ball((distance * 0.6, distance * 0.8, 0.5))
    lens = np.pi * (4 * R + distance) * (2 * R - distance) ** 2 / 12
    assert exact_intersection(a, b) == pytest.approx(lens, rel=0.01)
    assert penetration_depth(a, b) == pytest.approx(min(distance, 2 * R - distance), abs=2e-4)


def test_the_exact_volume_hardly_depends_on_the_size_of_the_cells() -> None:
    a, b = ball((0, 0, 0)), ball((0.06, 0, 0))
    lens = np.pi * (4 * R + 0.06) * (2 * R - 0.06) ** 2 / 12
    errors = [abs(exact_intersection(a, b, cell) - lens) for cell in (0.004, 0.001)]
    assert errors[1] < 0.005 * lens and errors[0] < 0.02 * lens


def test_the_exact_volume_agrees_with_counting_fine_cells_on_turned_boxes() -> None:
    turn = Rotation.from_euler("xyz", [20, 35, 50], degrees=True).as_matrix()
    box = trimesh.creation.box((0.05, 0.07, 0.03))
    a, b = solid(box), make_solid(np.asarray(box.vertices) @ turn.T + [0.01, 0.0, 0.012], np.asarray(box.faces))
    axis = [np.arange(-half, half, 0.0005) + 0.00025 for half in (0.025, 0.035, 0.015)]
    cells = np.stack(np.meshgrid(*axis, indexing="ij"), -1).reshape(-1, 3)
    inside = (np.abs((cells - [0.01, 0.0, 0.012]) @ turn) < [0.025, 0.035, 0.015]).all(1)
    assert exact_intersection(a, b) == pytest.approx(inside.sum() * 0.0005**3, rel=0.01)
    assert exact_intersection(b, a) == pytest.approx(exact_intersection(a, b), rel=0.01)


def test_voxels_count_at_least_the_volume_and_at_most_half_a_voxels_diagonal_more() -> None:
    hand, obj = ball((0.0, 0.0, 0.5), 0.05), ball((0.03, 0.01, 0.51))
    counted = voxel_intersection(hand, obj)
    wider = ball((0.03, 0.01, 0.51), R + 0.005 * np.sqrt(3) / 2)
    assert exact_intersection(hand, obj) < counted < exact_intersection(hand, wider)


def test_voxels_of_a_box_on_the_lattice_are_those_that_it_reaches_into() -> None:
    # trimesh's voxels have centres at multiples of the pitch: from -0.02 to 0.02 nine of 5 mm a side.
    obj = solid(trimesh.creation.box((0.04, 0.04, 0.04)))
    whole, half = ball((0, 0, 0), 0.2), solid(trimesh.creation.box((0.2, 0.2, 0.2)).apply_translation([0.1, 0, 0]))
    assert voxel_intersection(whole, obj) == pytest.approx(9**3 * 0.005**3)
    assert voxel_intersection(half, obj) == pytest.approx(4 * 9 * 9 * 0.005**3, abs=81 * 0.005**3)


def test_a_body_within_a_body_shares_its_whole_volume_and_those_apart_share_nothing() -> None:
    small, large = ball((0, 0, 0), 0.02), ball((0.005, 0, 0), 0.05)
    assert exact_intersection(small, large) == pytest.approx(signed_volume(small.vertices, small.faces), rel=0.01)
    apart = ball((0.2, 0, 0))
    beside = ball((0.0566, 0.0566, 0))  # the boxes overlap, the balls just touch
    for other in (apart, beside):
        assert exact_intersection(ball((0, 0, 0)), other) < 1e-9
        assert penetration_depth(ball((0, 0, 0)), other) < 1e-4
    assert voxel_intersection(ball((0, 0, 0)), apart) == 0


def test_faces_that_touch_share_nothing_and_a_thin_overlap_is_its_area_times_its_depth() -> None:
    turn = Rotation.from_euler("xyz", [20, 35, 50], degrees=True).as_matrix()
    box = trimesh.creation.box((0.05, 0.05, 0.05))
    vertices, faces = np.asarray(box.vertices), np.asarray(box.faces)
    lower = make_solid(vertices @ turn.T, faces)
    for depth in (0.0, 0.0003, 0.0007, 0.002):
        upper = make_solid((vertices + [0, 0, 0.05 - depth]) @ turn.T, faces)
        assert exact_intersection(lower, upper) == pytest.approx(0.05**2 * depth, rel=0.03, abs=1e-7)


def test_an_inward_winding_is_turned() -> None:
    mesh = trimesh.creation.icosphere(4, R)
    inverted = make_solid(np.asarray(mesh.vertices), np.asarray(mesh.faces)[:, ::-1])
    assert signed_volume(inverted.vertices, inverted.faces) == pytest.approx(mesh.volume)
    assert inverted.signed_distance(np.zeros((1, 3)))[0] == pytest.approx(-R, rel=0.01)


def test_contacts_agree_with_a_slow_reference() -> None:
    rng = np.random.default_rng(0)
    predicted, true = rng.uniform(0, 0.06, (40, 3)), rng.uniform(0, 0.06, (25, 3))
    near: NDArray[np.bool_] = np.linalg.norm(predicted[:, None] - true[None], axis=-1) <= 0.01
    found = compare_contacts(predicted, true)
    assert found.precision == near.any(1).mean() and found.recall == near.any(0).mean()
    assert 0 < near.any(1).mean() < 1


def test_no_contact_has_no_precision_and_no_truth_no_recall() -> None:
    some, none = np.zeros((3, 3)), np.zeros((0, 3))
    assert compare_contacts(none, some) == type(compare_contacts(none, some))(None, 0.0)
    assert compare_contacts(some, none).precision == 0 and compare_contacts(some, none).recall is None
    assert compare_contacts(none, none).precision is None


def test_a_ball_on_a_plate_touches_it_in_a_disc_of_known_radius() -> None:
    plate = trimesh.creation.box((0.2, 0.2, 0.01)).apply_translation([0, 0, -0.005])
    finger = trimesh.creation.icosphere(5, 0.02).apply_translation([0, 0, 0.021])
    points = touched_points(
        np.asarray(finger.vertices), np.asarray(finger.faces), np.asarray(plate.vertices), np.asarray(plate.faces)
    )
    # Within 4 mm of the ball: 24 mm from its centre, which is 21 mm above.
    radius = np.sqrt(0.024**2 - 0.021**2)
    from_axis = np.linalg.norm(points[:, :2], axis=1)
    assert np.abs(points[:, 2]).max() < 1e-9
    assert radius - 0.006 < from_axis.max() <= radius + 1e-4
