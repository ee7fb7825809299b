# SPDX-License-Identifier: Apache-2.0
"""Predictions of this and of other systems, and the command that measures them, on small folders."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import trimesh
from numpy.typing import NDArray
from synthetic_result import synthetic_reconstruction

from fmh_ros.cli.main import main
from fmh_ros.core.errors import EmptyShapeError, FileMissingError, UsageError
from fmh_ros.core.export.formats import write_formats
from fmh_ros.core.reconstruction.types import Reconstruction
from fmh_ros.evaluation.alpha_shape import alpha_shape
from fmh_ros.evaluation.pose import volume_of
from fmh_ros.evaluation.predictions import mirrored, prediction_names, read_prediction
from fmh_ros.evaluation.sample import evaluate_sample
from fmh_ros.evaluation.truth_files import write_ground_truth
from fmh_ros.evaluation.types import GroundTruth, Symmetry

FloatArray = NDArray[np.float64]


@pytest.fixture(scope="module")
def result() -> Reconstruction:
    return synthetic_reconstruction()


@pytest.fixture(scope="module")
def truth(result: Reconstruction) -> GroundTruth:
    hand, obj = result.hand, result.object
    return GroundTruth(
        *("a", "right", hand.T_camera_hand.apply(hand.vertices), hand.faces),
        *(obj.T_camera_object.apply(obj.vertices), obj.faces, hand.T_camera_hand.apply(hand.keypoints)),
        T_camera_object=obj.T_camera_object,
        contacts=np.array([contact.position for contact in result.contacts]),
        symmetry=Symmetry(axis=np.array([1.0, 0, 0])),  # a cylinder, its longest side first
    )


def write_hort(folder: Path, name: str, truth: GroundTruth) -> None:
    """What HORT's demo would write had it seen the truth: a right hand, the image of a left one being mirrored."""
    folder.mkdir(parents=True, exist_ok=True)
    hand = (truth.hand_vertices, truth.hand_faces)
    obj = (truth.object_vertices, truth.object_faces)
    if truth.side == "left":
        hand, obj = mirrored(*hand), mirrored(*obj)
    points = trimesh.sample.sample_surface(trimesh.Trimesh(*obj, process=False), 4000, seed=0)[0]
    palm, shift = hand[0].mean(0), np.array([0.01, 0.02, -0.03])
    (folder / f"{name}.obj").write_text(trimesh.Trimesh(*hand, process=False).export(file_type="obj"))
    document = {
        "cam_extr": np.eye(3).tolist(),
        "cam_intr": np.eye(3).tolist(),
        "pointclouds_up": (points - palm - shift).tolist(),
        "objtrans": shift.tolist(),
        "handpalm": palm.tolist(),
    }
    (folder / f"{name}.json").write_text(json.dumps(document))


def write_easyhoi(folder: Path, name: str, truth: GroundTruth, unit: float = 3.0) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    trimesh.Trimesh(truth.hand_vertices * unit, truth.hand_faces, process=False).export(folder / f"{name}_hand.ply")
    trimesh.Trimesh(truth.object_vertices * unit, truth.object_faces, process=False).export(folder / f"{name}_obj.ply")
    assert truth.keypoints is not None
    np.save(folder / f"{name}_hand_joints.npy", truth.keypoints * unit)


def as_left(truth: GroundTruth) -> GroundTruth:
    hand = mirrored(truth.hand_vertices, truth.hand_faces)
    obj = mirrored(truth.object_vertices, truth.object_faces)
    return GroundTruth("a", "left", *hand, *obj)


def test_a_result_folder_comes_back_as_it_was_reconstructed(tmp_path: Path, result: Reconstruction) -> None:
    write_formats(result, tmp_path / "scene", ("glb", "json"))
    assert list(prediction_names(tmp_path, "fmh")) == list(prediction_names(tmp_path / "scene", "fmh")) == ["scene"]
    read = read_prediction(tmp_path / "scene")
    hand, obj = result.hand, result.object
    assert np.abs(read.hand_vertices - hand.T_camera_hand.apply(hand.vertices)).max() < 1e-6
    assert np.array_equal(read.hand_faces, hand.faces) and np.array_equal(read.object_faces, obj.faces)
    assert np.abs(read.object_vertices - obj.T_camera_object.apply(obj.vertices)).max() < 1e-6
    assert read.keypoints is not None and read.contacts is not None and read.T_camera_object is not None
    assert np.abs(read.keypoints - hand.T_camera_hand.apply(hand.keypoints)).max() < 1e-6
    assert np.allclose(read.T_camera_object.matrix(), obj.T_camera_object.matrix(), atol=1e-8)
    assert len(read.contacts) == len(result.contacts) and read.in_camera_frame
    assert read.side == "right" and read.score == pytest.approx(result.quality.score, abs=1e-6)


@pytest.mark.parametrize("side", ["right", "left"])
def test_horts_points_become_a_closed_mesh_of_the_true_side(tmp_path: Path, truth: GroundTruth, side: str) -> None:
    true = truth if side == "right" else as_left(truth)
    write_hort(tmp_path, "img", true)
    read = read_prediction(tmp_path, "hort", side=true.side)
    mesh = trimesh.Trimesh(read.object_vertices, read.object_faces, process=False)
    wanted = trimesh.Trimesh(true.object_vertices, true.object_faces, process=False).volume
    assert volume_of(read.object_vertices, read.object_faces) == pytest.approx(wanted, rel=0.05)
    assert mesh.volume > 0  # outward
    assert not read.in_camera_frame and read.score is None
    metrics = evaluate_sample(read, true, object_aligned=False)
    assert metrics.hand_alignment == "vertices" and metrics.hand_alignment_rms_mm < 0.01
    assert metrics.chamfer_cm2 < 0.03 and metrics.f5 > 0.99


def test_easyhois_meshes_are_read_in_their_own_unit(tmp_path: Path, truth: GroundTruth) -> None:
    write_easyhoi(tmp_path, "7", truth)
    read = read_prediction(tmp_path, "easyhoi", name="7", side="right")
    metrics = evaluate_sample(read, truth, object_aligned=False)
    assert metrics.f5 > 0.99 and metrics.hand_scale_ratio == pytest.approx(3.0, rel=1e-5)
    assert metrics.pa_mpjpe_mm == pytest.approx(0, abs=1e-3) and metrics.mpjpe_camera_mm is None
    (tmp_path / "7_hand_joints.npy").unlink()
    assert read_prediction(tmp_path, "easyhoi").keypoints is None


def test_the_alpha_shape_of_a_hollow_ball_is_solid_and_leaves_stray_points_out() -> None:
    ball = trimesh.creation.icosphere(5, 0.04)
    rng = np.random.default_rng(0)
    surface = trimesh.sample.sample_surface(ball, 6000, seed=0)[0] + rng.normal(0, 2e-4, (6000, 3))
    points = np.concatenate([surface, [[0.2, 0, 0], [0, 0.0, 0.3]]])
    vertices, faces = alpha_shape(points)
    assert volume_of(vertices, faces) == pytest.approx(4 / 3 * np.pi * 0.04**3, rel=0.02)
    assert trimesh.Trimesh(vertices, faces, process=False).volume > 0
    assert np.linalg.norm(vertices, axis=1).max() < 0.042
    with pytest.raises(EmptyShapeError, match="sparse"):
        alpha_shape(surface[::1000])


def test_a_ball_that_falls_in_between_the_points_is_followed_by_a_larger_one() -> None:
    ball = trimesh.creation.icosphere(5, 0.04)
    sparse = trimesh.sample.sample_surface(ball, 250, seed=0)[0]
    assert volume_of(*alpha_shape(sparse)) == pytest.approx(4 / 3 * np.pi * 0.04**3, rel=0.1)
    fallen_in = volume_of(*alpha_shape(sparse, (0.005,)))
    assert fallen_in is None or fallen_in < 0.5 * 4 / 3 * np.pi * 0.04**3


def test_a_dent_wider_than_the_ball_stays_open() -> None:
    ring = trimesh.creation.torus(0.05, 0.015, major_sections=120, minor_sections=60)
    vertices, faces = alpha_shape(trimesh.sample.sample_surface(ring, 6000, seed=0)[0])
    assert volume_of(vertices, faces) == pytest.approx(ring.volume, rel=0.05)


def test_what_is_missing_or_wrong_is_named(tmp_path: Path, truth: GroundTruth, result: Reconstruction) -> None:
    with pytest.raises(FileMissingError, match="no folder"):
        prediction_names(tmp_path / "none", "fmh")
    with pytest.raises(FileMissingError, match=r"NAME_hand\.ply"):
        prediction_names(tmp_path, "easyhoi")
    with pytest.raises(UsageError, match="format"):
        prediction_names(tmp_path, "other")  # type: ignore[arg-type]
    write_easyhoi(tmp_path, "7", truth)
    write_easyhoi(tmp_path, "8", truth)
    with pytest.raises(UsageError, match="2 predictions"):
        read_prediction(tmp_path, "easyhoi")
    with pytest.raises(FileMissingError, match="'9'"):
        read_prediction(tmp_path, "easyhoi", name="9")
    (tmp_path / "7_obj.ply").unlink()
    with pytest.raises(FileMissingError, match=r"7_obj\.ply"):
        read_prediction(tmp_path, "easyhoi", name="7")
    (tmp_path / "8_obj.ply").write_bytes(b"ply\nnonsense")
    with pytest.raises(UsageError, match=r"8_obj\.ply"):
        read_prediction(tmp_path, "easyhoi", name="8")
    write_hort(tmp_path / "hort", "x", truth)
    (tmp_path / "hort" / "x.json").write_text('{"objtrans": [0, 0, 0]}')
    with pytest.raises(UsageError, match=r"x\.json"):
        read_prediction(tmp_path / "hort", "hort")
    for part in ("one/s", "two/s"):
        write_formats(result, tmp_path / "same" / part, ("json",))
    with pytest.raises(UsageError, match="one name"):
        prediction_names(tmp_path / "same", "fmh")


def test_the_command_measures_one_sample(
    tmp_path: Path, truth: GroundTruth, result: Reconstruction, capsys: pytest.CaptureFixture[str]
) -> None:
    write_formats(result, tmp_path / "out", ("glb", "json"))
    write_ground_truth(truth, tmp_path / "gt")
    written = tmp_path / "deep" / "metrics.json"
    assert main(["eval", str(tmp_path / "out"), str(tmp_path / "gt"), "--json", str(written)]) == 0
    said = capsys.readouterr()
    assert "1 of 1 reconstructed" in said.out and "chamfer_cm2" in said.out
    assert "not comparable" in said.out and "[1/1]" in said.err
    document = json.loads(written.read_text())
    assert document["schema"] == "fmh.evaluation/1" and document["settings"]["points_per_object"] == 30_000
    sample = document["samples"][0]
    assert sample["f10"] == 1 and sample["contact_recall"] == 1 and sample["object_rotation_deg"] < 1
    assert document["summary"]["metrics"]["f10"]["mean"]["value"] == 1


def test_the_command_counts_what_is_missing_in_a_set(
    tmp_path: Path, truth: GroundTruth, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a", "b", "c"):
        write_ground_truth(replace(truth, name=name), tmp_path / "gt" / "test" / name)
    write_easyhoi(tmp_path / "pred", "a", truth)
    write_easyhoi(tmp_path / "pred", "b", truth)
    write_easyhoi(tmp_path / "pred", "z", truth)
    (tmp_path / "pred" / "b_obj.ply").unlink()
    written = tmp_path / "metrics.json"
    arguments = ["eval", str(tmp_path / "pred"), str(tmp_path / "gt"), "--format", "easyhoi", "--no-object-aligned"]
    assert main([*arguments, "--json", str(written)]) == 0
    said = capsys.readouterr()
    assert "1 of 3 reconstructed" in said.out and "1 predictions have no truth" in said.err
    document = json.loads(written.read_text())
    assert [(f["name"], f["code"]) for f in document["summary"]["failures"]] == [("b", 10), ("c", 10)]
    assert document["without_truth"] == ["z"] and document["summary"]["reconstruction_rate"]["value"] == 1 / 3


def test_the_command_ends_with_the_code_of_what_is_wrong(tmp_path: Path, truth: GroundTruth) -> None:
    write_ground_truth(truth, tmp_path / "gt" / "a")
    write_ground_truth(truth, tmp_path / "gt" / "b")
    assert main(["eval", str(tmp_path / "none"), str(tmp_path / "gt")]) == FileMissingError.code
    write_easyhoi(tmp_path / "pred", "c", truth)
    arguments = [str(tmp_path / "pred"), str(tmp_path / "gt"), "--format", "easyhoi", "--quiet"]
    assert main(["eval", *arguments]) == UsageError.code
    write_easyhoi(tmp_path / "pred", "a", truth)
    (tmp_path / "pred" / "a_obj.ply").unlink()
    assert main(["eval", *arguments]) == FileMissingError.code
    assert main(["eval", str(tmp_path / "pred"), str(tmp_path / "empty")]) == FileMissingError.code
