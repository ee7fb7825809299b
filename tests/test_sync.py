# SPDX-License-Identifier: Apache-2.0
"""Messages that belong together, and waiting that can be ended; no ROS is needed."""

from __future__ import annotations

import threading
import time

import pytest

from fmh_ros.core.errors import BusyError, CancelledError
from fmh_ros.nodes.sync import StampMatcher
from fmh_ros.nodes.waiting import Line, Waiter, cancelled

MS = 1_000_000
START = 1_700_000_000 * 10**9


def test_equal_stamps_match_in_whatever_order_they_come() -> None:
    matcher = StampMatcher(("image", "info", "depth"), 40 * MS)
    for order in (("image", "info", "depth"), ("depth", "info", "image"), ("info", "image", "depth")):
        stamp = START + sum(map(ord, order[0])) * 100 * MS
        assert [matcher.add(topic, stamp, (topic, stamp)) for topic in order[:2]] == [None, None]
        found = matcher.add(order[2], stamp, (order[2], stamp))
        assert found == (stamp, {topic: (topic, stamp) for topic in ("image", "info", "depth")})


def test_the_nearest_partner_is_taken_even_when_an_older_one_is_within_the_slop() -> None:
    matcher = StampMatcher(("image", "depth"), 40 * MS)
    assert matcher.add("depth", START, "old") is None
    assert matcher.add("image", START + 33 * MS, "image") is None
    assert matcher.add("depth", START + 35 * MS, "near") == (START + 33 * MS, {"image": "image", "depth": "near"})


def test_what_is_further_apart_than_the_slop_never_matches_and_the_distance_is_known() -> None:
    matcher = StampMatcher(("image", "depth"), 40 * MS)
    for k in range(20):
        assert matcher.add("depth", START + 100 * k * MS + 50 * MS, k) is None
        assert matcher.add("image", START + 100 * k * MS + 100 * MS, k) is None
    assert matcher.missed() == ("depth", 50 * MS)


def test_an_image_is_used_once_and_the_same_stamp_may_come_again() -> None:
    matcher = StampMatcher(("image",), 0)
    assert matcher.add("image", START, "a") == (START, {"image": "a"})
    assert matcher.add("image", START, "b") == (START, {"image": "b"})


def test_stamps_that_jump_back_begin_anew() -> None:
    matcher = StampMatcher(("image", "info"), 40 * MS)
    matcher.add("info", START, "late")
    matcher.add("image", START + 200 * MS, "late")
    assert matcher.add("image", START - 60 * 1000 * MS, "again") is None
    assert matcher.jumps == 1
    found = matcher.add("info", START - 60 * 1000 * MS, "again")
    assert found == (START - 60 * 1000 * MS, {"image": "again", "info": "again"})


def test_an_interruption_ends_every_kind_of_waiting_with_the_first_error() -> None:
    waiter = Waiter()
    threading.Timer(0.05, lambda: waiter.interrupt(cancelled())).start()
    began = time.monotonic()
    with pytest.raises(CancelledError):
        waiter.wait_for(lambda: False, 10)
    assert time.monotonic() - began < 5
    waiter.interrupt(BusyError("later"))
    with pytest.raises(CancelledError):
        waiter.check()
    assert Waiter().wait_for(lambda: False, 0.01) is False


def test_the_line_lets_one_run_and_the_next_follow_when_it_leaves() -> None:
    line, waiters = Line(), [Waiter() for _ in range(3)]
    for waiter in waiters[:2]:
        line.enter(waiter, 1)
    with pytest.raises(BusyError, match="queue_size"):
        line.enter(waiters[2], 1)
    assert line.wait_for_turn(waiters[0], 0) and not line.wait_for_turn(waiters[1], 0.01)
    threading.Timer(0.05, lambda: line.leave(waiters[0])).start()
    assert line.wait_for_turn(waiters[1], 10)
    line.leave(waiters[0])
    line.enter(waiters[2], 1)
    line.interrupt_all(cancelled)
    with pytest.raises(CancelledError):
        line.wait_for_turn(waiters[2], 10)
    assert len(line) == 2
