# SPDX-License-Identifier: Apache-2.0
"""A benchmark scene as a folder, 0.9 MB on average and below 2 MB, that other programs can read too.

=====================  =================================================================================================
``rgb.jpg``            the image, RGB, quality 95, the only file that is not exact or rounded as said here
``depth.png``          depth as the sensor reports it, 16 bits, millimetres, 0 unknown
``camera.yaml``        the calibration, ROS camera_info; these three are what ``fmh reconstruct`` reads
``truth.json``         with ``hand.ply`` and ``object.ply``: see ``evaluation.truth_files``
``masks.png``          8 bits, sums of 1 (visible hand and forearm), 2 (visible object) and 4 (whole object)
``exact_depth.png``    true depth of every pixel, 16 bits, units of 1/20000 m, so exact to 25 micrometres; below 3.27 m
``normals.png``        true normals, 8 bits a channel, 128 + 127 n for x, y, z; 0, 0, 0 unknown; exact to half a degree
``scene.json``         schema, name, split, index, seed and attributes
=====================  =================================================================================================

``scene.json`` is written last: a folder without it was not finished.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from fmh_ros.benchmark.types import BenchmarkScene, SceneAttributes
from fmh_ros.core.errors import FileMissingError, OutputError, UsageError
from fmh_ros.core.frame.calibration import camera_yaml
from fmh_ros.core.frame.load import load_frame
from fmh_ros.evaluation.truth_files import read_ground_truth, write_ground_truth

SCHEMA_NAME = "fmh.scene/1"
SCENE_FILE = "scene.json"
DEPTH_UNITS_PER_M = 20_000
JPEG_QUALITY = 95
_HAND, _OBJECT, _WHOLE = 1, 2, 4


def save_scene(folder: str | Path, scene: BenchmarkScene) -> Path:
    """Write a scene into a folder and return it; what is rounded is said above. Raises OutputError."""
    out = Path(folder)
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / SCENE_FILE).unlink(missing_ok=True)
        colour = cv2.cvtColor(scene.frame.image, cv2.COLOR_RGB2BGR)
        _write(out / "rgb.jpg", colour, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
        if scene.frame.depth is not None:
            _write(out / "depth.png", np.nan_to_num(np.round(1000 * scene.frame.depth)).astype(np.uint16))
        (out / "camera.yaml").write_text(camera_yaml(scene.frame.camera), encoding="utf-8")
        masks = _HAND * scene.hand_mask + _OBJECT * scene.object_mask + _WHOLE * scene.amodal_mask
        _write(out / "masks.png", masks.astype(np.uint8))
        units = np.round(np.nan_to_num(scene.exact_depth).astype(np.float64) * DEPTH_UNITS_PER_M)
        _write(out / "exact_depth.png", np.clip(units, 0, 65535).astype(np.uint16))
        known = np.isfinite(scene.normals).all(-1, keepdims=True)
        levels = np.where(known, np.round(128 + 127 * np.nan_to_num(scene.normals)), 0).astype(np.uint8)
        _write(out / "normals.png", levels[..., ::-1])
        write_ground_truth(scene.truth, out)
        document = {"schema": SCHEMA_NAME, "name": scene.name, "split": scene.split, "index": scene.index}
        document |= {"seed": scene.seed, "attributes": scene.attributes.to_json()}
        (out / SCENE_FILE).write_text(json.dumps(document, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise OutputError.unwritable(f"the folder {out}", error) from error
    return out


def load_scene(folder: str | Path) -> BenchmarkScene:
    """Read what ``save_scene`` wrote. Raises FileMissingError, UsageError, or what reading an image raises."""
    place = Path(folder)
    document = _document(place)
    depth = place / "depth.png"
    frame = load_frame(place / "rgb.jpg", depth if depth.is_file() else None, place / "camera.yaml")
    truth = read_ground_truth(place)
    if truth.keypoints is None:
        raise UsageError(f"{place / 'truth.json'} has no keypoints", expected="a truth that save_scene wrote")
    masks = _read(place / "masks.png")
    levels = _read(place / "normals.png")[..., ::-1]
    known = levels.any(-1, keepdims=True)
    normals = np.where(known, (levels.astype(np.float32) - 128) / 127, np.nan)
    normals /= np.maximum(np.linalg.norm(normals, axis=-1, keepdims=True), 1e-6)
    exact = _read(place / "exact_depth.png").astype(np.float32) / DEPTH_UNITS_PER_M
    return BenchmarkScene(
        name=document["name"],
        split=document["split"],
        index=document["index"],
        seed=document["seed"],
        frame=frame,
        truth=truth,
        hand_mask=(masks & _HAND) > 0,
        object_mask=(masks & _OBJECT) > 0,
        amodal_mask=(masks & _WHOLE) > 0,
        keypoints_2d=frame.camera.project(truth.keypoints),
        exact_depth=np.where(exact > 0, exact, np.nan).astype(np.float32),
        normals=normals.astype(np.float32),
        attributes=SceneAttributes.from_json(document["attributes"]),
    )


def scene_folders(folder: str | Path) -> list[Path]:
    """Return the finished scenes of a benchmark's folder, by name. Raises FileMissingError when there is none."""
    found = sorted(path.parent for path in Path(folder).glob(f"*/{SCENE_FILE}"))
    if not found:
        raise FileMissingError(
            f"There is no scene in {folder}", expected="a folder of scenes", change="Make them with `fmh bench make`"
        )
    return found


def read_attributes(folder: str | Path) -> SceneAttributes:
    """Read only how hard a scene is. Raises FileMissingError or UsageError."""
    return SceneAttributes.from_json(_document(Path(folder))["attributes"])


def _document(folder: Path) -> dict[str, Any]:
    path = folder / SCENE_FILE
    if not path.is_file():
        raise FileMissingError(f"There is no {path}", expected="a scene's folder", change="Run `fmh bench make`")
    try:
        document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if document["schema"] != SCHEMA_NAME:
            raise ValueError(f"its schema is {document['schema']!r}")
        missing = {"name", "split", "index", "seed", "attributes"} - set(document)
        if missing:
            raise ValueError(f"it has no {', '.join(sorted(missing))}")
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path} cannot be read ({error})", expected=f"a file of schema {SCHEMA_NAME}") from error
    return document


def _write(path: Path, picture: NDArray[np.generic], options: list[int] | None = None) -> None:
    if not cv2.imwrite(str(path), np.ascontiguousarray(picture), options or [cv2.IMWRITE_PNG_COMPRESSION, 6]):
        raise OSError(f"{path.name} was not written")


def _read(path: Path) -> NDArray[Any]:
    picture = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if picture is None:
        raise FileMissingError(f"{path} is missing or damaged", change="Make the scene again with `fmh bench make`")
    return np.asarray(picture)
