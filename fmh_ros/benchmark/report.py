# SPDX-License-Identifier: Apache-2.0
"""``fmh bench tables``: all tables, plots and the page that shows them, from the records of runs."""

from __future__ import annotations

import csv
import hashlib
import io
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from fmh_ros.benchmark import plots, tables
from fmh_ros.benchmark.contact_sheet import contact_sheet
from fmh_ros.benchmark.dataset_tables import dataset_table, datasets_of, literature_table, on_data, read_ones
from fmh_ros.benchmark.results import SYNTHETIC, SampleRecord, read_records
from fmh_ros.benchmark.run import SceneSource
from fmh_ros.benchmark.sheets import Table, document
from fmh_ros.benchmark.statistics import Results
from fmh_ros.benchmark.targets import targets_table
from fmh_ros.benchmark.types import parse_cues
from fmh_ros.core.errors import OutputError, UsageError
from fmh_ros.evaluation.summary import RESAMPLES

PAGE, SHEET = "README.md", "main-contact_sheet.jpg"
DEFINITIONS = "evaluation.md"
#: More reconstructions than these are not drawn on one picture: they are spread evenly over the list.
SHEET_MOST = 240


def write_tables(
    folders: Sequence[Path],
    out: Path,
    cues: str | None = None,
    command: str = "fmh bench tables",
    scenes: SceneSource | None = None,
) -> list[Path]:
    """Write the page, one CSV per table, the plots and all samples; return their paths.

    folders : of results, merged. cues : which choice of cues the ablations are shown for; the one with the most
    variants by default. scenes : draws a contact sheet of those among them that the full method ran on, with these cues
    if it did, in its first seed. Files of other names in ``out`` stay.

    The tables of data sets, of published figures and of failures are of all results; all others are of rendered scenes,
    or of the first data set where there are none. Raises FileMissingError, UsageError, OutputError, and
    ModelMissingError without matplotlib.
    """
    everything = Results(tuple(read_records(folders)))
    results = _shown(everything)
    shown = parse_cues(cues).name if cues else most_run_cues(results)
    if shown not in results.names("cues"):
        raise UsageError(
            f"There are no results for cues {shown}", expected=f"one of {'; '.join(results.names('cues'))}"
        )
    found = [table for table in _tables(results, everything, shown) if table is not None]
    pictures = _pictures(results, shown, found)
    if scenes is not None:
        names = set(scenes.names())
        drawn = everything.select("default", seed=0).where(lambda record: record.key.scene in names)
        if drawn.records:
            sheet = (
                drawn.select(cues=shown) if shown in drawn.names("cues") else drawn.select(cues=most_run_cues(drawn))
            )
            step = -(-len(sheet.records) // SHEET_MOST)
            pictures[SHEET] = contact_sheet(scenes, sheet.records[::step], folders)
    shown_at: dict[str, list[str]] = {}
    for name in pictures:
        shown_at.setdefault(Path(name).stem.partition("-")[0], []).append(name)
    page = document("Results", _header(everything, command, _definitions(out)), found, shown_at)
    files = {PAGE: page.encode(), "samples.csv": samples_csv(everything.records).encode()}
    files |= {f"{table.name}.csv": table.csv().encode() for table in found}
    return _write(out, files | pictures)


def _shown(everything: Results) -> Results:
    """Return what the tables of one data set are of: rendered scenes, else what could be read of the first data set."""
    data = datasets_of(everything)
    if SYNTHETIC in data:
        return on_data(everything, SYNTHETIC)
    chosen = on_data(everything, data[0])
    read = read_ones(chosen)
    return read if read.records else chosen


def most_run_cues(results: Results) -> str:
    """Return the choice of cues that most variants ran with; of equals the one with most results, or the first."""
    counts = Counter(cues for cues, _ in {(r.key.cues, r.key.variant) for r in results.records})
    done = Counter(r.key.cues for r in results.records if r.done)
    return min(counts, key=lambda cues: (-counts[cues], -done[cues], cues))


def scene_set_digest(records: Sequence[SampleRecord]) -> str:
    """Return a digest of the scenes' names and contents."""
    scenes = sorted({(r.key.scene, r.scene_digest) for r in records})
    return hashlib.sha256(repr(scenes).encode()).hexdigest()[:16]


def samples_csv(records: Sequence[SampleRecord]) -> str:
    """Return one line per sample: its key, attributes of the scene, metrics, quality, seconds, failure."""
    attributes, metrics, quality = (
        list(dict.fromkeys(name for record in records for name in getattr(record, part)))
        for part in ("attributes", "metrics", "quality")
    )
    quality = [name for name in quality if name not in metrics]
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["data", "scene", "variant", "cues", "seed", "failure", *attributes, *metrics, *quality, "seconds"])
    for record in records:
        key, code = record.key, "" if record.failure is None else record.failure.code
        row: list[object] = [record.dataset, key.scene, key.variant, key.cues, key.seed, code]
        row += [record.attributes.get(name, "") for name in attributes]
        row += [_digits(record.metrics.get(name)) for name in metrics]
        row += [_digits(record.quality.get(name)) for name in quality]
        writer.writerow([*row, _digits(record.seconds.get("total"))])
    return stream.getvalue()


def _tables(results: Results, everything: Results, cues: str) -> tuple[Table | None, ...]:
    return (
        targets_table(on_data(everything, SYNTHETIC)),
        tables.main_table(results),
        tables.phases_table(results, cues),
        tables.losses_table(results, cues),
        tables.stages_table(results),
        tables.difficulty_table(results, cues),
        tables.budget_table(results, cues),
        tables.seeds_table(results),
        tables.calibration_table(results),
        tables.baselines_table(results, cues),
        dataset_table(everything),
        literature_table(everything),
        tables.failures_table(everything),
    )


def _pictures(results: Results, cues: str, found: Sequence[Table]) -> dict[str, bytes]:
    """Files by name; what stands before a hyphen or the suffix is the table they belong to."""
    made: dict[str, bytes | None] = {
        f"{table.name}.png": plots.differences_plot(table)
        for table in found
        if table.name in ("phases", "losses", "baselines")
    }
    made["difficulty-occlusion.png"] = plots.occlusion_plot(results, cues)
    made["budget.png"] = plots.budget_plot(results, cues)
    for each in results.names("cues"):
        label = tables.cue_label(each).replace("=", "-").replace(",", "_")
        made[f"calibration-{label}.png"] = plots.calibration_plot(results, each)
    return {name: content for name, content in made.items() if content is not None}


def _definitions(out: Path) -> str:
    """Name the page that defines the metrics, with a link where it is above ``out``."""
    for folder in out.resolve().parents:
        if (folder / DEFINITIONS).is_file():
            return f"[{folder.name}/{DEFINITIONS}]({os.path.relpath(folder / DEFINITIONS, out.resolve())})"
    return f"docs/{DEFINITIONS}"


def _header(everything: Results, command: str, definitions: str) -> list[str]:
    records = everything.records
    versions = Counter(record.code for record in records)
    code = ", ".join(f"`{version}` ({count} samples)" for version, count in sorted(versions.items()))
    seeds = ", ".join(str(seed) for seed in everything.names("seed"))
    scenes = [_data_line(on_data(everything, dataset), dataset) for dataset in datasets_of(everything)]
    return [
        "This page and everything beside it is written by one command; nothing in it is typed in by hand:",
        "",
        f"```\n{command}\n```",
        "",
        "| | |\n|---|---|",
        f"| code | {code} |",
        *scenes,
        f"| samples | {len(records)}, of which {sum(not r.done for r in records)} failed |",
        f"| seeds | {seeds} |",
        f"| intervals | 95 %, percentile bootstrap over scenes, {RESAMPLES} draws; seeds of a scene are averaged "
        "first |",
        "",
        f"Definitions of the metrics: {definitions}. Every sample is in "
        "[samples.csv](samples.csv); each table is beside this page as CSV.",
    ]


def _data_line(results: Results, dataset: str) -> str:
    splits = sorted({record.split for record in results.records if record.split})
    what = "scenes" if dataset == SYNTHETIC else f"images of {dataset}"
    count, digest = len(results.names("scene")), scene_set_digest(results.records)
    return f"| {what} | {count} of split {', '.join(splits) or '(none was read)'}, digest `{digest}` |"


def _digits(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"


def _write(out: Path, files: dict[str, bytes]) -> list[Path]:
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            (out / name).write_bytes(content)
    except OSError as error:
        raise OutputError.unwritable(f"the folder {out}", error, "Choose another --out") from error
    return [out / name for name in files]
