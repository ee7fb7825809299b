# SPDX-License-Identifier: Apache-2.0
"""Runs of the benchmark on data sets: resumable, divided, failures on record, our row beside the paper's."""

from __future__ import annotations

import argparse
import csv
import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from benchmark_records import record
from dataset_trees import TREES
from synthetic_result import synthetic_reconstruction

from fmh_ros.benchmark import run as run_module
from fmh_ros.benchmark import variants as variants_module
from fmh_ros.benchmark import workers
from fmh_ros.benchmark.cues import choose_cues
from fmh_ros.benchmark.dataset_tables import dataset_table, datasets_of, literature_table
from fmh_ros.benchmark.datasets.scenes import DATASETS, open_dataset
from fmh_ros.benchmark.report import write_tables
from fmh_ros.benchmark.results import SYNTHETIC, read_records, store
from fmh_ros.benchmark.run import Plan, run_plan, truth_of
from fmh_ros.benchmark.sources import FolderScenes
from fmh_ros.benchmark.statistics import Results
from fmh_ros.benchmark.types import CUE_PRESETS, CueChoice
from fmh_ros.benchmark.variants import Variant, variant
from fmh_ros.cli.bench import add_bench_commands
from fmh_ros.cli.main import main
from fmh_ros.core.errors import UsageError
from fmh_ros.core.reconstruction.profile import load_stages
from fmh_ros.evaluation.sample import evaluate_sample
from fmh_ros.evaluation.truth_files import read_ground_truth

#: Cues of a perfect detector and segmenter, one RGB image.
GIVEN = CueChoice("true", "true", "none")


@pytest.fixture(scope="module")
def roots(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    made = tmp_path_factory.mktemp("data")
    for name, tree in TREES.items():
        tree(made / name)
    return {name: made / name for name in TREES}


def quick(name: str = "default") -> Variant:
    """A variant with few flow steps and no guidance, under the name of the full method."""
    made = variant("unguided")
    return replace(made, name=name, config=replace(made.config, flow_steps=3, first_guided_step=1))


def test_shards_of_a_data_set_merge_and_a_missing_image_is_a_failure_with_its_code(
    roots: dict[str, Path], tmp_path: Path
) -> None:
    stages = load_stages("embedded")
    source = replace(open_dataset("dexycb", roots["dexycb"]), only=("dexycb_0001", "dexycb_0007"))
    plan = Plan(tmp_path / "a", (quick(),), (GIVEN,), object_aligned=False, dataset="dexycb")
    assert run_plan(source, replace(plan, shard=(1, 2)), print, stages) == (1, 0)
    assert run_plan(source, replace(plan, shard=(2, 2), out=tmp_path / "b"), print, stages) == (1, 1)
    assert run_plan(source, replace(plan, shard=(1, 2)), print, stages) == (0, 0)
    made, lost = read_records([tmp_path / "a", tmp_path / "b"])
    assert (made.key.scene, lost.key.scene) == source.names() and made.dataset == lost.dataset == "dexycb"
    assert lost.failure is not None and lost.failure.code == 10 and "color_000060.jpg" in lost.failure.message
    assert made.done and made.attributes["side"] == "left" and made.value("cue_side_right") == 1
    assert np.isfinite(made.value("chamfer_cm2")) and made.value("cue_landmark_error") < 1e-6
    # The open rig finds the annotated hand again: mirrored, posed and sized as it is.
    assert made.value("pa_mpjpe_mm") < 5 and made.value("hand_alignment_rms_mm") < 2.5
    assert made.value("hand_scale_ratio") == pytest.approx(1, abs=0.04)


def test_one_command_runs_a_data_set_and_one_puts_our_row_beside_the_papers(
    roots: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(variants_module, "variants", lambda _: (quick(),))
    measure = partial(evaluate_sample, object_aligned=False)
    monkeypatch.setattr(run_module, "evaluate_sample", lambda prediction, truth, **_: measure(prediction, truth))
    data = ["--dataset", "oakink", "--root", str(roots["oakink"])]
    command = ["bench", "run", *data, "--out", str(tmp_path / "out"), "--cues", "true,depth=none"]
    command += ["--shard", "1/2"]
    assert main(command) == 0, capsys.readouterr().err
    assert "2 scenes, 2 samples" in capsys.readouterr().out
    assert main(["bench", "tables", str(tmp_path / "out"), "--out", str(tmp_path / "page"), *data]) == 0
    page = (tmp_path / "page" / "README.md").read_text()
    rows = list(csv.DictReader((tmp_path / "page" / "literature.csv").open()))
    place = next(k for k, row in enumerate(rows) if row["method"] == "this project, full method")
    assert rows[place - 1]["method"] == "Follow My Hold" and rows[place - 1]["data"].startswith("OakInk")
    assert rows[place + 1]["data"].startswith("ARCTIC")
    assert rows[place]["data"].startswith("OakInk, ") and rows[place]["data"].endswith("cues, 1 image")
    found = Results(tuple(read_records([tmp_path / "out"])))
    assert float(rows[place]["CD, cm2"]) == pytest.approx(found.mean("chamfer_cm2").value)
    assert float(rows[place]["R.R."]) == 1
    assert "| images of oakink | 1 of split test" in page and "estimate a camera" in page
    assert "rendered scenes with the open hand rig" not in page
    assert (tmp_path / "page" / "main-contact_sheet.jpg").is_file()


def test_truths_are_written_for_other_systems_and_what_cannot_be_read_is_said(
    roots: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = ["--dataset", "dexycb", "--root", str(roots["dexycb"])]
    assert main(["bench", "truths", str(tmp_path / "t"), *data]) == 0
    said = capsys.readouterr()
    assert "2 of 3 truths" in said.out and "dexycb_0007  not read" in said.err
    assert sorted(path.name for path in (tmp_path / "t").iterdir()) == ["dexycb_0000", "dexycb_0001"]
    truth, kept = (
        open_dataset("dexycb", roots["dexycb"]).load("dexycb_0001").truth,
        read_ground_truth(tmp_path / "t" / "dexycb_0001"),
    )
    assert kept.side == "left" and np.allclose(kept.hand_vertices, truth.hand_vertices, atol=1e-6)
    assert np.array_equal(kept.object_faces, truth.object_faces)
    (roots["dexycb"] / "only.csv").write_text("img_id,img_path\n7,a/b/c/color_000060.jpg\n")
    assert main(["bench", "truths", str(tmp_path / "n"), *data, "--split", str(roots["dexycb"] / "only.csv")]) == 10


def test_what_to_run_on_has_to_be_named_once(
    roots: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ["--out", str(tmp_path)]
    for arguments, match in (
        ([], "Neither scenes nor a data set"),
        (["--dataset", "arctic", "--scenes", "x"], "Both scenes and a data set"),
        (["--dataset", "arctic"], "--root DIR"),
    ):
        assert main(["bench", "run", *arguments, *out]) == 2
        assert match in capsys.readouterr().err
    assert main(["bench", "run", "--dataset", "arctic", "--root", str(tmp_path), *out]) == 10
    assert "is not a copy of ARCTIC" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
    parser = argparse.ArgumentParser()
    add_bench_commands(parser.add_subparsers())
    for name in DATASETS:
        parser.parse_args(["bench", "run", "--dataset", name, "--out", "o"])


def test_depth_is_a_cue_where_the_data_set_has_it(roots: dict[str, Path]) -> None:
    scene = open_dataset("dexycb", roots["dexycb"]).load("dexycb_0000")
    assert choose_cues(scene, CUE_PRESETS["embedded"]).frame.depth is scene.frame.depth
    assert choose_cues(scene, CUE_PRESETS["embedded-rgb"]).frame.depth is None
    photo = open_dataset("oakink", roots["oakink"]).load("oakink_0000")
    with pytest.raises(UsageError, match=r"oakink_0000 has no depth.*--no-depth"):
        choose_cues(photo, CUE_PRESETS["embedded"])


def test_of_two_hands_the_one_that_was_reconstructed_is_measured(roots: dict[str, Path]) -> None:
    scene = open_dataset("arctic", roots["arctic"]).load("arctic_0000")
    (other,) = scene.rivals
    assert (scene.truth.side, other.side) == ("left", "right")
    result = synthetic_reconstruction()
    for truth in (scene.truth, other):
        assert truth.keypoints is not None
        pixels = scene.frame.camera.project(truth.keypoints) + 3.0
        seen = replace(result, observation=replace(result.observation, keypoints_2d=pixels))
        assert truth_of(seen, scene) is truth
    assert truth_of(result, replace(scene, rivals=())) is scene.truth


def test_images_that_could_not_be_read_do_not_count_as_failures_of_the_method(tmp_path: Path) -> None:
    ours = [replace(record(f"dexycb_{k:04d}", 2.0 + k), dataset="dexycb") for k in range(3)]
    ours.append(replace(record("dexycb_0003", None), dataset="dexycb"))
    ours.append(replace(record("dexycb_0004", None), dataset="dexycb", attributes={}))
    rendered = [record(f"test_{k:04d}", 1.0) for k in range(2)]
    results = Results((*ours, *rendered))
    assert datasets_of(results) == ("dexycb", SYNTHETIC)
    table = dataset_table(results)
    assert table is not None and len(table.rows) == 1
    row = dict(zip((c.title for c in table.columns), table.rows[0], strict=True))
    assert (row["images"], row["not read"], row["R.R."]) == (5, 1, 0.75)
    data = [str(row[1]) for row in literature_table(results).rows]
    assert data[-2].startswith("DexYCB, true cues, 4 images") and data[-1] == "synthetic, true cues"
    assert dataset_table(Results(tuple(rendered))) is None
    # Rendered scenes keep the other tables to themselves.
    paths = write_tables([_stored(tmp_path / "r", results)], tmp_path / "page")
    page = (tmp_path / "page" / "README.md").read_text()
    assert "| scenes | 2 of split test" in page and "| images of dexycb | 5 of split test" in page
    main_rows = list(csv.DictReader((tmp_path / "page" / "main.csv").open()))
    assert [r["scenes"] for r in main_rows] == ["2"] and len(paths) > 3
    assert {r["data"] for r in csv.DictReader((tmp_path / "page" / "samples.csv").open())} == {"dexycb", SYNTHETIC}


def _stored(folder: Path, results: Results) -> Path:
    for each in results.records:
        store(folder, each, {})
    return folder


class HereAndNow:
    """Processes that are functions of this one."""

    exitcode, pid = 0, None

    def __init__(self, target: Callable[..., None], args: tuple[object, ...], daemon: bool) -> None:
        self.start = lambda: target(*args)

    def join(self, *_: float) -> None:
        pass

    def is_alive(self) -> bool:
        return False


def test_each_process_gets_one_gpu_in_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[tuple[int, int], str | None]] = []
    monkeypatch.setattr(workers.multiprocessing, "get_context", lambda _: argparse.Namespace(Process=HereAndNow))
    monkeypatch.setattr(workers.signal, "signal", lambda *_: None)
    monkeypatch.setattr(
        workers,
        "run_plan",
        lambda _, plan, *__, **___: seen.append((plan.shard, os.environ.get("CUDA_VISIBLE_DEVICES"))),
    )
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2, GPU-7")
    assert workers.gpus("embedded") == workers.gpus("h100,device=cpu") == workers.gpus("h100,device=cuda:1") == ()
    assert workers.gpus("h100") == ("2", "GPU-7")
    plan = Plan(tmp_path, (quick(),), (GIVEN,))
    threads = torch.get_num_threads()
    try:
        workers.run_jobs(open_nothing(), plan, 3, print, workers.gpus("h100"))
    finally:
        torch.set_num_threads(threads)
    assert seen == [((1, 3), "2"), ((2, 3), "GPU-7"), ((3, 3), "2")]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert workers.gpus("h100") == ()


def open_nothing() -> FolderScenes:
    return FolderScenes(Path("nowhere"))
