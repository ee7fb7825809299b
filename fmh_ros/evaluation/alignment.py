# SPDX-License-Identifier: Apache-2.0
"""The predicted hand on the true hand, and the predicted object on the true object."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fmh_ros.core.transforms import Similarity
from fmh_ros.evaluation.registration import (
    SEED,
    Registered,
    Surface,
    align_points,
    make_surface,
    register_all,
    rotation_starts,
    translation_and_scale,
)
from fmh_ros.evaluation.types import GroundTruth, Prediction

__all__ = ["HandAlignment", "align_hands", "align_points", "register_objects", "same_topology", "translation_and_scale"]

#: Share of the correspondences that the registration of hands keeps: wrists are cut off at different places.
HAND_KEEP = 0.85
#: Share of faces that two meshes of one topology have in common; programs close MANO's wrist in different ways.
SHARED_FACES = 0.9
#: A registration may be this much worse than the best one, relatively and in metres, and still be as good.
TIE_RATIO, TIE_M = 1.1, 1e-4


@dataclass(frozen=True)
class HandAlignment:
    """transform : maps the prediction into the truth's frame, scale included. rms_m : root mean square distance that
    is left, of all vertices ("vertices") or of the closest points ("icp"), metres."""

    transform: Similarity
    method: Literal["vertices", "icp"]
    rms_m: float


def same_topology(count: int, faces: NDArray[np.integer], other_count: int, other_faces: NDArray[np.integer]) -> bool:
    """Whether vertex n of the one mesh is vertex n of the other.

    True for equal vertex counts and the same faces but for a tenth of them, in whatever order and winding (a left hand
    is a right one with its faces turned).
    """
    if count != other_count or not len(faces) or not len(other_faces):
        return False
    own, other = ({tuple(face) for face in np.sort(f, axis=1).tolist()} for f in (faces, other_faces))
    return len(own & other) >= SHARED_FACES * max(len(own), len(other))


def align_hands(prediction: Prediction, truth: GroundTruth) -> HandAlignment:
    """Return the similarity that maps the predicted hand onto the true one.

    By least squares of all vertices where the topologies agree. Otherwise by trimmed ICP from several rotations, from
    the pose as predicted and from the keypoints, with the scale bounded about that of the keypoints (of the surfaces
    where there are none).
    """
    if same_topology(len(prediction.hand_vertices), prediction.hand_faces, len(truth.hand_vertices), truth.hand_faces):
        transform = align_points(prediction.hand_vertices, truth.hand_vertices)
        left = transform.apply(prediction.hand_vertices) - truth.hand_vertices
        return HandAlignment(transform, "vertices", float(np.sqrt((left**2).sum(1).mean())))
    source = make_surface(prediction.hand_vertices, prediction.hand_faces)
    target = make_surface(truth.hand_vertices, truth.hand_faces, seed=SEED + 1)
    starts, expected = rotation_starts(source, target), None
    if prediction.in_camera_frame:
        starts.append(Similarity())
    if prediction.keypoints is not None and truth.keypoints is not None:
        starts.append(align_points(prediction.keypoints, truth.keypoints))
        expected = starts[-1].scale
    best = register_all(source, target, starts, keep=HAND_KEEP, expected=expected)[0]
    return HandAlignment(best.T_target_source, "icp", best.rms)


def register_objects(source: Surface, target: Surface) -> Registered:
    """Return the similarity that lays a predicted on a true object, each as it stands; metres, equal frames.

    From many rotations; of the results that are as good as the best one that with the smallest rotation, so that
    an object that has several equal sides is not said to be turned.
    """
    found = register_all(source, target, [Similarity(), *rotation_starts(source, target)], always=2)
    as_good = [result for result in found if result.rms <= found[0].rms * TIE_RATIO + TIE_M]
    return max(as_good, key=lambda result: float(np.trace(result.T_target_source.rotation)))
