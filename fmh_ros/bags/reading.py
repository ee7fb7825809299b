# SPDX-License-Identifier: Apache-2.0
"""Reading rosbag2 bags, whole or cut off: MCAP and SQLite, a bag's folder or one file of it."""

from __future__ import annotations

import sqlite3
import struct
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from fmh_ros.bags.definitions import require_rosbags
from fmh_ros.bags.salvage import McapScan, SqliteScan
from fmh_ros.bags.types import Stored, Topic
from fmh_ros.core.errors import FileMissingError, UsageError

SUFFIXES = (".mcap", ".db3")


class _Part(Protocol):
    """A file of a bag, or a whole one. ``cut`` : why its end is missing, empty when it is not."""

    cut: str

    def topics(self) -> Sequence[Topic]: ...

    def messages(self, names: Collection[str]) -> Iterator[Stored]: ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class Summary:
    """What is in a bag. start_ns, end_ns : times of the first and last message, None for an empty bag; cut : what is
    wrong with a bag that could not be read to its end, empty for a whole one."""

    topics: tuple[Topic, ...]
    start_ns: int | None
    end_ns: int | None
    cut: str

    @property
    def count(self) -> int:
        """Number of messages."""
        return sum(topic.count for topic in self.topics)

    @property
    def duration_s(self) -> float:
        """Seconds from the first to the last message."""
        return 0.0 if self.start_ns is None or self.end_ns is None else (self.end_ns - self.start_ns) / 1e9


class BagReader:
    """A bag that is read from beginning to end, as often as wanted; a context manager.

    A bag that was cut off, or has no metadata because its recorder was killed, is read as far as it goes.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._parts: list[_Part] = []

    def __enter__(self) -> BagReader:
        """Open the bag. Raises FileMissingError, UsageError for what is no bag, or ModelMissingError."""
        require_rosbags()
        if not self.path.exists():
            raise FileMissingError(f"There is no bag {self.path}", expected="a rosbag2 folder, .mcap or .db3 file")
        self._parts = self._open()
        return self

    def __exit__(self, *_: object) -> None:
        for part in self._parts:
            part.close()
        self._parts = []

    def _open(self) -> list[_Part]:
        whole = _WholeBag.open(self.path)
        if whole is not None:
            return [whole]
        if self.path.is_dir():
            files = sorted(path for path in self.path.iterdir() if path.suffix in SUFFIXES)
        else:
            files = [self.path] if self.path.suffix in SUFFIXES else []
        if not files:
            raise UsageError(
                f"{self.path} is no bag", expected="a rosbag2 folder, .mcap or .db3 file",
                change="Convert other recordings first (rosbags-convert)",
            )  # fmt: skip
        return [_WholeBag.open(path) or _salvage(path) for path in files]

    @property
    def cut(self) -> str:
        """Why the end of the bag is missing, as far as it was read; empty when it is not."""
        return "; ".join(part.cut for part in self._parts if part.cut)

    def topics(self) -> tuple[Topic, ...]:
        """Return the topics with their counts, by name."""
        found: dict[tuple[str, str], Topic] = {}
        for topic in (topic for part in self._parts for topic in part.topics()):
            known = found.get(topic.key)
            found[topic.key] = topic if known is None else replace(known, count=known.count + topic.count)
        return tuple(sorted(found.values(), key=lambda topic: topic.name))

    def messages(self, names: Collection[str] = ()) -> Iterator[Stored]:
        """Yield the messages of these topics, of all when there are none, in the order of the bag."""
        for part in self._parts:
            yield from part.messages(names)

    def summary(self) -> Summary:
        """Return what is in the bag; reads all of a damaged one."""
        whole = self._parts[0] if len(self._parts) == 1 else None
        if isinstance(whole, _WholeBag):
            return Summary(self.topics(), *whole.times(), self.cut)
        counts: Counter[tuple[str, str]] = Counter()
        first = last = None
        for stored in self.messages():
            counts[stored.topic.key] += 1
            first = stored.time_ns if first is None else min(first, stored.time_ns)
            last = stored.time_ns if last is None else max(last, stored.time_ns)
        topics = tuple(replace(topic, count=counts[topic.key]) for topic in self.topics())
        return Summary(topics, first, last, self.cut)


class _WholeBag:
    """A bag that the library rosbags can open; a fault further on ends it as a cut does."""

    def __init__(self, reader: Any) -> None:
        self._reader = reader
        self._topics = {_key(connection): _topic(connection) for connection in reader.connections}
        self.cut = ""

    @classmethod
    def open(cls, path: Path) -> _WholeBag | None:
        """Return None for what rosbags cannot open."""
        from rosbags.rosbag2 import Reader, ReaderError

        try:
            reader = Reader(path)
            reader.open()
        except (ReaderError, OSError, EOFError, ValueError, TypeError, struct.error):
            return None
        return cls(reader)

    def topics(self) -> Sequence[Topic]:
        return list(self._topics.values())

    def times(self) -> tuple[int | None, int | None]:
        """First and last time, nanoseconds; rosbags's end is one later."""
        if not self._reader.message_count:
            return None, None
        return int(self._reader.start_time), int(self._reader.end_time) - 1

    def messages(self, names: Collection[str]) -> Iterator[Stored]:
        wanted = [item for item in self._reader.connections if not names or item.topic in names]
        if not wanted:
            return
        found = self._reader.messages(wanted)
        while True:
            try:
                connection, time_ns, raw = next(found)
            except StopIteration:
                return
            except Exception as error:  # noqa: BLE001 - four libraries decompress and parse here, each with its errors
                self.cut = f"damaged further on ({type(error).__name__}: {error})"
                return
            yield Stored(self._topics[_key(connection)], time_ns, bytes(raw))

    def close(self) -> None:
        self._reader.close()


def _salvage(path: Path) -> _Part:
    if path.suffix == ".mcap":
        return McapScan(path)
    try:
        return SqliteScan(path)
    except sqlite3.DatabaseError as error:
        raise UsageError(f"{path} cannot be read ({error})", expected="a rosbag2 .db3 file") from error


def _key(connection: Any) -> tuple[Any, ...]:
    return connection.id, connection.topic, connection.msgtype


def _topic(connection: Any) -> Topic:
    return Topic(
        connection.topic,
        connection.msgtype,
        connection.msgdef.data,
        connection.digest,
        tuple(connection.ext.offered_qos_profiles),
        connection.msgcount,
    )
