# SPDX-License-Identifier: Apache-2.0
"""Makes a profile's back ends, each once: the same weights on the same device in the same type are never loaded twice,
whatever the other options."""

from __future__ import annotations

import importlib
import itertools
import logging
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch

from fmh_ros.core.backends import BACKENDS, STAGES, BackEnd
from fmh_ros.core.errors import ProfileError
from fmh_ros.core.pretrained import NetworkPool
from fmh_ros.core.reconstruction.profile import Choice, Profile, Stages
from fmh_ros.core.residency import GIB, Residency, Resident, networks_of, size_of
from fmh_ros.models.store import ModelStore

LOG = logging.getLogger(__name__)
#: Of a card's memory so much may be networks, whatever a profile says: work needs the rest.
MOST_OF_CARD = 0.85
#: Back ends that no profile uses any more are kept until all together take this part of the machine's memory.
MOST_OF_HOST = 0.4
Key = tuple[Any, ...]
Loaded = Callable[[str, float, int], None]


@dataclass(frozen=True)
class _Loaded:
    """A back end as others see it, the bytes of each of its networks, and a name that no other one has."""

    backend: Any
    networks: Mapping[Any, int]
    name: str


class ModelCache:
    """Loaded back ends of one process, by what they were made from: factory, files, device, type, options.

    Those that differ in options only have the same networks.

    store : where weights are. keep_bytes : see MOST_OF_HOST, which is the default. loaded : told of each back end when
    it has been loaded: its name in the registry, the seconds that took, the bytes of its networks.
    """

    def __init__(
        self, store: ModelStore | None = None, keep_bytes: int | None = None, loaded: Loaded | None = None
    ) -> None:
        self._store = store or ModelStore()
        self._tell = loaded
        self._keep_bytes = keep_bytes
        self._loaded: dict[Key, _Loaded] = {}  # the longest unused one first
        self._residency: dict[str, Residency] = {}
        self._pool = NetworkPool()
        self._numbers = itertools.count(1)

    def load(self, profile: Profile) -> Stages:
        """Return a profile's stages; what is there already is used, and what is not needed may go.

        Raises ProfileError, ModelMissingError, ModelFileError and RemoteModelError.
        """
        device = choose_device(profile)
        dtype = choose_dtype(profile, device)
        residency = self._residency_of(device, profile.memory_gib)
        keys = (self._key(profile, choice, device, dtype) for choice in profile.stages.values())
        needed = {each for key in keys for each in _weights(key)}
        self._forget({key for key in self._loaded if needed.issuperset(_weights(key)[:1])})
        made: dict[str, Any] = {}
        used: set[Key] = set()
        for stage in STAGES:
            made[stage] = self._get(profile, profile.stages[stage], device, dtype, residency, used)
        self._forget(used)
        return Stages(
            detector=made["detector"],
            segmenter=made["segmenter"],
            sensor_points=made["sensor_points"],
            monocular_points=made["monocular_points"],
            rig=made["hand_model"],
            generator=made["generator"],
            watcher=made["watcher"],
            regressor=made["hand_pose"],
            amodal=made["amodal"],
            completer=made["completer"],
        )

    def clear(self) -> None:
        """Let go of everything."""
        self._loaded.clear()
        self._residency.clear()
        self._pool = NetworkPool()

    @property
    def size(self) -> int:
        """Bytes of all networks that are loaded."""
        sizes = {network: size for each in self._loaded.values() for network, size in each.networks.items()}
        return sum(sizes.values())

    def _get(
        self, profile: Profile, choice: Choice, device: str, dtype: str, residency: Residency | None, used: set[Key]
    ) -> Any:
        """The back end of a choice, made now if need be; None for a way of the pipeline's own."""
        backend = choice.backend
        if not backend.factory:
            return None
        parts = {
            option: self._get(profile, _named(profile, name), device, dtype, residency, used)
            for option, name in backend.uses.items()
        }
        key = self._key(profile, choice, device, dtype)
        used.add(key)
        loaded = self._loaded.pop(key, None) or self._make(choice, parts, device, dtype, residency)
        self._loaded[key] = loaded
        return loaded.backend

    def _make(
        self, choice: Choice, parts: Mapping[str, Any], device: str, dtype: str, residency: Residency | None
    ) -> _Loaded:
        backend = choice.backend
        models = {model: self._store.path(model) for model in choice.models}
        options = {**_options(choice, dtype), **{name: part for name, part in parts.items() if part is not None}}
        if residency is not None:
            residency.make_room(sum(self._store.size(model) for model in models))
        LOG.info("Loading %s", backend.key)
        began = time.perf_counter()
        with self._pool.sharing():
            made = _factory(backend)(models, options, device if backend.gpu else "cpu")
        lent = {network for part in parts.values() for network in networks_of(part)}
        networks = {network: size_of((network,)) for network in networks_of(made) if network not in lent}
        name = f"{backend.key} ({next(self._numbers)})"
        if self._tell is not None:
            self._tell(backend.key, time.perf_counter() - began, size_of(networks))
        # One that offloads itself piece by piece is left to do so.
        if residency is None or not backend.gpu or not networks or options.get("offload", "none") != "none":
            return _Loaded(made, networks, name)
        for network in networks:  # those that it has in common with others may lie on the host
            network.to(device)
        residency.register(name, networks)
        return _Loaded(Resident(made, name, residency), networks, name)

    def _key(self, profile: Profile, choice: Choice, device: str, dtype: str) -> Key:
        backend = choice.backend
        uses = tuple(self._key(profile, _named(profile, name), device, dtype) for name in backend.uses.values())
        files = tuple((model, self._store.find(model)) for model in choice.models)
        options = _options(choice, dtype)
        weights = (backend.factory, files, device if backend.gpu else "cpu", options.get("dtype"))
        return (weights, tuple(sorted((name, repr(value)) for name, value in options.items())), uses)

    def _residency_of(self, device: str, memory_gib: float) -> Residency | None:
        """The budget of a card; None on a processor."""
        if device == "cpu":
            return None
        most = int(MOST_OF_CARD * card_memory(device))
        budget = min(int(memory_gib * GIB) or most, most)
        residency = self._residency.setdefault(device, Residency(budget, device))
        residency.budget = budget
        residency.make_room(0)
        return residency

    def _forget(self, used: set[Key]) -> None:
        """Let go of the longest unused back ends that are not in ``used``, until the rest is small enough."""
        limit = self._keep_bytes
        if limit is None:
            limit = int(MOST_OF_HOST * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
        for key in [key for key in self._loaded if key not in used]:
            if self.size <= limit:
                return
            gone = self._loaded.pop(key)
            LOG.info("%s is let go", gone.name)
            for residency in self._residency.values():
                residency.forget(gone.name)


def card_memory(device: str) -> int:
    """Bytes of memory of a card."""
    return int(torch.cuda.get_device_properties(device).total_memory)


def choose_device(profile: Profile) -> str:
    """The torch device that a profile runs on: "cpu", "cuda" or "cuda:N". Raises ProfileError without that card."""
    if not any(choice.backend.gpu for choice in profile.stages.values()):
        return "cpu"
    there = torch.cuda.is_available()
    if profile.device == "auto":
        return "cuda" if there else "cpu"
    index = int(profile.device.partition(":")[2] or 0)
    if profile.device != "cpu" and (not there or index >= torch.cuda.device_count()):
        raise ProfileError(
            f"The profile {profile.text} wants {profile.device}, and torch sees "
            + (f"{torch.cuda.device_count()} cards" if there else "no graphics card"),
            expected="a card that torch can use",
            change="Run fmh doctor, or use device=cpu",
        )
    return profile.device


def choose_dtype(profile: Profile, device: str) -> str:
    """The type of networks that name none."""
    if profile.dtype != "auto":
        return profile.dtype
    return "float32" if device == "cpu" else "bfloat16"


def _options(choice: Choice, dtype: str) -> dict[str, Any]:
    """What a factory is told: the profile's options, what makes the back end what it is, and a type that is set."""
    options = {**choice.options, **choice.backend.fixed}
    if "dtype" in choice.backend.options and options.get("dtype", "auto") == "auto":
        options["dtype"] = dtype
    return options


def _weights(key: Key) -> list[Key]:
    """What of a back end's key says which networks it has, and then of those that it uses."""
    own, _, uses = key
    return [own, *(each for use in uses for each in _weights(use))]


def _named(profile: Profile, name: str) -> Choice:
    """A part of the registry, or the profile's choice for a stage."""
    return Choice(BACKENDS[name]) if name in BACKENDS else profile.stages[name]


def _factory(backend: BackEnd) -> Any:
    module, _, function = backend.factory.partition(":")
    return cast(Any, getattr(importlib.import_module(module), function))
