# SPDX-License-Identifier: Apache-2.0
"""Pickles and ``.npy`` files that others wrote, read without running anything that they name.

Loading a pickle can run any code it names. This reader lets nothing through but numpy arrays, plain Python values and
sets; sparse matrices and chumpy objects become inert records of their state, and any other name is refused before it is
looked up.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import IO, Any

import numpy as np

#: What reading a damaged or refused file raises, besides OSError.
READ_ERRORS = (
    *(pickle.UnpicklingError, EOFError, ValueError, TypeError, AttributeError, KeyError, IndexError),
    *(OverflowError, UnicodeError),
)

_ARRAY = np.zeros(1)
_NUMPY_NAMES: dict[str, Any] = {
    "ndarray": np.ndarray,
    "dtype": np.dtype,
    "_reconstruct": _ARRAY.__reduce__()[0],
    "scalar": np.float64(0).__reduce__()[0],
    "_frombuffer": _ARRAY.__reduce_ex__(5)[0],
}
_NUMPY_MODULES = (
    *("numpy", "numpy.core.multiarray", "numpy._core.multiarray", "numpy.core.numeric", "numpy._core.numeric"),
)


class Record:
    """Stands in for an object whose class must not be loaded; keeps its state, and its class's name as ``kind``."""

    kind = ""
    state: dict[str, Any]

    def __new__(cls, *_: object) -> Record:
        """Return an empty record, whatever the class would have been made from."""
        record = super().__new__(cls)
        record.state = {}
        return record

    def __setstate__(self, state: object) -> None:
        self.state = dict(state) if isinstance(state, dict) else {}


def _record_class(name: str) -> type[Record]:
    return type("Record", (Record,), {"kind": name})


def _new_record(cls: object = Record, *_: object) -> Record:
    """Stand in for copy_reg._reconstructor, which may only ever make records here."""
    return cls() if isinstance(cls, type) and issubclass(cls, Record) else Record()


def _encode(text: str, encoding: str) -> bytes:
    """Stand in for _codecs.encode: protocol 2 writes bytes as latin-1 text."""
    if encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError(f"bytes written as {encoding}")
    return text.encode("latin1")


class SafeUnpickler(pickle.Unpickler):
    """Loads numpy arrays, plain values and inert records, nothing else; strings of Python 2 are latin-1."""

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__(file, encoding="latin1")

    def find_class(self, module: str, name: str) -> Any:
        """Return the stand-in for a name. Raises UnpicklingError for any that is not listed."""
        if module in _NUMPY_MODULES and name in _NUMPY_NAMES:
            return _NUMPY_NAMES[name]
        if module.partition(".")[0] == "chumpy" or (module.startswith("scipy.sparse") and name.endswith("_matrix")):
            return _record_class(name)
        if module in ("copy_reg", "copyreg") and name == "_reconstructor":
            return _new_record
        if module in ("__builtin__", "builtins") and name in ("object", "set"):
            return Record if name == "object" else set
        if module == "_codecs" and name == "encode":
            return _encode
        raise pickle.UnpicklingError(f"it names {module}.{name}")


def load_pickle(path: Path) -> Any:
    """Read a pickle. Raises OSError, or one of READ_ERRORS."""
    with path.open("rb") as file:
        return SafeUnpickler(file).load()


def load_npy(path: Path) -> Any:
    """Read a ``.npy`` file: an array, or the one Python value that ``np.save`` wrote as an object array.

    Raises OSError, or one of READ_ERRORS.
    """
    with path.open("rb") as file:
        version = np.lib.format.read_magic(file)
        header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        _, _, dtype = header(file)
        if dtype.hasobject:
            value = SafeUnpickler(file).load()
            return value.item() if isinstance(value, np.ndarray) and value.ndim == 0 else value
    return np.load(path, allow_pickle=False)
