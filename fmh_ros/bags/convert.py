# SPDX-License-Identifier: Apache-2.0
"""Messages as bytes in a bag and back, without ROS's serialiser: field by field between ROS's message classes, or
those of ``bags.classes``, and the ones that rosbags writes and reads."""

from __future__ import annotations

from array import array
from collections.abc import Callable
from typing import Any

import numpy as np

from fmh_ros.bags.definitions import typestore
from fmh_ros.core.errors import UsageError

#: Codes of array.array for the types of numbers that hold much data; it keeps other numbers in a list.
_CODES = {"uint8": "B", "float32": "f", "float64": "d", "uint32": "I", "uint16": "H", "int16": "h", "int32": "i"}
_BASE, _NAME = 1, 2
Numbers = Callable[[Any, str, int], Any]


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
    def numbers(value: Any, name: str, _count: int) -> Any:
        return np.asarray(value, _dtype(name))

    return _converted(message, msgtype, lambda name: typestore().types[name], numbers)


def _from_bag(message: Any, msgtype: str) -> Any:
    from fmh_ros.bags.classes import message_class

    return _converted(message, msgtype, message_class, _numbers_from_bag)


def _converted(message: Any, msgtype: str, class_of: Callable[[str], Any], numbers: Numbers) -> Any:
    """Return the same message in other classes. class_of : class of a type; numbers : converts an array of numbers."""

    def convert(value: Any, description: Any) -> Any:
        kind, detail = description
        if kind == _BASE:
            return value
        if kind == _NAME:
            return _converted(value, detail, class_of, numbers)
        (inner, name), count = detail
        if inner == _NAME:
            return [_converted(item, name, class_of, numbers) for item in value]
        return list(value) if name[0] == "string" else numbers(value, name[0], count)

    values = {name: convert(getattr(message, name), description) for name, description in _fields(msgtype)}
    return class_of(msgtype)(**values)


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
