# SPDX-License-Identifier: Apache-2.0
"""A result folder is complete, valid, readable by others, and never half-written."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import trimesh
from PIL import Image
from synthetic_result import synthetic_reconstruction

from fmh_ros.core.errors import OutputError
from fmh_ros.core.export import write as write_module
from fmh_ros.core.export.document import schema, to_document, to_json
from fmh_ros.core.export.overlay import HAND_LINE, OBJECT_LINE, draw_overlay
from fmh_ros.core.export.shading import Part, ShadedScene
from fmh_ros.core.export.write import RESULT_FILES, check_output, write_result
from fmh_ros.core.frame.camera import CameraModel
from fmh_ros.core.guidance.report import PhaseReport
from fmh_ros.core.reconstruction.types import Reconstruction
from fmh_ros.core.transforms import Similarity


@pytest.fixture(scope="module")
def result() -> Reconstruction:
    return synthetic_reconstruction()


@pytest.fixture(scope="module")
def folder(result: Reconstruction, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_result(result, tmp_path_factory.mktemp("result") / "deep" / "out")


def mesh(path: Path) -> trimesh.Trimesh:
    return trimesh.load(path, force="mesh")


def test_the_folder_holds_exactly_the_six_files_and_nothing_is_left_beside_it(folder: Path) -> None:
    assert sorted(path.name for path in folder.iterdir()) == sorted(RESULT_FILES)
    assert [path.name for path in folder.parent.iterdir()] == ["out"]


def test_the_meshes_are_closed_single_bodies_in_metres_in_the_camera_frame(
    folder: Path, result: Reconstruction
) -> None:
    for name, pose, part in (
        ("object.glb", result.object.T_camera_object, result.object),
        ("hand.glb", result.hand.T_camera_hand, result.hand),
    ):
        read = mesh(folder / name)
        assert read.is_watertight and read.is_winding_consistent and read.body_count == 1 and read.volume > 0, name
        expected = pose.apply(part.vertices)
        np.testing.assert_allclose(read.bounds, [expected.min(0), expected.max(0)], atol=1e-6)
    assert mesh(folder / "object.glb").volume == pytest.approx(result.object.volume_m3, rel=1e-4)


def test_the_scene_has_both_parts_in_the_same_place(folder: Path) -> None:
    scene = trimesh.load(folder / "scene.glb")
    assert set(scene.geometry) == {"hand", "object"}
    for name in ("hand", "object"):
        np.testing.assert_allclose(scene.geometry[name].bounds, mesh(folder / f"{name}.glb").bounds, atol=1e-6)


def test_the_document_is_valid_and_repeats_the_result(folder: Path, result: Reconstruction) -> None:
    document = json.loads((folder / "reconstruction.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema())
    jsonschema.validate(document, schema())
    assert document == json.loads(to_json(result))
    pose = np.reshape(document["object"]["T_camera_object"], (4, 4))
    np.testing.assert_allclose(pose, result.object.T_camera_object.matrix(), atol=1e-9)
    np.testing.assert_allclose(
        document["hand"]["keypoints_3d"], result.hand.T_camera_hand.apply(result.hand.keypoints), atol=1e-6
    )
    vertices = mesh(folder / "object.glb").vertices
    local = (vertices - pose[:3, 3]) @ pose[:3, :3]
    np.testing.assert_allclose(local.max(0) - local.min(0), document["object"]["extents_m"], atol=1e-5)
    np.testing.assert_allclose(local.max(0) + local.min(0), 0, atol=1e-5)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("schema",), "fmh.reconstruction/2"),
        (("hand", "side"), "both"),
        (("hand", "keypoints_2d"), [[0, 0]] * 20),
        (("camera", "K"), [1.0] * 8),
        (("object", "volume_m3"), 0),
        (("quality", "score"), 1.5),
        (("quality", "penetration_cm3"), None),
        (("contacts",), [{"position": [0, 0, 1], "normal": [0, 0, 1], "finger": "toe", "gap_m": 0}]),
        (("timings_s",), {}),
        (("extra",), 1),
    ],
)
def test_the_schema_refuses_what_is_wrong(result: Reconstruction, path: tuple[str, ...], value: Any) -> None:
    document = to_document(result)
    target = document
    for key in path[:-1]:
        target = target[key]
    target[path[-1]] = value
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(document, schema())


def test_pixels_and_camera_are_those_of_the_full_size_image(result: Reconstruction) -> None:
    camera = result.frame.camera
    full = camera.crop((0, 0, camera.width, camera.height), camera.width * 3, camera.height * 3)
    document = to_document(replace(result, frame=replace(result.frame, source_camera=full)))
    assert (document["camera"]["width"], document["camera"]["height"]) == (full.width, full.height)
    K = np.reshape(document["camera"]["K"], (3, 3))
    points = np.array(document["hand"]["keypoints_3d"]) @ K.T
    np.testing.assert_allclose(points[:, :2] / points[:, 2:], document["hand"]["keypoints_2d"], atol=5e-3)


def test_a_loss_that_is_not_finite_becomes_null_and_other_numbers_may_not(result: Reconstruction) -> None:
    document = to_document(replace(result, phases=(PhaseReport("hand", (), 0, float("nan"), float("inf")),)))
    jsonschema.validate(document, schema())
    assert document["guidance"]["phases"][0]["loss_first"] is None
    with pytest.raises(ValueError, match="JSON compliant"):
        to_json(replace(result, quality=replace(result.quality, score=float("nan"))))


def test_the_overlay_draws_each_outline_where_the_silhouette_ends(result: Reconstruction) -> None:
    bare = replace(result, contacts=())
    image = draw_overlay(bare).astype(int)
    factor = image.shape[1] / result.frame.camera.width
    assert image.shape[:2] == (720, 960), "small photos are enlarged"
    for mask, color in ((result.masks.hand, HAND_LINE), (result.masks.object, OBJECT_LINE)):
        drawn = np.argwhere(np.abs(image - color).max(-1) < 12)
        assert len(drawn) > 200
        inside = np.argwhere(mask) * factor
        near = drawn[(drawn >= inside.min(0) - 12).all(1) & (drawn <= inside.max(0) + 12).all(1)]
        assert len(near) > 0.95 * len(drawn)


def test_pictures_are_readable_and_of_a_useful_size(folder: Path) -> None:
    for name in ("overlay.png", "views.png"):
        with Image.open(folder / name) as picture:
            assert picture.mode == "RGB" and min(picture.size) >= 600
            assert np.asarray(picture).std() > 10, "not blank"


def test_shading_shows_each_part_in_its_colour_where_it_is() -> None:
    ball = trimesh.creation.icosphere(3, 0.05)
    vertices = np.asarray(ball.vertices)
    scene = ShadedScene(
        [
            Part(vertices + [-0.06, 0, 0.6], np.asarray(ball.faces), (220, 60, 60)),
            Part(vertices + [0.06, 0, 0.6], np.asarray(ball.faces), (60, 60, 220)),
        ]
    )
    K = np.array([[300.0, 0, 99.5], [0, 300.0, 49.5], [0, 0, 1]])
    picture = scene.render(CameraModel(200, 100, K), Similarity())
    left, right = picture.image[50, 69].astype(int), picture.image[50, 129].astype(int)
    assert left[0] > left[2] + 60 and right[2] > right[0] + 60
    assert picture.depth[50, 69] == pytest.approx(0.55, abs=1e-3)
    assert np.isnan(picture.depth[0, 0]) and picture.image[0, 0].min() > 200
    turned = scene.render(CameraModel(200, 100, K), Similarity(np.diag([-1.0, 1, -1]), np.array([0, 0, 1.2])))
    back = turned.image[50, 69].astype(int)
    assert back[2] > back[0] + 60, "from behind the parts change places"


def test_an_earlier_result_is_replaced_as_a_whole(result: Reconstruction, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "views.png").write_text("old")
    write_result(result, out)
    assert sorted(path.name for path in out.iterdir()) == sorted(RESULT_FILES)
    assert (out / "views.png").stat().st_size > 1000
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_files_of_the_user_are_never_removed(result: Reconstruction, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(OutputError, match=r"other files \(thesis\.tex\).*Choose another --out"):
        write_result(result, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file")
    with pytest.raises(OutputError, match="is a file"):
        check_output(tmp_path / "out")
    with pytest.raises(OutputError, match="cannot be written"):
        check_output(tmp_path / "out" / "deeper")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(OutputError, match="cannot be written"):
        check_output(tmp_path / "out")
    tmp_path.chmod(0o700)


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
@pytest.mark.parametrize("moment", ["file", "swap"])
def test_a_failure_in_the_middle_leaves_what_was_there(
    result: Reconstruction, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, moment: str
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "views.png").write_text("old")
    monkeypatch.setattr(write_module, "draw_views", lambda _: np.zeros((4, 4, 3), np.uint8))
    monkeypatch.setattr(write_module, "draw_overlay", lambda _: np.zeros((4, 4, 3), np.uint8))
    write, rename = Path.write_bytes, Path.rename

    def failing_write(path: Path, data: bytes) -> int:
        if path.name == "overlay.png":
            raise error
        return write(path, data)

    def failing_rename(path: Path, target: Path) -> Path:
        if path.name.startswith(".out-") and Path(target) == out:
            raise error
        return rename(path, target)

    if moment == "file":
        monkeypatch.setattr(Path, "write_bytes", failing_write)
    else:
        monkeypatch.setattr(Path, "rename", failing_rename)
    expected = OutputError if isinstance(error, OSError) else KeyboardInterrupt
    with pytest.raises(expected):
        write_result(result, out)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert [path.name for path in out.iterdir()] == ["views.png"]
    assert (out / "views.png").read_text() == "old"
