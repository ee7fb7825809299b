# SPDX-License-Identifier: Apache-2.0
"""What each scene shall show: a function of benchmark seed, split and index alone, balanced over blocks of scenes.

Objects take turns: every object of the split comes once before any comes again, and as many left as right hands, and as
much weak as strong occlusion, fall to every block of 24 scenes. The first 24 are the quick test.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fmh_ros.benchmark.objects import ObjectRow, objects_of
from fmh_ros.benchmark.types import SPLITS, Split
from fmh_ros.core.frame.frame import Side

#: Scenes of a whole split.
COUNTS: dict[Split, int] = {"train": 100, "validation": 100, "test": 200}
QUICK_COUNT = 24
#: Share of the object that the hand hides: the range that the benchmark covers, divided into strata.
OCCLUSION_BINS = ((0.10, 0.25), (0.25, 0.40), (0.40, 0.55), (0.55, 0.70))
#: Width and height of the pictures; a third is of the larger kind.
SIZES = ((640, 480), (640, 480), (1280, 720))
#: Distance from the camera to hand and object, metres; what the picture must show of the hand, pixels.
DISTANCE_M = (0.30, 1.50)
SMALLEST_HAND_PX = 100.0


@dataclass(frozen=True)
class ScenePlan:
    """The order for one scene.

    name, split, index, seed : of the scene; object : what is held; side : of the hand; occlusion : range of the share
    hidden; width, height : of the picture, pixels; distance_share : where in DISTANCE_M, 0 to 1, as far as the hand
    stays SMALLEST_HAND_PX large; holding : which of the ways that suit the object, 0 to 1.
    """

    name: str
    split: Split
    index: int
    seed: int
    object: ObjectRow
    side: Side
    occlusion: tuple[float, float]
    width: int
    height: int
    distance_share: float
    holding: float

    def stream(self, attempt: int) -> np.random.Generator:
        """The random numbers of one attempt to draw this scene."""
        return np.random.default_rng([self.seed, SPLITS.index(self.split), self.index, attempt, 1])


def plan_scene(split: Split, index: int, seed: int = 0) -> ScenePlan:
    """Return what scene ``index`` of a split shall show."""
    rng = _stream(seed, split, index, 2)
    width, height = SIZES[_dealt(seed, split, index, len(SIZES), 5)]
    return ScenePlan(
        name=f"{split}_{index:04d}",
        split=split,
        index=index,
        seed=seed,
        object=_object(seed, split, index),
        side="left" if _dealt(seed, split, index, 2, 3) else "right",
        occlusion=OCCLUSION_BINS[_dealt(seed, split, index, len(OCCLUSION_BINS), 4)],
        width=width,
        height=height,
        distance_share=float(rng.random()),
        holding=float(rng.random()),
    )


def _object(seed: int, split: Split, index: int) -> ObjectRow:
    """The objects of a split in shuffled turns."""
    rows = objects_of(split)
    turn, place = divmod(index, len(rows))
    order = _stream(seed, split, turn, 6).permutation(len(rows))
    return rows[int(order[place])]


def _dealt(seed: int, split: Split, index: int, kinds: int, purpose: int) -> int:
    """Deal ``kinds`` out evenly to every block of QUICK_COUNT scenes, shuffled."""
    block, place = divmod(index, QUICK_COUNT)
    cards = np.arange(QUICK_COUNT) % kinds
    return int(_stream(seed, split, block, purpose).permutation(cards)[place])


def _stream(seed: int, split: Split, number: int, purpose: int) -> np.random.Generator:
    return np.random.default_rng([seed, SPLITS.index(split), number, 0, purpose])
