# SPDX-License-Identifier: Apache-2.0
"""The budget of a graphics card: what leaves, what stays, and what is there while it works."""

from __future__ import annotations

import pytest
import torch

from fmh_ros.core.errors import ProfileError
from fmh_ros.core.residency import Residency, Resident, networks_of, size_of


class Network:
    """Knows where it was moved."""

    def __init__(self, device: str = "card") -> None:
        self.places = [device]

    def to(self, device: str) -> None:
        self.places.append(device)

    @property
    def place(self) -> str:
        return self.places[-1]


def three(budget: int = 10) -> tuple[Residency, dict[str, Network]]:
    residency, networks = Residency(budget, "card"), {name: Network() for name in "abc"}
    for (name, network), size in zip(networks.items(), (4, 5, 6), strict=True):
        residency.register(name, {network: size})
    return residency, networks


def test_the_longest_unused_leaves_when_there_is_no_room() -> None:
    residency, networks = three()
    assert residency.resident == ("c",) and residency.used == 6, "4 + 5 fit, 4 + 5 + 6 and 5 + 6 do not"
    residency.use("a")
    assert residency.resident == ("c", "a") and residency.used == 10
    residency.use("c")
    residency.use("b")
    assert residency.resident == ("b",), "a is unused for longest, and without c there still is no room"
    assert {name: network.places for name, network in networks.items()} == {
        "a": ["card", "cpu", "card", "cpu"],
        "b": ["card", "cpu", "card"],
        "c": ["card", "cpu"],
    }


def test_one_that_is_there_is_not_moved_again() -> None:
    residency, networks = three(budget=15)
    for _ in range(3):
        for name in networks:
            residency.use(name)
    assert all(network.places == ["card"] for network in networks.values())


def test_without_a_limit_everything_stays() -> None:
    residency, _ = three(budget=0)
    residency.make_room(10**12)
    assert residency.resident == ("a", "b", "c") and residency.used == 15


def test_room_is_made_before_something_comes() -> None:
    residency, _ = three(budget=15)
    residency.make_room(4)
    assert residency.resident == ("b", "c")
    residency.forget("b")
    assert residency.used == 6


def test_what_never_fits_is_refused_with_both_numbers() -> None:
    with pytest.raises(ProfileError, match=r"takes 3\.0 GiB.*budget is 2\.0 GiB.*memory_gib"):
        Residency(2 * 2**30, "card").register("generator", {Network(): 3 * 2**30})


def test_a_network_of_two_is_counted_once_and_stays_for_either() -> None:
    residency, common, mine, other = Residency(10, "card"), Network(), Network(), Network()
    residency.register("first", {common: 4, mine: 3})
    residency.register("second", {common: 4})
    assert residency.used == 7 and (residency.size("first"), residency.size("second")) == (7, 4)
    residency.register("third", {other: 6})
    assert residency.resident == ("second", "third"), "the first made room with what only it has"
    assert common.places == ["card"] and mine.place == "cpu"
    residency.use("first")
    assert residency.resident == ("second", "first") and other.place == "cpu" and common.places == ["card"]
    residency.forget("second")
    assert residency.used == 7, "the first still has it"
    residency.forget("first")
    assert residency.used == 0


class Asks:
    """A back end that has another one work in the middle of its own work."""

    def __init__(self, network: Network, other: Speaks | None = None) -> None:
        self.network, self.other, self.name, self.seen = network, other, "asks", ""

    def work(self, word: str) -> str:
        before = self.network.place
        answer = self.other.work(word) if self.other is not None else word
        self.seen = f"{before} {self.network.place}"
        return answer


class Speaks(Asks):
    pass


def test_a_back_end_is_on_the_card_while_it_works_also_after_another_one_took_its_room() -> None:
    residency, inner, outer = Residency(10, "card"), Network("cpu"), Network("cpu")
    speaks = Resident(Speaks(inner), "inner", residency)
    asks = Asks(outer, speaks)  # type: ignore[arg-type]
    residency.register("inner", {inner: 6})
    residency.register("outer", {outer: 7})
    shown = Resident(asks, "outer", residency)
    assert shown.work("mug") == "mug"
    assert asks.seen.split()[1] == "card" and residency.resident == ("outer",)
    assert inner.places[-2:] == ["card", "cpu"], "it was there for its part of the work"
    assert shown.name == "asks" and not hasattr(shown, "schedule")


def test_networks_are_found_wherever_a_back_end_keeps_them_each_once() -> None:
    shared, other, hidden = torch.nn.Linear(3, 2), torch.nn.Linear(2, 2, dtype=torch.float16), torch.nn.Linear(9, 9)

    class Pipeline:
        def __init__(self) -> None:
            self.components = {"text": other, "words": "no network"}

    class Own:
        def __init__(self) -> None:
            self.networks = {"a": [shared]}
            self.again = (shared, Pipeline())
            self.asks = Resident(hidden, "namer", Residency(0, "cpu"))

    Own.__module__ = "fmh_ros.core.somewhere"
    found = networks_of(Own())
    assert sorted(map(id, found)) == sorted(map(id, (shared, other)))
    assert size_of(found) == (3 * 2 + 2) * 4 + (2 * 2 + 2) * 2
    assert size_of((*found, shared)) == size_of(found)
