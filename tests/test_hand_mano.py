# SPDX-License-Identifier: Apache-2.0
"""Reading MANO files, on small synthetic ones of the same structure (the real file may not be redistributed)."""

import sys
import types

import numpy as np
import pytest
import torch
import trimesh
from mano_files import mano_content, write_mano, write_pickle
from scipy.spatial.transform import Rotation

from fmh_ros.core.errors import FileMissingError, ModelFileError
from fmh_ros.core.hand.mano import load_mano_rig
from fmh_ros.core.hand.mano_file import mano_surface, read_mano_file
from fmh_ros.core.hand.mano_model import load_mano_model
from fmh_ros.core.hand.rig import load_generic_rig


@pytest.fixture
def content():
    return mano_content()


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_mano_file_becomes_a_rig_with_a_closed_wrist(content, tmp_path, protocol):
    rig = load_mano_rig(write_pickle(tmp_path / "MANO_RIGHT.pkl", content, protocol))
    generic = load_generic_rig()
    mesh = trimesh.Trimesh(rig.vertices, rig.faces, process=False)
    assert mesh.is_watertight
    assert mesh.is_winding_consistent
    assert mesh.volume > 0
    assert np.allclose(rig.joints, generic.joints, atol=1e-6)
    assert np.allclose(rig.keypoints[[5, 9, 13, 17]], generic.keypoints[[5, 9, 13, 17]], atol=1e-6)
    tips = [744, 320, 443, 554, 671]
    assert np.allclose(rig.keypoints[[4, 8, 12, 16, 20]], rig.vertices[tips])
    bent, _ = rig.pose(torch.as_tensor(generic.curl(np.full(5, 0.6))))
    assert np.isfinite(bent.numpy()).all()


def test_chumpy_arrays_are_read_without_chumpy(content, tmp_path, monkeypatch):
    module = types.ModuleType("chumpy")

    class Ch:
        def __init__(self, x):
            self.x = x

    Ch.__module__, Ch.__qualname__ = "chumpy", "Ch"
    module.Ch = Ch
    monkeypatch.setitem(sys.modules, "chumpy", module)
    path = write_pickle(tmp_path / "m.pkl", content | {"v_template": Ch(content["v_template"]), "shapedirs": Ch(None)})
    monkeypatch.delitem(sys.modules, "chumpy")
    assert np.allclose(load_mano_rig(path).joints, load_generic_rig().joints, atol=1e-6)


class Bomb:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        import os

        return os.mkdir, (str(self.target),)


def test_a_file_that_would_run_code_is_refused_and_runs_nothing(content, tmp_path):
    target = tmp_path / "made"
    with pytest.raises(ModelFileError, match="mkdir"):
        load_mano_rig(write_pickle(tmp_path / "m.pkl", content | {"extra": Bomb(target)}))
    assert not target.exists()


@pytest.mark.parametrize(
    "payload",
    [
        b"cbuiltins\neval\n(S'1'\ntR.",
        b"cnumpy\nload\n(S'x'\ntR.",
        b"cnumpy.f2py\ncompile\n.",
        b"cscipy.sparse.sys_matrix\nsystem\n.",
    ],
)
def test_only_listed_names_are_looked_up(tmp_path, payload):
    path = tmp_path / "m.pkl"
    path.write_bytes(payload)
    with pytest.raises(ModelFileError):
        load_mano_rig(path)


def test_damaged_incomplete_and_missing_files_are_typed_errors(content, tmp_path):
    whole = write_pickle(tmp_path / "whole.pkl", content).read_bytes()
    cut = tmp_path / "cut.pkl"
    cut.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelFileError):
        load_mano_rig(cut)
    with pytest.raises(ModelFileError, match="weights"):
        load_mano_rig(write_pickle(tmp_path / "a.pkl", {k: v for k, v in content.items() if k != "weights"}))
    with pytest.raises(ModelFileError, match="faces"):
        load_mano_rig(write_pickle(tmp_path / "b.pkl", content | {"f": content["f"] + 5000}))
    data = read_mano_file(write_pickle(tmp_path / "d.pkl", content))
    with pytest.raises(ModelFileError, match="faces"):
        mano_surface(tmp_path / "d.pkl", data | {"f": content["f"][:0]})
    with pytest.raises(ModelFileError, match="list"):
        load_mano_rig(write_pickle(tmp_path / "c.pkl", [1, 2]))
    with pytest.raises(FileMissingError):
        load_mano_rig(tmp_path / "none.pkl")


@pytest.mark.parametrize("side", ["right", "left"])
def test_the_model_is_its_template_shaped_and_turns_about_its_wrist(tmp_path, side):
    """The file is as the release has it: a selection of chumpy's for the shapes, and a set among its state."""
    model = load_mano_model(write_mano(tmp_path, side) / f"MANO_{side.upper()}.pkl", side)
    truth = mano_content(side)
    betas, zero = np.linspace(-1, 1, 10), np.zeros(45)
    shaped = truth["v_template"] + truth["shapedirs"] @ betas
    rest = model.pose(np.zeros(3), zero, betas, np.array([0.1, 0.2, 0.3]))
    assert np.allclose(rest.vertices, shaped + [0.1, 0.2, 0.3], atol=1e-12)
    turn = np.array([0.3, -1.0, 0.5])
    R, wrist = Rotation.from_rotvec(turn).as_matrix(), truth["J_regressor"].toarray()[0] @ shaped
    turned = model.pose(turn, zero, betas, np.zeros(3))
    assert np.allclose(turned.vertices, (shaped - wrist) @ R.T + wrist, atol=1e-12)
    assert np.allclose(turned.keypoints[0], wrist, atol=1e-12)
    assert np.allclose(turned.keypoints[[4, 8, 12, 16, 20]], turned.vertices[[744, 320, 443, 554, 671]])
    mesh = trimesh.Trimesh(model.template, model.faces, process=False)
    assert mesh.is_watertight and mesh.volume > 0


def test_one_bent_joint_moves_what_hangs_on_it_and_adds_its_pose_shapes(tmp_path):
    truth = mano_content()
    index = 2  # the index finger's middle joint, in the order of MANO
    content = truth | {"weights": np.eye(16)[truth["weights"].argmax(1)]}
    model = load_mano_model(write_pickle(tmp_path / "m.pkl", content), "right")
    turn = np.array([0.2, 0.1, -0.7])
    fingers = np.zeros(45)
    fingers[3 * (index - 1) : 3 * index] = turn
    R = Rotation.from_rotvec(turn).as_matrix()
    joint = truth["J_regressor"].toarray()[index] @ truth["v_template"]
    shifted = truth["v_template"] + truth["posedirs"][:, :, 9:18] @ (R - np.eye(3)).ravel()
    hangs = np.isin(content["weights"].argmax(1), [2, 3])
    expected = np.where(hangs[:, None], (shifted - joint) @ R.T + joint, shifted)
    assert hangs.sum() > 5
    assert np.allclose(model.pose(np.zeros(3), fingers, np.zeros(10), np.zeros(3)).vertices, expected, atol=1e-12)


def test_components_add_to_the_mean_pose_by_rows(tmp_path):
    model = load_mano_model(write_mano(tmp_path, "right") / "MANO_RIGHT.pkl", "right")
    truth = mano_content()
    assert np.allclose(model.fingers(np.zeros(45)), truth["hands_mean"])
    assert np.allclose(model.fingers([0.0, 2.0]), truth["hands_mean"] + 2 * truth["hands_components"][1])


def test_a_model_without_blend_shapes_is_refused(content, tmp_path):
    for key, value in (("posedirs", np.zeros((3, 3, 135))), ("hands_mean", np.zeros(6))):
        with pytest.raises(ModelFileError, match=r"blend shapes"):
            load_mano_model(write_pickle(tmp_path / "m.pkl", content | {key: value}), "right")
    with pytest.raises(ModelFileError, match="shapedirs"):
        load_mano_model(write_pickle(tmp_path / "m.pkl", content | {"shapedirs": None}), "right")
