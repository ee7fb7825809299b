# SPDX-License-Identifier: Apache-2.0
"""Which messages of a bag make which reconstruction: found in one pass before anything is computed."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from fmh_ros.bags.convert import header_stamp
from fmh_ros.bags.info import CAMERA_INFO, COMPRESSED, IMAGE, camera_info_beside, depth_beside, named
from fmh_ros.bags.reading import BagReader
from fmh_ros.bags.types import Topic
from fmh_ros.core.errors import UsageError

NANOSECONDS = 1_000_000_000
#: Stamps given on the command line are those of people's notes: a microsecond is the same.
SAME_NS = 1_000


@dataclass(frozen=True)
class Selection:
    """What to reconstruct.

    image, camera_info, depth : topics; None takes the one that belongs to the image by its name when there is one, an
    empty text none, so that the field of view is estimated or no depth is used. every : each N-th image, counted from
    the first; stamps : the header stamps of the images, nanoseconds, instead. slop_s : largest difference between the
    stamps of image and depth.
    """

    image: str
    camera_info: str | None = None
    depth: str | None = None
    every: int = 1
    stamps: tuple[int, ...] = ()
    slop_s: float = 0.04


@dataclass(frozen=True)
class PlannedJob:
    """One image. Numbers are places among the messages of a topic; None: there is none that belongs to it."""

    stamp_ns: int
    image: int
    camera_info: int | None
    depth: int | None


@dataclass(frozen=True)
class Plan:
    """The topics that are used, None for no such topic, and the jobs in the order of the images.

    not_found : wanted stamps, nanoseconds, that no image of the bag has. found : which of "camera_info" and "depth"
    nobody named.
    """

    image: Topic
    camera_info: Topic | None
    depth: Topic | None
    jobs: tuple[PlannedJob, ...]
    not_found: tuple[int, ...] = ()
    found: frozenset[str] = frozenset()


def make_plan(bag: BagReader, selection: Selection) -> Plan:
    """Read the stamps of the topics in question. Raises UsageError when a topic is missing or of another type."""
    if selection.every < 1:
        raise UsageError(f"every is {selection.every}", expected="1 or more")
    topics = bag.topics()
    image = _require(topics, selection.image, (IMAGE, COMPRESSED))
    depth = _depth(topics, selection)
    camera_info = _camera_info(topics, selection)
    stamps: dict[str, list[int]] = {topic.name: [] for topic in (image, camera_info, depth) if topic is not None}
    for stored in bag.messages(list(stamps)):
        stamps[stored.topic.name].append(header_stamp(stored.raw))
    calibrations = None if camera_info is None else _Nearest(stamps[camera_info.name])
    depths = None if depth is None else _Nearest(stamps[depth.name])
    chosen, not_found = _choose(stamps[image.name], selection)
    jobs = []
    for number in chosen:
        stamp = stamps[image.name][number]
        jobs.append(
            PlannedJob(
                stamp,
                number,
                # A calibration holds for a long time: the nearest will do, however far it is.
                None if calibrations is None else calibrations.find(stamp, None),
                None if depths is None else depths.find(stamp, round(selection.slop_s * NANOSECONDS)),
            )
        )
    chosen_here = {"camera_info": selection.camera_info, "depth": selection.depth}
    found = frozenset(kind for kind, name in chosen_here.items() if name is None)
    return Plan(image, camera_info, depth, tuple(jobs), not_found, found)


def uses(plan: Plan) -> Counter[tuple[str, int]]:
    """Return how many jobs use each message, by topic and place."""
    counts: Counter[tuple[str, int]] = Counter()
    for job in plan.jobs:
        counts.update(needed(plan, job))
    return counts


def needed(plan: Plan, job: PlannedJob) -> list[tuple[str, int]]:
    """Return the messages that a job uses, by topic and place."""
    pairs = ((plan.image, job.image), (plan.camera_info, job.camera_info), (plan.depth, job.depth))
    return [(topic.name, number) for topic, number in pairs if topic is not None and number is not None]


def _camera_info(topics: Sequence[Topic], selection: Selection) -> Topic | None:
    if selection.camera_info is None:
        beside = named(topics, camera_info_beside(selection.image))
        return beside if beside is not None and beside.msgtype == CAMERA_INFO and beside.count else None
    return _require(topics, selection.camera_info, (CAMERA_INFO,)) if selection.camera_info else None


def _depth(topics: Sequence[Topic], selection: Selection) -> Topic | None:
    if selection.depth is None:
        return depth_beside(selection.image, topics)
    return _require(topics, selection.depth, (IMAGE, COMPRESSED)) if selection.depth else None


def _require(topics: Sequence[Topic], name: str, types: tuple[str, ...]) -> Topic:
    found = [topic for topic in topics if topic.name == name and topic.msgtype in types]
    if found:
        return found[0]
    others = [topic.name for topic in topics if topic.msgtype in types]
    other = named(topics, name)
    seen = f"The topic {name} is not in the bag" if other is None else f"The topic {name} has {other.msgtype}"
    raise UsageError(
        seen, expected=f"a topic of {' or '.join(types)}: {', '.join(others) or 'the bag has none'}",
        change="fmh bag info shows what is in it",
    )  # fmt: skip


def _choose(stamps: Sequence[int], selection: Selection) -> tuple[list[int], tuple[int, ...]]:
    if not selection.stamps:
        return list(range(0, len(stamps), selection.every)), ()
    nearest = _Nearest(stamps)
    found = {wanted: nearest.find(wanted, SAME_NS) for wanted in selection.stamps}
    chosen = sorted({number for number in found.values() if number is not None})
    return chosen, tuple(wanted for wanted, number in found.items() if number is None)


class _Nearest:
    """Finds the message with the nearest stamp."""

    def __init__(self, stamps: Sequence[int]) -> None:
        self._order = sorted(range(len(stamps)), key=stamps.__getitem__)
        self._stamps = [stamps[number] for number in self._order]

    def find(self, stamp: int, most_ns: int | None) -> int | None:
        """Return its place in the bag, None when there is none or it is further away than ``most_ns``."""
        at = bisect_left(self._stamps, stamp)
        near = [place for place in (at - 1, at) if 0 <= place < len(self._stamps)]
        if not near:
            return None
        best = min(near, key=lambda place: abs(self._stamps[place] - stamp))
        too_far = most_ns is not None and abs(self._stamps[best] - stamp) > most_ns
        return None if too_far else self._order[best]
