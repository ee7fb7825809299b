# SPDX-License-Identifier: Apache-2.0
"""Which networks lie on the graphics card: as many as a budget allows, the longest unused one leaves first.

Sizes are counted, not measured: those of the networks' parameters and buffers. What work needs comes on top, so a
budget leaves room for it. Not safe to share between threads.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from fmh_ros.core.errors import ProfileError

LOG = logging.getLogger(__name__)
GIB = 2**30
#: Where networks wait that are not on the card.
HOST = "cpu"
Move = Callable[[Any, str], None]


@dataclass
class _Entry:
    modules: tuple[Any, ...]
    size: int
    there: bool


def _to(module: Any, device: str) -> None:
    module.to(device)


class Residency:
    """Keeps registered networks on a device within a budget.

    budget : bytes, 0 for no limit; device : where they are used; move : puts a module on a device.
    """

    def __init__(self, budget: int, device: str, move: Move = _to) -> None:
        self.budget, self.device = budget, device
        self._move = move
        self._entries: dict[str, _Entry] = {}  # the longest unused one first
        self._running: list[str] = []

    @property
    def resident(self) -> tuple[str, ...]:
        """Names of what is on the device, the longest unused one first."""
        return tuple(name for name, entry in self._entries.items() if entry.there)

    @property
    def used(self) -> int:
        """Bytes on the device."""
        return sum(entry.size for entry in self._entries.values() if entry.there)

    def register(self, name: str, modules: Iterable[Any], size: int) -> None:
        """Take over networks that lie on the device; others leave it when they take too much together."""
        self._check(name, size)
        self._entries.pop(name, None)
        self._entries[name] = _Entry(tuple(modules), size, there=True)
        self.make_room(0, keep=name)

    def forget(self, name: str) -> None:
        """No longer count what is gone."""
        self._entries.pop(name, None)

    def make_room(self, size: int, keep: str = "") -> None:
        """Move the longest unused ones to the host until so many bytes are free; ``keep`` stays."""
        if not self.budget:
            return
        for name, entry in list(self._entries.items()):
            if self.used + size <= self.budget:
                return
            if entry.there and name != keep:
                LOG.info("%s leaves %s for others", name, self.device)
                self._place(entry, HOST)

    def use(self, name: str) -> None:
        """See that networks are on the device, and count as used just now."""
        entry = self._entries.pop(name)
        self._entries[name] = entry
        if not entry.there:
            self.make_room(entry.size, keep=name)
            self._place(entry, self.device)

    @contextmanager
    def using(self, name: str) -> Iterator[None]:
        """Have networks on the device for a piece of work. One that uses others within finds its own there again."""
        self.use(name)
        self._running.append(name)
        try:
            yield
        finally:
            self._running.pop()
            if self._running:
                self.use(self._running[-1])

    def _place(self, entry: _Entry, device: str) -> None:
        for module in entry.modules:
            self._move(module, device)
        entry.there = device == self.device

    def _check(self, name: str, size: int) -> None:
        if self.budget and size > self.budget:
            raise ProfileError(
                f"{name} takes {size / GIB:.1f} GiB, and the profile's budget is {self.budget / GIB:.1f} GiB",
                expected="every back end to fit by itself",
                change="Raise memory_gib, choose a smaller back end, or set its option offload",
            )


class Resident:
    """Stands before a back end: while one of its methods runs, its networks are on the device."""

    def __init__(self, backend: Any, name: str, residency: Residency) -> None:
        self._backend, self._name, self._residency = backend, name, residency

    def __getattr__(self, attribute: str) -> Any:
        value = getattr(self._backend, attribute)
        if not callable(value) or isinstance(value, type):
            return value

        def call(*arguments: Any, **named: Any) -> Any:
            with self._residency.using(self._name):
                return value(*arguments, **named)

        return call


def networks_of(backend: Any) -> tuple[Any, ...]:
    """Every torch network that a back end holds, each once: looked for in its attributes, in what those hold if it is
    of this package, in containers, and in the components of a diffusers pipeline. Not behind a `Resident`."""
    import torch

    found: dict[int, Any] = {}
    seen: set[int] = set()
    waiting = [backend]
    while waiting:
        value = waiting.pop()
        if id(value) in seen or isinstance(value, (Resident, str, bytes)):
            continue
        seen.add(id(value))
        if isinstance(value, torch.nn.Module):
            found[id(value)] = value
        elif isinstance(value, Mapping):
            waiting += value.values()
        elif isinstance(value, Sequence):
            waiting += value
        elif isinstance(getattr(value, "components", None), Mapping):
            waiting += value.components.values()
        elif type(value).__module__.startswith("fmh_ros.") and hasattr(value, "__dict__"):
            waiting += vars(value).values()
    return tuple(found.values())


def size_of(networks: Iterable[Any]) -> int:
    """Bytes of all parameters and buffers, shared ones once."""
    tensors = {id(t): t for network in networks for t in (*network.parameters(), *network.buffers())}
    return sum(t.numel() * t.element_size() for t in tensors.values())
