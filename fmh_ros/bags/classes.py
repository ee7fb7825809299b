# SPDX-License-Identifier: Apache-2.0
"""Message classes for machines without ROS, so that a bag can be read and written there.

``provide_message_classes`` puts packages of the names that ROS gives them (``std_msgs.msg`` and so on) in place; their
classes have the fields, defaults and constants of the definitions that the library rosbags brings, and of this
package's own. They carry data from a conversion to a bag and back, no more: nothing checks what is assigned.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any

import numpy as np

from fmh_ros.bags.definitions import typestore

_ZEROS: dict[str, Any] = {"string": "", "bool": False, "float32": 0.0, "float64": 0.0}
_NAME, _ARRAY, _SEQUENCE = 2, 3, 4


def provide_message_classes() -> bool:
    """Make every message package importable; returns whether anything was supplied. ROS's own are left alone."""
    try:
        importlib.import_module("std_msgs.msg")
        importlib.import_module("follow_my_hold.msg")
    except ImportError:
        for msgtype in typestore().fielddefs:
            _supply(msgtype)
        return True
    return False


class Message:
    """Base of the supplied classes. ``fields`` : definition of each field by its name."""

    __msgtype__ = ""
    _fields: dict[str, Any] = {}  # noqa: RUF012 - set once for each class, by _supply

    def __init__(self, **values: Any) -> None:
        unknown = values.keys() - self._fields.keys()
        if unknown:
            raise TypeError(f"{self.__msgtype__} has no field {sorted(unknown)[0]!r}")
        for name, description in self._fields.items():
            setattr(self, name, values[name] if name in values else _default(description))


def message_class(msgtype: str) -> Any:
    """Return the class of a message type such as "std_msgs/msg/Header", ROS's own where it is installed."""
    package, _, name = msgtype.split("/")
    return getattr(importlib.import_module(f"{package}.msg"), name)


def _supply(msgtype: str) -> None:
    package, kind, name = msgtype.split("/")
    constants, fields = typestore().fielddefs[msgtype]
    members = {constant: value for constant, _, value in constants}
    described = {field: description for field, description in fields if field != "structure_needs_at_least_one_member"}
    made = type(name, (Message,), {**members, "__msgtype__": msgtype, "_fields": described})
    parent = sys.modules.setdefault(package, ModuleType(package))
    module = sys.modules.setdefault(f"{package}.{kind}", ModuleType(f"{package}.{kind}"))
    setattr(parent, kind, module)
    setattr(module, name, made)


def _default(description: Any) -> Any:
    """Return what a field holds that nobody has set: zeros, and nothing."""
    kind, detail = description
    if kind == _NAME:
        return message_class(detail)()
    if kind == _SEQUENCE:
        return []
    if kind == _ARRAY:
        (inner, name), count = detail
        if inner == _NAME:
            return [message_class(name)() for _ in range(count)]
        return [""] * count if name[0] == "string" else np.zeros(count, name[0])
    return _ZEROS.get(detail[0], 0)
