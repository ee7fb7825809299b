# SPDX-License-Identifier: Apache-2.0
"""All metrics of a sample: what they are for known predictions, and what they do not depend on."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import trimesh
from scipy.spatial.transform import Rotation
from synthetic_result import posed_hand

from fmh_ros.core.transforms import Similarity
from fmh_ros.evaluation.contact import touched_points
from fmh_ros.evaluation.predictions import mirrored
from fmh_ros.evaluation.sample import SampleMetrics, evaluate_sample, metric_names
from fmh_ros.evaluation.types import GroundTruth, Prediction, Symmetry

#: What has to be equal when prediction and truth are moved, mirrored or given in another unit.
HAND_ALIGNED = ("chamfer_cm2", "chamfer_cm", "f5", "f10", "object_translation_mm", "object_rotation_deg")
HAND_ALIGNED += ("scale_volume_ratio", "scale_extents_ratio", "contact_precision", "contact_recall", "pa_mpjpe_mm")


@pytest.fixture(scope="module")
def truth() -> GroundTruth:
    """A hand closed round a box, whose axes its object frame has."""
    hand = posed_hand()
    place = hand.T_camera_hand
    box = trimesh.creation.box((0.045, 0.14, 0.035)).subdivide().subdivide()
    in_palm = Similarity(Rotation.from_euler("z", 8, degrees=True).as_matrix(), np.array([0.085, 0.0, -0.042]))
    pose = place @ in_palm
    obj = pose.apply(np.asarray(box.vertices)), np.asarray(box.faces, np.int64)
    vertices = place.apply(hand.vertices)
    contacts = touched_points(vertices, hand.faces, *obj)
    half_turns = np.stack([np.eye(3), *(np.diag(d) for d in ([1.0, -1, -1], [-1.0, 1, -1], [-1.0, -1, 1]))])
    return GroundTruth(
        "a", "right", vertices, hand.faces, *obj, place.apply(hand.keypoints), pose, contacts, Symmetry(half_turns)
    )


def predicted(truth: GroundTruth, obj: Similarity | None = None, score: float | None = None) -> Prediction:
    """The truth as a prediction, with its object moved by ``obj`` in the object's own frame."""
    assert truth.T_camera_object is not None
    move = truth.T_camera_object @ (obj or Similarity()) @ truth.T_camera_object.inverse()
    assert truth.contacts is not None
    return Prediction(
        *("a", truth.side, truth.hand_vertices, truth.hand_faces),
        *(move.apply(truth.object_vertices), truth.object_faces, truth.keypoints, None, move.apply(truth.contacts)),
        score=score,
    )


def moved(prediction: Prediction, motion: Similarity) -> Prediction:
    known = (prediction.keypoints, prediction.contacts)
    keypoints, contacts = (None if points is None else motion.apply(points) for points in known)
    return replace(
        prediction,
        hand_vertices=motion.apply(prediction.hand_vertices),
        object_vertices=motion.apply(prediction.object_vertices),
        keypoints=keypoints,
        contacts=contacts,
    )


@pytest.fixture(scope="module")
def perfect(truth: GroundTruth) -> SampleMetrics:
    return evaluate_sample(predicted(truth, score=0.9), truth)


def test_the_truth_itself_is_a_perfect_prediction(perfect: SampleMetrics) -> None:
    metrics = perfect
    # What is left is the spacing of the points.
    assert metrics.chamfer_cm2 < 0.01 and metrics.chamfer_cm < 0.1 and metrics.f5 == metrics.f10 == 1
    assert metrics.contact_precision == metrics.contact_recall == 1
    assert metrics.scale_volume_ratio == pytest.approx(1) and metrics.scale_error == pytest.approx(0, abs=2e-3)
    assert metrics.object_translation_mm == pytest.approx(0, abs=0.1)
    assert metrics.object_rotation_deg == pytest.approx(0, abs=0.2)
    assert metrics.mpjpe_camera_mm == pytest.approx(0) and metrics.hand_scale_ratio == pytest.approx(1)
    assert metrics.hand_alignment == "vertices" and metrics.side_correct and metrics.score == 0.9
    assert metrics.camera_chamfer_cm2 == pytest.approx(metrics.chamfer_cm2, rel=1e-6)


def test_a_cup_that_comes_out_filled_is_no_larger(truth: GroundTruth) -> None:
    assert truth.T_camera_object is not None
    outside = [(0, 0), (0.04, 0), (0.04, 0.09)]
    true, filled = (
        (truth.T_camera_object.apply(np.asarray(mesh.vertices)), np.asarray(mesh.faces, np.int64))
        for inside in ([(0.037, 0.09), (0.037, 0.004), (0, 0.004)], [(0, 0.09)])
        for mesh in [trimesh.creation.revolve(outside + inside, sections=64)]
    )
    known = replace(truth, object_vertices=true[0], object_faces=true[1])
    metrics = evaluate_sample(replace(predicted(truth), object_vertices=filled[0], object_faces=filled[1]), known)
    assert metrics.scale_volume_ratio is not None and metrics.scale_volume_ratio > 1.5
    assert metrics.scale_error is not None and metrics.scale_error < 0.02


def test_a_displaced_and_grown_object_shows_in_pose_and_size_and_not_in_its_shape(truth: GroundTruth) -> None:
    turn = Rotation.from_rotvec(np.radians([0, 12, 0])).as_matrix()
    metrics = evaluate_sample(predicted(truth, Similarity(turn, np.array([0.0, 0.012, 0.005]), 1.1)), truth)
    assert metrics.object_translation_mm == pytest.approx(13, abs=0.3)
    assert metrics.object_translation_camera_mm == pytest.approx(13, abs=0.3)
    assert metrics.object_rotation_deg == pytest.approx(12, abs=0.5)
    assert metrics.scale_volume_ratio == pytest.approx(1.1) and metrics.scale_camera_ratio == pytest.approx(1.1)
    assert metrics.scale_registration_ratio == pytest.approx(1.1, abs=2e-3)
    assert metrics.scale_error == pytest.approx(0.1, abs=2e-3)
    assert metrics.object_sim_chamfer_cm2 is not None and metrics.object_ts_chamfer_cm2 is not None
    assert metrics.object_sim_chamfer_cm2 < 0.01
    assert 2 * metrics.object_sim_chamfer_cm2 < metrics.object_ts_chamfer_cm2 < metrics.chamfer_cm2 / 2


def test_numbers_do_not_depend_on_where_the_pair_is_nor_on_the_predictions_unit(truth: GroundTruth) -> None:
    made = predicted(truth, Similarity(np.eye(3), np.array([0.006, 0.01, 0.0]), 1.05))
    here = evaluate_sample(made, truth)
    motion = Similarity(Rotation.random(random_state=1).as_matrix(), np.array([0.2, -0.1, 0.3]))
    assert truth.T_camera_object is not None and truth.keypoints is not None and truth.contacts is not None
    truth_there = replace(
        truth,
        hand_vertices=motion.apply(truth.hand_vertices),
        object_vertices=motion.apply(truth.object_vertices),
        keypoints=motion.apply(truth.keypoints),
        contacts=motion.apply(truth.contacts),
        T_camera_object=motion @ truth.T_camera_object,
    )
    there = evaluate_sample(moved(made, motion), truth_there)
    unit = Similarity(Rotation.random(random_state=2).as_matrix(), np.array([3.0, 1.0, 0.0]), 7.0)
    in_own_unit = evaluate_sample(replace(moved(made, unit), in_camera_frame=False), truth, object_aligned=False)
    for name in HAND_ALIGNED:
        value = getattr(here, name)
        assert getattr(there, name) == pytest.approx(value, rel=2e-3, abs=0.05), name
        if not name.startswith("object_"):
            assert getattr(in_own_unit, name) == pytest.approx(value, rel=2e-3), name
    for name in ("intersection_exact_cm3", "penetration_depth_mm"):
        assert getattr(there, name) == pytest.approx(getattr(here, name), rel=0.02, abs=0.02), name
    assert there.camera_chamfer_cm2 == pytest.approx(here.camera_chamfer_cm2, rel=1e-3)
    for name in ("camera_chamfer_cm2", "mpjpe_camera_mm", "mpjpe_mm", "scale_camera_ratio"):
        assert getattr(in_own_unit, name) is None
    assert in_own_unit.object_rotation_camera_deg is None


def test_a_left_hand_gives_the_numbers_of_its_mirror_image(truth: GroundTruth) -> None:
    made = predicted(truth, Similarity(np.eye(3), np.array([0.006, 0.01, 0.0]), 1.05))
    right = evaluate_sample(made, truth, object_aligned=False)
    flip = np.array([-1.0, 1, 1])
    assert truth.keypoints is not None and truth.contacts is not None
    assert made.keypoints is not None and made.contacts is not None
    hand, obj = (
        mirrored(truth.hand_vertices, truth.hand_faces),
        mirrored(truth.object_vertices, truth.object_faces),
    )
    left_truth = GroundTruth("a", "left", *hand, *obj, truth.keypoints * flip, None, truth.contacts * flip)
    own = mirrored(made.object_vertices, made.object_faces)
    left_made = Prediction("a", "left", *hand, *own, made.keypoints * flip, None, made.contacts * flip)
    left = evaluate_sample(left_made, left_truth, object_aligned=False)
    assert left.side_correct
    for name in HAND_ALIGNED:
        if getattr(right, name) is not None:
            assert getattr(left, name) == pytest.approx(getattr(right, name), rel=0.03, abs=0.01), name


def test_what_is_not_known_is_not_measured(truth: GroundTruth) -> None:
    bare = replace(truth, keypoints=None, T_camera_object=None, contacts=None)
    points = np.asarray(trimesh.Trimesh(truth.object_vertices, truth.object_faces, process=False).sample(4000, seed=0))
    no_faces = np.zeros((0, 3), np.int64)
    made = predicted(truth)
    cloud = replace(made, object_vertices=points, object_faces=no_faces, contacts=None, side="left")
    metrics = evaluate_sample(cloud, bare)
    unknown = ("intersection_voxel_cm3", "penetration_depth_mm", "contact_precision", "pa_mpjpe_mm", "score")
    assert all(getattr(metrics, name) is None for name in unknown) and not metrics.side_correct
    assert metrics.scale_volume_ratio is None and metrics.scale_extents_ratio == pytest.approx(1, rel=0.02)
    assert metrics.chamfer_cm2 < 0.05 and metrics.f5 > 0.99
    quick = evaluate_sample(predicted(truth), truth, object_aligned=False)
    assert quick.object_rotation_deg is None and quick.object_sim_f5 is None and quick.f10 == 1


def test_contacts_that_a_prediction_does_not_give_are_found_from_its_meshes(truth: GroundTruth) -> None:
    metrics = evaluate_sample(replace(predicted(truth), contacts=None), truth, object_aligned=False)
    assert metrics.contact_precision == metrics.contact_recall == 1


def test_metrics_go_through_json(perfect: SampleMetrics) -> None:
    assert SampleMetrics.from_json(json.loads(json.dumps(perfect.to_json(), allow_nan=False))) == perfect
    assert {"chamfer_cm2", "f10", "scale_error", "score"} <= set(metric_names())
    assert "hand_alignment" not in metric_names() and "name" not in metric_names()
