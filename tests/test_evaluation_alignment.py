# SPDX-License-Identifier: Apache-2.0
"""Alignment of hands and objects, and errors of pose, size and joints."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pytest
import trimesh
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation
from synthetic_result import posed_hand

from fmh_ros.core.transforms import Similarity
from fmh_ros.evaluation.alignment import align_hands, register_objects, same_topology
from fmh_ros.evaluation.pose import (
    displacement,
    keypoint_errors,
    pose_errors,
    scale_ratios,
    symmetric_angle,
    volume_of,
)
from fmh_ros.evaluation.registration import SCALE_RANGE, make_surface, register_all, translation_and_scale
from fmh_ros.evaluation.types import GroundTruth, IntArray, Prediction, Symmetry

FloatArray = NDArray[np.float64]
BOX = trimesh.creation.box((0.05, 0.07, 0.11))


@lru_cache(maxsize=1)
def hand() -> tuple[FloatArray, IntArray, FloatArray]:
    posed = posed_hand()
    place = posed.T_camera_hand
    return place.apply(posed.vertices), posed.faces, place.apply(posed.keypoints)


def pair(vertices: FloatArray, faces: IntArray, keypoints: FloatArray | None = None) -> tuple[Prediction, GroundTruth]:
    box = np.asarray(BOX.vertices), np.asarray(BOX.faces)
    truth = GroundTruth("a", "right", *hand()[:2], *box, keypoints=hand()[2])
    return Prediction("a", "right", vertices, faces, *box, keypoints=keypoints, in_camera_frame=False), truth


def similarity(seed: int) -> Similarity:
    rng = np.random.default_rng(seed)
    turn = Rotation.random(random_state=seed).as_matrix()
    return Similarity(turn, rng.normal(0, 0.3, 3), float(np.exp(rng.uniform(-1.5, 1.5))))


def worst(found: Similarity, motion: Similarity) -> float:
    """Largest distance of a hand vertex from where it belongs, metres."""
    vertices = hand()[0]
    return float(np.linalg.norm(found.apply(motion.apply(vertices)) - vertices, axis=1).max())


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_hand_of_another_topology_is_aligned_to_a_tenth_of_a_millimetre(seed: int) -> None:
    vertices, faces, _ = hand()
    finer = trimesh.remesh.subdivide_to_size(vertices, faces, 0.006)
    order = np.random.default_rng(seed).permutation(len(finer[0]))
    shuffled, renumbered = finer[0][order], np.argsort(order)[finer[1]]
    motion = similarity(seed)
    found = align_hands(*pair(motion.apply(shuffled), renumbered))
    assert found.method == "icp"
    assert worst(found.transform, motion) < 1e-4
    assert found.rms_m < 5e-4


def test_hands_of_one_topology_are_aligned_exactly_however_their_wrists_are_closed() -> None:
    vertices, faces, _ = hand()
    motion = similarity(5)
    found = align_hands(*pair(motion.apply(vertices), np.roll(faces[: int(0.95 * len(faces))], 1, axis=1)))
    assert found.method == "vertices"
    assert worst(found.transform, motion) < 1e-9
    assert found.rms_m < 1e-9


def test_a_hand_that_is_cut_off_elsewhere_is_still_aligned_closely() -> None:
    vertices, faces, keypoints = hand()
    along = (vertices - keypoints[0]) @ (keypoints[9] - keypoints[0])
    kept = faces[(along > np.quantile(along, 0.1))[faces].all(1)]
    used, index = np.unique(kept, return_inverse=True)
    motion = similarity(6)
    found = align_hands(*pair(motion.apply(vertices[used]), index.reshape(-1, 3), motion.apply(keypoints)))
    assert found.method == "icp"
    assert worst(found.transform, motion) < 2e-3


def test_topologies_are_told_by_their_faces() -> None:
    _, faces, _ = hand()
    count = int(faces.max()) + 1
    assert same_topology(count, faces, count, faces[::-1, ::-1])
    assert not same_topology(count, faces, count + 1, faces)
    shuffled = np.random.default_rng(0).permutation(count)[faces]
    assert not same_topology(count, faces, count, shuffled)
    assert not same_topology(count, faces[:0], count, faces[:0])


def test_the_scale_cannot_collapse() -> None:
    """A start that is shrunk to a speck on the target's surface is brought back."""
    vertices, faces, _ = hand()
    source, target = make_surface(vertices, faces), make_surface(vertices, faces, seed=1)
    speck = Similarity(np.eye(3), vertices[0] - 0.01 * vertices.mean(0), 0.01)
    found = register_all(source, target, [speck], keep=0.85)[0]
    assert 1 / SCALE_RANGE - 1e-9 <= found.T_target_source.scale / (target.size / source.size) <= SCALE_RANGE + 1e-9


def test_translation_and_scale_are_found_and_rotation_is_not() -> None:
    box = make_surface(np.asarray(BOX.vertices), np.asarray(BOX.faces))
    motion = Similarity(np.eye(3), np.array([0.1, -0.2, 0.3]), 1.4)
    moved = make_surface(motion.apply(np.asarray(BOX.vertices)), np.asarray(BOX.faces), seed=1)
    found = translation_and_scale(box, moved)
    assert found.scale == pytest.approx(1.4, rel=0.01)
    assert np.abs(found.translation - motion.translation).max() < 5e-4
    assert np.array_equal(found.rotation, np.eye(3))


def test_an_object_that_stands_on_its_head_is_told_from_one_that_stands() -> None:
    cone = trimesh.creation.cone(0.03, 0.12)
    vertices, faces = np.asarray(cone.vertices), np.asarray(cone.faces)
    flip = Rotation.from_euler("x", 180, degrees=True).as_matrix()
    target = make_surface(vertices, faces, seed=1)
    symmetry = Symmetry(axis=np.array([0.0, 0, 1]))
    for turn, angle in ((np.eye(3), 0.0), (flip, 180.0)):
        found = register_objects(make_surface(vertices @ turn.T, faces), target)
        errors = displacement(found.T_target_source, np.zeros(3), Similarity(), symmetry)
        assert errors.rotation_deg == pytest.approx(angle, abs=1.0)


def test_a_box_is_not_said_to_be_turned_by_a_half_turn() -> None:
    vertices, faces = np.asarray(BOX.vertices), np.asarray(BOX.faces)
    tilt = Rotation.from_rotvec([0.2, 0.1, -0.1])
    moved = vertices @ tilt.as_matrix().T + [0.004, 0, 0.003]
    found = register_objects(make_surface(moved, faces), make_surface(vertices, faces, seed=1))
    errors = displacement(found.T_target_source, np.zeros(3), None, Symmetry())
    assert errors.rotation_deg == pytest.approx(np.degrees(tilt.magnitude()), abs=0.2)
    assert errors.translation_mm == pytest.approx(5.0, abs=0.1)


def test_an_object_that_is_inside_out_is_registered_all_the_same() -> None:
    vertices, faces = np.asarray(BOX.vertices), np.asarray(BOX.faces)
    tilt = Rotation.from_rotvec([0.2, 0.1, -0.1])
    source = make_surface(vertices @ tilt.as_matrix().T, faces[:, ::-1])
    found = register_objects(source, make_surface(vertices, faces, seed=1)).T_target_source
    assert np.allclose(found.rotation, tilt.as_matrix().T, atol=0.005)


def test_symmetries_agree_with_trying_every_turn() -> None:
    rng = np.random.default_rng(0)
    axis = np.array([1.0, 2.0, -0.5]) / np.linalg.norm([1.0, 2.0, -0.5])
    across = np.cross(axis, [0, 0, 1.0])
    half = Rotation.from_rotvec(np.pi * across / np.linalg.norm(across)).as_matrix()
    spins = Rotation.from_rotvec(np.linspace(0, 2 * np.pi, 7201)[:, None] * axis).as_matrix()
    for rotation in Rotation.random(8, random_state=1).as_matrix():
        tried = min(Rotation.from_matrix(s @ spins @ rotation).magnitude().min() for s in (np.eye(3), half))
        given = Symmetry(np.stack([np.eye(3), half]), axis * rng.uniform(0.5, 2))
        assert symmetric_angle(rotation, given) == pytest.approx(tried, abs=1e-3)
    assert symmetric_angle(half, Symmetry(np.stack([np.eye(3), half]))) == pytest.approx(0, abs=1e-6)
    assert symmetric_angle(half, Symmetry()) == pytest.approx(np.pi)
    assert symmetric_angle(half, Symmetry(any_rotation=True)) == 0


def test_poses_of_one_frame_differ_by_angle_and_distance_in_any_camera() -> None:
    true = Similarity(Rotation.random(random_state=3).as_matrix(), np.array([0.1, 0.2, 0.5]))
    off = Rotation.from_rotvec([0, 0.3, 0]).as_matrix()
    predicted = Similarity(true.rotation @ off, true.translation + [0.003, 0.004, 0])
    for camera in (Similarity(), Similarity(Rotation.random(random_state=4).as_matrix(), np.ones(3))):
        errors = pose_errors(camera @ predicted, camera @ true, Symmetry())
        assert errors.rotation_deg == pytest.approx(np.degrees(0.3))
        assert errors.translation_mm == pytest.approx(5.0)
    assert pose_errors(predicted, true, Symmetry(axis=np.array([0, 1.0, 0]))).rotation_deg == pytest.approx(0, abs=1e-5)


def test_a_scaled_box_has_its_scale_as_ratio() -> None:
    vertices, faces = np.asarray(BOX.vertices), np.asarray(BOX.faces)
    turn = Rotation.random(random_state=1).as_matrix()
    ratios = scale_ratios((1.3 * vertices @ turn.T, faces), (vertices, faces))
    assert ratios.volume == pytest.approx(1.3) and ratios.extents == pytest.approx(1.3, rel=1e-6)
    stretched = scale_ratios((vertices * [1, 1, 8.0], faces), (vertices, faces))
    assert stretched.volume == pytest.approx(2.0)
    assert scale_ratios((vertices, faces[:-1]), (vertices, faces)).volume is None


def test_a_volume_is_found_though_vertices_are_repeated_and_not_through_a_hole() -> None:
    soup = np.asarray(BOX.vertices)[np.asarray(BOX.faces)].reshape(-1, 3)
    assert volume_of(soup, np.arange(36).reshape(-1, 3)) == pytest.approx(0.05 * 0.07 * 0.11)
    assert volume_of(np.asarray(BOX.vertices), np.asarray(BOX.faces)[:-1]) is None
    assert volume_of(soup, np.zeros((0, 3), np.int64)) is None


def test_joints_are_compared_as_they_are_from_the_wrist_and_aligned() -> None:
    true = np.random.default_rng(0).normal(0, 0.05, (21, 3))
    shifted = keypoint_errors(true + [0.006, 0, 0.008], true)
    assert shifted.camera == pytest.approx(10) and shifted.root == pytest.approx(0, abs=1e-9)
    moved = keypoint_errors(similarity(3).apply(true), true)
    assert moved.aligned == pytest.approx(0, abs=1e-9) and moved.root > 10
    one_off = true.copy()
    one_off[7] += [0.021, 0, 0]
    assert keypoint_errors(one_off, true).camera == pytest.approx(1.0)
    assert keypoint_errors(one_off, true).root == pytest.approx(1.0)
