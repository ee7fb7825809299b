# SPDX-License-Identifier: Apache-2.0
"""Means with confidence intervals, and what is selected from many records to compute them.

A scene counts once, however many seeds it was run with: its seeds are averaged first, and scenes are what the bootstrap
draws. So an interval says how much a figure would change with other scenes of the same kind.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from fmh_ros.benchmark.results import SampleRecord
from fmh_ros.evaluation.calibration import Calibration, calibrate
from fmh_ros.evaluation.sample import SampleMetrics
from fmh_ros.evaluation.summary import Interval, describe


@dataclass(frozen=True)
class Estimate:
    """A statistic of ``count`` scenes with its 95 % interval, NaN where fewer than two scenes leave none."""

    value: float
    low: float
    high: float
    count: int


def mean(values: Iterable[float]) -> Estimate:
    """Return the mean of one value per scene; NaN values are left out."""
    return _estimate(values, "mean")


def median(values: Iterable[float]) -> Estimate:
    """Return the median of one value per scene; NaN values are left out."""
    return _estimate(values, "median")


def _estimate(values: Iterable[float], statistic: Literal["mean", "median"]) -> Estimate:
    known = np.array([value for value in values if math.isfinite(value)], np.float64)
    if not len(known):
        return Estimate(math.nan, math.nan, math.nan, 0)
    found: Interval = getattr(describe(known), statistic)
    if len(known) < 2:
        return Estimate(found.value, math.nan, math.nan, len(known))
    return Estimate(found.value, found.low, found.high, len(known))


@dataclass(frozen=True)
class Results:
    """Records to choose from."""

    records: tuple[SampleRecord, ...]

    def select(self, variant: str | None = None, cues: str | None = None, seed: int | None = None) -> Results:
        """Return the records of a variant, of a choice of cues, of a seed; None for any."""
        return Results(
            tuple(
                record
                for record in self.records
                if (variant is None or record.key.variant == variant)
                and (cues is None or record.key.cues == cues)
                and (seed is None or record.key.seed == seed)
            )
        )

    def where(self, accept: Callable[[SampleRecord], bool]) -> Results:
        """Return the records that are accepted."""
        return Results(tuple(record for record in self.records if accept(record)))

    def names(self, part: str) -> tuple[str, ...]:
        """Return the different values of a part of the key: "variant", "cues", "scene" or "seed", sorted."""
        return tuple(sorted({getattr(record.key, part) for record in self.records}))

    def per_scene(self, metric: str) -> dict[str, float]:
        """Return the mean over seeds of a metric for each scene that has it."""
        found: dict[str, list[float]] = {}
        for record in self.records:
            value = record.value(metric) if record.done else math.nan
            if math.isfinite(value):
                found.setdefault(record.key.scene, []).append(value)
        return {scene: float(np.mean(values)) for scene, values in found.items()}

    def mean(self, metric: str) -> Estimate:
        """Return a metric's mean over scenes."""
        return mean(self.per_scene(metric).values())

    def median(self, metric: str) -> Estimate:
        """Return a metric's median over scenes."""
        return median(self.per_scene(metric).values())

    def calibration(self, error: str) -> Calibration | None:
        """Return how the score of each sample with a result goes with its error, None for too few."""
        done = [record for record in self.records if record.done]
        return calibrate([SampleMetrics.from_json(dict(record.metrics)) for record in done], error)

    def rate(self) -> Estimate:
        """Return the reconstruction rate: the share of inputs with a result, whatever its quality."""
        found: dict[str, list[float]] = {}
        for record in self.records:
            found.setdefault(record.key.scene, []).append(float(record.done))
        return mean(float(np.mean(values)) for values in found.values())

    def against(self, other: Results, metric: str) -> Estimate:
        """Return the mean over scenes of this minus the other's metric, on scenes that both have."""
        own, others = self.per_scene(metric), other.per_scene(metric)
        return mean(own[scene] - others[scene] for scene in sorted(own) if scene in others)

    def share_above(self, other: Results, metric: str) -> float:
        """Return the share of the scenes that both have in which this one's metric is higher, NaN without any."""
        own, others = self.per_scene(metric), other.per_scene(metric)
        higher = [own[scene] > others[scene] for scene in own if scene in others]
        return float(np.mean(higher)) if higher else math.nan
