# SPDX-License-Identifier: Apache-2.0
"""Definitions of message types: those of ROS that rosbags brings, this package's own, and those that ROS installed."""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from fmh_ros.core.errors import FileMissingError, ModelMissingError, UsageError

if TYPE_CHECKING:
    from rosbags.typesys.store import Typestore

PACKAGE = "follow_my_hold"
#: What a bag says of a type whose hash nobody knows.
UNKNOWN_HASH = "RIHS01_" + "0" * 64
_FIELD = re.compile(r"^\s*(?:(?P<package>[a-z][a-z0-9_]*)/)?(?P<name>[A-Z]\w*)(?:\[[^\]]*\])?\s+\w+", re.MULTILINE)


def require_rosbags() -> None:
    """Raise ModelMissingError where the libraries for bags are not installed."""
    for module in ("rosbags", "mcap"):
        if importlib.util.find_spec(module) is None:
            raise ModelMissingError(
                f"The library {module} is not installed", expected="it: bags are read and written with it",
                change="pip install 'fmh-ros[bags]'",
            )  # fmt: skip


@cache
def typestore() -> Typestore:
    """Return the types of ROS and of this package; do not add to it. Raises ModelMissingError or FileMissingError."""
    require_rosbags()
    from rosbags.typesys import Stores, get_types_from_msg, get_typestore

    store = get_typestore(Stores.ROS2_KILTED)
    types = {}
    for path in sorted(message_folder().glob("*.msg")):
        types.update(get_types_from_msg(path.read_text(encoding="utf-8"), f"{PACKAGE}/msg/{path.stem}"))
    store.register(types)
    return store


def message_folder() -> Path:
    """Return the folder of this package's ``.msg`` files: in a wheel, in the sources, or where ROS installed them."""
    module = Path(__file__).parents[1]
    shares = [prefix / "share" / PACKAGE / "msg" for prefix in _prefixes()]
    for folder in (module / "interfaces" / "msg", module.parent / "msg", *shares):
        if (folder / "HandObject.msg").is_file():
            return folder
    raise FileMissingError(
        "The message definitions of this package are not there", expected="its .msg files", change="Install it again"
    )


def installed_definition(msgtype: str) -> tuple[str, str]:
    """Return a type's definition, with all that it contains, and its hash, from what ROS has installed.

    Raises UsageError for a type that is not installed.
    """
    from rosbags.typesys import get_types_from_msg
    from rosbags.typesys.store import Typestore

    store, waiting = Typestore(), [msgtype]
    while waiting:
        name = waiting.pop()
        if name in store.fielddefs:
            continue
        text = _installed_text(name)
        store.register(get_types_from_msg(text, name))
        waiting += _contained(text, name.split("/")[0])
    return store.generate_msgdef(msgtype, ros_version=2)[0], store.hash_rihs01(msgtype)


def definition(msgtype: str) -> tuple[str, str]:
    """Return a type's definition and hash: as ROS has it installed, else as rosbags knows it. Raises UsageError."""
    try:
        return installed_definition(msgtype)
    except UsageError:
        store = typestore()
        if msgtype not in store.fielddefs:
            raise
        return store.generate_msgdef(msgtype, ros_version=2)[0], store.hash_rihs01(msgtype)


def hash_of(msgtype: str, text: str) -> str:
    """Return the hash of a type from the definition in a bag, ``UNKNOWN_HASH`` when it cannot be understood."""
    from rosbags.typesys import get_types_from_idl, get_types_from_msg
    from rosbags.typesys.base import TypesysError
    from rosbags.typesys.store import Typestore

    store = Typestore()
    try:
        store.register(get_types_from_idl(text) if text.startswith("=" * 80) else get_types_from_msg(text, msgtype))
        return store.hash_rihs01(msgtype)
    except (TypesysError, KeyError, ValueError):
        return UNKNOWN_HASH


def _installed_text(msgtype: str) -> str:
    package, kind, name = msgtype.split("/")
    for prefix in _prefixes():
        path = prefix / "share" / package / kind / f"{name}.msg"
        if path.is_file():
            return path.read_text(encoding="utf-8")
    raise UsageError(
        f"The definition of {msgtype} is not installed",
        expected=f"share/{package}/{kind}/{name}.msg below AMENT_PREFIX_PATH",
        change="Source the workspace that has it, or leave the topic out",
    )


def _contained(text: str, package: str) -> Iterator[str]:
    """Yield the message types that a definition names."""
    for line in text.splitlines():
        found = _FIELD.match(line.split("#")[0])
        if found is not None:
            name = found["name"]
            yield f"{found['package'] or ('std_msgs' if name == 'Header' else package)}/msg/{name}"


def _prefixes() -> Iterable[Path]:
    """Yield the places where ROS installs; on a machine with ROS from PyPI that is the environment itself."""
    import sys

    named = [Path(name) for name in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep) if name]
    return [*named, Path(sys.prefix)]
