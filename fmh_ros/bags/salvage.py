# SPDX-License-Identifier: Apache-2.0
"""What can still be read of a bag file whose end is missing, because its recorder or the copying was cut off."""

from __future__ import annotations

import io
import sqlite3
import struct
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

from fmh_ros.bags.types import Stored, Topic
from fmh_ros.core.errors import UsageError

_CHUNK = 0x06
#: Record type and length; then start, end, uncompressed size and checksum of a chunk.
_RECORD, _CHUNK_HEAD = struct.Struct("<BQ"), struct.Struct("<QQQI")


class McapScan:
    """An MCAP file read record by record, without the index that stands at its end."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.cut = ""
        self._topics: dict[int, Topic] = {}
        self._counts: Counter[int] = Counter()
        self._scan_topics()

    def _scan_topics(self) -> None:
        from mcap.exceptions import InvalidMagic

        try:
            for _ in self.messages(()):
                pass
        except InvalidMagic as error:
            raise UsageError(f"{self._path} is no MCAP file", expected="a rosbag2 bag") from error

    def topics(self) -> Sequence[Topic]:
        """Return the topics that were found, with counts."""
        return [replace(topic, count=self._counts[key]) for key, topic in self._topics.items()]

    def messages(self, names: Collection[str]) -> Iterator[Stored]:
        """Yield the messages up to the cut."""
        from mcap.records import Channel, Message, Schema

        schemas: dict[int, Any] = {}
        self._counts.clear()
        for record in self._records():
            if isinstance(record, Schema):
                schemas[record.id] = record
            elif isinstance(record, Channel):
                self._topics[record.id] = _topic(record, schemas.get(record.schema_id))
            elif isinstance(record, Message):
                topic = self._topics.get(record.channel_id)
                if topic is not None:
                    self._counts[record.channel_id] += 1
                    if not names or topic.name in names:
                        yield Stored(topic, record.log_time, record.data)

    def _records(self) -> Iterator[Any]:
        from mcap.exceptions import McapError

        with self._path.open("rb") as stream:
            size = self._path.stat().st_size
            if stream.read(8) != b"\x89MCAP0\r\n":
                raise UsageError(f"{self._path} is no MCAP file", expected="a rosbag2 bag")
            while True:
                start = stream.tell()
                head = stream.read(_RECORD.size)
                if len(head) < _RECORD.size:
                    self.cut = f"cut off after {size} bytes"
                    return
                kind, length = _RECORD.unpack(head)
                body = stream.read(length) if length <= size else b""
                if len(body) < length:
                    self.cut = f"cut off after {size} bytes"
                    yield from _begun_chunk(stream, start, kind)
                    return
                try:
                    yield from _parsed(head + body)
                except (McapError, ValueError, struct.error, EOFError) as error:
                    self.cut = f"damaged at byte {start} ({error})"
                    return
                if kind == 0x02:  # the footer: a whole file after all
                    return

    def close(self) -> None:
        """Nothing is kept open."""


def _parsed(data: bytes) -> Iterator[Any]:
    """Yield the records in these bytes, those of chunks one by one. Raises McapError at their end when it is early."""
    from mcap.exceptions import EndOfFile
    from mcap.stream_reader import StreamReader

    try:
        yield from StreamReader(io.BytesIO(data), skip_magic=True).records
    except EndOfFile:
        return


def _begun_chunk(stream: IO[bytes], start: int, kind: int) -> Iterator[Any]:
    """Yield the whole records of a chunk whose end is missing; only one that is not compressed can be read."""
    from mcap.exceptions import McapError
    from mcap.records import Message

    if kind != _CHUNK:
        return
    stream.seek(start + _RECORD.size + _CHUNK_HEAD.size)
    try:
        (name_length,) = struct.unpack("<I", stream.read(4))
        if name_length:
            return
        stream.read(8)  # length of the contents
        contents = stream.read()
    except struct.error:
        return
    whole = _whole_records(contents)
    try:
        for record in _parsed(contents[:whole]):
            if not isinstance(record, Message) or record.data:
                yield record
    except (McapError, ValueError, struct.error):
        return


def _whole_records(contents: bytes) -> int:
    """Return how many bytes at the beginning are complete records."""
    at = 0
    while at + _RECORD.size <= len(contents):
        _, length = _RECORD.unpack_from(contents, at)
        if at + _RECORD.size + length > len(contents):
            break
        at += _RECORD.size + length
    return at


def _topic(channel: Any, schema: Any) -> Topic:
    from rosbags.rosbag2.errors import ReaderError
    from rosbags.rosbag2.metadata import parse_qos

    try:
        qos = tuple(parse_qos(channel.metadata.get("offered_qos_profiles", "")))
    except (ReaderError, KeyError, TypeError):
        qos = ()
    text = "" if schema is None else schema.data.decode("utf-8", "replace")
    return Topic(channel.topic, "" if schema is None else schema.name, text, "", qos)


class SqliteScan:
    """A SQLite file read page by page in the order of writing, without its index of times."""

    def __init__(self, path: Path) -> None:
        self._database = sqlite3.connect(f"file:{path}?immutable=1", uri=True)
        # SQLite's way to be told that a file is known to be damaged: else one that is shorter than it says is refused.
        self._database.execute("PRAGMA writable_schema=ON")
        self.cut = ""
        self._counts: Counter[int] = Counter()
        self._topics = self._read_topics()
        for _ in self.messages(()):
            pass

    def _read_topics(self) -> dict[int, Topic]:
        from rosbags.rosbag2.metadata import parse_qos

        texts: dict[str, tuple[str, str]] = {}
        try:
            query = "SELECT topic_type, encoded_message_definition, type_description_hash FROM message_definitions"
            texts = {name: (text, digest) for name, text, digest in self._database.execute(query)}
        except sqlite3.DatabaseError:  # older bags have no definitions
            pass
        found = {}
        for number, name, kind, qos in self._database.execute(
            "SELECT id, name, type, offered_qos_profiles FROM topics"
        ):
            text, digest = texts.get(kind, ("", ""))
            found[number] = Topic(name, kind, text, digest, tuple(parse_qos(qos)))
        return found

    def topics(self) -> Sequence[Topic]:
        """Return the topics with the counts of messages that can be read."""
        return [replace(topic, count=self._counts[key]) for key, topic in self._topics.items()]

    def messages(self, names: Collection[str]) -> Iterator[Stored]:
        """Yield the messages up to the cut."""
        self._counts.clear()
        try:
            for number, time_ns, raw in self._database.execute(
                "SELECT topic_id, timestamp, data FROM messages ORDER BY id"
            ):
                topic = self._topics.get(number)
                if topic is not None:
                    self._counts[number] += 1
                    if not names or topic.name in names:
                        yield Stored(topic, time_ns, raw)
        except sqlite3.DatabaseError as error:
            self.cut = f"cut off or damaged ({error})"

    def close(self) -> None:
        """Close the file."""
        self._database.close()
