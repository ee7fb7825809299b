# SPDX-License-Identifier: Apache-2.0
"""The tables of the results page, each a function of the records; None where nothing was run for it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from fmh_ros.benchmark import literature
from fmh_ros.benchmark.results import SYNTHETIC, SampleRecord
from fmh_ros.benchmark.sheets import Column, Table, Value
from fmh_ros.benchmark.statistics import Estimate, Results, mean
from fmh_ros.benchmark.types import CUE_PRESETS
from fmh_ros.benchmark.variants import BASELINES, BUDGETS, LOSSES, PHASES, variant
from fmh_ros.evaluation.calibration import BINS, GOOD_F10

CHAMFER, OVERLAP, F5, F10 = "chamfer_cm2", "intersection_voxel_cm3", "f5", "f10"
#: Mean distance of the hand's joints as they stand in the camera frame.
JOINTS = "mpjpe_camera_mm"
#: Upper ends of the bins of occlusion.
OCCLUSIONS = (0.2, 0.35, 0.5, 1.0)

PAIRED = (
    "Differences are paired by scene, to the full method on the same scenes and cues; CD higher in: this share of "
    "these scenes. "
)
INTERVALS = "Brackets hold 95 % bootstrap intervals over scenes."


def label(name: str) -> str:
    """Return how a variant is called in tables."""
    return variant(name).label


def cue_label(name: str) -> str:
    """Return the short name of a choice of cues, its own where it has none."""
    return next((short for short, choice in CUE_PRESETS.items() if choice.name == name), name)


def main_table(results: Results) -> Table | None:
    """Every choice of cues with the full method, the paper's preset and no guidance."""
    rows: list[tuple[Value, ...]] = []
    for cues in results.names("cues"):
        for name in ("default", "paper", "unguided"):
            chosen = results.select(name, cues)
            if not chosen.records:
                continue
            rows.append(
                (
                    cue_label(cues),
                    label(name),
                    len(chosen.names("scene")),
                    chosen.rate().value,
                    chosen.mean(CHAMFER),
                    chosen.median(CHAMFER),
                    chosen.mean(F5).value,
                    chosen.mean(F10),
                    chosen.mean(OVERLAP),
                    chosen.median("scale_error").value,
                    chosen.mean(JOINTS).value,
                    chosen.mean("pa_mpjpe_mm").value,
                    chosen.median("seconds").value,
                )
            )
    columns = (
        Column("cues"),
        Column("variant"),
        Column("scenes"),
        Column("R.R."),
        Column("CD mean, cm2"),
        Column("CD median, cm2"),
        Column("F5", 3),
        Column("F10", 3),
        Column("overlap, cm3"),
        Column("scale error median", 3),
        Column("MPJPE, mm", 1),
        Column("PA-MPJPE, mm", 1),
        Column("time median, s", 1),
    )
    note = (
        "R.R.: share of inputs with a result. CD: Chamfer distance with hands aligned. Accuracy is of successes only. "
    )
    return Table("main", "Accuracy", columns, tuple(rows), note + INTERVALS) if rows else None


def _compared(
    results: Results,
    cues: str,
    names: Sequence[str],
    published: Mapping[str, literature.Ablated] | None = None,
    more: Mapping[str, str] | None = None,
) -> tuple[tuple[Column, ...], tuple[tuple[Value, ...], ...]] | None:
    """Rows of variants with their paired differences to the full method; ``more``: further metrics, name by title."""
    full = results.select("default", cues)
    present = [name for name in names if results.select(name, cues).records]
    if not full.records or not present:
        return None
    rows: list[tuple[Value, ...]] = []
    for name in ("default", *present):
        chosen = results.select(name, cues)
        differs = name != "default"
        row: list[Value] = [label(name), len(chosen.names("scene")), chosen.rate().value, chosen.mean(CHAMFER)]
        row += [chosen.against(full, CHAMFER) if differs else None]
        row += [chosen.share_above(full, CHAMFER) if differs else None, chosen.median(CHAMFER).value]
        row += [chosen.mean(F10).value, chosen.against(full, F10) if differs else None]
        row += [chosen.mean(OVERLAP).value, chosen.against(full, OVERLAP) if differs else None]
        row += [chosen.median(metric).value for metric in (more or {}).values()]
        if published is not None:
            told = published.get(name, literature.PHASES["default"] if name == "default" else None)
            row += [told.chamfer, told.intersection, told.rate] if told else [None, None, None]
        rows.append(tuple(row))
    columns = [Column("variant"), Column("scenes"), Column("R.R."), Column("CD mean, cm2", best="low")]
    columns += [
        Column("CD difference"),
        Column("CD higher in"),
        Column("CD median, cm2"),
        Column("F10", 3),
        Column("F10 difference", 3),
    ]
    columns += [Column("overlap, cm3"), Column("overlap difference")]
    columns += [Column(title, 1) for title in more or {}]
    if published is not None:
        columns += [Column("paper: CD, cm2"), Column("paper: I.V., cm3"), Column("paper: R.R.")]
    return tuple(columns), tuple(rows)


def phases_table(results: Results, cues: str) -> Table | None:
    """The paper's Table 2: the method without its parts."""
    found = _compared(results, cues, PHASES, literature.PHASES)
    note = f"Cues: {cue_label(cues)}. {PAIRED}{INTERVALS} {_protocol(results)}"
    return Table("phases", "What each phase is worth", *found, note) if found else None


def losses_table(results: Results, cues: str) -> Table | None:
    """The paper's Table 3: the method without each loss term."""
    found = _compared(results, cues, LOSSES, literature.LOSSES)
    note = f"Cues: {cue_label(cues)}. {PAIRED}{INTERVALS} {_protocol(results)}"
    return Table("losses", "What each loss term is worth", *found, note) if found else None


def _protocol(results: Results) -> str:
    """Why the paper's figures and these cannot be compared number by number."""
    rendered = all(record.dataset == SYNTHETIC for record in results.records)
    return literature.PROTOCOL if rendered else literature.DATASET_PROTOCOL


def baselines_table(results: Results, cues: str) -> Table | None:
    """Other ways to get a result."""
    found = _compared(results, cues, BASELINES)
    note = (
        f"Cues: {cue_label(cues)}. {PAIRED}{INTERVALS} "
        "All have the same cues, hand fit and generator. ICP: the finished unguided shape is registered to the "
        "visible points, pose and scale. Poses only: in EasyHOI's manner the shape is "
        "generated first, then the same losses move hand and object for as many iterations."
    )
    return Table("baselines", "Baselines", *found, note) if found else None


def budget_table(results: Results, cues: str) -> Table | None:
    """Accuracy against time."""
    found = _compared(results, cues, ("unguided", *BUDGETS), None, {"time median, s": "seconds"})
    note = f"Cues: {cue_label(cues)}. {PAIRED}{INTERVALS} Best of K: the sample with the best score is kept."
    return Table("budget", "Accuracy against time", *found, note) if found else None


def stages_table(results: Results) -> Table | None:
    """The full method from cues that are exact but for one stage."""
    full = results.select("default")
    exact = CUE_PRESETS["true"].name
    base = full.select(cues=exact)
    others = [cues for cues in full.names("cues") if cues != exact]
    if not base.records or not others:
        return None
    rows: list[tuple[Value, ...]] = []
    for cues in (exact, *sorted(others, key=lambda c: (_changed(c, exact).count(","), c))):
        chosen = full.select(cues=cues)
        paired = (None, None, None)
        if cues != exact:
            paired = tuple(chosen.against(base, metric) for metric in (CHAMFER, F10, JOINTS))  # type: ignore[assignment]
        rows.append(
            (
                _changed(cues, exact) or "all exact",
                len(chosen.names("scene")),
                chosen.rate().value,
                *(chosen.mean(metric).value for metric in (CHAMFER, F10, JOINTS)),
                *paired,
                chosen.mean("cue_object_mask_iou").value,
                chosen.mean("cue_landmark_error").value,
            )
        )
    columns = (
        *(Column("differs from exact cues in"), Column("scenes"), Column("R.R.")),
        *(Column("CD mean, cm2"), Column("F10", 3), Column("MPJPE, mm", 1)),
        *(Column("CD difference"), Column("F10 difference", 3), Column("MPJPE difference", 1)),
        *(Column("object mask IoU", 3), Column("landmark error, share of hand", 3)),
    )
    note = "Full method. Differences are to exact cues, paired by scene. " + INTERVALS
    return Table("stages", "Where accuracy is lost", columns, tuple(rows), note)


def _changed(cues: str, exact: str) -> str:
    return ", ".join(part for part in cues.split(",") if part not in exact.split(","))


def difficulty_table(results: Results, cues: str) -> Table | None:
    """Accuracy by what makes a scene hard."""
    full, free = results.select("default", cues), results.select("unguided", cues)
    if not full.records:
        return None
    groups = _groups(full.records)
    rows: list[tuple[Value, ...]] = []
    for name, scenes in groups.items():
        own, plain = (r.where(lambda record, s=scenes: record.key.scene in s) for r in (full, free))  # type: ignore[misc]
        rows.append(
            (
                name,
                len(scenes),
                own.rate().value,
                own.mean(CHAMFER),
                own.median(CHAMFER).value,
                own.mean(F10).value,
                plain.mean(CHAMFER).value if plain.records else None,
                own.against(plain, CHAMFER) if plain.records else None,
            )
        )
    columns = (
        *(Column("scenes with"), Column("scenes"), Column("R.R."), Column("CD mean, cm2")),
        *(Column("CD median, cm2"), Column("F10", 3)),
        *(Column("unguided: CD mean, cm2"), Column("CD, full minus unguided")),
    )
    note = f"Cues: {cue_label(cues)}. Hidden: share of the object's outline behind hand and forearm. {INTERVALS}"
    return Table("difficulty", "Accuracy against occlusion, size and shape", columns, tuple(rows), note)


def occlusion_bins(records: Sequence[SampleRecord]) -> dict[str, set[str]]:
    """Return the scenes of each bin of occlusion."""
    found: dict[str, set[str]] = {}
    low = 0.0
    for high in OCCLUSIONS:
        name = f"{100 * low:.0f} to {100 * high:.0f} % hidden" if high < 1 else f"more than {100 * low:.0f} % hidden"
        found[name] = {
            r.key.scene for r in records if low <= float(r.attributes.get("occlusion", -1)) < (high + (high == 1.0))
        }
        low = high
    return {name: scenes for name, scenes in found.items() if scenes}


def _groups(records: Sequence[SampleRecord]) -> dict[str, set[str]]:
    groups = occlusion_bins(records)
    for record in records:
        attributes = record.attributes
        names = [f"{attributes.get('size_class')} object", f"{attributes.get('side')} hand"]
        names += ["thin object"] if attributes.get("thin") else []
        names += [f"symmetry: {attributes.get('symmetry')}"]
        for name in names:
            if "None" not in name:
                groups.setdefault(name, set()).add(record.key.scene)
    ordered = sorted(set(groups) - set(occlusion_bins(records)))
    return {name: groups[name] for name in (*occlusion_bins(records), *ordered)}


def seeds_table(results: Results) -> Table | None:
    """How far the seed of the flow's noise changes a result."""
    rows: list[tuple[Value, ...]] = []
    for cues in results.names("cues"):
        for name in results.names("variant"):
            chosen = results.select(name, cues)
            seeds = chosen.names("seed")
            if len(seeds) < 2:
                continue
            means = [chosen.select(seed=int(seed)).mean(CHAMFER).value for seed in seeds]
            rows.append(
                (
                    cue_label(cues),
                    label(name),
                    len(seeds),
                    *(float(f(means)) for f in (np.mean, np.min, np.max)),
                    _spread(chosen, CHAMFER),
                    _spread(chosen, F10),
                    float(np.std(list(chosen.per_scene(CHAMFER).values()), ddof=1)),
                )
            )
    columns = (
        *(Column("cues"), Column("variant"), Column("seeds"), Column("CD mean, cm2")),
        *(Column("of the best seed"), Column("of the worst seed"), Column("CD deviation within a scene")),
        *(Column("F10 deviation within a scene", 3), Column("CD deviation between scenes")),
    )
    note = "Deviation within a scene: standard deviation over seeds, mean over scenes. " + INTERVALS
    return Table("seeds", "Spread over seeds", columns, tuple(rows), note) if rows else None


def _spread(results: Results, metric: str) -> Estimate:
    found: dict[str, list[float]] = {}
    for record in results.records:
        if record.done and math.isfinite(record.value(metric)):
            found.setdefault(record.key.scene, []).append(record.value(metric))
    return mean(float(np.std(values, ddof=1)) for values in found.values() if len(values) > 1)


def calibration_table(results: Results) -> Table | None:
    """Whether a higher score means a lower error."""
    rows: list[tuple[Value, ...]] = []
    for cues in results.names("cues"):
        for name in ("default", "unguided"):
            found = results.select(name, cues).calibration(CHAMFER)
            if found is not None:
                correlation = Estimate(found.spearman, found.low, found.high, found.count)
                row = (cue_label(cues), label(name), found.count, correlation)
                rows.append((*row, *(each.error_median for each in found.bins), *(each.good for each in found.bins)))
    parts = ("lowest", *(("second", "third", "fourth")[k] for k in range(BINS - 2)), "highest")
    columns = (
        *(Column("cues"), Column("variant"), Column("samples"), Column("rank correlation")),
        *(Column(f"CD median, {part} fifth of scores") for part in parts),
        *(Column(f"good, {part} fifth") for part in parts),
    )
    note = (
        "Spearman's correlation of score and negative Chamfer distance over samples: 1 is a perfect order. Good: share "
        f"with an F-score at 10 mm of at least {GOOD_F10}."
    )
    return Table("calibration", "What the score is worth", columns, tuple(rows), note) if rows else None


def failures_table(results: Results) -> Table | None:
    """What failed, by error."""
    found = Counter(
        (cue_label(r.key.cues), r.key.variant, r.failure.kind, r.failure.code)
        for r in results.records
        if r.failure is not None
    )
    rows = tuple((*key, count) for key, count in sorted(found.items()))
    columns = (Column("cues"), Column("variant"), Column("error"), Column("code"), Column("samples"))
    return Table("failures", "Failures", columns, rows) if rows else None
