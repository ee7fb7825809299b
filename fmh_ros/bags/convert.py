# SPDX-License-Identifier: Apache-2.0
"""Messages as bytes in a bag and back, without ROS's serialiser: field by field between ROS's message classes, or
those of ``bags.classes``, and the ones that rosbags writes and reads."""

from __future__ import annotations

from array import array
from typing import Any

import numpy as np

from fmh_ros.bags.definitions import typestore
from fmh_ros.core.errors import UsageError

#: Codes of array.array for the types of numbers that hold much data; it keeps other numbers in a list.
_CODES = {"uint8": "B", "float32": "f", "float64": "d", "uint32": "I", "uint16": "H", "int16": "h", "int32": "i"}
_BASE, _NAME = 1, 2


def encode(message: Any, msgtype: str) -> bytes:
    """Serialise a message (CDR)."""
    return bytes(typestore().serialize_cdr(_to_bag(message, msgtype), msgtype))


def decode(raw: bytes, msgtype: str) -> Any:
    """Read a message of a type of ROS or of this package. Raises UsageError when the bytes are not one."""
    from rosbags.serde import SerdeError

    from fmh_ros.bags.classes import provide_message_classes

    provide_message_classes()
    try:
        return _from_bag(typestore().deserialize_cdr(raw, msgtype), msgtype)
    except (SerdeError, IndexError) as error:
        raise UsageError(f"A message of {msgtype} in the bag cannot be read: {error}") from error


def header_stamp(raw: bytes) -> int:
    """Return the stamp, nanoseconds, of a serialised message whose first field is a header."""
    order = "little" if raw[1] else "big"
    seconds = int.from_bytes(raw[4:8], order, signed=True)  # type: ignore[arg-type]
    return seconds * 1_000_000_000 + int.from_bytes(raw[8:12], order)  # type: ignore[arg-type]


def _fields(msgtype: str) -> list[tuple[str, Any]]:
    return list(typestore().fielddefs[msgtype][1])


def _to_bag(message: Any, msgtype: str) -> Any:
    values = {name: _value_to_bag(getattr(message, name), kind) for name, kind in _fields(msgtype)}
    return typestore().types[msgtype](**values)


def _value_to_bag(value: Any, description: Any) -> Any:
    kind, detail = description
    if kind == _BASE:
        return value
    if kind == _NAME:
        return _to_bag(value, detail)
    (inner, name), _ = detail
    if inner == _NAME:
        return [_to_bag(item, name) for item in value]
    return list(value) if name[0] == "string" else np.asarray(value, _dtype(name[0]))


def _from_bag(message: Any, msgtype: str) -> Any:
    from fmh_ros.bags.classes import message_class

    values = {name: _value_from_bag(getattr(message, name), kind) for name, kind in _fields(msgtype)}
    return message_class(msgtype)(**values)


def _value_from_bag(value: Any, description: Any) -> Any:
    kind, detail = description
    if kind == _BASE:
        return value
    if kind == _NAME:
        return _from_bag(value, detail)
    (inner, name), count = detail
    if inner == _NAME:
        return [_from_bag(item, name) for item in value]
    return list(value) if name[0] == "string" else _numbers_from_bag(value, name[0], count)


def _numbers_from_bag(value: Any, name: str, count: int) -> Any:
    """Return numbers as ROS's classes hold them: NumPy where the length is fixed, else array.array or a list."""
    if name not in _CODES:
        return np.asarray(value).tolist()
    numbers = np.ascontiguousarray(value, _dtype(name))
    if count:
        return numbers
    filled = array(_CODES[name])
    filled.frombytes(numbers.tobytes())
    return filled


def _dtype(name: str) -> Any:
    return np.dtype({"byte": "uint8", "char": "uint8", "octet": "uint8"}.get(name, name))
