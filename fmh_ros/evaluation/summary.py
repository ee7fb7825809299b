# SPDX-License-Identifier: Apache-2.0
"""Metrics of many samples: means and medians with confidence intervals, and how many samples there is no result for.

Metrics are over the samples that have a result, as the paper's are; those that have none lower the reconstruction rate
only, so a table of metrics says little without it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from fmh_ros.evaluation.calibration import Calibration, calibrate
from fmh_ros.evaluation.sample import SampleMetrics, finite, metric_names
from fmh_ros.evaluation.types import FloatArray

#: Bootstrap: samples drawn with replacement, how often, with which seed, and the share between the bounds.
RESAMPLES, SEED, CONFIDENCE = 2_000, 0, 0.95


@dataclass(frozen=True)
class Failure:
    """A sample without a result. code : of the typed error (an exit code of ``fmh``); message : what it said."""

    name: str
    code: int
    message: str


@dataclass(frozen=True)
class Interval:
    """A value and the bounds that it is in with CONFIDENCE."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class MetricSummary:
    """count : samples that have this metric; mean and median with percentile bootstrap intervals over them."""

    count: int
    mean: Interval
    median: Interval


@dataclass(frozen=True)
class Summary:
    """attempted : samples that there is a truth for; succeeded : those with a result. reconstruction_rate : their
    share, with Wilson's interval. metrics : by name of SampleMetrics, over the succeeded ones. calibration : of the
    score, None when there are too few scores."""

    attempted: int
    succeeded: int
    reconstruction_rate: Interval
    metrics: dict[str, MetricSummary]
    failures: tuple[Failure, ...]
    calibration: Calibration | None

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)


@dataclass(frozen=True)
class PairedDifference:
    """Of a metric, b minus a, over the ``count`` samples that both have. mean : with its bootstrap interval; lower :
    share of the samples in which b is lower."""

    count: int
    mean: Interval
    lower: float


def summarise(samples: Sequence[SampleMetrics], failures: Sequence[Failure] = (), seed: int = SEED) -> Summary:
    """Return the statistics of a set: results that were measured, and what failed."""
    attempted = len(samples) + len(failures)
    metrics = {}
    for name in metric_names():
        values = finite([getattr(sample, name) for sample in samples])
        if len(values):
            metrics[name] = describe(values, seed)
    return Summary(
        attempted,
        len(samples),
        wilson(len(samples), attempted),
        metrics,
        tuple(failures),
        calibrate(samples, seed=seed),
    )


def paired_difference(
    a: Sequence[SampleMetrics], b: Sequence[SampleMetrics], metric: str, seed: int = SEED
) -> PairedDifference | None:
    """Compare two systems on the samples, by name, that both have the metric for; None when there is none.

    Its interval is narrower than the intervals of the two means suggest, since hard samples are hard for both.
    """
    first = {sample.name: getattr(sample, metric) for sample in a}
    second = {sample.name: getattr(sample, metric) for sample in b}
    pairs = [(first[name], second[name]) for name in first if name in second]
    known = np.array([pair for pair in pairs if None not in pair], np.float64).reshape(-1, 2)
    if not len(known):
        return None
    difference = known[:, 1] - known[:, 0]
    return PairedDifference(len(known), describe(difference, seed).mean, float((difference < 0).mean()))


def wilson(successes: int, attempts: int) -> Interval:
    """Return a share with Wilson's score interval of 95 %, which holds near 0 and 1 too; NaN of no attempt."""
    if not attempts:
        return Interval(float("nan"), float("nan"), float("nan"))
    z = 1.959964
    share = successes / attempts
    middle = (share + z**2 / (2 * attempts)) / (1 + z**2 / attempts)
    half = z / (1 + z**2 / attempts) * np.sqrt(share * (1 - share) / attempts + z**2 / (4 * attempts**2))
    return Interval(share, max(0.0, float(middle - half)), min(1.0, float(middle + half)))


def describe(values: FloatArray, seed: int = SEED) -> MetricSummary:
    """Return mean and median of values (N,), one or more, with their percentile bootstrap intervals."""
    drawn = values[np.random.default_rng(seed).integers(0, len(values), (RESAMPLES, len(values)))]
    bounds = [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]
    mean, median = (
        Interval(float(value), *(float(bound) for bound in np.quantile(resampled, bounds)))
        for value, resampled in (
            (values.mean(), drawn.mean(1)),
            (np.median(values), np.median(drawn, axis=1)),
        )
    )
    return MetricSummary(len(values), mean, median)
