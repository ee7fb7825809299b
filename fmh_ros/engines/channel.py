# SPDX-License-Identifier: Apache-2.0
"""Objects over a socket between this package's own two processes.

A message is a pickle (protocol 5) whose arrays follow it as they are, so an image is copied by the kernel only. The
socket is inherited and has no name: nobody else can write to it, which is what makes unpickling safe here.

Wire format, little endian: number of parts, uint32; length of each part, uint64; the parts, the pickle first.
"""

from __future__ import annotations

import pickle
import socket
import struct
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

_COUNT = struct.Struct("<I")
#: More parts or bytes than this are a sign of a broken stream.
_MOST_PARTS = 100_000
_MOST_BYTES = 1 << 34


class Outbox:
    """Messages on their way out; ``flush`` never blocks on a non-blocking socket."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._parts: deque[memoryview] = deque()

    def __bool__(self) -> bool:
        return bool(self._parts)

    def put(self, message: object) -> None:
        """Queue a message."""
        self._parts.extend(_encode(message))

    def flush(self) -> None:
        """Send as much as the socket takes; all of it on a blocking socket. Raises OSError when the peer is gone."""
        while self._parts:
            try:
                sent = self._connection.send(self._parts[0])
            except BlockingIOError:
                return
            if sent < len(self._parts[0]):
                self._parts[0] = self._parts[0][sent:]
            else:
                self._parts.popleft()


class Inbox:
    """Messages on their way in, whatever pieces they come in."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._parts: list[bytearray] = []
        self._expect(_COUNT.size, self._read_count)

    def messages(self) -> Iterator[Any]:
        """Yield messages until the socket has no more for now; a blocking socket is read for ever.

        Raises EOFError at the end of the stream, ConnectionError when it broke.
        """
        while True:
            while self._received < len(self._target):
                try:
                    count = self._connection.recv_into(memoryview(self._target)[self._received :])
                except BlockingIOError:
                    return
                if count == 0:
                    raise EOFError("The peer closed the connection.")
                self._received += count
            if self._then():
                pickled, *buffers = self._parts
                self._parts = []
                yield pickle.loads(pickled, buffers=buffers)  # only ever from our own process, see above

    def _expect(self, size: int, then: Callable[[], bool]) -> None:
        self._target, self._received, self._then = bytearray(size), 0, then

    def _read_count(self) -> bool:
        (count,) = _COUNT.unpack(self._target)
        if not 0 < count <= _MOST_PARTS:
            raise ConnectionError(f"A message of {count} parts: the stream is broken.")
        self._expect(8 * count, self._read_lengths)
        return False

    def _read_lengths(self) -> bool:
        self._lengths = deque(struct.unpack(f"<{len(self._target) // 8}Q", self._target))
        if sum(self._lengths) > _MOST_BYTES:
            raise ConnectionError(f"A message of {sum(self._lengths)} bytes: the stream is broken.")
        self._expect(self._lengths.popleft(), self._read_part)
        return False

    def _read_part(self) -> bool:
        self._parts.append(self._target)
        if self._lengths:
            self._expect(self._lengths.popleft(), self._read_part)
            return False
        self._expect(_COUNT.size, self._read_count)
        return True


def _encode(message: object) -> list[memoryview]:
    buffers: list[pickle.PickleBuffer] = []
    pickled = pickle.dumps(message, protocol=5, buffer_callback=buffers.append)
    parts = [memoryview(pickled), *(buffer.raw() for buffer in buffers)]
    lengths = [len(part) for part in parts]
    header = _COUNT.pack(len(parts)) + struct.pack(f"<{len(parts)}Q", *lengths)
    # An empty buffer is announced and not sent: a send of nothing would look like a closed socket.
    return [memoryview(header), *(part for part in parts if len(part))]
