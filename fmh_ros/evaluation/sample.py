# SPDX-License-Identifier: Apache-2.0
"""All metrics of one prediction (definitions, units and points: docs/evaluation.md)."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np

from fmh_ros.core.transforms import Similarity
from fmh_ros.evaluation.alignment import align_hands, register_objects
from fmh_ros.evaluation.contact import compare_contacts, touched_points
from fmh_ros.evaluation.overlap import exact_intersection, make_solid, penetration_depth, voxel_intersection
from fmh_ros.evaluation.points import PREDICTION_SEED, SAMPLES, TRUTH_SEED, ObjectErrors, compare_points, sample_points
from fmh_ros.evaluation.pose import displacement, keypoint_errors, scale_ratios
from fmh_ros.evaluation.registration import make_surface, translation_and_scale
from fmh_ros.evaluation.types import FloatArray, GroundTruth, Prediction


@dataclass(frozen=True)
class SampleMetrics:
    """Everything that is measured of one prediction; None where truth or prediction lacks what it needs.

    chamfer_cm2, chamfer_cm, f5, f10 : after aligning the predicted to the true hand, the paper's protocol.
    camera_* : as it stands in the camera frame, without any alignment. object_ts_*, object_sim_* : after aligning the
    object itself by ICP, translation and scale or all of a similarity: of the shape alone and **not comparable** with
    the paper's protocol.
    hand_alignment : "vertices" or "icp"; hand_alignment_rms_mm : what it leaves; hand_scale_ratio : predicted over true
    size of the hand. side_correct : whether the predicted hand is of the true side.
    object_rotation_deg, object_translation_mm : of the object, after aligning the hands; *_camera_* as it stands.
    scale_* : predicted over true size of the object; hand aligned by volume, by extents and by registration (the
    object-aligned similarity's scale, inverted), and in the camera frame. scale_error : of the ratio by registration,
    since a cup that comes out filled, or without its handle, has another volume or extent but is no other scale.
    Lengths, volumes and shares are in the unit of the name, 0 to 1 for shares.
    """

    name: str
    score: float | None
    chamfer_cm2: float
    chamfer_cm: float
    f5: float
    f10: float
    hand_alignment: str
    hand_alignment_rms_mm: float
    hand_scale_ratio: float
    side_correct: bool
    camera_chamfer_cm2: float | None
    camera_f5: float | None
    camera_f10: float | None
    intersection_voxel_cm3: float | None
    intersection_exact_cm3: float | None
    penetration_depth_mm: float | None
    contact_precision: float | None
    contact_recall: float | None
    object_rotation_deg: float | None
    object_translation_mm: float | None
    object_rotation_camera_deg: float | None
    object_translation_camera_mm: float | None
    scale_volume_ratio: float | None
    scale_extents_ratio: float
    scale_registration_ratio: float | None
    scale_camera_ratio: float | None
    scale_error: float | None
    mpjpe_camera_mm: float | None
    mpjpe_mm: float | None
    pa_mpjpe_mm: float | None
    object_ts_chamfer_cm2: float | None
    object_ts_f5: float | None
    object_ts_f10: float | None
    object_sim_chamfer_cm2: float | None
    object_sim_f5: float | None
    object_sim_f10: float | None

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)

    @staticmethod
    def from_json(values: dict[str, Any]) -> SampleMetrics:
        """Read what ``to_json`` returned; metrics that are not there are None."""
        known: dict[str, Any] = {field.name: values.get(field.name) for field in fields(SampleMetrics)}
        return SampleMetrics(**known)


def evaluate_sample(prediction: Prediction, truth: GroundTruth, *, object_aligned: bool = True) -> SampleMetrics:
    """Measure one prediction against its truth.

    object_aligned : also register the object itself, for pose errors and the object-aligned metrics: about half of
    the time.
    """
    hands = align_hands(prediction, truth)
    predicted = sample_points(prediction.object_vertices, prediction.object_faces, SAMPLES, PREDICTION_SEED)
    true = sample_points(truth.object_vertices, truth.object_faces, SAMPLES, TRUTH_SEED)
    aligned = compare_points(hands.transform.apply(predicted), true)
    camera = compare_points(predicted, true) if prediction.in_camera_frame else None
    values: dict[str, Any] = {
        **_named("", aligned),
        **_named("camera_", camera),
        **_overlap(prediction, hands.transform),
        **_contacts(prediction, truth, hands.transform),
        **_sizes(prediction, truth, hands.transform),
        **_joints(prediction, truth),
        **_placed(prediction, truth, hands.transform, predicted, true, object_aligned),
    }
    return SampleMetrics(
        name=truth.name,
        score=prediction.score,
        hand_alignment=hands.method,
        hand_alignment_rms_mm=hands.rms_m * 1e3,
        hand_scale_ratio=1 / hands.transform.scale,
        side_correct=prediction.side == truth.side,
        **{field.name: values[field.name] for field in fields(SampleMetrics) if field.name in values},
    )


def _named(prefix: str, errors: ObjectErrors | None) -> dict[str, float | None]:
    names = ("chamfer_cm2", "chamfer_cm", "f5", "f10")
    return {prefix + name: None if errors is None else getattr(errors, name) for name in names}


def _overlap(prediction: Prediction, alignment: Similarity) -> dict[str, float | None]:
    """Measure the prediction as it is; one in a unit of its own after aligning the hand, which gives it metres."""
    names = ("intersection_voxel_cm3", "intersection_exact_cm3", "penetration_depth_mm")
    if not len(prediction.object_faces) or not len(prediction.hand_faces):
        return dict.fromkeys(names)
    to_metres = Similarity() if prediction.in_camera_frame else alignment
    hand = make_solid(to_metres.apply(prediction.hand_vertices), prediction.hand_faces)
    obj = make_solid(to_metres.apply(prediction.object_vertices), prediction.object_faces)
    volumes = voxel_intersection(hand, obj) * 1e6, exact_intersection(hand, obj) * 1e6
    return dict(zip(names, (*volumes, penetration_depth(hand, obj) * 1e3), strict=True))


def _contacts(prediction: Prediction, truth: GroundTruth, alignment: Similarity) -> dict[str, float | None]:
    if truth.contacts is None or (prediction.contacts is None and not len(prediction.object_faces)):
        return {"contact_precision": None, "contact_recall": None}
    if prediction.contacts is None:
        hand = alignment.apply(prediction.hand_vertices), prediction.hand_faces
        moved = touched_points(*hand, alignment.apply(prediction.object_vertices), prediction.object_faces)
    else:
        moved = alignment.apply(prediction.contacts)
    errors = compare_contacts(moved, truth.contacts)
    return {"contact_precision": errors.precision, "contact_recall": errors.recall}


def _sizes(prediction: Prediction, truth: GroundTruth, alignment: Similarity) -> dict[str, float | None]:
    own = (prediction.object_vertices, prediction.object_faces)
    ratios = scale_ratios(own, (truth.object_vertices, truth.object_faces))
    as_it_stands = ratios.extents if ratios.volume is None else ratios.volume
    return {
        "scale_volume_ratio": None if ratios.volume is None else ratios.volume * alignment.scale,
        "scale_extents_ratio": ratios.extents * alignment.scale,
        "scale_camera_ratio": as_it_stands if prediction.in_camera_frame else None,
    }


def _joints(prediction: Prediction, truth: GroundTruth) -> dict[str, float | None]:
    if prediction.keypoints is None or truth.keypoints is None:
        return {"mpjpe_camera_mm": None, "mpjpe_mm": None, "pa_mpjpe_mm": None}
    errors = keypoint_errors(prediction.keypoints, truth.keypoints)
    stands = prediction.in_camera_frame
    return {
        "mpjpe_camera_mm": errors.camera if stands else None,
        "mpjpe_mm": errors.root if stands else None,
        "pa_mpjpe_mm": errors.aligned,
    }


def _placed(
    prediction: Prediction,
    truth: GroundTruth,
    alignment: Similarity,
    predicted: FloatArray,
    true: FloatArray,
    wanted: bool,
) -> dict[str, float | None]:
    """Register the object itself: its pose errors, and what is left of its shape."""
    places = ("object_rotation_deg", "object_translation_mm")
    in_camera = ("object_rotation_camera_deg", "object_translation_camera_mm")
    sizes = ("scale_registration_ratio", "scale_error")
    if not wanted:
        unknown = dict.fromkeys(places + in_camera + sizes)
        return {**unknown, **_named("object_ts_", None), **_named("object_sim_", None)}
    source = make_surface(alignment.apply(prediction.object_vertices), prediction.object_faces)
    target = make_surface(truth.object_vertices, truth.object_faces, seed=TRUTH_SEED)
    shrunk = translation_and_scale(source, target)
    whole = register_objects(source, target).T_target_source
    centre = (truth.object_vertices.max(0) + truth.object_vertices.min(0)) / 2
    known = (centre, truth.T_camera_object, truth.symmetry)
    placed = displacement(whole, *known)
    standing = displacement(whole @ alignment, *known) if prediction.in_camera_frame else None
    moved = alignment.apply(predicted)
    ratio = 1 / whole.scale
    return {
        **dict(zip(sizes, (ratio, abs(ratio - 1)), strict=True)),
        **dict(zip(places, (placed.rotation_deg, placed.translation_mm), strict=True)),
        in_camera[0]: None if standing is None else standing.rotation_deg,
        in_camera[1]: None if standing is None else standing.translation_mm,
        **_named("object_ts_", compare_points(shrunk.apply(moved), true)),
        **_named("object_sim_", compare_points(whole.apply(moved), true)),
    }


def metric_names() -> tuple[str, ...]:
    """Return the names of the metrics that are numbers and that have a mean."""
    return tuple(f.name for f in fields(SampleMetrics) if f.type in ("float", "float | None"))


def finite(values: list[float | None]) -> FloatArray:
    """Return those of the values that are known."""
    return np.array([value for value in values if value is not None and np.isfinite(value)], np.float64)
