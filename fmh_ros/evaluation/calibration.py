# SPDX-License-Identifier: Apache-2.0
"""Whether a higher score means a lower error."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import spearmanr

from fmh_ros.evaluation.sample import SampleMetrics
from fmh_ros.evaluation.types import FloatArray

#: Fewer scored samples than this say nothing.
FEWEST = 5
#: Rows of the reliability table, each with as many samples.
BINS = 5
#: A result is good when its hand-aligned F-score at 10 mm is at least this.
GOOD_F10 = 0.7
#: Bootstrap of the correlation's interval.
RESAMPLES = 1_000


@dataclass(frozen=True)
class ReliabilityBin:
    """The samples with scores from ``score_low`` to ``score_high``: how many, and what they turned out to be."""

    score_low: float
    score_high: float
    score_mean: float
    count: int
    error_mean: float
    error_median: float
    good: float


@dataclass(frozen=True)
class Calibration:
    """error : name of the metric. spearman : rank correlation of the score with the negated error: 1 when the score
    orders all samples rightly, 0 when it says nothing; low, high : 95 % bootstrap interval. bins : the reliability
    table, from the lowest scores to the highest; good : share of results with an F-score at 10 mm of 0.7."""

    error: str
    count: int
    spearman: float
    low: float
    high: float
    bins: tuple[ReliabilityBin, ...]


def calibrate(
    samples: Sequence[SampleMetrics], error: str = "chamfer_cm2", *, bins: int = BINS, seed: int = 0
) -> Calibration | None:
    """Compare the scores with an error of SampleMetrics; None with fewer than five scored samples or equal scores."""
    rows = [(s.score, getattr(s, error), s.f10) for s in samples if s.score is not None]
    known = np.array([row for row in rows if None not in row], np.float64).reshape(-1, 3)
    if len(known) < FEWEST or not (np.ptp(known[:, :2], axis=0) > 0).all():
        return None
    scores, errors, f10 = known.T
    rng = np.random.default_rng(seed)
    drawn = [_rank_correlation(known[rng.integers(0, len(known), len(known)), :2]) for _ in range(RESAMPLES)]
    low, high = np.nanquantile(drawn, [0.025, 0.975])
    order = np.argsort(scores, kind="stable")
    table = tuple(
        _bin(scores[chosen], errors[chosen], f10[chosen]) for chosen in np.array_split(order, min(bins, len(order)))
    )
    return Calibration(error, len(known), _rank_correlation(known[:, :2]), float(low), float(high), table)


def _rank_correlation(rows: FloatArray) -> float:
    if not (np.ptp(rows, axis=0) > 0).all():
        return float("nan")
    return float(spearmanr(rows[:, 0], -rows[:, 1]).statistic)


def _bin(scores: FloatArray, errors: FloatArray, f10: FloatArray) -> ReliabilityBin:
    return ReliabilityBin(
        float(scores.min()),
        float(scores.max()),
        float(scores.mean()),
        len(scores),
        float(errors.mean()),
        float(np.median(errors)),
        float((f10 >= GOOD_F10).mean()),
    )
