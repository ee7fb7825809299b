# SPDX-License-Identifier: Apache-2.0
"""Accuracy against ground truth by the paper's protocol: align predicted to true hand, then compare the objects.

Chamfer distance is the sum of both mean squared nearest-neighbour distances, in cm^2 (the unit of the paper's Table 1);
the F-score at a threshold is the harmonic mean of precision and recall. Both use ``samples`` surface points per mesh
with a fixed seed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import trimesh
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from fmh_ros.core.transforms import Similarity

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class ObjectErrors:
    """chamfer_cm2 : cm^2; f5, f10 : F-scores at 5 and 10 mm, 0 to 1."""

    chamfer_cm2: float
    f5: float
    f10: float


def align_points(source: FloatArray, target: FloatArray) -> Similarity:
    """Least-squares similarity (Umeyama) that maps corresponding points (N, 3) of source onto target."""
    matrix, _, _ = trimesh.registration.procrustes(source, target, reflection=False, scale=True)
    scale = float(np.cbrt(np.linalg.det(matrix[:3, :3])))
    return Similarity(matrix[:3, :3] / scale, matrix[:3, 3], scale)


def sample_points(vertices: FloatArray, faces: NDArray[np.integer], samples: int, seed: int = 0) -> FloatArray:
    """Area-uniform points (samples, 3) on a mesh."""
    mesh = trimesh.Trimesh(vertices, faces, process=False)
    return np.asarray(trimesh.sample.sample_surface(mesh, samples, seed=seed)[0], np.float64)


def compare_points(predicted: FloatArray, true: FloatArray) -> ObjectErrors:
    """Chamfer distance and F-scores between point sets in metres."""
    to_true = cKDTree(true).query(predicted)[0]
    to_predicted = cKDTree(predicted).query(true)[0]
    chamfer = float((to_true**2).mean() + (to_predicted**2).mean()) * 1e4

    def f_score(threshold: float) -> float:
        precision, recall = float((to_true < threshold).mean()), float((to_predicted < threshold).mean())
        return 2 * precision * recall / (precision + recall) if precision + recall else 0.0

    return ObjectErrors(chamfer, f_score(0.005), f_score(0.010))


def hand_aligned_errors(
    hand: tuple[FloatArray, FloatArray],
    predicted: tuple[FloatArray, NDArray[np.integer]],
    true: tuple[FloatArray, NDArray[np.integer]],
    samples: int = 10_000,
) -> ObjectErrors:
    """Compare objects after mapping the predicted hand onto the true one.

    hand : predicted and true corresponding hand points (N, 3), metres (vertices of one topology, or the 21 joints).
    predicted, true : vertices (V, 3) in metres, in the frame of their hand, and faces (F, 3).
    """
    alignment = align_points(hand[0], hand[1])
    moved = alignment.apply(sample_points(*predicted, samples))
    return compare_points(moved, sample_points(*true, samples))
