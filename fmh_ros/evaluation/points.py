# SPDX-License-Identifier: Apache-2.0
"""Distances between surfaces, measured on points: Chamfer distance and F-score."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import trimesh
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from fmh_ros.evaluation.types import FloatArray

#: Points per surface, as in AlignSDF, HORT and EasyHOI.
SAMPLES = 30_000
#: Seed of the points on the prediction and on the truth; different, so that a shape compared with itself is not 0.
PREDICTION_SEED, TRUTH_SEED = 0, 1


@dataclass(frozen=True)
class ObjectErrors:
    """How far two surfaces are from each other.

    chamfer_cm2 : sum of the two mean squared nearest-neighbour distances, cm^2. chamfer_cm : mean of the two mean
    nearest-neighbour distances, cm. f5, f10 : F-scores at 5 and 10 mm, 0 to 1: the harmonic mean of the share of
    predicted points that near to a true one and of true points that near to a predicted one.
    """

    chamfer_cm2: float
    f5: float
    f10: float
    chamfer_cm: float


def sample_points(
    vertices: FloatArray, faces: NDArray[np.integer], samples: int = SAMPLES, seed: int = 0
) -> FloatArray:
    """Return area-uniform points (samples, 3) of a mesh, or ``samples`` of the vertices of a cloud (no faces)."""
    if not len(faces):
        chosen = np.random.default_rng(seed).choice(len(vertices), samples, replace=len(vertices) < samples)
        return np.asarray(vertices[chosen], np.float64)
    mesh = trimesh.Trimesh(vertices, faces, process=False)
    return np.asarray(trimesh.sample.sample_surface(mesh, samples, seed=seed)[0], np.float64)


def compare_points(predicted: FloatArray, true: FloatArray) -> ObjectErrors:
    """Compare point sets (N, 3) and (M, 3) in metres."""
    to_true = cKDTree(true).query(predicted)[0]
    to_predicted = cKDTree(predicted).query(true)[0]
    return ObjectErrors(
        chamfer_cm2=float((to_true**2).mean() + (to_predicted**2).mean()) * 1e4,
        f5=_f_score(to_true, to_predicted, 0.005),
        f10=_f_score(to_true, to_predicted, 0.010),
        chamfer_cm=float(to_true.mean() + to_predicted.mean()) * 50,
    )


def _f_score(to_true: FloatArray, to_predicted: FloatArray, threshold: float) -> float:
    precision, recall = float((to_true < threshold).mean()), float((to_predicted < threshold).mean())
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0
