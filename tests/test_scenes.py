# SPDX-License-Identifier: Apache-2.0
"""Synthetic scenes: grasps are physically sensible and every truth map agrees with the meshes."""

from __future__ import annotations

import numpy as np
import pytest
import trimesh

from fmh_ros.core.fields.mesh_queries import MeshQueries, render_first_hits
from fmh_ros.core.hand.rig import HandRig, load_generic_rig
from fmh_ros.training.scenes.backgrounds import background, photograph
from fmh_ros.training.scenes.compose import Bank, compose
from fmh_ros.training.scenes.grasp import MAX_PENETRATION_M, TOUCH_M, Grasp, draw_free_hand, draw_grasp
from fmh_ros.training.scenes.objects import mesh_object, procedural_object
from fmh_ros.training.scenes.truth import SceneTruth, depth_camera, draw_truth
from fmh_ros.training.scenes.views import write_bank


@pytest.fixture(scope="module")
def rig() -> HandRig:
    return load_generic_rig()


@pytest.fixture(scope="module")
def truth(rig: HandRig) -> SceneTruth:
    return draw_truth(3, rig, width=320, height=240, family="can")


def _first_grasp(rig: HandRig, seed: int, family: str) -> Grasp:
    rng = np.random.default_rng(seed)
    for _ in range(20):
        grasp = draw_grasp(rng, rig, procedural_object(rng, family))
        if grasp is not None:
            return grasp
    raise AssertionError(f"no grasp of a {family} in 20 tries")


@pytest.mark.parametrize("family", ["can", "cuboid", "mug", "stick"])
def test_a_grasp_touches_with_two_fingers_and_does_not_penetrate(rig: HandRig, family: str) -> None:
    grasp = _first_grasp(rig, 1, family)
    distance = grasp.object_distance(grasp.vertices)
    assert distance.min() >= -MAX_PENETRATION_M
    touching = {int(k) for k in rig.vertex_finger[distance < TOUCH_M]}
    assert len(touching) >= 2
    assert len(grasp.touching) == len(touching)


def test_a_free_hand_holds_nothing(rig: HandRig) -> None:
    hand = draw_free_hand(np.random.default_rng(0), rig)
    assert hand.object is None
    assert np.isinf(hand.object_distance(hand.vertices)).all()


def test_the_object_mesh_lies_on_the_zero_of_its_distance() -> None:
    held = procedural_object(np.random.default_rng(5), "bottle")
    size = float(np.ptp(held.vertices, axis=0).max())
    assert np.abs(held.distance(held.vertices)).max() < 0.02 * size
    outward = held.distance(held.vertices + 0.02 * size * held.normals)
    assert (outward > 0).mean() > 0.97


def test_the_faces_of_a_procedural_object_point_outward() -> None:
    made = procedural_object(np.random.default_rng(4), "can")
    assert trimesh.Trimesh(made.vertices, made.faces, process=False).volume > 0


def test_a_mesh_file_becomes_an_object_with_signed_distance(tmp_path: object) -> None:
    import trimesh

    path = f"{tmp_path}/box.stl"
    trimesh.creation.box((0.1, 0.06, 0.04)).export(path)
    from pathlib import Path

    held = mesh_object(Path(path))
    measured = held.distance(np.array([[0.0, 0, 0], [0.1, 0, 0], [0, 0, 0.03]]))
    np.testing.assert_allclose(measured, [-0.02, 0.05, 0.01], atol=1e-5)


def test_masks_and_depth_agree_with_the_meshes(truth: SceneTruth) -> None:
    camera = truth.frame.camera
    object_depth, _ = render_first_hits(MeshQueries(truth.object_vertices, truth.object_faces), camera)
    hit = np.isfinite(object_depth)
    union = (hit | truth.amodal_mask).sum()
    assert (hit & truth.amodal_mask).sum() / union > 0.98
    visible = truth.object_mask & hit
    assert np.abs(object_depth - truth.depth)[visible].max() < 5e-4
    hand_depth, _ = render_first_hits(MeshQueries(truth.hand_vertices, truth.hand_faces), camera)
    seen = np.isfinite(hand_depth) & truth.hand_mask
    # The forearm may cover a little of the wrist; elsewhere the hand is what the mask shows.
    assert np.median(np.abs(hand_depth - truth.depth)[seen]) < 1e-4
    nearer = np.isfinite(hand_depth) & (~hit | (hand_depth < object_depth - 1e-4))
    assert truth.hand_mask[nearer].mean() > 0.98
    assert not (truth.hand_mask & truth.object_mask).any()


def test_normals_are_unit_and_face_the_camera(truth: SceneTruth) -> None:
    normals = truth.normals[truth.object_mask]
    np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1, atol=1e-4)
    camera = truth.frame.camera
    rays = camera.rays(camera.pixel_grid())[truth.object_mask]
    assert (np.einsum("nc,nc->n", normals, rays) < 0.1).mean() > 0.97


def test_keypoints_project_into_the_hand(truth: SceneTruth) -> None:
    np.testing.assert_allclose(truth.frame.camera.project(truth.keypoints), truth.keypoints_2d)
    inside = truth.keypoints_2d.round().astype(int)
    covered = truth.hand_mask | truth.object_mask
    assert covered[inside[:, 1], inside[:, 0]].mean() > 0.9


def test_the_same_seed_gives_the_same_scene(rig: HandRig, truth: SceneTruth) -> None:
    again = draw_truth(3, rig, width=320, height=240, family="can")
    assert (again.frame.image == truth.frame.image).all()
    np.testing.assert_array_equal(again.frame.depth, truth.frame.depth)


def test_depth_noise_grows_with_distance_and_edges_drop_out() -> None:
    rng = np.random.default_rng(0)
    spread = []
    for z in (0.4, 1.2):
        flat = depth_camera(rng, np.full((120, 160), z), quantum_m=1e-5)
        spread.append(np.nanstd(flat))
        assert abs(np.nanmean(flat) - z) < 1e-3
    assert 5 < spread[1] / spread[0] < 13  # about (1.2 / 0.4) ** 2
    step = np.full((120, 160), 0.5)
    step[:, 80:] = 1.0
    missing = np.isnan(depth_camera(rng, step))
    assert missing[:, 78:82].mean() > 0.3 > missing[:, :60].mean()


def test_pictures_composed_from_a_bank_keep_their_truth(rig: HandRig, tmp_path: object) -> None:
    from pathlib import Path

    folder = Path(str(tmp_path))
    write_bank(folder, rig, seed=4, scenes=2, per_scene=2)
    bank = Bank(folder)
    count = bank.refresh()
    assert count == len(bank) > 0
    assert bank.refresh() == count
    first = compose(np.random.default_rng(1), rig, bank, 0)
    second = compose(np.random.default_rng(2), rig, bank, 0)
    assert first.image.shape == (192, 192, 3)
    assert (first.image != second.image).mean() > 0.3
    assert not first.image[~first.inside].any()
    np.testing.assert_array_equal(first.amodal, second.amodal)
    assert first.holds == bool(first.amodal.any())


def test_backgrounds_and_photographs_stay_in_range() -> None:
    for seed in range(6):
        rng = np.random.default_rng(seed)
        picture = background(rng)
        assert np.isfinite(picture).all()
        assert picture.min() >= 0
        assert picture.max() <= 1
        assert photograph(rng, picture).dtype == np.uint8
