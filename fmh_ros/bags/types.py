# SPDX-License-Identifier: Apache-2.0
"""What bags consist of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Topic:
    """A topic of a bag.

    definition : of its type, empty in old bags; digest : hash of that (RIHS01), empty where the bag has none;
    qos : what its publishers offered, rosbags's ``Qos``; count : how many messages.
    """

    name: str
    msgtype: str
    definition: str
    digest: str
    qos: tuple[Any, ...] = ()
    count: int = 0

    @property
    def key(self) -> tuple[str, str]:
        """What tells it from others: a topic may have had two types."""
        return self.name, self.msgtype


@dataclass(frozen=True)
class Stored:
    """A message as it is in a bag: serialised (CDR); time_ns is when it was recorded."""

    topic: Topic
    time_ns: int
    raw: bytes
