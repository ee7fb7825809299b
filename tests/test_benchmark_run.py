# SPDX-License-Identifier: Apache-2.0
"""Runs of the benchmark: the pipeline itself with known cues, resumable, divided without gaps, failures on record."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from benchmark_records import small_scene, write_scenes

from fmh_ros.benchmark import run as run_module
from fmh_ros.benchmark.cues import choose_cues
from fmh_ros.benchmark.given import with_cues
from fmh_ros.benchmark.results import RECORD_FILE, read_records
from fmh_ros.benchmark.run import Plan, parse_shard, run_plan, run_sample, shard_of, to_prediction
from fmh_ros.benchmark.sources import FolderScenes
from fmh_ros.benchmark.store import save_scene
from fmh_ros.benchmark.types import CUE_PRESETS, BenchmarkScene, CueChoice
from fmh_ros.benchmark.variants import GROUPS, Variant, variant, variants
from fmh_ros.benchmark.workers import part
from fmh_ros.core.errors import ModelMissingError, NoObjectError, UsageError
from fmh_ros.core.frame.frame import ObjectPrompt
from fmh_ros.core.guidance.config import preset
from fmh_ros.core.guidance.guide import plan_phases
from fmh_ros.core.reconstruction.profile import Stages, load_stages
from fmh_ros.evaluation.predictions import read_prediction
from fmh_ros.evaluation.sample import evaluate_sample


def quick(name: str = "unguided") -> Variant:
    """A variant with few flow steps."""
    made = variant(name)
    return replace(made, config=replace(made.config, flow_steps=4, first_guided_step=2))


@pytest.fixture(scope="module")
def stages() -> Stages:
    return load_stages("embedded")


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> FolderScenes:
    return FolderScenes(write_scenes(tmp_path_factory.mktemp("scenes"), 2))


def plan(out: Path, **more: object) -> Plan:
    values: dict[str, object] = {"variants": (quick(),), "cues": (CUE_PRESETS["true"],), "object_aligned": False}
    return Plan(out, **{**values, **more})  # type: ignore[arg-type]


def test_a_sample_is_the_pipeline_with_the_given_cues(scenes: FolderScenes, stages: Stages, tmp_path: Path) -> None:
    lines: list[str] = []
    assert run_plan(replace(scenes, only=("test_0000",)), plan(tmp_path), lines.append, stages) == (1, 0)
    (record,) = read_records([tmp_path])
    scene = scenes.load("test_0000")
    cues = choose_cues(scene, CUE_PRESETS["true"])
    result = run_sample(scene, cues, quick(), 0, stages)
    assert np.array_equal(result.masks.object, scene.object_mask)
    assert np.allclose(result.observation.keypoints_2d, scene.keypoints_2d)
    assert result.versions["detector"] == result.versions["segmenter"] == "given"
    metrics = evaluate_sample(to_prediction(result, scene.name), scene.truth, object_aligned=False)
    assert record.value("chamfer_cm2") == pytest.approx(metrics.chamfer_cm2, rel=1e-6)
    assert record.value("score") == pytest.approx(result.quality.score, abs=1e-9)
    assert record.value("cue_object_mask_iou") == 1 and record.value("cue_landmark_error") < 1e-6
    assert record.attributes["object_name"] == scene.attributes.object_name
    assert record.seconds["total"] > 0 and len(lines) == 1
    # What is kept can be measured again by anyone.
    kept = read_prediction(tmp_path / record.key.folder, "fmh")
    assert evaluate_sample(kept, scene.truth, object_aligned=False).chamfer_cm2 == pytest.approx(
        metrics.chamfer_cm2, rel=1e-3
    )


def test_a_left_hand_gets_its_cues_mirrored(stages: Stages) -> None:
    scene = small_scene(70, "right")
    mirrored = mirror(scene)
    right, left = (run_sample(s, choose_cues(s, CUE_PRESETS["true"]), quick(), 0, stages) for s in (scene, mirrored))
    assert (right.hand.side, left.hand.side) == ("right", "left")
    assert np.array_equal(left.masks.object, right.masks.object[:, ::-1])
    there = left.object.T_camera_object.apply(left.object.vertices) * [-1, 1, 1]
    assert np.abs(there - right.object.T_camera_object.apply(right.object.vertices)).max() < 1e-6


def mirror(scene: BenchmarkScene) -> BenchmarkScene:
    flip, truth = np.array([-1.0, 1.0, 1.0]), scene.truth
    assert truth.keypoints is not None
    truth = replace(
        truth,
        side="left",
        hand_vertices=truth.hand_vertices * flip,
        hand_faces=truth.hand_faces[:, ::-1],
        object_vertices=truth.object_vertices * flip,
        object_faces=truth.object_faces[:, ::-1],
        keypoints=truth.keypoints * flip,
    )
    maps = {n: np.ascontiguousarray(getattr(scene, n)[:, ::-1]) for n in ("hand_mask", "object_mask", "amodal_mask")}
    pixels = scene.keypoints_2d * [-1, 1] + [scene.frame.camera.width - 1, 0]
    depth = np.ascontiguousarray(scene.exact_depth[:, ::-1])
    return replace(scene, frame=scene.frame.mirrored(), truth=truth, keypoints_2d=pixels, exact_depth=depth, **maps)


@dataclass(frozen=True)
class Counted:
    """Names without scenes behind them."""

    count: int
    content: str = "one"

    def names(self) -> tuple[str, ...]:
        return tuple(f"scene_{index:03d}" for index in range(self.count))

    def load(self, name: str) -> BenchmarkScene:
        raise NoObjectError(f"{name} shows nothing")

    def digest(self, name: str) -> str:
        return f"{name} {self.content}"


def test_a_second_run_makes_only_what_is_missing_or_changed(stages: Stages, tmp_path: Path) -> None:
    calls = 0

    def stop_after_two() -> bool:
        nonlocal calls
        calls += 1
        return calls <= 2

    assert run_plan(Counted(5), plan(tmp_path), print, stages, stop_after_two) == (2, 2)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob(RECORD_FILE)}
    assert run_plan(Counted(5), plan(tmp_path), print, stages) == (3, 3)
    assert run_plan(Counted(5), plan(tmp_path), print, stages) == (0, 0)
    assert len(before) == 2 and all(path.stat().st_mtime_ns == then for path, then in before.items())
    changed = replace(quick(), config=replace(quick().config, flow_steps=5))
    assert run_plan(Counted(5), plan(tmp_path, variants=(changed,)), print, stages) == (5, 5)
    assert run_plan(Counted(5, "another"), plan(tmp_path, variants=(changed,)), print, stages) == (5, 5)
    assert len(read_records([tmp_path])) == 5


@pytest.mark.parametrize(("count", "shards"), [(24, 5), (3, 7), (200, 8)])
def test_shards_and_jobs_cover_each_scene_exactly_once(count: int, shards: int) -> None:
    names = Counted(count).names()
    parts = [shard_of(names, part((k, shards), job, 3)) for k in range(1, shards + 1) for job in range(3)]
    assert sorted(name for each in parts for name in each) == list(names)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    with pytest.raises(UsageError, match="3/2"):
        parse_shard("3/2")


def test_a_failure_is_on_record_with_its_code_and_the_rest_is_done(
    scenes: FolderScenes, stages: Stages, tmp_path: Path
) -> None:
    class Blind:
        name = "blind"

        def segment(self, *_: object) -> None:
            raise NoObjectError("Nothing is held", change="Hold something")

    blind = replace(stages, segmenter=Blind())  # type: ignore[arg-type]
    cues = (CueChoice("true", "embedded", "sensor"),)
    one = replace(scenes, only=("test_0000",))
    assert run_plan(one, plan(tmp_path, cues=cues), print, blind) == (1, 1)
    (failed,) = read_records([tmp_path])
    assert not failed.done and failed.failure is not None
    assert (failed.failure.code, failed.failure.kind) == (22, "NoObjectError")
    assert "Hold something" in failed.failure.message
    assert [p.name for p in (tmp_path / failed.key.folder).iterdir()] == [RECORD_FILE]
    assert run_plan(one, plan(tmp_path, cues=cues), print, stages) == (0, 0)
    assert run_plan(one, plan(tmp_path, cues=cues, retry=True), print, stages) == (1, 0)
    assert read_records([tmp_path])[0].done


def test_scenes_that_cannot_be_read_and_faults_of_the_program_are_failures_too(
    tmp_path: Path, stages: Stages, monkeypatch: pytest.MonkeyPatch, scenes: FolderScenes
) -> None:
    assert run_plan(Counted(2), plan(tmp_path / "a"), print, stages) == (2, 2)
    assert {r.failure.code for r in read_records([tmp_path / "a"]) if r.failure} == {22}

    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("a fault")

    monkeypatch.setattr(run_module, "evaluate_sample", broken)
    assert run_plan(replace(scenes, only=("test_0001",)), plan(tmp_path / "b"), print, stages) == (1, 1)
    (record,) = read_records([tmp_path / "b"])
    assert record.failure is not None
    assert (record.failure.code, record.failure.message) == (64, "ZeroDivisionError: a fault")


def test_an_interrupt_leaves_no_half_sample_and_the_run_goes_on(
    scenes: FolderScenes, stages: Stages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write: Callable[[Path, bytes], int] = Path.write_bytes

    def interrupted(path: Path, content: bytes) -> int:
        if path.name == RECORD_FILE:
            raise KeyboardInterrupt
        return write(path, content)

    one = replace(scenes, only=("test_0000",))
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run_plan(one, plan(tmp_path), print, stages)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    assert run_plan(one, plan(tmp_path), print, stages) == (1, 0)


def test_a_killed_command_goes_on_where_it_was(scenes: FolderScenes, tmp_path: Path) -> None:
    # Without anything to see each sample is quick: what is tested is the command with its processes.
    folder = tmp_path / "scenes"
    scene = scenes.load("test_0000")
    black = replace(scene.frame, image=np.zeros_like(scene.frame.image))
    names = [f"test_{index:04d}" for index in range(6)]
    for name in names:
        save_scene(folder / name, replace(scene, name=name, frame=black))
    out = tmp_path / "out"
    command = [sys.executable, "-m", "fmh_ros", "bench", "run", "--scenes", str(folder), "--out", str(out)]
    command += ["--variants", "unguided", "--jobs", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        while process.poll() is None and not list(out.rglob(RECORD_FILE)):
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
    assert process.returncode in (0, 143)
    done = {path: path.stat().st_mtime_ns for path in out.rglob(RECORD_FILE)}
    assert 0 < len(done) <= 6 and not list(out.rglob(".*"))
    again = subprocess.run(command[:-2], env=environment, capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    records = read_records([out])
    assert [r.key.scene for r in records] == names
    assert {r.failure.code for r in records if r.failure} == {20} and not any(r.done for r in records)
    assert all(path.stat().st_mtime_ns == before for path, before in done.items())


def test_the_cues_that_are_not_given_come_from_the_profile(stages: Stages) -> None:
    scene = small_scene(70, "a")
    made = with_cues(stages, choose_cues(scene, CueChoice("embedded", "noisy", "none")))
    assert made.detector is stages.detector and made.segmenter is not stages.segmenter
    noisy = choose_cues(scene, CUE_PRESETS["noisy"])
    assert noisy.hand is not None and noisy.masks is not None
    again = choose_cues(scene, CueChoice("true", "noisy", "exact"))
    assert again.masks is not None and np.array_equal(again.masks.object, noisy.masks.object)
    assert not (noisy.masks.hand & noisy.masks.object).any()
    truth = scene.object_mask
    overlap = (noisy.masks.object & truth).sum() / (noisy.masks.object | truth).sum()
    assert 0.8 < overlap < 0.99
    assert made.segmenter.segment(scene.frame.mirrored(), noisy.hand, ObjectPrompt()).object.shape == truth.shape


def test_variants_change_what_their_names_say(monkeypatch: pytest.MonkeyPatch) -> None:
    names = [v.name for v in variants(["all", "default"])]
    assert len(names) == len(set(names)) and set(names) >= set(GROUPS["losses"]) | set(GROUPS["budgets"])
    assert variant("no-silhouette").config.joint.object.silhouette == 0
    assert variant("samples-4").samples == 4
    assert 2 * variant("effort-0.5").config.joint.iterations == preset("default").joint.iterations
    swapped = variant("paper:swapped")
    assert (swapped.preset, swapped.config.ablation.order) == ("paper", "swapped")
    assert swapped.label == "phases 1 and 2 swapped, paper preset"
    dense = variant("paper:dense-mesh")
    assert dense.config == replace(preset("paper"), object_surface="dense_mesh")
    monkeypatch.setitem(sys.modules, "pytorch3d", None)
    monkeypatch.delitem(sys.modules, "pytorch3d.renderer", raising=False)
    with pytest.raises(ModelMissingError, match="pytorch3d"):
        variant("paper:dense-mesh-pytorch3d")
    monkeypatch.setitem(sys.modules, "pytorch3d", ModuleType("pytorch3d"))
    monkeypatch.setitem(sys.modules, "pytorch3d.renderer", ModuleType("pytorch3d.renderer"))
    published = variant("paper:dense-mesh-pytorch3d")
    assert published.config == replace(preset("paper"), object_surface="dense_mesh_pytorch3d")
    assert published.label == "dense decoding, mesh and PyTorch3D in the loop, paper preset"
    with pytest.raises(UsageError, match="no-colour"):
        variant("no-colour")


def test_the_two_stage_fit_leaves_the_shape_and_spends_the_same_iterations() -> None:
    full, fit = (plan_phases(variant(name).config) for name in ("default", "two-stage"))

    def spent(phases: tuple) -> int:
        return sum(len(p.steps) * p.settings.iterations for p in phases)

    assert spent(full) == spent(fit)
    assert [p.steps for p in fit] == [(17,), (18,), (19,)]
    assert all(p.settings.velocity_rate == 0 for p in fit)


def test_icp_brings_the_shape_nearer_to_the_visible_points(scenes: FolderScenes, stages: Stages) -> None:
    scene = scenes.load("test_0000")
    cues = choose_cues(scene, CUE_PRESETS["true"])
    free, registered = (run_sample(scene, cues, quick(name), 0, stages) for name in ("unguided", "icp"))
    assert np.array_equal(free.hand.vertices, registered.hand.vertices)
    assert free.quality.depth_error_m is not None and registered.quality.depth_error_m is not None
    assert registered.quality.depth_error_m <= free.quality.depth_error_m + 1e-4
    shape = registered.object.extents_m / free.object.extents_m
    assert shape == pytest.approx(np.full(3, shape[0]))
    assert registered.object.T_camera_object.scale == 1
