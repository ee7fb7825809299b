# SPDX-License-Identifier: Apache-2.0
"""The results that the node keeps."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from dataclasses import dataclass, field

from follow_my_hold.msg import HandObject

from fmh_ros.core.errors import NoResultError
from fmh_ros.core.reconstruction.types import Reconstruction
from fmh_ros.core.transforms import Similarity
from fmh_ros.messages.result import Made


@dataclass(frozen=True)
class Parent:
    """The frame that published transforms hang from.

    T_parent_camera : pose of the camera in it at the image's stamp, None when it is the camera's own frame.
    """

    frame_id: str
    T_parent_camera: Similarity | None = None


@dataclass(frozen=True)
class Entry:
    """A kept result. ``since`` : when it came, steady clock, seconds."""

    result: Reconstruction
    made: Made
    message: HandObject
    parent: Parent
    since: float = field(default_factory=time.monotonic)

    def age(self) -> float:
        """Seconds since it came."""
        return time.monotonic() - self.since


class Results:
    """The latest results by id; thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._entries: OrderedDict[str, Entry] = OrderedDict()

    @property
    def latest(self) -> Entry | None:
        """The newest result."""
        with self._lock:
            return next(reversed(self._entries.values()), None)

    def add(self, entry: Entry, most: int) -> None:
        """Keep a result, and at most ``most`` altogether."""
        with self._lock:
            self._entries[entry.made.id] = entry
            while len(self._entries) > most:
                self._entries.popitem(last=False)

    def get(self, name: str) -> Entry:
        """Return the result of this id, the newest for an empty text. Raises NoResultError."""
        with self._lock:
            kept = list(self._entries)
            if not kept:
                raise NoResultError(
                    "There is no reconstruction yet, or it was cleared", change="Send a Reconstruct goal first"
                )
            if name and name not in self._entries:
                raise NoResultError(
                    f"No reconstruction {name!r} is kept", expected=f"one of {', '.join(kept)}, or none for the latest"
                )
            return self._entries[name or kept[-1]]

    def clear(self) -> bool:
        """Forget everything; returns whether there was anything."""
        with self._lock:
            had = bool(self._entries)
            self._entries.clear()
            return had
