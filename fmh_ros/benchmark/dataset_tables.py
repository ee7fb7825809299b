# SPDX-License-Identifier: Apache-2.0
"""Results on data sets of photographs, and beside published figures."""

from __future__ import annotations

from fmh_ros.benchmark import literature
from fmh_ros.benchmark.results import SYNTHETIC
from fmh_ros.benchmark.sheets import Column, Table, Value
from fmh_ros.benchmark.statistics import Results
from fmh_ros.benchmark.tables import CHAMFER, F5, F10, INTERVALS, OVERLAP, cue_label, label

FULL = ("default", "paper")


def datasets_of(results: Results) -> tuple[str, ...]:
    """Return the data that there are results on, in the order of the published rows, rendered scenes last."""
    found = {record.dataset for record in results.records}
    known = [name for name in literature.DATASET_NAMES if name in found]
    return (*known, *sorted(found - set(known) - {SYNTHETIC}), *((SYNTHETIC,) if SYNTHETIC in found else ()))


def on_data(results: Results, dataset: str) -> Results:
    """Return the records of one data set."""
    return results.where(lambda record: record.dataset == dataset)


def read_ones(results: Results) -> Results:
    """Return the records of samples that were there: without those whose files or annotations could not be read."""
    return results.where(lambda record: record.done or bool(record.attributes))


def dataset_table(results: Results) -> Table | None:
    """Every data set of photographs with each choice of cues and each variant."""
    rows: list[tuple[Value, ...]] = []
    for dataset in datasets_of(results):
        own = on_data(results, dataset)
        for cues in own.names("cues") if dataset != SYNTHETIC else ():
            for name in own.select(cues=cues).names("variant"):
                every = own.select(name, cues)
                chosen = read_ones(every)
                rows.append(
                    (
                        _name(dataset),
                        cue_label(cues),
                        label(name),
                        len(every.names("scene")),
                        len(every.names("scene")) - len(chosen.names("scene")),
                        chosen.rate().value,
                        chosen.mean(CHAMFER),
                        chosen.median(CHAMFER).value,
                        chosen.mean(F5).value,
                        chosen.mean(F10),
                        chosen.mean(OVERLAP),
                        chosen.mean("pa_mpjpe_mm").value,
                        chosen.median("seconds").value,
                    )
                )
    columns = (
        *(Column("data set"), Column("cues"), Column("variant"), Column("images"), Column("not read")),
        *(Column("R.R."), Column("CD mean, cm2"), Column("CD median, cm2"), Column("F5", 3), Column("F10", 3)),
        *(Column("overlap, cm3"), Column("PA-MPJPE, mm", 1), Column("time median, s", 1)),
    )
    note = (
        "Not read: images whose files or annotations are not there or not usable (table of failures); R.R. is of the "
        "others. Accuracy is of successes only. " + INTERVALS
    )
    return Table("datasets", "Photographs of the paper's data sets", columns, tuple(rows), note) if rows else None


def literature_table(results: Results) -> Table:
    """Published rows, and ours on the same data below those of each data set; rendered scenes last."""
    rows: list[tuple[Value, ...]] = []
    shown = datasets_of(results)
    for dataset, published in literature.DATASET_NAMES.items():
        rows += [
            (row.method, f"{row.dataset} (as printed by Follow My Hold)", *row[2:])
            for row in literature.TABLE_1
            if row.dataset == published
        ]
        if dataset in shown:
            rows += _own(on_data(results, dataset), published, "images")
    for dataset in shown:
        if dataset not in literature.DATASET_NAMES:
            rows += _own(on_data(results, dataset), dataset, "scenes")
    columns = (
        *(Column("method"), Column("data"), Column("F5", 3), Column("F10", 3)),
        *(Column("CD, cm2"), Column("I.V., cm3"), Column("R.R.")),
    )
    notes = [literature.PROTOCOL] if SYNTHETIC in shown or not shown else []
    notes += [literature.DATASET_PROTOCOL] if any(name != SYNTHETIC for name in shown) else []
    return Table("literature", "Beside published figures", columns, tuple(rows), " ".join(notes))


def _own(results: Results, name: str, what: str) -> list[tuple[Value, ...]]:
    rows: list[tuple[Value, ...]] = []
    for cues in results.names("cues"):
        for variant in FULL:
            chosen = read_ones(results.select(variant, cues))
            if chosen.records:
                data = f"{name}, {cue_label(cues)} cues"
                count = len(chosen.names("scene"))
                if name != SYNTHETIC:
                    data += f", {count} {what if count != 1 else what[:-1]}"
                figures = (chosen.mean(metric).value for metric in (F5, F10, CHAMFER, OVERLAP))
                rows.append((f"this project, {label(variant)}", data, *figures, chosen.rate().value))
    return rows


def _name(dataset: str) -> str:
    return literature.DATASET_NAMES.get(dataset, dataset)
