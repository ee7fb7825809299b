# SPDX-License-Identifier: Apache-2.0
"""Metrics on shapes whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest
import trimesh
from scipy.spatial.transform import Rotation

from fmh_ros.core.transforms import Similarity
from fmh_ros.evaluation.metrics import align_points, compare_points, hand_aligned_errors


def test_parallel_planes_have_a_known_chamfer_distance() -> None:
    x, y = np.meshgrid(np.linspace(0, 0.1, 60), np.linspace(0, 0.1, 60))
    plane = np.stack([x.ravel(), y.ravel(), np.zeros(x.size)], 1)
    errors = compare_points(plane + [0, 0, 0.007], plane)
    assert errors.chamfer_cm2 == pytest.approx(2 * 0.7**2)
    assert errors.f5 == 0
    assert errors.f10 == 1


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
