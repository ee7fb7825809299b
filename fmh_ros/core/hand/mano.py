# SPDX-License-Identifier: Apache-2.0
"""MANO as a `HandRig`, from the user's own MANO_RIGHT.pkl.

MANO is not part of this package and may not be redistributed: each user gets the file from https://mano.is.tue.mpg.de
under its own licence, which allows non-commercial research only. Results made with it are bound by that licence too.

The file is a Python 2 pickle that names classes of chumpy, a package that no current Python installs. Loading a pickle
can run any code it names, so this reader lets nothing through but numpy arrays; sparse matrices and chumpy objects
become inert records of their state, and any other name is refused before it is looked up.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csc_matrix

from fmh_ros.core.errors import FileMissingError, ModelFileError
from fmh_ros.core.hand.rig import HandRig, hand_axes, joint_axes, label_fingers, load_generic_rig

FloatArray = NDArray[np.float64]

#: MANO's joints in the order of JOINT_NAMES: thumb, index, middle, ring, little (MANO stores the little finger third).
_JOINT_ORDER = (13, 14, 15, 1, 2, 3, 4, 5, 6, 10, 11, 12, 7, 8, 9)
#: Vertices at the fingertips, thumb to little finger.
_TIP_VERTICES = (744, 320, 443, 554, 671)

_NUMPY_NAMES: dict[str, Any] = {
    "ndarray": np.ndarray,
    "dtype": np.dtype,
    "_reconstruct": np.empty(0).__reduce__()[0],
    "scalar": np.float64(0).__reduce__()[0],
}
_NUMPY_MODULES = ("numpy", "numpy.core.multiarray", "numpy._core.multiarray")


class _Record:
    """Stands in for an object whose class must not be loaded; keeps its state."""

    state: dict[str, Any]

    def __new__(cls, *_: object) -> _Record:
        record = super().__new__(cls)
        record.state = {}
        return record

    def __setstate__(self, state: object) -> None:
        self.state = dict(state) if isinstance(state, dict) else {}


def _new_record(*_: object) -> _Record:
    """Stand in for copy_reg._reconstructor, which may only ever make records here."""
    return _Record()


def _encode(text: str, encoding: str) -> bytes:
    """Stand in for _codecs.encode: protocol 2 writes bytes as latin-1 text."""
    if encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError(f"bytes written as {encoding}")
    return text.encode("latin1")


class _SafeUnpickler(pickle.Unpickler):
    """Loads numpy arrays and inert records, nothing else."""

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__(file, encoding="latin1")

    def find_class(self, module: str, name: str) -> Any:
        if module in _NUMPY_MODULES and name in _NUMPY_NAMES:
            return _NUMPY_NAMES[name]
        if module.partition(".")[0] == "chumpy" or (module.startswith("scipy.sparse") and name.endswith("_matrix")):
            return _Record
        if module in ("copy_reg", "copyreg") and name == "_reconstructor":
            return _new_record
        if module in ("__builtin__", "builtins") and name == "object":
            return _Record
        if module == "_codecs" and name == "encode":
            return _encode
        raise pickle.UnpicklingError(f"it names {module}.{name}")


def load_mano_rig(path: Path) -> HandRig:
    """Return the mean MANO hand as a rig, its wrist closed.

    The shape and pose blend shapes are not used; the rig's own finger and palm scales stand in for them.

    Args:
        path: MANO_RIGHT.pkl.

    Raises:
        FileMissingError: there is no such file.
        ModelFileError: the file is not MANO's, is damaged, or names something unsafe.
    """
    data = _read(path)
    vertices, faces = _array(data, "v_template", 2), _array(data, "f", 2).astype(np.int64)
    weights = _array(data, "weights", 2)
    regressor = _regressor(data)
    count = len(vertices)
    if vertices.shape[1] != 3 or weights.shape != (count, 16) or regressor.shape != (16, count) or count <= 744:
        raise _refusal(path, f"arrays of the shapes {vertices.shape}, {weights.shape} and {regressor.shape}")
    if faces.shape[1] != 3 or faces.min() < 0 or faces.max() >= count:
        raise _refusal(path, "faces that do not fit the vertices")
    joints = np.asarray(regressor @ vertices)
    try:
        closed = close_holes(faces)
    except KeyError as error:
        raise _refusal(path, "a surface whose border is not a set of loops") from error
    R = hand_axes(joints[0], joints[1], joints[4], joints[7])
    vertices = (vertices - joints[0]) @ R.T
    joints = ((joints - joints[0]) @ R.T)[list(_JOINT_ORDER)]
    tips = vertices[list(_TIP_VERTICES)]
    weights = weights[:, [0, *_JOINT_ORDER]] / weights.sum(1, keepdims=True)
    return HandRig(
        name="mano",
        vertices=vertices,
        faces=closed,
        weights=weights,
        joints=joints,
        axes=_axes(joints, tips),
        keypoints=_keypoints(joints, tips),
        vertex_finger=label_fingers(weights),
    )


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


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            data = _SafeUnpickler(file).load()
    except FileNotFoundError as error:
        raise FileMissingError(
            f"There is no file {path}",
            expected="MANO_RIGHT.pkl",
            change="Download it from https://mano.is.tue.mpg.de and accept its licence",
        ) from error
    except (pickle.UnpicklingError, EOFError, ValueError, TypeError, AttributeError, KeyError, IndexError) as error:
        raise _refusal(path, str(error)) from error
    if not isinstance(data, dict):
        raise _refusal(path, f"a {type(data).__name__}")
    return data


def _refusal(path: Path, seen: str) -> ModelFileError:
    return ModelFileError(
        f"{path} is not loaded: {seen}",
        expected="the unchanged MANO_RIGHT.pkl of the MANO release",
        change="Download it again from https://mano.is.tue.mpg.de",
    )


def _array(data: dict[str, Any], key: str, dimensions: int) -> FloatArray:
    value = data.get(key)
    if isinstance(value, _Record):
        value = value.state.get("x")
    if not isinstance(value, np.ndarray) or value.ndim != dimensions or value.dtype.kind not in "fiu":
        raise ModelFileError(
            f"The hand model file has no usable array {key!r}",
            expected="the unchanged MANO_RIGHT.pkl of the MANO release",
            change="Download it again from https://mano.is.tue.mpg.de",
        )
    return value.astype(np.float64)


def _regressor(data: dict[str, Any]) -> Any:
    """Return the joint regressor, stored dense or as a compressed sparse column matrix."""
    value = data.get("J_regressor")
    if not isinstance(value, _Record):
        return _array(data, "J_regressor", 2)
    state = value.state
    shape = state.get("_shape", state.get("shape"))
    if not isinstance(shape, tuple) or len(shape) != 2:
        return _array({}, "J_regressor", 2)
    data_, indices, indptr = (_array(state, key, 1) for key in ("data", "indices", "indptr"))
    try:
        return csc_matrix((data_, indices.astype(np.int64), indptr.astype(np.int64)), shape=shape).toarray()
    except ValueError:
        return _array({}, "J_regressor", 2)


def _keypoints(joints: FloatArray, tips: FloatArray) -> FloatArray:
    """Put wrist, joints and tips in the order of KEYPOINT_NAMES."""
    rows = [np.zeros(3)]
    for finger in range(5):
        rows += [*joints[3 * finger : 3 * finger + 3], tips[finger]]
    return np.array(rows)


def _axes(joints: FloatArray, tips: FloatArray) -> FloatArray:
    """Joint axes along MANO's bones, with the backs of the fingers where the generic rig has them."""
    dorsal = load_generic_rig().axes[:, :, 1]
    ends = [tips[j // 3] if j % 3 == 2 else joints[j + 1] for j in range(15)]
    return np.array([joint_axes(end - joint, up) for end, joint, up in zip(ends, joints, dorsal, strict=True)])
