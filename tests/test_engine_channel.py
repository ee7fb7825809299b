# SPDX-License-Identifier: Apache-2.0
"""Messages between two processes: whole, in order, and refused when the stream is broken."""

from __future__ import annotations

import pickle
import socket
import threading
from typing import Any

import numpy as np
import pytest

from fmh_ros.cli.main import error_types
from fmh_ros.core.errors import FmhError
from fmh_ros.engines.channel import Inbox, Outbox


def pair() -> tuple[socket.socket, socket.socket]:
    ours, theirs = socket.socketpair()
    ours.settimeout(20)
    theirs.settimeout(20)
    return ours, theirs


def send(connection: socket.socket, *messages: object) -> None:
    outbox = Outbox(connection)
    for message in messages:
        outbox.put(message)
    outbox.flush()


def test_arrays_of_every_kind_arrive_as_they_were_and_can_be_written_to() -> None:
    ours, theirs = pair()
    image = np.random.default_rng(0).integers(0, 255, (720, 1280, 3), np.uint8)
    sent = {
        "image": image,
        "columns": np.asfortranarray(image[:, :, 0]),
        "strided": image[::7, ::5, 1],
        "empty": np.zeros((0, 3), np.float32),
        "scalar": np.float64(2.5),
        "mask": image[:, :, 2] > 9,
    }
    thread = threading.Thread(target=send, args=(theirs, "first", sent, "last"))
    thread.start()
    inbox = Inbox(ours).messages()
    first, got, last = next(inbox), next(inbox), next(inbox)
    thread.join()
    assert (first, last) == ("first", "last")
    assert sorted(got) == sorted(sent)
    for name, value in sent.items():
        assert np.array_equal(got[name], value), name
        assert np.asarray(got[name]).dtype == np.asarray(value).dtype
    got["image"][0, 0] = 7
    ours.close()
    theirs.close()


def test_a_full_socket_does_not_block_the_sender_and_loses_nothing() -> None:
    ours, theirs = pair()
    ours.setblocking(False)
    theirs.setblocking(False)
    outbox, inbox = Outbox(theirs), Inbox(ours)
    sent = [np.full(3_000_000, index, np.uint8) for index in range(4)]
    for array in sent:
        outbox.put(array)
    outbox.flush()
    assert outbox
    got: list[Any] = []
    while len(got) < len(sent):
        got += inbox.messages()
        outbox.flush()
    assert not outbox
    assert all(np.array_equal(a, b) for a, b in zip(sent, got, strict=True))
    ours.close()
    theirs.close()


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"", EOFError),
        (b"\x01\x00", EOFError),
        (b"\xff\xff\xff\xff", ConnectionError),
        (b"\x01\x00\x00\x00" + b"\xff" * 8, ConnectionError),
    ],
)
def test_a_broken_stream_is_an_error_and_no_message(raw: bytes, expected: type[Exception]) -> None:
    ours, theirs = pair()
    theirs.sendall(raw)
    theirs.close()
    with pytest.raises(expected):
        list(Inbox(ours).messages())
    ours.close()


@pytest.mark.parametrize("kind", error_types(), ids=lambda kind: kind.__name__)
def test_typed_errors_cross_the_border_unchanged(kind: type[FmhError]) -> None:
    error = kind("A cat.", expected="a hand", change="Show a hand")
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is kind
    assert str(again) == str(error)
    assert (again.seen, again.expected, again.change) == ("A cat.", "a hand", "Show a hand")
