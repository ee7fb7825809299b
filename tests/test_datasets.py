# SPDX-License-Identifier: Apache-2.0
"""Loaders of DexYCB, OakInk and ARCTIC, on small copies of their exact layouts whose truth is known."""

from __future__ import annotations

import os
import pickle
import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import trimesh
from dataset_trees import (
    ARCTIC_FULL,
    CAMERA,
    DIST8,
    HAND,
    OBJECT,
    SEQUENCE,
    SUBJECT,
    TREES,
    Known,
    arctic_object,
    arctic_tree,
    moved,
    rigid,
    turn,
    write_yaml,
)
from mano_files import write_mano, write_pickle
from scipy.spatial import cKDTree

from fmh_ros.benchmark.datasets import arctic, dexycb, oakink
from fmh_ros.benchmark.datasets.files import read_split, read_yaml
from fmh_ros.benchmark.datasets.sample import to_scene
from fmh_ros.benchmark.datasets.scenes import DATASETS, DatasetScenes, open_dataset
from fmh_ros.benchmark.types import BenchmarkScene
from fmh_ros.core.errors import FileMissingError, ModelFileError, UsageError
from fmh_ros.core.hand.mano_model import load_mano_model
from fmh_ros.core.safe_pickle import load_npy

Copies = dict[str, tuple[Path, dict[str, Known]]]


@pytest.fixture(scope="module")
def copies(tmp_path_factory: pytest.TempPathFactory) -> Copies:
    made = tmp_path_factory.mktemp("data")
    return {name: (made / name, tree(made / name)) for name, tree in TREES.items()}


SAMPLES = [("dexycb", k) for k in (0, 1)] + [("oakink", k) for k in (0, 3)] + [("arctic", k) for k in (0, 1, 2)]


def loaded(copies: Copies, dataset: str, index: int, own_masks: bool = True) -> tuple[BenchmarkScene, Known]:
    """A sample; without its own masks those of its surfaces."""
    root, known = copies[dataset]
    scenes = open_dataset(dataset, root)
    name = f"{dataset}_{index:04d}"
    if own_masks:
        return scenes.load(name), known[name]
    row = next(row for row in scenes.reader.rows if row.name == name)
    sample = replace(scenes.reader.read(row), hand_mask=None, object_mask=None)
    return to_scene(sample, name, index), known[name]


def surface_gap(vertices: np.ndarray, faces: np.ndarray, points: np.ndarray) -> float:
    mesh = trimesh.Trimesh(vertices, faces, process=False)
    return float(np.abs(trimesh.proximity.closest_point(mesh, points)[1]).max())


@pytest.mark.parametrize(("dataset", "index"), SAMPLES)
def test_truth_is_the_known_hand_and_object_in_the_camera_frame(copies: Copies, dataset: str, index: int) -> None:
    scene, known = loaded(copies, dataset, index)
    truth = scene.truth
    assert truth.side == known.side == scene.attributes.side
    assert np.abs(truth.hand_vertices - known.hand).max() < 1e-6
    assert truth.keypoints is not None and np.abs(truth.keypoints - known.keypoints).max() < 1e-6
    assert truth.T_camera_object is not None
    assert np.abs(truth.T_camera_object.matrix() - known.pose).max() < 1e-6
    there, back = (
        cKDTree(known.object).query(truth.object_vertices)[0],
        cKDTree(truth.object_vertices).query(known.object),
    )
    assert max(there.max(), back[0].max()) < 1e-6
    held = trimesh.Trimesh(truth.object_vertices, truth.object_faces, process=False)
    hand = trimesh.Trimesh(truth.hand_vertices, truth.hand_faces, process=False)
    assert held.is_watertight and held.volume > 0 and hand.is_watertight and hand.volume > 0


@pytest.mark.parametrize(("dataset", "index"), SAMPLES)
def test_truth_lands_on_its_image_to_a_pixel(copies: Copies, dataset: str, index: int) -> None:
    scene, _ = loaded(copies, dataset, index, own_masks=False)
    image = scene.frame.image.astype(int)
    near = {name: np.abs(image - colour).sum(-1) < 120 for name, colour in (("hand", HAND), ("object", OBJECT))}
    both = {"hand": scene.hand_mask, "object": scene.object_mask}
    pixel = np.ones((3, 3), np.uint8)
    for what, painted in near.items():
        mask = both[what]
        assert painted.sum() > 300 and mask.sum() > 300
        inner = cv2.erode(mask.astype(np.uint8), pixel) > 0
        assert (inner & ~painted).sum() <= 0.003 * inner.sum()
        inner = cv2.erode(painted.astype(np.uint8), pixel) > 0
        if what == "object" or not scene.rivals:
            assert (inner & ~mask).sum() <= 0.003 * inner.sum()
    assert (scene.amodal_mask | ~scene.object_mask).all()
    hidden = 1 - scene.object_mask.sum() / scene.amodal_mask.sum()
    assert 0.05 < hidden < 0.95 and scene.attributes.occlusion == pytest.approx(hidden)


@pytest.mark.parametrize(("dataset", "index"), [("dexycb", 0), ("oakink", 3), ("arctic", 0), ("arctic", 2)])
def test_exact_depth_and_normals_are_of_the_surfaces(copies: Copies, dataset: str, index: int) -> None:
    scene, _ = loaded(copies, dataset, index, own_masks=False)
    rows, columns = np.nonzero(scene.object_mask)
    pick = np.random.default_rng(0).permutation(len(rows))[:200]
    rays = scene.frame.camera.rays(np.stack([columns[pick], rows[pick]], -1).astype(float))
    points = rays * scene.exact_depth[rows[pick], columns[pick]][:, None]
    assert surface_gap(scene.truth.object_vertices, scene.truth.object_faces, points) < 2e-5
    normals = scene.normals[rows[pick], columns[pick]]
    assert np.allclose(np.linalg.norm(normals, axis=-1), 1, atol=1e-4) and ((normals * rays).sum(-1) < 0.05).all()
    seen = np.isfinite(scene.exact_depth)
    assert (seen == np.isfinite(scene.normals).all(-1)).all() and (seen | ~(scene.hand_mask | scene.object_mask)).all()


def test_dexycb_has_its_own_masks_and_its_depth_in_metres(copies: Copies) -> None:
    scene, _ = loaded(copies, "dexycb", 0)
    seg = np.load(copies["dexycb"][0] / SUBJECT / SEQUENCE / CAMERA / "labels_000060.npz")["seg"]
    assert np.array_equal(scene.hand_mask, seg == 255) and np.array_equal(scene.object_mask, seg == 14)
    depth = scene.frame.depth
    assert depth is not None and np.isnan(depth[:100]).all() and np.allclose(depth[100:], 0.7)
    assert np.array_equal(scene.frame.camera.K, [[615, 0, 318], [0, 614, 243], [0, 0, 1]])
    assert scene.attributes.object_name == "025_mug"
    assert loaded(copies, "dexycb", 1)[0].attributes.object_name == "035_power_drill"
    assert [dexycb.dexycb_object(n) for n in (1, 21)] == ["002_master_chef_can", "061_foam_brick"]
    with pytest.raises(UsageError, match="object 0"):
        dexycb.dexycb_object(0)
    assert dexycb.dexycb_depth(Path("none.png")) is None


def test_dexycb_poses_are_optical_and_its_components_add_to_the_mean_pose(tmp_path: Path) -> None:
    pose = rigid(turn(0.1, 0.2, 0.3), (0.1, 0.2, 0.9))
    assert np.allclose(dexycb.dexycb_pose(pose[:3], "x").matrix(), pose)
    model = load_mano_model(write_mano(tmp_path, "left") / "MANO_LEFT.pkl", "left")
    values = np.concatenate([[0.1, 0.2, 0.3], np.zeros(45), [0.0, 0.0, 0.5]])[None]
    label = {"pose_m": values, "joint_3d": np.zeros((1, 21, 3))}
    hand = dexycb.dexycb_hand(model, label, np.zeros(10), "x")
    mean = model.pose(values[0, :3], model.pose_mean, np.zeros(10), values[0, 48:])
    assert hand.side == "left" and np.allclose(hand.vertices, mean.vertices)
    for key, nothing in (("pose_m", np.zeros((1, 51))), ("joint_3d", -np.ones((1, 21, 3)))):
        with pytest.raises(UsageError, match="No hand is annotated in x"):
            dexycb.dexycb_hand(model, label | {key: nothing}, np.zeros(10), "x")
    with pytest.raises(UsageError, match="The object of x has no pose"):
        dexycb.dexycb_pose(np.zeros((3, 4)), "x")


def test_oakink_takes_the_pose_of_the_middle_of_the_box_and_the_hand_at_the_object(copies: Copies) -> None:
    scene, known = loaded(copies, "oakink", 3)
    assert scene.attributes.grasp == "hand over" and scene.attributes.object_name == "S10023"
    middle = (
        (scene.truth.object_vertices @ known.pose[:3, :3]).min(0),
        (scene.truth.object_vertices @ known.pose[:3, :3]).max(0),
    )
    assert np.allclose((middle[0] + middle[1]) / 2, known.pose[:3, :3].T @ known.pose[:3, 3], atol=1e-6)
    (other,) = scene.rivals
    assert other.keypoints is not None and scene.truth.keypoints is not None
    assert other.keypoints[0, 0] - scene.truth.keypoints[0, 0] == pytest.approx(0.24, abs=0.05)
    assert np.array_equal(other.object_vertices, scene.truth.object_vertices)
    assert oakink.VIEWS == ("north_east", "south_east", "north_west", "south_west")


def test_arctic_turns_the_lid_about_minus_z_before_all_else() -> None:
    mesh, lid = arctic_object()
    angle, pose = 0.5, rigid(turn(0.3, 0.0, 0.0), (0.1, 0.2, 0.3))
    parameters = np.array([angle, 0.3, 0.0, 0.0, 100.0, 200.0, 300.0])
    found, T = arctic.arctic_object(mesh.vertices, lid, parameters)
    assert np.allclose(found[~lid], moved(pose, mesh.vertices[~lid])) and np.allclose(T.matrix(), pose)
    c, s = np.cos(angle), np.sin(angle)
    swung = mesh.vertices[lid] @ np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]]).T
    assert np.allclose(found[lid], moved(pose, swung))


@pytest.mark.parametrize("label", [0, 1])
def test_arctic_finds_which_label_is_the_lids(tmp_path: Path, label: int) -> None:
    known = arctic_tree(tmp_path, label)
    scene = open_dataset("arctic", tmp_path).load("arctic_0001")
    assert np.abs(scene.truth.object_vertices - known["arctic_0001"].object).max() < 1e-6
    labels = np.array([0, 0, 1])
    assert arctic.arctic_turning_part(labels, np.eye(3), None).tolist() == [True, True, False]
    assert arctic.arctic_turning_part(labels, np.eye(3), np.eye(3)[2:]).tolist() == [False, False, True]


def test_arctic_cameras_are_cut_and_made_smaller_as_the_images_are(copies: Copies) -> None:
    pixels = np.array([[100.0, 200.0], [300.0, 260.0]])
    assert arctic.arctic_crop(pixels) == (-250.0, -220.0, 650.0, 680.0)  # at least 600 pixels, half as large again
    assert arctic.arctic_crop(4 * pixels) == (800 - 1020.0, 920 - 1020.0, 800 + 1020.0, 920 + 1020.0)
    full = loaded(copies, "arctic", 1)[0].frame.camera
    assert (full.width, full.height) == ARCTIC_FULL and full.K[0, 0] == 1500
    head = loaded(copies, "arctic", 2)[0].frame.camera
    assert (head.width, head.height) == (420, 300)
    assert head.K[0, 0] == pytest.approx(0.3 * 1100) and head.K[0, 2] == pytest.approx(0.3 * 705.5 - 0.5)
    assert head.distortion == pytest.approx(tuple(DIST8))
    assert arctic.arctic_frame("00147.jpg", 30, 200, "x") == 117
    with pytest.raises(FileMissingError, match="frame 117 of 100"):
        arctic.arctic_frame("00147.jpg", 30, 100, "x")


def test_a_crop_may_have_its_principal_point_outside(copies: Copies) -> None:
    camera = loaded(copies, "arctic", 0)[0].frame.camera
    moved_away = arctic.arctic_camera(
        {
            "image_size": [[1400, 1000]] * 9,
            "intris_mat": [np.diag([1500.0, 1500, 1]) + [[0, 0, 700], [0, 0, 500], [0, 0, 0]]] * 8,
        },
        {},
        3,
        (1000, 1000),
        np.array([[0.4, 0.3, 0.5], [0.42, 0.31, 0.5]]),
    )
    assert camera.width == 1000 and not 0 < moved_away.K[0, 2] < 1000
    point = np.array([0.41, 0.305, 0.5])
    assert 0 < moved_away.project(point)[0] < 1000


def test_samples_are_read_whatever_folder_stands_before_them_in_the_list(tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    path.write_text("img_id,img_path\n12,/somewhere/else/a/b/c/color_000001.jpg\n3,a/b/c/d.jpg\n")
    rows = read_split(path, "dexycb", ("img_id", "img_path"), 4)
    assert [(row.name, row.image) for row in rows] == [
        ("dexycb_0012", ("a", "b", "c", "color_000001.jpg")),
        ("dexycb_0003", ("a", "b", "c", "d.jpg")),
    ]
    for text, match in (
        ("img_id\n1\n", "no column img_path; it has img_id"),
        ("img_id,img_path\n1,a/b/c/d\n01,a/b/c/d\n", "img_id 0001 twice"),
        ("img_id,img_path\n1,a/b\n", "Line 2 of"),
        ("img_id,img_path\n1,a/../c/d\n", "Line 2 of"),
        ("img_id,img_path\n", "no row"),
    ):
        path.write_text(text)
        with pytest.raises(UsageError, match=match):
            read_split(path, "dexycb", ("img_id", "img_path"), 4)
    with pytest.raises(FileMissingError, match=r"none\.csv.*FollowMyHold"):
        read_split(tmp_path / "none.csv", "dexycb", ("img_id", "img_path"), 4)


@pytest.mark.parametrize("dataset", sorted(DATASETS))
def test_a_wrong_folder_and_a_missing_mano_say_what_to_do(copies: Copies, tmp_path: Path, dataset: str) -> None:
    (tmp_path / "holiday").mkdir()
    with pytest.raises(FileMissingError, match=r"in it are holiday\. Expected a folder with .*docs/datasets\.md"):
        open_dataset(dataset, tmp_path)
    with pytest.raises(FileMissingError, match="no such folder"):
        open_dataset(dataset, tmp_path / "none")
    with pytest.raises(FileMissingError, match=r"no MANO_RIGHT\.pkl.*--mano"):
        open_dataset(dataset, copies[dataset][0], tmp_path)
    moved_mano = write_mano(tmp_path / "m" / "mano_v1_2" / "models").parents[1]
    assert open_dataset(dataset, copies[dataset][0], moved_mano).names()
    with pytest.raises(UsageError, match="one of"):
        open_dataset("ho3d", tmp_path)


def broken(copies: Copies, tmp_path: Path, dataset: str) -> tuple[Path, DatasetScenes]:
    """A copy of a copy, to be damaged."""
    root = tmp_path / dataset
    shutil.copytree(copies[dataset][0], root)
    return root, open_dataset(dataset, root)


def test_rows_without_a_sample_are_typed_errors_and_others_go_on(copies: Copies, tmp_path: Path) -> None:
    root, scenes = broken(copies, tmp_path, "dexycb")
    assert scenes.names() == ("dexycb_0000", "dexycb_0001", "dexycb_0007")
    for ask in (scenes.load, scenes.digest):
        with pytest.raises(FileMissingError, match="color_000060"):
            ask("dexycb_0007")
    (root / "models" / "025_mug" / "textured_simple.obj").unlink()
    (root / "calibration" / "mano_2020_left" / "mano.yml").unlink()
    cases = {"dexycb_0000": "textured_simple", "dexycb_0001": "mano.yml"}
    for name, match in cases.items():
        with pytest.raises(FileMissingError, match=match):
            scenes.load(name)
    with pytest.raises(UsageError, match="no sample"):
        scenes.load("dexycb_0002")


def test_files_that_are_not_as_released_say_so(copies: Copies, tmp_path: Path) -> None:
    root, scenes = broken(copies, tmp_path, "dexycb")
    folder = root / SUBJECT / SEQUENCE
    label = folder / CAMERA / "labels_000060.npz"
    whole = label.read_bytes()
    label.write_bytes(whole[:200])
    with pytest.raises(UsageError, match=r"labels_000060\.npz cannot be used"):
        scenes.load("dexycb_0000")
    label.write_bytes(whole)
    meta = read_yaml(folder / "meta.yml")
    write_yaml(folder / "meta.yml", meta | {"mano_sides": []})
    with pytest.raises(UsageError, match="The annotation of dexycb_0000"):
        scenes.load("dexycb_0000")
    write_yaml(folder / "meta.yml", meta | {"ycb_grasp_ind": 0})
    with pytest.raises(UsageError, match="The object of dexycb_0000 has no pose"):
        scenes.load("dexycb_0000")
    (folder / "meta.yml").write_text("- a list\n")
    with pytest.raises(UsageError, match="holds a list"):
        scenes.load("dexycb_0000")
    cv2.imwrite(
        str(root / SUBJECT / "20200709_144814" / CAMERA / "color_000060.jpg"), np.zeros((240, 320, 3), np.uint8)
    )
    with pytest.raises(UsageError, match=r"320x240.*Do not resize"):
        scenes.load("dexycb_0001")


class Bomb:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.target),)


def test_annotations_in_another_unit_and_pickles_that_would_run_code_are_refused(
    copies: Copies, tmp_path: Path
) -> None:
    root, scenes = broken(copies, tmp_path, "oakink")
    (hand,) = (root / "image" / "anno" / "hand_v").glob("A01023*.pkl")
    vertices = pickle.loads(hand.read_bytes())
    write_pickle(hand, 1000 * vertices)
    with pytest.raises(UsageError, match=r"hand measures .* m\. Expected 0\.06 to 0\.4 m"):
        scenes.load("oakink_0000")
    write_pickle(hand, vertices[:700])
    with pytest.raises(UsageError, match=r"as in MANO_RIGHT\.pkl"):
        scenes.load("oakink_0000")
    write_pickle(hand, Bomb(tmp_path / "made"))
    with pytest.raises(UsageError, match="mkdir"):
        scenes.load("oakink_0000")
    assert not (tmp_path / "made").exists()
    hand.unlink()
    with pytest.raises(FileMissingError, match=r"no annotation of A01023.*anno_v2_1"):
        scenes.load("oakink_0000")
    mano = root / "mano" / "MANO_RIGHT.pkl"
    mano.write_bytes(b"nothing")
    os.utime(mano, (1, 1))
    with pytest.raises(ModelFileError):
        load_mano_model(mano, "right")


def test_arctic_says_what_is_missing_or_does_not_fit(copies: Copies, tmp_path: Path) -> None:
    held = load_npy(copies["arctic"][0] / "data/arctic_data/data/raw_seqs/s01/box_grab_01.mano.npy")
    assert set(held) == {"right", "left"} and held["left"]["pose"].shape == (4, 45)

    def damaged(place: str, content: str | None) -> DatasetScenes:
        number = len(list(tmp_path.iterdir()))
        root, scenes = broken(copies, tmp_path / str(number), "arctic")
        path = root / "data" / "arctic_data" / "data" / place
        path.unlink() if content is None else path.write_text(content)
        return scenes

    with pytest.raises(UsageError, match=r"2 labels, mesh\.obj"):
        damaged("meta/object_vtemplates/box/parts.json", "[0, 1]").load("arctic_0000")
    with pytest.raises(FileMissingError, match=r"box_grab_01\.object\.npy"):
        damaged("raw_seqs/s01/box_grab_01.object.npy", None).load("arctic_0001")
    with pytest.raises(UsageError, match=r"arctic_0002.*'s01'"):
        damaged("meta/misc.json", '{"s02": {}}').load("arctic_0002")


def test_a_digest_follows_the_files_and_nothing_else(copies: Copies, tmp_path: Path) -> None:
    root, scenes = broken(copies, tmp_path, "oakink")
    before = {name: scenes.digest(name) for name in scenes.names()}
    assert before == {name: open_dataset("oakink", copies["oakink"][0]).digest(name) for name in scenes.names()}
    (path,) = (root / "image" / "anno" / "cam_intr").glob("A01023*.pkl")
    write_pickle(path, np.eye(3))
    assert (
        scenes.digest("oakink_0000") != before["oakink_0000"] and scenes.digest("oakink_0003") == before["oakink_0003"]
    )
