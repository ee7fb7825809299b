# SPDX-License-Identifier: Apache-2.0
"""Predictions of this and of other systems, from the files that they write.

========  ====================================================================  =======================================
format    files of a sample                                                     frame
========  ====================================================================  =======================================
fmh       folder ``NAME`` with reconstruction.json and the meshes it names      camera optical, metres
hort      ``NAME.obj`` (hand), ``NAME.json`` (points of the object) in one      metres, axes of a camera, of a crop with
          folder, as zerchen/hort's demo.py writes them                         a focal length of its own
easyhoi   ``NAME_hand.ply``, ``NAME_obj.ply`` and, in eval_mesh,                a unit and axes of its own
          ``NAME_hand_joints.npy``: the folders eval_mesh, sim and retarget of
          lym29/EasyHOI
========  ====================================================================  =======================================

HORT's demo mirrors the image of a left hand and writes the right hand that it then sees, so its result is mirrored
back where the true hand is a left one. EasyHOI's eval_mesh holds hands of the mean shape that are all right ones; sim
has the fitted shape and the true side, so it is the better one to import.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from fmh_ros.core.errors import FileMissingError, UsageError
from fmh_ros.core.frame.frame import Side
from fmh_ros.evaluation.alpha_shape import alpha_shape
from fmh_ros.evaluation.mesh_files import read_mesh
from fmh_ros.evaluation.truth_files import pose_of
from fmh_ros.evaluation.types import FloatArray, IntArray, Prediction

Format = Literal["fmh", "hort", "easyhoi"]
FORMATS: tuple[Format, ...] = get_args(Format)
RESULT_FILE = "reconstruction.json"
_HAND = "_hand.ply"


def prediction_names(folder: str | Path, format: Format) -> dict[str, Path]:
    """Return the samples in a folder, by name, with the folder that each is read from.

    A result folder of ``fmh reconstruct`` is one sample; otherwise folders are looked for in it, however deep. Raises
    FileMissingError when there is no folder or no sample, UsageError for an unknown format or equal names.
    """
    place = Path(folder)
    if format not in FORMATS:
        raise UsageError(f"There is no format {format!r}", expected=f"one of {', '.join(FORMATS)}")
    if not place.is_dir():
        raise FileMissingError(f"There is no folder {place}", expected=f"predictions in the format {format}")
    if format == "fmh":
        found = [(path.parent.absolute().name, path.parent) for path in sorted(place.rglob(RESULT_FILE))]
    elif format == "hort":
        found = [(path.stem, place) for path in sorted(place.glob("*.json")) if path.with_suffix(".obj").is_file()]
    else:
        found = [(path.name.removesuffix(_HAND), place) for path in sorted(place.glob(f"*{_HAND}"))]
    if not found:
        wanted = {"fmh": RESULT_FILE, "hort": "NAME.json beside NAME.obj", "easyhoi": "NAME_hand.ply"}[format]
        raise FileMissingError(f"There is no prediction in {place}", expected=f"{wanted} (--format {format})")
    return unique(found)


def unique(found: list[tuple[str, Path]]) -> dict[str, Path]:
    """Return pairs of name and folder as a dictionary. Raises UsageError when two have one name."""
    result: dict[str, Path] = {}
    for name, path in found:
        if name in result:
            raise UsageError(f"{result[name]} and {path} have one name", expected="samples in folders of unique names")
        result[name] = path
    return result


def read_prediction(
    folder: str | Path, format: Format = "fmh", *, name: str | None = None, side: Side = "right"
) -> Prediction:
    """Read one prediction (the module says which files).

    name : of the sample; None where there is only one. side : true side of the hand, for the formats that do not say
    it. Raises FileMissingError, UsageError, or EmptyShapeError for points that are no surface.
    """
    samples = prediction_names(folder, format)
    if name is None and len(samples) > 1:
        raise UsageError(f"{folder} has {len(samples)} predictions", expected="the name of one of them, or only one")
    chosen = next(iter(samples)) if name is None else name
    if chosen not in samples:
        raise FileMissingError(f"There is no prediction {chosen!r} in {folder}", expected="one with the truth's name")
    reader = {"fmh": _read_fmh, "hort": _read_hort, "easyhoi": _read_easyhoi}[format]
    return reader(samples[chosen], chosen, side)


def _read_fmh(folder: Path, name: str, _: Side) -> Prediction:
    path = folder / RESULT_FILE
    data = _document(path)
    try:
        hand, obj = (read_mesh(folder / data[part]["mesh"]) for part in ("hand", "object"))
        contacts = np.array([contact["position"] for contact in data["contacts"]], np.float64).reshape(-1, 3)
        return Prediction(
            name=name,
            side=data["hand"]["side"],
            hand_vertices=hand[0],
            hand_faces=hand[1],
            object_vertices=obj[0],
            object_faces=obj[1],
            keypoints=np.asarray(data["hand"]["keypoints_3d"], np.float64).reshape(21, 3),
            T_camera_object=pose_of(data["object"]["T_camera_object"]),
            contacts=contacts,
            score=float(data["quality"]["score"]),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path} cannot be used ({error!r})", expected="what fmh reconstruct writes") from error


def _read_hort(folder: Path, name: str, side: Side) -> Prediction:
    path = folder / f"{name}.json"
    data = _document(path)
    try:
        cloud = np.asarray(data["pointclouds_up"], np.float64).reshape(-1, 3)
        # Each of them moves the cloud, which is centred, towards its place in the camera's frame.
        points = cloud + np.asarray(data["handpalm"], np.float64) + np.asarray(data["objtrans"], np.float64)
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path} cannot be used ({error!r})", expected="what HORT's demo writes") from error
    if not np.isfinite(points).all() or len(points) < FEWEST_POINTS:
        raise UsageError(f"{path} has {len(points)} points, or some that are not finite", expected="HORT's points")
    obj = alpha_shape(points)
    hand = read_mesh(folder / f"{name}.obj")
    if side == "left":
        hand, obj = mirrored(*hand), mirrored(*obj)
    return Prediction(name, side, *hand, *obj, in_camera_frame=False)


def _read_easyhoi(folder: Path, name: str, side: Side) -> Prediction:
    hand, obj = read_mesh(folder / f"{name}{_HAND}"), read_mesh(folder / f"{name}_obj.ply")
    path = folder / f"{name}_hand_joints.npy"
    keypoints = None
    if path.is_file():
        try:
            keypoints = np.asarray(np.load(path, allow_pickle=False), np.float64).reshape(21, 3)
        except (ValueError, OSError) as error:
            raise UsageError(f"{path} cannot be used ({error})", expected="21 joints") from error
    return Prediction(name, side, *hand, *obj, keypoints=keypoints, in_camera_frame=False)


#: A cloud of fewer points is no object.
FEWEST_POINTS = 10


def mirrored(vertices: FloatArray, faces: IntArray) -> tuple[FloatArray, IntArray]:
    """Mirror a mesh across the yz plane; its winding stays outward, its vertices in their order."""
    return vertices * [-1.0, 1.0, 1.0], faces[:, ::-1].copy()


def _document(path: Path) -> dict[str, Any]:
    try:
        loaded = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read ({error})", expected="a JSON document") from error
    if not isinstance(loaded, dict):
        raise UsageError(f"{path} is a {type(loaded).__name__}", expected="a JSON object")
    return loaded
