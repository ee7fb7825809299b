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
class _Network:
    module: Any
    size: int
    there: bool


def _to(module: Any, device: str) -> None:
    module.to(device)


class Residency:
    """Keeps registered networks on a device within a budget. One that several back ends use is counted once.

    budget : bytes, 0 for no limit; device : where they are used; move : puts a module on a device.
    """

    def __init__(self, budget: int, device: str, move: Move = _to) -> None:
        self.budget, self.device = budget, device
        self._move = move
        self._networks: dict[int, _Network] = {}
        self._users: dict[str, tuple[int, ...]] = {}  # keys of the networks of each, the longest unused one first
        self._running: list[str] = []

    @property
    def resident(self) -> tuple[str, ...]:
        """Names of what is on the device with all its networks, the longest unused one first."""
        return tuple(name for name in self._users if all(each.there for each in self._of(name)))

    @property
    def used(self) -> int:
        """Bytes on the device."""
        return sum(each.size for each in self._networks.values() if each.there)

    def size(self, name: str) -> int:
        """Bytes of the networks of one, wherever they lie."""
        return sum(each.size for each in self._of(name))

    def register(self, name: str, networks: Mapping[Any, int]) -> None:
        """Take over networks that lie on the device, with their bytes; others leave it when they take too much
        together. Raises ProfileError when these alone do."""
        self._check(name, sum(networks.values()))
        self.forget(name)
        for module, size in networks.items():
            self._networks.setdefault(id(module), _Network(module, size, there=True)).there = True
        self._users[name] = tuple(map(id, networks))
        self.make_room(0, keep=name)

    def forget(self, name: str) -> None:
        """No longer count what is gone."""
        self._users.pop(name, None)
        in_use = {key for keys in self._users.values() for key in keys}
        self._networks = {key: each for key, each in self._networks.items() if key in in_use}

    def make_room(self, size: int, keep: str = "") -> None:
        """Move the longest unused ones to the host until so many bytes are free; ``keep`` stays.

        What several use leaves with the one that was used last.
        """
        if not self.budget:
            return
        last = {key: name for name, keys in self._users.items() for key in keys}
        last |= dict.fromkeys(self._users.get(keep, ()), keep)
        for name, keys in self._users.items():
            if self.used + size <= self.budget:
                return
            going = (self._networks[key] for key in keys if last[key] == name != keep)
            leaving = [each for each in going if each.there]
            if leaving:
                LOG.info("%s leaves %s for others", name, self.device)
                self._place(leaving, HOST)

    def use(self, name: str) -> None:
        """See that networks are on the device, and count as used just now."""
        self._users[name] = self._users.pop(name)
        missing = [each for each in self._of(name) if not each.there]
        if missing:
            self.make_room(sum(each.size for each in missing), keep=name)
            self._place(missing, self.device)

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

    def _of(self, name: str) -> list[_Network]:
        return [self._networks[key] for key in self._users[name]]

    def _place(self, networks: Iterable[_Network], device: str) -> None:
        for each in networks:
            self._move(each.module, device)
            each.there = device == self.device

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
