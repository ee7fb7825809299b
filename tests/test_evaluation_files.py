# SPDX-License-Identifier: Apache-2.0
"""Truth and predictions on disk."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import trimesh
from scipy.spatial.transform import Rotation

from fmh_ros.core.errors import FileMissingError, UsageError
from fmh_ros.core.transforms import Similarity
from fmh_ros.evaluation.truth_files import read_ground_truth, write_ground_truth
from fmh_ros.evaluation.types import GroundTruth, Symmetry


def truth(name: str = "a") -> GroundTruth:
    hand = trimesh.creation.icosphere(subdivisions=2, radius=0.05)
    obj = trimesh.creation.cylinder(0.03, 0.1)
    rng = np.random.default_rng(0)
    pose = Similarity(Rotation.random(random_state=1).as_matrix(), np.array([0.1, 0.0, 0.5]), 1.25)
    return GroundTruth(
        name,
        "left",
        np.asarray(hand.vertices) + [0, 0.05, 0.5],
        np.asarray(hand.faces, np.int64),
        pose.apply(obj.vertices),
        np.asarray(obj.faces, np.int64),
        rng.normal(size=(21, 3)),
        pose,
        rng.normal(size=(4, 3)),
        Symmetry(np.stack([np.eye(3), np.diag([1.0, -1, -1])]), np.array([0.0, 0, 1])),
    )


def test_truth_comes_back_as_it_was_written(tmp_path: Path) -> None:
    (tmp_path / "image.png").write_bytes(b"kept")
    made = truth()
    read = read_ground_truth(write_ground_truth(made, tmp_path))
    assert (read.name, read.side) == ("a", "left")
    assert np.abs(read.hand_vertices - made.hand_vertices).max() < 1e-7
    assert np.abs(read.object_vertices - made.object_vertices).max() < 1e-7
    assert np.array_equal(read.hand_faces, made.hand_faces) and np.array_equal(read.object_faces, made.object_faces)
    assert np.array_equal(read.keypoints, made.keypoints) and np.array_equal(read.contacts, made.contacts)
    assert read.T_camera_object is not None and made.T_camera_object is not None
    assert np.allclose(read.T_camera_object.matrix(), made.T_camera_object.matrix(), atol=1e-12)
    assert np.array_equal(read.symmetry.rotations, made.symmetry.rotations)
    assert np.array_equal(read.symmetry.axis, made.symmetry.axis) and not read.symmetry.any_rotation
    assert (tmp_path / "image.png").read_bytes() == b"kept"


def test_what_is_not_known_stays_unknown_and_no_contact_stays_no_contact(tmp_path: Path) -> None:
    made = truth()
    bare = GroundTruth("b", "right", made.hand_vertices, made.hand_faces, made.object_vertices, made.object_faces)
    read = read_ground_truth(write_ground_truth(bare, tmp_path))
    assert read.keypoints is None and read.T_camera_object is None and read.contacts is None
    touching = GroundTruth(
        "b", "right", made.hand_vertices, made.hand_faces, made.object_vertices, made.object_faces,
        contacts=np.zeros((0, 3)),
    )  # fmt: skip
    read = read_ground_truth(write_ground_truth(touching, tmp_path))
    assert read.contacts is not None and read.contacts.shape == (0, 3)


@pytest.mark.parametrize(
    ("key", "value"), [("schema", "other/1"), ("side", "up"), ("keypoints", [[0, 0, 0]]), ("T_camera_object", [0] * 16)]
)
def test_a_truth_that_makes_no_sense_is_refused(tmp_path: Path, key: str, value: object) -> None:
    write_ground_truth(truth(), tmp_path)
    document = json.loads((tmp_path / "truth.json").read_text())
    (tmp_path / "truth.json").write_text(json.dumps(document | {key: value}))
    with pytest.raises(UsageError, match=r"truth\.json"):
        read_ground_truth(tmp_path)


def test_a_truth_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileMissingError, match=r"truth\.json"):
        read_ground_truth(tmp_path)
    write_ground_truth(truth(), tmp_path)
    (tmp_path / "object.ply").unlink()
    with pytest.raises(FileMissingError, match=r"object\.ply"):
        read_ground_truth(tmp_path)
