# SPDX-License-Identifier: Apache-2.0
"""From an implicit field to one closed mesh in its own frame, and from two meshes to contacts."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
import trimesh
from scipy.spatial.transform import Rotation
from synthetic_result import LENGTH, RADIUS, cylinder, posed_hand

from fmh_ros.core.errors import EmptyShapeError
from fmh_ros.core.fields.mesh_queries import MeshQueries
from fmh_ros.core.hand.types import HandMesh
from fmh_ros.core.reconstruction.contacts import CONTACT_DISTANCE_M, CONTACT_SPACING_M, find_contacts
from fmh_ros.core.reconstruction.mesh import MAX_FACES, field_to_mesh, place_in_object_frame
from fmh_ros.core.reconstruction.types import ObjectMesh
from fmh_ros.core.transforms import Similarity

TURN = Rotation.from_euler("xyz", [0.4, -0.7, 1.1]).as_matrix()
T_CAMERA_FIELD = Similarity(Rotation.from_euler("xyz", [0.1, 0.2, 0.3]).as_matrix(), np.array([0.02, 0.03, 0.6]), 0.08)


class Solid:
    """A field given by a function of points (..., 3), truncated as the generator's are."""

    bounds = 1.0

    def __init__(self, distance: object) -> None:
        self._distance = distance

    def grid(self, resolution: int) -> torch.Tensor:
        line = np.linspace(-1, 1, resolution)
        points = np.stack(np.meshgrid(line, line, line, indexing="ij"), -1)
        return torch.as_tensor(np.clip(self._distance(points), -0.1, 0.1), dtype=torch.float32)

    def query(self, points: torch.Tensor) -> torch.Tensor:
        raise AssertionError("meshing reads the grid, and must not ask for single points")


def box(points: np.ndarray, half: tuple[float, float, float] = (0.7, 0.4, 0.25)) -> np.ndarray:
    away = np.abs(points @ TURN) - half
    return np.linalg.norm(np.maximum(away, 0), axis=-1) + np.minimum(away.max(-1), 0)


def ball(points: np.ndarray, radius: float = 0.6, centre: tuple[float, float, float] = (0, 0, 0)) -> np.ndarray:
    return np.linalg.norm(points - np.array(centre), axis=-1) - radius


def as_trimesh(obj: ObjectMesh) -> trimesh.Trimesh:
    return trimesh.Trimesh(obj.vertices, obj.faces, process=False)


def assert_one_closed_body(obj: ObjectMesh) -> None:
    mesh = as_trimesh(obj)
    assert obj.watertight and mesh.is_watertight and mesh.is_winding_consistent
    assert mesh.body_count == 1
    assert mesh.volume > 0, "outward winding"
    assert mesh.volume == pytest.approx(obj.volume_m3)
    assert len(obj.faces) <= MAX_FACES
    assert np.linalg.det(obj.T_camera_object.rotation) == pytest.approx(1.0)
    assert obj.T_camera_object.scale == 1.0


def test_a_box_keeps_its_size_volume_and_place_in_metres() -> None:
    obj = field_to_mesh(Solid(box), T_CAMERA_FIELD)
    assert_one_closed_body(obj)
    np.testing.assert_allclose(obj.extents_m, np.array([1.4, 0.8, 0.5]) * 0.08, atol=1e-3)
    assert obj.volume_m3 == pytest.approx(1.4 * 0.8 * 0.5 * 0.08**3, rel=0.01)
    np.testing.assert_allclose(obj.T_camera_object.translation, T_CAMERA_FIELD.translation, atol=1e-3)
    axes = T_CAMERA_FIELD.rotation @ TURN
    np.testing.assert_allclose(np.abs((axes * obj.T_camera_object.rotation).sum(0)), 1.0, atol=2e-3)


def test_the_object_frame_is_the_centre_of_the_box_and_deterministic() -> None:
    first, second = (field_to_mesh(Solid(box), T_CAMERA_FIELD) for _ in range(2))
    low, high = first.vertices.min(0), first.vertices.max(0)
    np.testing.assert_allclose(low + high, 0, atol=1e-9)
    np.testing.assert_allclose(high - low, first.extents_m, atol=1e-9)
    assert (np.diff(first.extents_m) <= 1e-4).all(), "longest side first"
    for column in (0, 2):
        axis = first.T_camera_object.rotation[:, column]
        assert axis[np.abs(axis).argmax()] > 0
    np.testing.assert_array_equal(first.vertices, second.vertices)
    np.testing.assert_array_equal(first.T_camera_object.rotation, second.T_camera_object.rotation)


def test_loose_parts_and_inner_cavities_are_dropped() -> None:
    def messy(points: np.ndarray) -> np.ndarray:
        hollow = np.maximum(ball(points), -ball(points, 0.3))
        return np.minimum(hollow, ball(points, 0.08, (0.85, 0.85, 0.85)))

    obj = field_to_mesh(Solid(messy), T_CAMERA_FIELD)
    assert_one_closed_body(obj)
    assert obj.volume_m3 == pytest.approx(4 / 3 * np.pi * (0.6 * 0.08) ** 3, rel=0.01)


def test_a_surface_that_leaves_the_cube_is_closed_at_its_wall() -> None:
    obj = field_to_mesh(Solid(lambda points: np.linalg.norm(points[..., :2], axis=-1) - 0.4), T_CAMERA_FIELD)
    assert_one_closed_body(obj)
    assert obj.extents_m[0] == pytest.approx(2 * 0.08, rel=0.03)


def test_smoothing_makes_a_coarse_ball_rounder_without_shrinking_it() -> None:
    coarse = field_to_mesh(Solid(ball), T_CAMERA_FIELD, resolution=24)
    radius = np.linalg.norm(coarse.vertices, axis=1)
    assert radius.mean() == pytest.approx(0.6 * 0.08, rel=0.005)
    assert radius.std() < 0.003 * radius.mean()


def test_a_field_that_asks_for_a_fine_grid_keeps_detail_within_the_number_of_triangles(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A ball with a thin rib round it, which the grid of so few triangles is too coarse for."""

    def ribbed(points: np.ndarray) -> np.ndarray:
        rib = np.hypot(np.hypot(points[..., 0], points[..., 1]) - 0.6, points[..., 2]) - 0.02
        return np.minimum(ball(points), rib)

    def rib_height(obj: ObjectMesh) -> float:
        world = np.asarray(obj.T_camera_object.apply(obj.vertices))
        local = T_CAMERA_FIELD.inverse().apply(world)
        return float(np.quantile(np.linalg.norm(local[np.abs(local[:, 2]) < 0.01], axis=1), 0.9)) - 0.6

    solid = Solid(ribbed)
    monkeypatch.setattr("fmh_ros.core.reconstruction.mesh.MAX_FACES", 12_000)
    coarse = field_to_mesh(solid, T_CAMERA_FIELD)
    solid.mesh_resolution = 180  # type: ignore[attr-defined]
    fine = field_to_mesh(solid, T_CAMERA_FIELD)
    for obj in (coarse, fine):
        assert_one_closed_body(obj)
        assert len(obj.faces) <= 12_000
    assert rib_height(fine) == pytest.approx(0.02, abs=0.004)
    assert abs(rib_height(fine) - 0.02) < abs(rib_height(coarse) - 0.02)
    monkeypatch.setitem(sys.modules, "fast_simplification", None)
    assert len(field_to_mesh(solid, T_CAMERA_FIELD).faces) <= 12_000, "without the library, fewer grid points"


def test_a_rough_surface_stays_within_the_face_budget() -> None:
    def rough(points: np.ndarray) -> np.ndarray:
        return ball(points, 0.85) + 0.06 * np.sin(14 * points).prod(-1)

    assert_one_closed_body(field_to_mesh(Solid(rough), T_CAMERA_FIELD, resolution=160))


@pytest.mark.parametrize("value", [0.1, -0.1, np.nan])
def test_a_field_without_a_surface_is_refused(value: float) -> None:
    with pytest.raises(EmptyShapeError, match="no surface"):
        field_to_mesh(Solid(lambda points: np.full(points.shape[:-1], value)), T_CAMERA_FIELD)


def test_specks_are_not_an_object() -> None:
    with pytest.raises(EmptyShapeError, match="specks"):
        field_to_mesh(Solid(lambda points: ball(points, 0.035)), T_CAMERA_FIELD, resolution=64)


def plate_hand(gap: float, size: float = 0.03, thickness: float = 0.01) -> HandMesh:
    """A block that stands in for a thumb, its lower face ``gap`` above z = 0.05 of the camera frame's object top."""
    mesh = trimesh.creation.box((size, size, thickness)).subdivide_to_size(0.006)
    mesh.apply_translation((0, 0, -(gap + thickness / 2)))
    faces = np.asarray(mesh.faces, np.int64)
    vertices = np.asarray(mesh.vertices)
    pose = Similarity(np.eye(3), np.array([0, 0, 0.5]))
    finger = np.zeros(len(vertices), np.int64)
    return HandMesh("right", pose, vertices, faces, finger, np.zeros((21, 3)), 1.0, 0.1, 0.0, 1.0)


def slab(thickness: float) -> ObjectMesh:
    """A slab whose upper face (towards the camera) is at z = 0.5."""
    mesh = trimesh.creation.box((0.1, 0.08, thickness))
    mesh.apply_translation((0, 0, 0.5 + thickness / 2))
    return place_in_object_frame(np.asarray(mesh.vertices), np.asarray(mesh.faces, np.int64))


@pytest.mark.parametrize("gap", [0.002, 0.0, -0.003])
def test_contacts_lie_on_the_touched_face_with_the_true_signed_gap(gap: float) -> None:
    contacts = find_contacts(slab(0.02), plate_hand(gap))
    assert contacts and {contact.finger for contact in contacts} == {"thumb"}
    facing = [contact for contact in contacts if np.abs(contact.position[:2]).max() < 0.011]
    assert len(facing) >= 4
    for contact in facing:
        assert contact.position[2] == pytest.approx(0.5, abs=1e-6)
        np.testing.assert_allclose(contact.normal, [0, 0, -1], atol=1e-6)
        assert contact.gap_m == pytest.approx(gap, abs=1e-4)


def test_the_far_side_of_a_thin_object_is_not_touched() -> None:
    contacts = find_contacts(slab(0.001), plate_hand(0.0005))
    assert contacts
    assert all(contact.normal[2] < 0 for contact in contacts), "only the face towards the hand"


def test_nothing_is_touched_beyond_the_contact_distance() -> None:
    assert find_contacts(slab(0.02), plate_hand(CONTACT_DISTANCE_M + 1e-3)) == ()
    assert find_contacts(slab(0.02), plate_hand(CONTACT_DISTANCE_M + 1e-3), max_gap_m=0.01) != ()


def test_contacts_of_a_grasp_are_on_the_surface_spread_out_and_on_every_finger() -> None:
    hand = posed_hand()
    obj = cylinder(hand.T_camera_hand)
    contacts = find_contacts(obj, hand)
    positions = np.array([contact.position for contact in contacts])
    surface = MeshQueries(obj.T_camera_object.apply(obj.vertices), obj.faces)
    assert np.abs(surface.nearest(positions).signed_distance).max() < 1e-5
    local = obj.T_camera_object.inverse().apply(positions)
    assert np.abs(local[:, 0]).max() <= LENGTH / 2 + 1e-6
    assert np.abs(np.linalg.norm(local[:, 1:], axis=1) - RADIUS).max() < 2e-3
    assert {contact.finger for contact in contacts} >= {"thumb", "index", "middle", "ring"}
    for finger in {contact.finger for contact in contacts}:
        own = positions[[contact.finger == finger for contact in contacts]]
        distance = np.linalg.norm(own[:, None] - own[None], axis=-1) + np.eye(len(own))
        assert distance.min() >= CONTACT_SPACING_M
    hand_mesh = MeshQueries(hand.T_camera_hand.apply(hand.vertices), hand.faces)
    np.testing.assert_allclose(
        [contact.gap_m for contact in contacts], hand_mesh.nearest(positions).signed_distance, atol=1e-6
    )
