# SPDX-License-Identifier: Apache-2.0
"""Small synthetic files of MANO's structure; the real ones may not be redistributed."""

from __future__ import annotations

import pickle
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
from scipy.linalg import expm
from scipy.sparse import csc_matrix

from fmh_ros.core.hand.rig import load_generic_rig

ORDER = (13, 14, 15, 1, 2, 3, 4, 5, 6, 10, 11, 12, 7, 8, 9)
PARENTS = (0xFFFFFFFF, 0, 1, 2, 0, 4, 5, 0, 7, 8, 0, 10, 11, 0, 13, 14)
TIPS = (744, 320, 443, 554, 671)
OFFSET = np.array([0.1, 0.0, -0.02])


def mano_content(side: str = "right") -> dict[str, Any]:
    """A file's dictionary: the generic hand, moved and renumbered as MANO would have it, open at the wrist."""
    rig = load_generic_rig()
    open_faces = rig.faces[~(rig.vertices[rig.faces, 0] < -0.012).any(1)]
    kept, faces = np.unique(open_faces, return_inverse=True)
    # The fingertips have MANO's numbers.
    order = np.arange(len(kept))
    for keypoint, number in zip((4, 8, 12, 16, 20), TIPS, strict=True):
        nearest = int(np.linalg.norm(rig.vertices[kept[order]] - rig.keypoints[keypoint], axis=1).argmin())
        order[[nearest, number]] = order[[number, nearest]]
    kept, faces = kept[order], np.argsort(order)[faces]
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

    def waves(count: int, size: float) -> np.ndarray:
        """Smooth blend shapes (V, 3, count) of about this size, metres."""
        phase = np.einsum("vk,kcn->vcn", vertices, rng.normal(0, 20, (3, 3, count))) + rng.uniform(0, 6, (3, count))
        return size * np.sin(phase)

    return {
        "v_template": vertices,
        "f": faces if side == "right" else faces[:, ::-1],
        "weights": weights,
        "J_regressor": csc_matrix(regressor),
        "bs_style": "lbs",
        "kintree_table": np.array([PARENTS, range(16)], np.int64),
        "shapedirs": waves(10, 1e-3),
        "posedirs": waves(135, 3e-4),
        "hands_mean": rng.normal(0, 0.05, 45),
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


def reference_hand(
    content: dict[str, Any],
    rotation: np.ndarray,
    fingers: np.ndarray,
    betas: np.ndarray,
    translation: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Vertices and keypoints by another way than the library: matrix exponentials, and point by point up the chain."""
    pose = np.concatenate([rotation, fingers]).reshape(16, 3)
    turns = [expm(np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])) for x, y, z in pose]
    shaped = content["v_template"] + np.tensordot(content["shapedirs"], betas, 1)
    joints = content["J_regressor"].toarray() @ shaped
    bent = shaped + np.tensordot(content["posedirs"], np.concatenate([(R - np.eye(3)).ravel() for R in turns[1:]]), 1)

    def carried(points: np.ndarray, joint: int) -> np.ndarray:
        while True:
            points = (points - joints[joint]) @ turns[joint].T + joints[joint]
            if joint == 0:
                return points + translation
            joint = PARENTS[joint]

    vertices = sum(content["weights"][:, [joint]] * carried(bent, joint) for joint in range(16))
    posed = [carried(joints[[joint]], joint)[0] for joint in range(16)]
    rows = [posed[0]]
    for finger, tip in enumerate(TIPS):
        rows += [*(posed[joint] for joint in ORDER[3 * finger : 3 * finger + 3]), vertices[tip]]
    return vertices, np.array(rows)
