# SPDX-License-Identifier: Apache-2.0
"""Files of data sets: the list of images, annotations, object models, MANO, with errors that say what is amiss."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any
from zipfile import BadZipFile

import numpy as np
import trimesh
import yaml
from numpy.typing import NDArray

from fmh_ros.core.errors import FileMissingError, UsageError
from fmh_ros.core.frame.frame import Side
from fmh_ros.core.hand.mano_file import SITE
from fmh_ros.core.hand.mano_model import ManoModel, load_mano_model
from fmh_ros.core.safe_pickle import READ_ERRORS, load_npy, load_pickle
from fmh_ros.evaluation.mesh_files import read_mesh
from fmh_ros.evaluation.overlap import signed_volume
from fmh_ros.models.store import sha256_of

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

GUIDE = "docs/datasets.md says what to download and where it has to lie"
#: Where the lists of test images of "Follow My Hold" are.
SPLITS = "https://github.com/aidilayce/FollowMyHold, folder test_splits"


@dataclass(frozen=True)
class SplitRow:
    """One image to test. name : of the sample, ``dexycb_0012``; index : its img_id; image : last parts of its path."""

    name: str
    index: int
    image: tuple[str, ...]


@dataclass(frozen=True)
class DatasetCopy:
    """A user's copy of a data set.

    name : of the data set, in commands; root : its folder; mano : file of each side that is needed; rows : images to
    test.
    """

    name: str
    root: Path
    mano: Mapping[Side, Path]
    rows: tuple[SplitRow, ...]


@dataclass(frozen=True)
class ObjectModel:
    """A model in the object frame of its data set: vertices (V, 3) metres, faces (F, 3), outward where it is closed."""

    vertices: FloatArray
    faces: IntArray


def read_split(path: Path, dataset: str, columns: Sequence[str], parts: int) -> tuple[SplitRow, ...]:
    """Read a published list of test images.

    columns : that it must have, ``img_id`` and ``img_path`` among them; parts : how many of the last parts of each path
    say which image it is; what is before them is a folder of whoever wrote the list. Raises FileMissingError or
    UsageError.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            table = csv.DictReader(stream)
            missing = [name for name in columns if name not in (table.fieldnames or ())]
            if missing:
                raise UsageError(
                    f"{path} has no column {', '.join(missing)}; it has {', '.join(table.fieldnames or ['none'])}",
                    expected=f"the columns {', '.join(columns)}",
                    change=f"Use the published list for {dataset}: {SPLITS}",
                )
            rows = tuple(_split_row(row, path, table.line_num, dataset, parts) for row in table)
    except (OSError, UnicodeDecodeError) as error:
        raise FileMissingError(
            f"The list of test images {path} cannot be read ({error})",
            expected=f"a CSV file with the columns {', '.join(columns)}",
            change=f"Get {dataset}_test.csv from {SPLITS}, and name it with --split",
        ) from error
    names = [row.name for row in rows]
    if not rows or len(set(names)) != len(names):
        seen = (
            "no row" if not rows else f"img_id {next(n for n in names if names.count(n) > 1)[len(dataset) + 1 :]} twice"
        )
        raise UsageError(f"{path} has {seen}", expected="one row for each image", change=f"Get it from {SPLITS}")
    return rows


def _split_row(row: Mapping[str, str], path: Path, line: int, dataset: str, parts: int) -> SplitRow:
    index, image = str(row["img_id"]).strip(), PurePosixPath(str(row["img_path"]).strip()).parts[-parts:]
    if not index.isdecimal() or len(image) < parts or ".." in image:
        raise UsageError(
            f"Line {line} of {path} cannot be used: img_id {index!r}, img_path {row['img_path']!r}",
            expected=f"a whole number, and a path of at least {parts} parts",
            change=f"Get the list from {SPLITS}",
        )
    return SplitRow(f"{dataset}_{int(index):04d}", int(index), tuple(image))


def find_root(root: Path, dataset: str, below: Sequence[str], needed: Sequence[str]) -> Path:
    """Return the folder of a data set: ``root`` or one of the folders ``below`` it, where everything ``needed`` is.

    Raises FileMissingError.
    """
    for place in (root, *(root / part for part in below)):
        if all((place / part).exists() for part in needed):
            return place
    if root.is_dir():
        there = sorted(path.name for path in root.iterdir())
        seen = f"in it are {', '.join(there[:6])}{', ...' if len(there) > 6 else ''}" if there else "it is empty"
    else:
        seen = "there is no such folder"
    raise FileMissingError(
        f"{root} is not a copy of {dataset}: {seen}",
        expected=f"a folder with {', '.join(needed)}",
        change=f"Point --root at it; {GUIDE}",
    )


def find_images(
    split: Path | None, root: Path, dataset: str, columns: Sequence[str], parts: int
) -> tuple[SplitRow, ...]:
    """Read the list of test images that was named, or the one that lies in the data set's folder; see ``read_split``.

    Raises FileMissingError or UsageError.
    """
    return read_split(split or root / f"{dataset}_test.csv", dataset, columns, parts)


def find_mano(mano: Path | None, root: Path, sides: Sequence[Side]) -> dict[Side, Path]:
    """Return the file of each side. ``mano`` : where the user has them; else they are looked for below ``root``.

    Raises FileMissingError.
    """
    first = (mano,) if mano else (root / "mano", root)
    places = [place / part for place in first for part in ("", "models", "mano_v1_2/models", "mano")]
    for place in places:
        found: dict[Side, Path] = {side: place / f"MANO_{side.upper()}.pkl" for side in sides}
        if all(path.is_file() for path in found.values()):
            return found
    names = " and ".join(f"MANO_{side.upper()}.pkl" for side in sides)
    raise FileMissingError(
        f"There is no {names} in {first[0]}",
        expected="the folder of the MANO release, which the annotations of hands are made with",
        change=f"Download it from {SITE}, accept its licence, and name its folder with --mano",
    )


@lru_cache(maxsize=4)
def mano_model(path: Path, side: Side) -> ManoModel:
    """Return a MANO model, read once in each process. Raises FileMissingError or ModelFileError."""
    return load_mano_model(path, side)


@lru_cache(maxsize=16)
def object_model(path: Path, metres_per_unit: float, centred: bool = False, merged: bool = True) -> ObjectModel:
    """Read an object's model, once in each process.

    centred : move the middle of its box to the origin. merged : make vertices at one place one, so that a closed
    surface with texture seams is seen to be closed. Raises FileMissingError or UsageError.
    """
    vertices, faces = read_mesh(path)
    vertices = vertices * metres_per_unit
    if centred:
        vertices = vertices - (vertices.min(0) + vertices.max(0)) / 2
    if merged:
        mesh = trimesh.Trimesh(vertices, faces, process=False)
        mesh.merge_vertices()
        vertices, faces = np.array(mesh.vertices, np.float64), np.array(mesh.faces, np.int64)
    if signed_volume(vertices, faces) < 0:
        faces = np.ascontiguousarray(faces[:, ::-1])
    return ObjectModel(vertices, faces)


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping. Raises FileMissingError or UsageError."""
    return _mapping(path, lambda: yaml.safe_load(path.read_text(encoding="utf-8")), "YAML")


def read_json(path: Path) -> Any:
    """Read a JSON file. Raises FileMissingError or UsageError."""
    return _read(path, lambda: json.loads(path.read_text(encoding="utf-8")), "JSON")


def read_array(path: Path) -> FloatArray:
    """Read a pickled array. Raises FileMissingError or UsageError."""
    return np.asarray(_read(path, lambda: np.asarray(load_pickle(path), np.float64), "a pickle of an array"))


def read_npy(path: Path) -> Any:
    """Read a ``.npy`` file, an array or a pickled value. Raises FileMissingError or UsageError."""
    return _read(path, lambda: load_npy(path), "an .npy file")


def read_npz(path: Path, names: Sequence[str]) -> dict[str, NDArray[Any]]:
    """Read these arrays of an ``.npz`` file. Raises FileMissingError or UsageError."""

    def load() -> dict[str, NDArray[Any]]:
        with np.load(path, allow_pickle=False) as data:
            return {name: np.asarray(data[name]) for name in names}

    return dict(_read(path, load, f"an .npz file with {', '.join(names)}"))


def _mapping(path: Path, load: Callable[[], Any], what: str) -> dict[str, Any]:
    found = _read(path, load, what)
    if not isinstance(found, dict):
        raise UsageError(f"{path} holds a {type(found).__name__}", expected=f"a mapping in {what}", change=GUIDE)
    return found


def _read(path: Path, load: Callable[[], Any], what: str) -> Any:
    if not path.is_file():
        raise FileMissingError(f"There is no {path}", expected=what, change=f"Download this part too: {GUIDE}")
    try:
        return load()
    except (OSError, yaml.YAMLError, BadZipFile, *READ_ERRORS) as error:
        summary = " ".join(str(error).split())[:160]
        raise UsageError(f"{path} cannot be used ({summary})", expected=what, change="Download it again") from error


def digest_of(paths: Iterable[Path], more: str = "") -> str:
    """Return a digest of the names and contents of files. Raises FileMissingError."""
    found = hashlib.sha256(more.encode())
    try:
        for path in paths:
            status = path.stat()
            found.update(f"{path.name} {_content(path, status.st_size, status.st_mtime_ns)}\n".encode())
    except OSError as error:
        raise FileMissingError(f"{path} cannot be read ({error.strerror or error})", change=GUIDE) from error
    return found.hexdigest()[:16]


@lru_cache(maxsize=4096)
def _content(path: Path, _size: int, _changed_ns: int) -> str:
    """Digest of a file's content; the same models are part of many samples."""
    return sha256_of(path)
