# SPDX-License-Identifier: Apache-2.0
"""Writing rosbag2 bags."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from fmh_ros.bags.definitions import definition, hash_of, require_rosbags, typestore
from fmh_ros.bags.types import Topic
from fmh_ros.core.errors import OutputError

PARTIAL = ".partial"


class BagWriter:
    """A new bag; a context manager that finishes the bag whatever happens inside it, so that nothing is lost.

    path : a name that ends in .mcap or .db3 becomes one file of that kind, written in a folder ``<name>.partial``
    until it is finished; any other name becomes a bag's folder with an MCAP file and its metadata.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._is_file = self.path.suffix in (".mcap", ".db3")
        self._folder = self.path.with_name(self.path.name + PARTIAL) if self._is_file else self.path
        self._writer: Any = None
        self._connections: dict[tuple[str, str], Any] = {}
        self._discarded = False

    def check(self) -> None:
        """Raise OutputError when the bag cannot be made, and ModelMissingError without rosbags."""
        require_rosbags()
        for path in (self.path, self._folder):
            if path.exists():
                raise OutputError(
                    f"{path} is there already", expected="a name for a new bag", change="Choose another, or delete it"
                )

    def __enter__(self) -> BagWriter:
        self.check()
        from rosbags.rosbag2 import StoragePlugin, Writer

        plugin = StoragePlugin.SQLITE3 if self.path.suffix == ".db3" else StoragePlugin.MCAP
        self._writer = Writer(self._folder, version=9, storage_plugin=plugin)
        try:
            self._writer.open()
        except OSError as error:
            raise OutputError.unwritable(f"the bag {self.path}", error) from error
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._writer.close()
            if self._discarded:
                shutil.rmtree(self._folder)
            elif self._is_file:
                written = next(path for path in self._folder.iterdir() if path.suffix == self.path.suffix)
                written.rename(self.path)
                shutil.rmtree(self._folder)
        except OSError as error:
            raise OutputError.unwritable(f"the bag {self.path}", error) from error

    def add_topic(self, topic: Topic) -> None:
        """Declare a topic, as another bag has it, or as ROS announced it; once for each topic and type.

        A definition or hash that the topic does not have is looked up; raises UsageError when that fails.
        """
        if topic.key in self._connections:
            return
        text, digest = topic.definition, topic.digest
        if not text:
            text, known = definition(topic.msgtype)
            digest = digest or known
        digest = digest or _hash(topic.msgtype, text)
        self._connections[topic.key] = self._writer.add_connection(
            topic.name, topic.msgtype, msgdef=text, rihs01=digest, offered_qos_profiles=list(topic.qos)
        )

    def discard(self) -> None:
        """Leave no bag behind at the end."""
        self._discarded = True

    def has(self, key: tuple[str, str]) -> bool:
        """Whether the topic was declared with this type."""
        return key in self._connections

    def write(self, key: tuple[str, str], time_ns: int, raw: bytes) -> None:
        """Write a serialised message to a declared topic. Raises OutputError when the disk is full."""
        try:
            self._writer.write(self._connections[key], time_ns, raw)
        except OSError as error:
            raise OutputError.unwritable(f"the bag {self.path}", error) from error


def known_topic(name: str, msgtype: str, qos: Iterable[Any] = ()) -> Topic:
    """Return a topic of a type that rosbags knows or that is this package's own."""
    store = typestore()
    return Topic(
        name, msgtype, store.generate_msgdef(msgtype, ros_version=2)[0], store.hash_rihs01(msgtype), tuple(qos)
    )


def make_qos(*, reliable: bool, latched: bool, depth: int) -> Any:
    """Return what a publisher offers, for a bag's metadata: players publish with it again."""
    from rosbags.interfaces import Qos, QosDurability, QosHistory, QosLiveliness, QosReliability, QosTime

    forever = QosTime(9223372036, 854775807)
    return Qos(
        QosHistory.KEEP_LAST,
        depth,
        QosReliability.RELIABLE if reliable else QosReliability.BEST_EFFORT,
        QosDurability.TRANSIENT_LOCAL if latched else QosDurability.VOLATILE,
        forever,
        forever,
        QosLiveliness.AUTOMATIC,
        forever,
        avoid_ros_namespace_conventions=False,
    )


def _hash(msgtype: str, text: str) -> str:
    store = typestore()
    if msgtype in store.fielddefs and store.generate_msgdef(msgtype, ros_version=2)[0] == text:
        return store.hash_rihs01(msgtype)
    return hash_of(msgtype, text)
