# SPDX-License-Identifier: Apache-2.0
"""Statistics of a set, and of its scores."""

from __future__ import annotations

import json

import numpy as np
import pytest

from fmh_ros.evaluation.calibration import calibrate
from fmh_ros.evaluation.sample import SampleMetrics
from fmh_ros.evaluation.summary import Failure, paired_difference, summarise, wilson


def sample(name: str, chamfer: float, score: float | None = None, f10: float = 0.5) -> SampleMetrics:
    return SampleMetrics.from_json({"name": name, "chamfer_cm2": chamfer, "score": score, "f10": f10})


def test_failures_lower_the_rate_and_no_metric() -> None:
    made = [sample(str(k), float(k)) for k in range(1, 10)]
    summary = summarise(made, [Failure("x", 20, "no hand")])
    assert (summary.attempted, summary.succeeded) == (10, 9)
    assert summary.reconstruction_rate.value == 0.9
    metric = summary.metrics["chamfer_cm2"]
    assert metric.count == 9 and metric.mean.value == 5 and metric.median.value == 5
    assert metric.mean.low < 5 < metric.mean.high
    assert "mpjpe_mm" not in summary.metrics and summary.calibration is None
    written = json.loads(json.dumps(summary.to_json(), allow_nan=False))
    assert written["failures"] == [{"name": "x", "code": 20, "message": "no hand"}]
    assert written["metrics"]["chamfer_cm2"]["mean"]["value"] == 5


def test_the_interval_of_a_mean_is_that_of_normal_theory_where_it_holds_and_is_repeatable() -> None:
    values = np.random.default_rng(0).normal(3, 1, 400)
    made = [sample(str(k), float(v)) for k, v in enumerate(values)]
    mean = summarise(made).metrics["chamfer_cm2"].mean
    half = 1.96 * values.std() / np.sqrt(len(values))
    assert (mean.high - mean.low) / 2 == pytest.approx(half, rel=0.08)
    assert summarise(made) == summarise(made) and summarise(made, seed=1) != summarise(made)


def test_the_interval_of_a_rate_is_wilsons() -> None:
    # Newcombe 1998, table I: 81 of 263, Wilson's score interval.
    found = wilson(81, 263)
    assert (round(found.low, 4), round(found.high, 4)) == (0.2553, 0.3662)
    assert wilson(0, 20).low == 0 and wilson(20, 20).high == 1 and np.isnan(wilson(0, 0).value)


def test_pairs_are_compared_by_name() -> None:
    rng = np.random.default_rng(0)
    hard = rng.uniform(1, 20, 60)
    a = [sample(str(k), float(v)) for k, v in enumerate(hard)]
    b = [sample(str(k), float(v - 0.5 + rng.normal(0, 0.1))) for k, v in enumerate(hard)][::-1]
    found = paired_difference(a, [*b, sample("other", 1000.0)], "chamfer_cm2")
    assert found is not None and found.count == 60
    assert found.mean.value == pytest.approx(-0.5, abs=0.05) and found.mean.high < -0.4
    assert found.lower == 1
    assert paired_difference(a, [sample("other", 1.0)], "chamfer_cm2") is None


def ranks(values: list[float]) -> list[float]:
    """Mean ranks of ties, the slow way."""
    return [sum(w < v for w in values) + (sum(w == v for w in values) - 1) / 2 for v in values]


def test_the_rank_correlation_agrees_with_its_definition() -> None:
    rng = np.random.default_rng(1)
    scores = rng.integers(0, 12, 40) / 12
    errors = 3 - 2 * scores + rng.normal(0, 0.7, 40)
    found = calibrate([sample(str(k), float(e), float(s)) for k, (s, e) in enumerate(zip(scores, errors, strict=True))])
    expected = np.corrcoef(ranks(scores.tolist()), ranks((-errors).tolist()))[0, 1]
    assert found is not None and found.spearman == pytest.approx(expected)
    assert found.low < expected < found.high


def test_a_score_that_orders_all_rightly_has_one_and_its_table_rises() -> None:
    scores = np.linspace(0.05, 0.95, 50)
    made = [sample(str(k), float(5 / s), float(s), float(s)) for k, s in enumerate(scores)]
    found = calibrate(made[::-1])
    assert found is not None and found.spearman == pytest.approx(1)
    assert [row.count for row in found.bins] == [10] * 5
    assert [row.error_mean for row in found.bins] == sorted((row.error_mean for row in found.bins), reverse=True)
    assert found.bins[0].good == 0 and found.bins[-1].good == 1
    assert found.bins[0].score_low == pytest.approx(0.05) and found.bins[-1].score_high == pytest.approx(0.95)
    wrong = calibrate([sample(str(k), float(s), float(s)) for k, s in enumerate(scores)])
    assert wrong is not None and wrong.spearman == pytest.approx(-1)


def test_a_constant_score_or_too_few_say_nothing() -> None:
    assert calibrate([sample(str(k), float(k), 0.5) for k in range(20)]) is None
    assert calibrate([sample(str(k), float(k), k / 5) for k in range(4)]) is None
    assert calibrate([sample(str(k), float(k)) for k in range(20)]) is None
