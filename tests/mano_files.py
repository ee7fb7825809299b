# SPDX-License-Identifier: Apache-2.0
"""Small synthetic files of MANO's structure; the real ones may not be redistributed."""

from __future__ import annotations

import pickle
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
from scipy.sparse import csc_matrix

from fmh_ros.core.hand.rig import load_generic_rig

ORDER = (13, 14, 15, 1, 2, 3, 4, 5, 6, 10, 11, 12, 7, 8, 9)
PARENTS = (0xFFFFFFFF, 0, 1, 2, 0, 4, 5, 0, 7, 8, 0, 10, 11, 0, 13, 14)
OFFSET = np.array([0.1, 0.0, -0.02])


def mano_content(side: str = "right") -> dict[str, Any]:
    """A file's dictionary: the generic hand, moved and renumbered as MANO would have it, open at the wrist."""
    rig = load_generic_rig()
    open_faces = rig.faces[~(rig.vertices[rig.faces, 0] < -0.018).all(1)]
    kept, faces = np.unique(open_faces, return_inverse=True)
    flip = np.array([1.0, 1.0, 1.0] if side == "right" else [-1.0, 1.0, 1.0])
    vertices = (rig.vertices[kept] + OFFSET) * flip
    weights = np.zeros((len(kept), 16))
    weights[:, [0, *ORDER]] = rig.weights[kept]
    joints = np.zeros((16, 3))
    joints[list(ORDER)] = rig.joints
    joints = (joints + OFFSET) * flip
    regressor = np.linalg.lstsq(
        np.concatenate([vertices.T, np.ones((1, len(kept)))]),
        np.concatenate([joints.T, np.ones((1, 16))]),
        rcond=None,
    )[0].T
    faces = faces.reshape(-1, 3).astype(np.uint32)
    rng = np.random.default_rng(5 if side == "right" else 6)
    return {
        "v_template": vertices,
        "f": faces if side == "right" else faces[:, ::-1],
        "weights": weights,
        "J_regressor": csc_matrix(regressor),
        "bs_style": "lbs",
        "kintree_table": np.array([PARENTS, range(16)], np.int64),
        "shapedirs": rng.normal(0, 1e-3, (len(kept), 3, 10)),
        "posedirs": rng.normal(0, 3e-4, (len(kept), 3, 135)),
        "hands_mean": rng.normal(0, 0.15, 45),
        "hands_components": np.linalg.qr(rng.normal(0, 1, (45, 45)))[0],
    }


def write_pickle(path: Path, content: object, protocol: int = 2) -> Path:
    """Write any pickle."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    return path


def write_mano(folder: Path, *sides: str) -> Path:
    """Write MANO_RIGHT.pkl and MANO_LEFT.pkl as released: shapedirs selected by chumpy, a set in its state."""
    for side in sides or ("right", "left"):
        content = mano_content(side)
        chumpy, reordering = types.ModuleType("chumpy.ch"), types.ModuleType("chumpy.reordering")
        Ch = type("Ch", (), {"__module__": "chumpy.ch"})
        Select = type("Select", (), {"__module__": "chumpy.reordering"})
        chumpy.Ch, reordering.Select = Ch, Select  # type: ignore[attr-defined]
        all_shapes = np.concatenate([content["shapedirs"], np.ones_like(content["shapedirs"])], 2)
        whole, chosen = Ch(), Select()
        whole.x, whole._dirty_vars = all_shapes, {"x"}
        chosen.a, chosen.preferred_shape = whole, content["shapedirs"].shape
        chosen.idxs = np.arange(all_shapes.size).reshape(all_shapes.shape)[..., :10].ravel()
        modules = {"chumpy": types.ModuleType("chumpy"), "chumpy.ch": chumpy, "chumpy.reordering": reordering}
        sys.modules.update(modules)
        try:
            write_pickle(folder / f"MANO_{side.upper()}.pkl", content | {"shapedirs": chosen})
        finally:
            for name in modules:
                del sys.modules[name]
    return folder
