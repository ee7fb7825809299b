# SPDX-License-Identifier: Apache-2.0
"""Distances between surfaces, on shapes whose answer is known and against slow references."""

from __future__ import annotations

import numpy as np
import pytest
import trimesh
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from fmh_ros.core.transforms import Similarity
from fmh_ros.evaluation.metrics import align_points, compare_points, hand_aligned_errors, sample_points

FloatArray = NDArray[np.float64]


def reference_errors(predicted: FloatArray, true: FloatArray) -> tuple[float, float, float, float]:
    """Chamfer in cm^2, F5, F10 and Chamfer in cm, from the matrix of all distances."""
    distance = np.sqrt(((predicted[:, None] - true[None]) ** 2).sum(-1)) * 100
    there, back = distance.min(1), distance.min(0)
    scores = []
    for threshold in (0.5, 1.0):
        p, r = (there < threshold).mean(), (back < threshold).mean()
        scores.append(0.0 if p + r == 0 else 2 / (1 / p + 1 / r) if p and r else 0.0)
    return (there**2).mean() + (back**2).mean(), scores[0], scores[1], (there.mean() + back.mean()) / 2


def test_parallel_planes_have_a_known_chamfer_distance() -> None:
    x, y = np.meshgrid(np.linspace(0, 0.1, 60), np.linspace(0, 0.1, 60))
    plane = np.stack([x.ravel(), y.ravel(), np.zeros(x.size)], 1)
    errors = compare_points(plane + [0, 0, 0.007], plane)
    assert errors.chamfer_cm2 == pytest.approx(2 * 0.7**2)
    assert errors.chamfer_cm == pytest.approx(0.7)
    assert errors.f5 == 0
    assert errors.f10 == 1


def test_concentric_spheres_are_as_far_apart_as_their_radii() -> None:
    points = [
        sample_points(np.asarray(ball.vertices), np.asarray(ball.faces), 30_000, seed)
        for seed, ball in enumerate(trimesh.creation.icosphere(5, radius) for radius in (0.04, 0.046))
    ]
    errors = compare_points(*points)
    assert errors.chamfer_cm == pytest.approx(0.6, rel=0.01)
    assert errors.chamfer_cm2 == pytest.approx(2 * 0.6**2, rel=0.02)
    assert (errors.f5, errors.f10) == (0, 1)


def test_the_f_score_of_known_shares_is_their_harmonic_mean() -> None:
    true = np.zeros((100, 3))
    true[:, 0] = np.arange(100)
    # Three quarters of the prediction are right and hit 30 of the 100 true points; the rest is far away.
    predicted = np.concatenate([true[:30] + [0, 0.004, 0], true[:10] + [0, 9, 0]])
    errors = compare_points(predicted, true)
    assert errors.f5 == pytest.approx(2 * 0.75 * 0.3 / (0.75 + 0.3))
    assert compare_points(predicted + [0, 0, 0.0035], true).f5 == 0
    assert compare_points(predicted + [0, 0, 0.0035], true).f10 == errors.f5


def test_distances_agree_with_a_slow_reference() -> None:
    rng = np.random.default_rng(3)
    predicted, true = rng.normal(0, 0.02, (150, 3)), rng.normal(0, 0.02, (211, 3))
    errors = compare_points(predicted, true)
    found = (errors.chamfer_cm2, errors.f5, errors.f10, errors.chamfer_cm)
    assert found == pytest.approx(reference_errors(predicted, true), rel=1e-12)


def test_points_are_uniform_by_area_and_those_of_a_cloud_are_its_own() -> None:
    box = trimesh.creation.box((0.2, 0.1, 0.1))
    points = sample_points(np.asarray(box.vertices), np.asarray(box.faces), 40_000)
    on_ends = (np.abs(np.abs(points[:, 0]) - 0.1) < 1e-9).mean()
    assert on_ends == pytest.approx(2 / 10, abs=0.01)
    assert np.array_equal(points, sample_points(np.asarray(box.vertices), np.asarray(box.faces), 40_000))
    cloud = np.random.default_rng(0).normal(size=(50, 3))
    drawn = sample_points(cloud, np.zeros((0, 3), np.int64), 50)
    assert np.array_equal(np.sort(drawn, axis=0), np.sort(cloud, axis=0))
    assert sample_points(cloud, np.zeros((0, 3), np.int64), 80).shape == (80, 3)


def test_alignment_recovers_a_similarity() -> None:
    rng = np.random.default_rng(0)
    points = rng.normal(size=(50, 3))
    true = Similarity(Rotation.random(random_state=1).as_matrix(), np.array([0.1, 0.2, 0.3]), 1.7)
    found = align_points(points, true.apply(points))
    assert np.allclose(found.matrix(), true.matrix())


def test_hand_alignment_carries_the_object_along() -> None:
    rng = np.random.default_rng(0)
    hand = rng.normal(size=(21, 3)) * 0.05
    ball = trimesh.creation.icosphere(subdivisions=4, radius=0.04)
    motion = Similarity(Rotation.random(random_state=2).as_matrix(), np.array([0.3, -0.1, 0.5]), 0.8)
    true = (np.asarray(ball.vertices), np.asarray(ball.faces))
    predicted = (motion.apply(true[0]), true[1])
    errors = hand_aligned_errors((motion.apply(hand), hand), predicted, true)
    assert errors.chamfer_cm2 < 0.01
    assert errors.f5 > 0.99
    shifted = hand_aligned_errors((motion.apply(hand) + [0.02, 0, 0], hand), predicted, true)
    assert shifted.chamfer_cm2 > 1
