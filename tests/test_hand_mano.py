# SPDX-License-Identifier: Apache-2.0
"""Reading MANO files, on small synthetic ones of the same structure (the real file may not be redistributed)."""

import pickle
import sys
import types

import numpy as np
import pytest
import torch
import trimesh
from scipy.sparse import csc_matrix

from fmh_ros.core.errors import FileMissingError, ModelFileError
from fmh_ros.core.hand.mano import load_mano_rig
from fmh_ros.core.hand.rig import load_generic_rig

ORDER = (13, 14, 15, 1, 2, 3, 4, 5, 6, 10, 11, 12, 7, 8, 9)


@pytest.fixture
def content():
    """A file's dictionary: the generic hand, moved and renumbered as MANO would have it, open at the wrist."""
    rig = load_generic_rig()
    open_faces = rig.faces[~(rig.vertices[rig.faces, 0] < -0.018).all(1)]
    kept, faces = np.unique(open_faces, return_inverse=True)
    vertices = rig.vertices[kept] + [0.1, 0.0, -0.02]
    weights = np.zeros((len(kept), 16))
    weights[:, [0, *ORDER]] = rig.weights[kept]
    joints = np.zeros((16, 3))
    joints[list(ORDER)] = rig.joints
    regressor = np.linalg.lstsq(
        np.concatenate([vertices.T, np.ones((1, len(kept)))]),
        np.concatenate([(joints + [0.1, 0.0, -0.02]).T, np.ones((1, 16))]),
        rcond=None,
    )[0].T
    return {
        "v_template": vertices,
        "f": faces.reshape(-1, 3).astype(np.uint32),
        "weights": weights,
        "J_regressor": csc_matrix(regressor),
        "bs_style": "lbs",
    }


def write(path, content, protocol=2):
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    return path


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_mano_file_becomes_a_rig_with_a_closed_wrist(content, tmp_path, protocol):
    rig = load_mano_rig(write(tmp_path / "MANO_RIGHT.pkl", content, protocol))
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
    path = write(tmp_path / "m.pkl", content | {"v_template": Ch(content["v_template"]), "shapedirs": Ch(None)})
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
        load_mano_rig(write(tmp_path / "m.pkl", content | {"extra": Bomb(target)}))
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
    whole = write(tmp_path / "whole.pkl", content).read_bytes()
    cut = tmp_path / "cut.pkl"
    cut.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelFileError):
        load_mano_rig(cut)
    with pytest.raises(ModelFileError, match="weights"):
        load_mano_rig(write(tmp_path / "a.pkl", {k: v for k, v in content.items() if k != "weights"}))
    with pytest.raises(ModelFileError, match="faces"):
        load_mano_rig(write(tmp_path / "b.pkl", content | {"f": content["f"] + 5000}))
    with pytest.raises(ModelFileError, match="list"):
        load_mano_rig(write(tmp_path / "c.pkl", [1, 2]))
    with pytest.raises(FileMissingError):
        load_mano_rig(tmp_path / "none.pkl")
