# SPDX-License-Identifier: Apache-2.0
"""The files of MANO, ``MANO_RIGHT.pkl`` and ``MANO_LEFT.pkl``, as arrays.

MANO is not part of this package and may not be redistributed: each user gets the files from https://mano.is.tue.mpg.de
under its own licence, which allows non-commercial research only. Results made with it are bound by that licence too.

A file is a Python 2 pickle that names classes of chumpy, a package that no current Python installs;
``core.safe_pickle`` reads it without that package and without running anything.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csc_matrix

from fmh_ros.core.errors import FileMissingError, ModelFileError
from fmh_ros.core.safe_pickle import READ_ERRORS, Record, load_pickle

FloatArray = NDArray[np.float64]

#: MANO's joints in the order of JOINT_NAMES: thumb, index, middle, ring, little (MANO stores the little finger third).
JOINT_ORDER = (13, 14, 15, 1, 2, 3, 4, 5, 6, 10, 11, 12, 7, 8, 9)
#: Vertices at the fingertips, thumb to little finger.
TIP_VERTICES = (744, 320, 443, 554, 671)
#: Where its files come from.
SITE = "https://mano.is.tue.mpg.de"


def read_mano_file(path: Path) -> dict[str, Any]:
    """Return the file's dictionary. Raises FileMissingError or ModelFileError."""
    try:
        data = load_pickle(path)
    except FileNotFoundError as error:
        raise FileMissingError(
            f"There is no file {path}",
            expected="MANO_RIGHT.pkl or MANO_LEFT.pkl",
            change=f"Download it from {SITE} and accept its licence",
        ) from error
    except READ_ERRORS as error:
        raise refusal(path, str(error)) from error
    if not isinstance(data, dict):
        raise refusal(path, f"a {type(data).__name__}")
    return data


def refusal(path: Path, seen: str) -> ModelFileError:
    """Return the error for a file that is not what it should be."""
    return ModelFileError(
        f"{path} is not loaded: {seen}",
        expected="an unchanged MANO_RIGHT.pkl or MANO_LEFT.pkl of the MANO release",
        change=f"Download it again from {SITE}",
    )


def mano_array(data: dict[str, Any], key: str, dimensions: int) -> FloatArray:
    """Return an array of so many dimensions, stored as one or as an expression of chumpy. Raises ModelFileError."""
    value = _evaluate(data.get(key))
    if not isinstance(value, np.ndarray) or value.ndim != dimensions or value.dtype.kind not in "fiu":
        raise ModelFileError(
            f"The hand model file has no usable array {key!r}",
            expected="an unchanged MANO_RIGHT.pkl or MANO_LEFT.pkl of the MANO release",
            change=f"Download it again from {SITE}",
        )
    return value.astype(np.float64)


def mano_regressor(data: dict[str, Any]) -> FloatArray:
    """Return the joint regressor (16, V), stored dense or as a compressed sparse column matrix."""
    value = data.get("J_regressor")
    if not isinstance(value, Record):
        return mano_array(data, "J_regressor", 2)
    state = value.state
    shape = state.get("_shape", state.get("shape"))
    if not isinstance(shape, tuple) or len(shape) != 2:
        return mano_array({}, "J_regressor", 2)
    entries, indices, indptr = (mano_array(state, key, 1) for key in ("data", "indices", "indptr"))
    try:
        return np.asarray(
            csc_matrix((entries, indices.astype(np.int64), indptr.astype(np.int64)), shape=shape).toarray()
        )
    except ValueError:
        return mano_array({}, "J_regressor", 2)


def mano_keypoints(wrist: FloatArray, joints: FloatArray, tips: FloatArray) -> FloatArray:
    """Put wrist (3,), joints (15, 3) in the order of JOINT_NAMES and tips (5, 3) in the order of KEYPOINT_NAMES."""
    rows = [wrist]
    for finger in range(5):
        rows += [*joints[3 * finger : 3 * finger + 3], tips[finger]]
    return np.array(rows)


def close_holes(faces: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return faces (F + n, 3) with every boundary loop closed by a fan over its own vertices."""
    edges = faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2)
    known = {(int(a), int(b)) for a, b in edges}
    following = {b: a for a, b in known if (b, a) not in known}
    caps = []
    while following:
        start, current = following.popitem()
        loop = [start]
        while current != start:
            loop.append(current)
            current = following.pop(current)
        caps += [(loop[0], loop[k], loop[k + 1]) for k in range(1, len(loop) - 1)]
    return np.concatenate([faces, np.array(caps, np.int64).reshape(-1, 3)])


def mano_surface(path: Path, data: dict[str, Any]) -> tuple[FloatArray, NDArray[np.int64], FloatArray, FloatArray]:
    """Return template vertices (V, 3), faces (F, 3) with the wrist closed, weights (V, 16) and regressor (16, V).

    Raises ModelFileError.
    """
    vertices, faces = mano_array(data, "v_template", 2), mano_array(data, "f", 2).astype(np.int64)
    weights, regressor = mano_array(data, "weights", 2), mano_regressor(data)
    count = len(vertices)
    if vertices.shape[1] != 3 or weights.shape != (count, 16) or regressor.shape != (16, count) or count <= 744:
        raise refusal(path, f"arrays of the shapes {vertices.shape}, {weights.shape} and {regressor.shape}")
    if faces.shape[1] != 3 or not len(faces) or faces.min() < 0 or faces.max() >= count:
        raise refusal(path, "faces that do not fit the vertices")
    try:
        closed = close_holes(faces)
    except KeyError as error:
        raise refusal(path, "a surface whose border is not a set of loops") from error
    return vertices, closed, weights, regressor


def _evaluate(value: Any) -> Any:
    """Return what a chumpy expression stands for: a value ``x``, or a selection of the entries of another one."""
    if not isinstance(value, Record):
        return value
    state = value.state
    if value.kind != "Select":
        return state.get("x")
    source, entries, shape = _evaluate(state.get("a")), state.get("idxs"), state.get("preferred_shape")
    if not isinstance(source, np.ndarray) or not isinstance(entries, np.ndarray):
        return None
    try:
        chosen = source.ravel()[entries]
        return chosen if shape is None else chosen.reshape(shape)
    except (IndexError, ValueError, TypeError):
        return None
