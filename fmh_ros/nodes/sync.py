# SPDX-License-Identifier: Apache-2.0
"""Messages of several topics that belong together by their stamps; no ROS in here."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

#: Stamps this near are the same moment: some drivers round to microseconds.
SAME_NS = 1_000_000
#: A stamp that is this much older than the newest one means that a recording began again.
JUMP_NS = 1_000_000_000
KEPT = 8


class StampMatcher:
    """Finds for each message of the first topic its partners on all others.

    A partner is the message with the nearest stamp. It is known once one of the same moment is there, or one that is
    later; it is accepted when it is not further away than the slop. Only what came last is kept, so nothing ages here.
    Not thread-safe.
    """

    def __init__(self, topics: Sequence[str], slop_ns: int) -> None:
        self.slop_ns = slop_ns
        self._topics = tuple(topics)
        self._kept: dict[str, deque[tuple[int, Any]]] = {topic: deque(maxlen=KEPT) for topic in topics}
        self.jumps = 0

    def add(self, topic: str, stamp_ns: int, message: Any) -> tuple[int, dict[str, Any]] | None:
        """Take a message; return the stamp and the newest set that it completes, or None.

        Clears itself first when the stamp has jumped back.
        """
        kept = self._kept[topic]
        if kept and stamp_ns < kept[-1][0] - JUMP_NS:
            self.clear()
            self.jumps += 1
        kept.append((stamp_ns, message))
        firsts = self._kept[self._topics[0]]
        for place in reversed(range(len(firsts))):
            first_ns, first = firsts[place]
            found = self._partners(first_ns)
            if found is not None:
                for _ in range(place + 1):  # neither this one nor those before it are wanted again
                    firsts.popleft()
                return first_ns, {self._topics[0]: first, **found}
        return None

    def clear(self) -> None:
        """Forget every message."""
        for kept in self._kept.values():
            kept.clear()

    def missed(self) -> tuple[str, int] | None:
        """Return the topic whose stamps are furthest from the first topic's, and their nearest distance, nanoseconds;
        None when a topic has no messages."""
        found: list[tuple[int, str]] = []
        firsts = [item[0] for item in self._kept[self._topics[0]]]
        for topic in self._topics[1:]:
            distances = [abs(item[0] - first) for item in self._kept[topic] for first in firsts]
            if not distances:
                return None
            found.append((min(distances), topic))
        return max(found)[::-1] if found else None

    def _partners(self, stamp_ns: int) -> dict[str, Any] | None:
        found: dict[str, Any] = {}
        for topic in self._topics[1:]:
            kept = self._kept[topic]
            if not kept:
                return None
            nearest_ns, message = min(kept, key=lambda item: abs(item[0] - stamp_ns))
            distance = abs(nearest_ns - stamp_ns)
            if distance > max(self.slop_ns, SAME_NS):
                return None
            if distance > SAME_NS and max(item[0] for item in kept) < stamp_ns:
                return None  # a nearer one may still come
            found[topic] = message
        return found
