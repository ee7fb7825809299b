# SPDX-License-Identifier: Apache-2.0
"""Means with confidence intervals, and what is selected from many records to compute them.

A scene counts once, however many seeds it was run with: its seeds are averaged first, and scenes are what the bootstrap
draws. So an interval says how much a figure would change with other scenes of the same kind.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from fmh_ros.benchmark.results import SampleRecord

FloatArray = NDArray[np.float64]
#: A mean, median or the like: of an array, or of its rows with ``axis=1``.
Statistic = Callable[..., Any]
#: Quantiles that bound every interval (95 %), how many times the scenes are drawn, and with which seed.
TAILS = (0.025, 0.975)
RESAMPLES = 4000
SEED = 0


@dataclass(frozen=True)
class Estimate:
    """A statistic of ``count`` scenes with its 95 % interval, NaN where fewer than two scenes leave none."""

    value: float
    low: float
    high: float
    count: int


def estimate(values: Iterable[float], statistic: Statistic = np.mean) -> Estimate:
    """Return a statistic of one value per scene with its percentile bootstrap interval; NaN values are left out."""
    known = np.array([value for value in values if math.isfinite(value)], np.float64)
    if not len(known):
        return Estimate(math.nan, math.nan, math.nan, 0)
    value = float(statistic(known))
    if len(known) < 2:
        return Estimate(value, math.nan, math.nan, len(known))
    drawn = np.random.default_rng(SEED).choice(known, (RESAMPLES, len(known)))
    low, high = np.quantile(statistic(drawn, axis=1), TAILS)
    return Estimate(value, float(low), float(high), len(known))


def rank_correlation(a: Iterable[float], b: Iterable[float]) -> Estimate:
    """Return Spearman's correlation of pairs with its bootstrap interval; pairs with a NaN are left out."""
    pairs = np.array([(x, y) for x, y in zip(a, b, strict=True) if math.isfinite(x) and math.isfinite(y)])
    if len(pairs) < 3:
        return Estimate(math.nan, math.nan, math.nan, len(pairs))
    rng = np.random.default_rng(SEED)
    value = _spearman(pairs)
    drawn = [_spearman(pairs[rng.integers(len(pairs), size=len(pairs))]) for _ in range(RESAMPLES // 4)]
    low, high = np.nanquantile(drawn, TAILS)
    return Estimate(value, float(low), float(high), len(pairs))


def _spearman(pairs: FloatArray) -> float:
    a, b = (stats.rankdata(pairs[:, k]) for k in (0, 1))
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return math.nan
    return float(np.corrcoef(a, b)[0, 1])


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

    def estimate(self, metric: str, statistic: Statistic = np.mean) -> Estimate:
        """Return a metric's statistic over scenes."""
        return estimate(self.per_scene(metric).values(), statistic)

    def rate(self) -> Estimate:
        """Return the reconstruction rate: the share of inputs with a result, whatever its quality."""
        found: dict[str, list[float]] = {}
        for record in self.records:
            found.setdefault(record.key.scene, []).append(float(record.done))
        return estimate(float(np.mean(values)) for values in found.values())

    def against(self, other: Results, metric: str) -> Estimate:
        """Return the mean over scenes of this minus the other's metric, on scenes that both have."""
        own, others = self.per_scene(metric), other.per_scene(metric)
        return estimate(own[scene] - others[scene] for scene in sorted(own) if scene in others)
