# SPDX-License-Identifier: Apache-2.0
"""Where the hand touches the object, against where it truly does."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from fmh_ros.core.hand.types import HandMesh
from fmh_ros.core.reconstruction.contacts import find_contacts
from fmh_ros.core.reconstruction.types import ObjectMesh
from fmh_ros.core.transforms import Similarity
from fmh_ros.evaluation.types import FloatArray

#: A predicted and a true contact are the same one when they are this close, metres: about the width of a fingertip.
CONTACT_MATCH_M = 0.010


@dataclass(frozen=True)
class ContactErrors:
    """precision : share of the predicted contacts that are near a true one, None when none is predicted. recall : share
    of the true contacts that are near a predicted one, None when there is none."""

    precision: float | None
    recall: float | None


def touched_points(
    hand_vertices: FloatArray,
    hand_faces: NDArray[np.integer],
    object_vertices: FloatArray,
    object_faces: NDArray[np.integer],
) -> FloatArray:
    """Return contacts (C, 3) on the object as ``find_contacts`` finds them: within 4 mm of the hand, 6 mm apart.

    For truths and predictions that come without; all in one frame, metres.
    """
    if not len(object_faces):
        return np.zeros((0, 3))
    count = len(hand_vertices)
    obj = ObjectMesh(
        Similarity(), object_vertices, np.asarray(object_faces, np.int64), np.ptp(object_vertices, axis=0), 0.0, True
    )
    # One finger for all vertices: only the places matter here.
    hand = HandMesh(
        *("right", Similarity(), hand_vertices, np.asarray(hand_faces, np.int64), np.zeros(count, np.int64)),
        *(np.zeros((21, 3)), 1.0, 0.0, 0.0, 1.0),
    )
    return np.array([contact.position for contact in find_contacts(obj, hand)]).reshape(-1, 3)


def compare_contacts(predicted: FloatArray, true: FloatArray, distance_m: float = CONTACT_MATCH_M) -> ContactErrors:
    """Compare contact points (N, 3) and (M, 3) of one frame, metres."""
    if not len(predicted) or not len(true):
        return ContactErrors(0.0 if len(predicted) else None, 0.0 if len(true) else None)
    to_true = cKDTree(true).query(predicted)[0]
    to_predicted = cKDTree(predicted).query(true)[0]
    return ContactErrors(float((to_true <= distance_m).mean()), float((to_predicted <= distance_m).mean()))
