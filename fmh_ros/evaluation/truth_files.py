# SPDX-License-Identifier: Apache-2.0
"""Ground truth as a folder that any program can write: ``truth.json``, ``hand.ply`` and ``object.ply``.

``truth.json`` (``null`` for what is not known; metres, camera optical frame, matrices row by row)::

    {"schema": "fmh.truth/1", "name": "scene_0003", "side": "right",
     "hand": "hand.ply", "object": "object.ply",
     "keypoints": [[x, y, z], ... 21] | null,
     "T_camera_object": [16 numbers, the scale in the upper left block] | null,
     "contacts": [[x, y, z], ...] | null,
     "symmetry": {"rotations": [[9 numbers], ...], "axis": [x, y, z] | null, "any_rotation": false}}

The meshes have 32-bit coordinates, which are exact to 0.1 micrometres at a metre. Other files in the folder are left
alone, so it may hold the image too.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import trimesh
from numpy.typing import NDArray

from fmh_ros.core.errors import FileMissingError, OutputError, UsageError
from fmh_ros.core.transforms import Similarity
from fmh_ros.evaluation.mesh_files import read_mesh
from fmh_ros.evaluation.types import FloatArray, GroundTruth, Symmetry

SCHEMA_NAME = "fmh.truth/1"
TRUTH_FILE = "truth.json"


def write_ground_truth(truth: GroundTruth, folder: str | Path) -> Path:
    """Write ``truth.json``, ``hand.ply`` and ``object.ply`` into a folder, and return it. Raises OutputError."""
    out = Path(folder)
    pose = truth.T_camera_object
    document = {
        "schema": SCHEMA_NAME,
        "name": truth.name,
        "side": truth.side,
        "hand": "hand.ply",
        "object": "object.ply",
        "keypoints": _rows(truth.keypoints),
        "T_camera_object": None if pose is None else pose.matrix().ravel().tolist(),
        "contacts": _rows(truth.contacts),
        "symmetry": {
            "rotations": truth.symmetry.rotations.reshape(-1, 9).tolist(),
            "axis": _rows(truth.symmetry.axis),
            "any_rotation": truth.symmetry.any_rotation,
        },
    }
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / "hand.ply").write_bytes(_ply(truth.hand_vertices, truth.hand_faces))
        (out / "object.ply").write_bytes(_ply(truth.object_vertices, truth.object_faces))
        (out / TRUTH_FILE).write_text(json.dumps(document, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise OutputError.unwritable(f"the folder {out}", error) from error
    return out


def read_ground_truth(folder: str | Path) -> GroundTruth:
    """Read a folder of ``write_ground_truth``. Raises FileMissingError or UsageError."""
    place = Path(folder)
    path = place / TRUTH_FILE
    if not path.is_file():
        raise FileMissingError(f"There is no {path}", expected="a folder with truth.json, hand.ply and object.ply")
    try:
        data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if data["schema"] != SCHEMA_NAME:
            raise ValueError(f"its schema is {data['schema']!r}")
        if data["side"] not in ("left", "right"):
            raise ValueError(f"its side is {data['side']!r}")
        hand, obj = (read_mesh(place / data[part]) for part in ("hand", "object"))
        return GroundTruth(
            name=str(data["name"]),
            side=data["side"],
            hand_vertices=hand[0],
            hand_faces=hand[1],
            object_vertices=obj[0],
            object_faces=obj[1],
            keypoints=_points(data["keypoints"], 21),
            T_camera_object=pose_of(data["T_camera_object"]),
            contacts=_points(data["contacts"]),
            symmetry=_symmetry(data["symmetry"]),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path} cannot be used ({error!r})", expected=f"a document {SCHEMA_NAME}") from error


def pose_of(matrix: list[float] | None) -> Similarity | None:
    """Return a similarity of the 16 numbers of its matrix, row by row. Raises ValueError."""
    if matrix is None:
        return None
    values = np.asarray(matrix, np.float64).reshape(4, 4)
    scale = float(np.cbrt(np.linalg.det(values[:3, :3])))
    if not np.isfinite(values).all() or scale <= 0:
        raise ValueError("a pose that is no similarity")
    return Similarity(values[:3, :3] / scale, values[:3, 3], scale)


def _symmetry(data: dict[str, Any]) -> Symmetry:
    axis = None if data["axis"] is None else np.asarray(data["axis"], np.float64).reshape(3)
    return Symmetry(np.asarray(data["rotations"], np.float64).reshape(-1, 3, 3), axis, bool(data["any_rotation"]))


def _points(rows: list[list[float]] | None, count: int | None = None) -> FloatArray | None:
    if rows is None:
        return None
    points = np.asarray(rows, np.float64).reshape(-1, 3)
    if (count is not None and len(points) != count) or not np.isfinite(points).all():
        raise ValueError(f"{len(points)} points where {count or 'finite ones'} were expected")
    return points


def _rows(points: FloatArray | None) -> list[Any] | None:
    return None if points is None else np.asarray(points, np.float64).tolist()


def _ply(vertices: FloatArray, faces: NDArray[np.integer]) -> bytes:
    content = trimesh.Trimesh(vertices, faces, process=False).export(file_type="ply")
    return content.encode() if isinstance(content, str) else bytes(content)
