# SPDX-License-Identifier: Apache-2.0
"""What this project has set itself to reach on its benchmark, and whether it does."""

from __future__ import annotations

import numpy as np

from fmh_ros.benchmark.sheets import Column, Table, Value
from fmh_ros.benchmark.statistics import Results
from fmh_ros.benchmark.tables import CHAMFER, F10, OVERLAP
from fmh_ros.benchmark.types import CUE_PRESETS

RATE, OVERLAP_CM3, RANK, SCALE, F10_LEAST, RATIO = 0.98, 6.0, 0.6, 0.03, 0.7, 2 / 3


def targets_table(results: Results) -> Table | None:
    """Each target with what was measured: embedded cues with depth, and exact cues."""
    rows = [*_embedded(results), *_exact(results)]
    columns = (Column("target"), Column("measured", 3), Column("wanted"), Column("reached"))
    return Table("targets", "Targets", columns, tuple(rows)) if rows else None


def _embedded(results: Results) -> list[tuple[Value, ...]]:
    cues = CUE_PRESETS["embedded"].name
    full = results.select("default", cues)
    if not full.records:
        return []
    calibration = full.calibration(CHAMFER)
    score = float("nan") if calibration is None else calibration.spearman
    rate, overlap = full.rate().value, full.mean(OVERLAP).value
    rows: list[tuple[Value, ...]] = [
        ("embedded cues: reconstruction rate", rate, f"at least {RATE}", _yes(rate >= RATE)),
        ("embedded cues: mean overlap, cm3", overlap, f"at most {OVERLAP_CM3:g}", _yes(overlap <= OVERLAP_CM3)),
        ("embedded cues: rank correlation of score and error", score, f"at least {RANK}", _yes(score >= RANK)),
    ]
    for name, other in (("unguided", "the unguided flow's"), ("two-stage", "the two-stage baseline's")):
        theirs = results.select(name, cues)
        if theirs.records:
            ratio = _ratio(full, theirs)
            rows.append((f"embedded cues: mean CD over {other}", ratio, f"at most {RATIO:.3f}", _yes(ratio <= RATIO)))
    return rows


def _exact(results: Results) -> list[tuple[Value, ...]]:
    full = results.select("default", CUE_PRESETS["true"].name)
    if not full.records:
        return []
    scale, f10 = (full.median(metric).value for metric in ("scale_error", F10))
    return [
        ("exact cues: median scale error of the object", scale, f"at most {SCALE}", _yes(scale <= SCALE)),
        ("exact cues: median F10", f10, f"at least {F10_LEAST}", _yes(f10 >= F10_LEAST)),
    ]


def _ratio(own: Results, other: Results) -> float:
    """Ratio of the mean Chamfer distances on the scenes that both have."""
    a, b = own.per_scene(CHAMFER), other.per_scene(CHAMFER)
    shared = sorted(set(a) & set(b))
    return float(np.mean([a[s] for s in shared]) / np.mean([b[s] for s in shared])) if shared else float("nan")


def _yes(reached: bool) -> str:
    return "yes" if reached else "no"
