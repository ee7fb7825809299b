# SPDX-License-Identifier: Apache-2.0
"""Tables of chosen records have exactly the figures that follow from them, and their intervals cover."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from benchmark_records import EMBEDDED, TRUE, record, write_scenes
from PIL import Image
from synthetic_result import synthetic_reconstruction

from fmh_ros.benchmark import tables
from fmh_ros.benchmark.contact_sheet import ACROSS, CAPTION, GAP, PANEL, PANELS, contact_sheet
from fmh_ros.benchmark.report import PAGE, most_run_cues, scene_set_digest, write_tables
from fmh_ros.benchmark.results import RECORD_FILE, SampleRecord, read_record, read_records, store
from fmh_ros.benchmark.sheets import Column, Table
from fmh_ros.benchmark.sources import FolderScenes
from fmh_ros.benchmark.statistics import Estimate, Results, mean
from fmh_ros.benchmark.targets import targets_table
from fmh_ros.core.errors import FileMissingError, UsageError
from fmh_ros.core.export.meshes import glb_files


def column(table: Table | None, title: str) -> dict[str, object]:
    """A column by the text of each row's first cell."""
    assert table is not None
    index = [c.title for c in table.columns].index(title)
    return {str(row[0]): row[index] for row in table.rows}


def value(cell: object) -> float:
    found = cell.value if isinstance(cell, Estimate) else cell
    assert isinstance(found, (int, float))
    return float(found)


def test_differences_are_paired_by_scene_and_seeds_averaged_first() -> None:
    records = [record(f"s{k}", 1.0 + k) for k in range(4)]
    # Scene 0 has two seeds, whose mean is 3; scene 3 failed; scene 9 is none of the full method's.
    records += [record("s0", 2.0, "swapped"), record("s0", 4.0, "swapped", seed=1), record("s1", 3.0, "swapped")]
    records += [record("s2", 5.0, "swapped"), record("s3", None, "swapped"), record("s9", 100.0, "swapped")]
    table = tables.phases_table(Results(tuple(records)), TRUE)
    assert table is not None
    swapped = column(table, "CD difference")["phases 1 and 2 swapped"]
    assert isinstance(swapped, Estimate)
    assert (swapped.value, swapped.count) == (pytest.approx((2.0 + 1.0 + 2.0) / 3), 3)
    assert swapped.low >= 1.0 and swapped.high <= 2.0
    assert value(column(table, "R.R.")["phases 1 and 2 swapped"]) == pytest.approx(4 / 5)
    assert value(column(table, "CD mean, cm2")["full method"]) == 2.5
    assert column(table, "paper: CD, cm2")["phases 1 and 2 swapped"] == 3.18
    assert column(table, "CD difference")["full method"] is None
    assert column(table, "CD higher in")["phases 1 and 2 swapped"] == 1.0


def test_a_paired_interval_is_narrower_where_scenes_differ_much() -> None:
    rng = np.random.default_rng(0)
    hard = rng.uniform(0, 50, 60)
    records = [record(f"s{k}", 5 + h) for k, h in enumerate(hard)]
    records += [record(f"s{k}", 6 + h + rng.normal(0, 0.1), "unguided") for k, h in enumerate(hard)]
    full, free = (Results(tuple(records)).select(name) for name in ("default", "unguided"))
    paired = free.against(full, "chamfer_cm2")
    assert paired.low < 1.0 < paired.high and paired.high - paired.low < 0.1
    alone = free.mean("chamfer_cm2")
    assert alone.high - alone.low > 5


def test_intervals_cover_the_true_mean_about_as_often_as_they_say() -> None:
    rng = np.random.default_rng(1)
    found = [mean(rng.normal(3.0, 1.0, 40)) for _ in range(200)]
    covered = np.mean([each.low <= 3.0 <= each.high for each in found])
    assert 0.89 <= covered <= 0.99


def test_stages_are_compared_with_exact_cues() -> None:
    one = "hand=true,masks=embedded,depth=exact,camera=true"
    records = [record(f"s{k}", 1.0, cues=TRUE, mpjpe_camera_mm=2.0) for k in range(3)]
    records += [record(f"s{k}", 3.0, cues=one, mpjpe_camera_mm=2.5, cue_object_mask_iou=0.8) for k in range(3)]
    records += [record(f"s{k}", 9.0, cues=EMBEDDED, mpjpe_camera_mm=9.0) for k in range(3)]
    table = tables.stages_table(Results(tuple(records)))
    assert table is not None
    assert [row[0] for row in table.rows] == [
        "all exact",
        "masks=embedded",
        "hand=embedded, masks=embedded, depth=sensor",
    ]
    assert [value(v) for v in list(column(table, "CD difference").values())[1:]] == [2.0, 8.0]
    assert value(column(table, "object mask IoU")["masks=embedded"]) == pytest.approx(0.8)


def test_occlusion_bins_hold_each_scene_once() -> None:
    hidden = [0.0, 0.1, 0.2, 0.34, 0.35, 0.6, 0.99]
    records = [record(f"s{k}", 1.0, occlusion=share) for k, share in enumerate(hidden)]
    bins = tables.occlusion_bins(records)
    assert [len(scenes) for scenes in bins.values()] == [2, 2, 1, 2]
    assert sorted(s for scenes in bins.values() for s in scenes) == sorted(r.key.scene for r in records)


def test_seeds_spread_and_calibration_are_what_was_put_in() -> None:
    records = [record(f"s{k}", 2.0 + k + d, seed=n) for k in range(5) for n, d in enumerate((-1.0, 0.0, 1.0))]
    spread = tables.seeds_table(Results(tuple(records)))
    assert spread is not None
    assert value(spread.rows[0][6]) == pytest.approx(1.0)
    assert [value(v) for v in spread.rows[0][3:6]] == pytest.approx([4.0, 3.0, 5.0])
    ordered = [record(f"s{k}", 10.0 - k, score=0.1 * k, f10=0.1 * k) for k in range(10)]
    table = tables.calibration_table(Results(tuple(ordered)))
    assert table is not None
    assert value(table.rows[0][3]) == pytest.approx(1.0)
    assert [value(v) for v in table.rows[0][4:9]] == pytest.approx([9.5, 7.5, 5.5, 3.5, 1.5])
    reverse = [record(f"s{k}", 10.0 - k, score=1 - 0.1 * k) for k in range(10)]
    table = tables.calibration_table(Results(tuple(reverse)))
    assert table is not None and value(table.rows[0][3]) == pytest.approx(-1.0)


def test_targets_are_reached_or_not_as_the_records_say() -> None:
    good = [record(f"s{k}", 1.0 + 0.1 * k, cues=EMBEDDED, score=1 - 0.05 * k) for k in range(8)]
    good += [record(f"s{k}", 2.0 + 0.2 * k, "unguided", EMBEDDED) for k in range(8)]
    table = targets_table(Results(tuple(good)))
    assert table is not None
    assert [row[3] for row in table.rows] == ["yes"] * 4
    assert value(table.rows[-1][1]) == pytest.approx(0.5)
    bad = [*good, record("s8", None, cues=EMBEDDED)]
    table = targets_table(Results(tuple(bad)))
    assert table is not None
    assert [row[3] for row in table.rows] == ["no", "yes", "yes", "yes"]


def test_a_table_reads_back_from_csv_with_its_intervals_and_bolds_the_best() -> None:
    rows = (("a", Estimate(1.23456789, 1.0, 2.0, 7), None), ("b", 3.5, 4))
    table = Table("t", "Title", (Column("name"), Column("x", 1, "low"), Column("n")), rows)
    read = list(csv.DictReader(io.StringIO(table.csv())))
    assert read[0] == {"name": "a", "x": "1.23456789", "x low": "1", "x high": "2", "x scenes": "7", "n": ""}
    assert read[1]["x"] == "3.5" and read[1]["n"] == "4"
    assert "| a | **1.2 [1.0, 2.0]** | – |" in table.markdown()


def all_records() -> list[SampleRecord]:
    rng = np.random.default_rng(3)
    found = []
    for name in ("default", "unguided", "swapped", "no-normal", "effort-0.5", "samples-2", "icp"):
        for k in range(8):
            error = float(rng.uniform(1, 5))
            found.append(record(f"s{k}", error, name, score=1 / (1 + error), occlusion=0.1 * k, seconds=5.0))
    found += [record(f"s{k}", 4.0, cues=EMBEDDED) for k in range(8)]
    return [*found, record("s0", None, cues=EMBEDDED, seed=1)]


def test_one_call_writes_the_page_its_tables_and_its_plots(tmp_path: Path) -> None:
    records = all_records()
    half = len(records) // 2
    for index, each in enumerate(records):
        store(tmp_path / ("a" if index < half else "b"), each, {})
    folders = [tmp_path / "a", tmp_path / "b"]
    assert read_records(folders) == sorted(records, key=lambda r: (r.key.variant, r.key.cues, r.key.scene, r.key.seed))
    assert most_run_cues(Results(tuple(records))) == TRUE
    written = {path.name for path in write_tables(folders, tmp_path / "out", command="fmh bench tables a b")}
    assert written == {path.name for path in (tmp_path / "out").iterdir()}
    assert {"phases.csv", "losses.png", "budget.png", "calibration-true.png", "samples.csv", "stages.csv"} <= written
    page = (tmp_path / "out" / PAGE).read_text()
    assert "fmh bench tables a b" in page and scene_set_digest(records) in page and "`1.0` (65 samples)" in page
    assert "| embedded | default | NoObjectError | 22 | 1 |" in page
    for name in written:
        assert name == PAGE or name in page or name.endswith(".csv")
        if name.endswith(".png"):
            with Image.open(tmp_path / "out" / name) as picture:
                assert picture.size[0] > 400
    lines = list(csv.DictReader((tmp_path / "out" / "samples.csv").open()))
    assert len(lines) == 65
    assert sum(line["failure"] == "22" for line in lines) == 1
    with pytest.raises(UsageError, match="noisy"):
        write_tables(folders, tmp_path / "out", "noisy")


def test_the_page_links_to_the_definitions_above_it(tmp_path: Path) -> None:
    store(tmp_path / "runs", all_records()[0], {})
    docs = tmp_path / "docs"
    deep = docs / "results" / "more"
    write_tables([tmp_path / "runs"], deep)
    assert "[docs/" not in (deep / PAGE).read_text()
    (docs / "evaluation.md").write_text("what the metrics are")
    write_tables([tmp_path / "runs"], deep)
    link = (deep / PAGE).read_text().partition("[docs/evaluation.md](")[2].partition(")")[0]
    assert (deep / link).resolve() == docs / "evaluation.md"


def test_of_two_results_of_one_key_the_later_counts_and_damaged_ones_are_refused(tmp_path: Path) -> None:
    early, late = (replace(record("s", c), started=t) for c, t in ((1.0, "2026-01-01"), (2.0, "2026-01-02")))
    store(tmp_path / "a", late, {})
    place = store(tmp_path / "b", early, {})
    assert [r.value("chamfer_cm2") for r in read_records([tmp_path])] == [2.0]
    (place / RECORD_FILE).write_text("{}")
    with pytest.raises(UsageError, match=RECORD_FILE):
        read_record(place / RECORD_FILE)
    with pytest.raises(FileMissingError, match="no results"):
        read_records([tmp_path / "none"])


def test_the_contact_sheet_shows_truth_result_and_failure(tmp_path: Path) -> None:
    source = FolderScenes(write_scenes(tmp_path / "scenes", 1))
    result = synthetic_reconstruction()
    files = {name: content for name, content in glb_files(result).items() if name != "scene.glb"}
    done, failed = record("test_0000", 1.0), record("test_0000", None, seed=1)
    store(tmp_path / "out", done, files)
    sheet = np.asarray(Image.open(io.BytesIO(contact_sheet(source, [done, failed], [tmp_path / "out"]))))
    assert sheet.shape == (2 * CAPTION + PANEL + GAP, ACROSS * (len(PANELS) * PANEL + GAP), 3)
    rows = (sheet[2 * CAPTION : 2 * CAPTION + PANEL, left:] for left in (0, len(PANELS) * PANEL + GAP))
    panels = [[row[:, k * PANEL : (k + 1) * PANEL] for k in range(len(PANELS))] for row in rows]
    assert np.abs(panels[0][0].astype(int) - panels[1][0]).mean() < 6
    assert np.abs(panels[0][1].astype(int) - panels[1][1]).mean() < 6
    blue = (panels[0][1][..., 2].astype(int) - panels[0][1][..., 0]) > 40
    assert blue.mean() > 0.03
    white = [(panel > 240).all(-1).mean() for panel in panels[1]]
    assert white[2] > 0.9 and white[4] > 0.95 and max(white[1], white[3]) < 0.9
