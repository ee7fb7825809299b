# SPDX-License-Identifier: Apache-2.0
"""Point maps by networks: the centred camera they look through, their own conventions, and the scale of the hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_cues as tiny
import torch
from numpy.typing import NDArray

pytest.importorskip("transformers", reason="the extra 'foundation' is not installed")

from fmh_ros.core.cues.anchoring import anchor_on_depth, anchor_on_hand
from fmh_ros.core.cues.foundation.points import (
    DepthAnythingNetwork,
    DepthNetwork,
    DepthProNetwork,
    MogeNetwork,
    NetworkPointMapper,
    centred_view,
    make_depth_anything,
    make_depth_pro,
    make_moge,
)
from fmh_ros.core.cues.types import PointMap, SceneMasks
from fmh_ros.core.errors import ModelFileError, ModelMissingError
from fmh_ros.core.fields.mesh_queries import MeshQueries
from fmh_ros.core.frame.camera import CameraModel
from fmh_ros.core.frame.frame import Frame
from fmh_ros.core.hand.rig import load_generic_rig
from fmh_ros.core.hand.types import HandMesh
from fmh_ros.core.pretrained import HALF, Placement, to_tensor
from fmh_ros.core.transforms import Similarity

#: A slanted plane, normal . point = distance, in the camera's axes: no two pixels and no two axes are alike in it.
NORMAL = np.array([0.1, -0.15, -0.98]) / np.linalg.norm([0.1, -0.15, -0.98])
DISTANCE = -0.6


def camera(cx: float = 160.0, cy: float = 110.0, fx: float = 300.0, fy: float = 300.0) -> CameraModel:
    return CameraModel(320, 240, np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1.0]]))


CAMERAS = {
    "centred": camera(159.5, 119.5),
    "a little off": camera(),
    "square pixels no more": camera(150.0, 130.0, 290.0, 330.0),
    "cut from the corner of a large picture": camera(-200.0, 400.0),
}


def true_depth(real: CameraModel) -> NDArray[np.float64]:
    """Depth (H, W) of the plane along z."""
    depth: NDArray[np.float64] = DISTANCE / (real.rays(real.pixel_grid()) @ NORMAL)
    return depth


class PlaneMoge(torch.nn.Module):
    """Answers as MoGe-2 does, for a scene that is one plane: only by the picture's size and the field of view.

    world : (3, 3), the real camera's directions in the axes of the camera it is asked for.
    """

    def __init__(self, to_real: NDArray[np.float64], hole: bool = False) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.to_real, self.hole, self.asked = to_real, hole, []  # type: ignore[var-annotated]

    def infer(self, image: torch.Tensor, fov_x: float, resolution_level: int, use_fp16: bool) -> dict[str, Any]:
        assert image.shape[0] == 3 and float(image.min()) >= 0 and float(image.max()) <= 1
        self.asked.append((fov_x, resolution_level, use_fp16))
        height, width = image.shape[1:]
        focal = width / 2 / np.tan(np.radians(fov_x) / 2)
        u, v = np.meshgrid(np.arange(width) + 0.5 - width / 2, np.arange(height) + 0.5 - height / 2)
        rays = np.stack([u / focal, v / focal, np.ones_like(u)], -1)
        normal = self.to_real.T @ NORMAL
        depth = DISTANCE / (rays @ normal)
        mask = np.ones(depth.shape, bool)
        mask[: height // 4] = not self.hole
        depth = np.where(mask, depth, np.inf)
        normals = np.broadcast_to(-normal, (*depth.shape, 3)).copy()  # the sign of a normal differs between models
        as_tensor = {"depth": depth, "mask": mask, "normal": normals}
        return {key: torch.as_tensor(value) for key, value in as_tensor.items()}


def middle(shape: tuple[int, ...] = (240, 320)) -> SceneMasks:
    """The middle of the picture is object."""
    mask = np.zeros(shape, bool)
    mask[80:160, 120:200] = True
    return SceneMasks(np.zeros(shape, bool), mask, mask.astype(np.float32), None, 0.9)


def map_points(network: DepthNetwork, real: CameraModel, image: NDArray[np.uint8] | None = None) -> PointMap:
    frame = Frame(np.full((240, 320, 3), 90, np.uint8) if image is None else image, real)
    found = NetworkPointMapper(network).map_points(frame, tiny.painted_scene().hand, middle())
    assert found is not None
    return found


@pytest.mark.parametrize("kind", CAMERAS)
def test_the_picture_is_seen_by_a_centred_camera_that_sees_all_of_it(kind: str) -> None:
    real = CAMERAS[kind]
    view = centred_view(real)
    K = view.camera.K
    assert K[0, 0] == K[1, 1] and K[0, 2] == (view.camera.width - 1) / 2 and K[1, 2] == (view.camera.height - 1) / 2
    np.testing.assert_allclose(view.rotation @ view.rotation.T, np.eye(3), atol=1e-12)
    corners = np.array([[0.0, 0], [319, 0], [0, 239], [319, 239]])
    seen = view.camera.project(real.rays(corners) @ view.rotation)
    assert (seen > -0.5).all() and (seen < np.array([view.camera.width, view.camera.height]) - 0.5).all()
    homogeneous = np.concatenate([corners, np.ones((4, 1))], 1) @ view.homography.T
    np.testing.assert_allclose(homogeneous[:, :2] / homogeneous[:, 2:], seen, atol=1e-8)
    turned = not np.allclose(view.rotation, np.eye(3))
    assert turned == (kind == "cut from the corner of a large picture")
    assert view.camera.width * view.camera.height < 2.5 * 320 * 240


@pytest.mark.parametrize("kind", CAMERAS)
def test_depth_and_normals_come_back_to_the_real_camera(kind: str) -> None:
    real = CAMERAS[kind]
    view = centred_view(real)
    model = PlaneMoge(view.rotation)
    found = map_points(MogeNetwork(model, 7), real)
    inner = np.s_[3:-3, 3:-3]
    np.testing.assert_allclose(found.depth[inner], true_depth(real)[inner], rtol=2e-4)
    assert found.normals is not None and found.depth.dtype == found.normals.dtype == np.float32
    rays = real.rays(real.pixel_grid())
    towards = np.where((rays @ NORMAL < 0)[..., None], NORMAL, -NORMAL)
    np.testing.assert_allclose(found.normals[inner], towards[inner], atol=1e-5)
    assert found.source == "network" and 0 < found.scale_sigma < 1
    assert model.asked == [(pytest.approx(view.fov_x), 7, False)]


def test_the_picture_that_is_shown_is_the_scene_through_the_centred_camera() -> None:
    real = CAMERAS["square pixels no more"]
    image = np.zeros((240, 320, 3), np.uint8)
    image[60:63, 200:203] = 255
    view = centred_view(real)
    shown = view.picture(image)[..., 0].astype(float)
    rows, columns = np.mgrid[: shown.shape[0], : shown.shape[1]]
    centre = np.array([(shown * columns).sum(), (shown * rows).sum()]) / shown.sum()
    np.testing.assert_allclose(centre, view.camera.project(real.rays(np.array([201.0, 61.0]))), atol=0.05)


def test_what_moge_does_not_know_is_unknown() -> None:
    found = map_points(MogeNetwork(PlaneMoge(np.eye(3), hole=True)), CAMERAS["centred"])
    assert found.normals is not None
    assert np.isnan(found.depth[:58]).all() and np.isnan(found.normals[:58]).all()
    assert np.isfinite(found.depth[63:]).mean() > 0.99
    masks = middle()
    masks.object[:] = False
    frame = Frame(np.zeros((240, 320, 3), np.uint8), CAMERAS["centred"])
    mapper = NetworkPointMapper(MogeNetwork(PlaneMoge(np.eye(3), hole=True)))
    masks.object[:50] = True
    assert mapper.map_points(frame, tiny.painted_scene().hand, masks) is None


def test_depth_pro_divides_the_focal_length_by_what_it_predicts() -> None:
    model = tiny.tiny_depth_pro()
    image = np.random.default_rng(0).integers(0, 255, (240, 320, 3), np.uint8)
    real = CAMERAS["centred"]
    side = 32
    surface = DepthProNetwork(model, side).look(image, real)
    with torch.no_grad():
        raw = model(pixel_values=to_tensor(image, (side, side), HALF, Placement())).predicted_depth
        raw = torch.nn.functional.interpolate(raw[:, None], (240, 320), mode="bilinear")[0, 0].numpy()
    np.testing.assert_allclose(surface.depth, 1 / np.clip(raw * 320 / 300.0, 1e-4, 1e4), rtol=1e-4)
    twice = DepthProNetwork(model, side).look(image, camera(159.5, 119.5, 600.0, 600.0))
    inner = (raw * 320 / 600 > 1e-4) & (raw * 320 / 300 < 1e4)
    np.testing.assert_allclose(twice.depth[inner], 2 * surface.depth[inner], rtol=1e-4)  # twice the lens, twice as far


def test_depth_anything_says_metres_and_only_metric_weights_are_taken() -> None:
    image = np.random.default_rng(1).integers(0, 255, (240, 320, 3), np.uint8)
    network = DepthAnythingNetwork(tiny.tiny_depth_anything(), shortest=32)
    surface = network.look(image, CAMERAS["centred"])
    assert surface.depth.shape == (240, 320) and surface.normals is None
    assert (surface.depth > 0).all() and (surface.depth < 20).all()  # its last layer is a sigmoid times 20 m
    found = map_points(network, CAMERAS["a little off"], image)
    assert found.normals is not None and found.depth.shape == (240, 320)
    with pytest.raises(ModelFileError, match="Metric"):
        DepthAnythingNetwork(tiny.tiny_depth_anything("relative"))


def test_depth_networks_load_from_their_folders(tmp_path: Path) -> None:
    anything = make_depth_anything({"depth-anything": tiny.save(tiny.tiny_depth_anything(), tmp_path / "a")}, {}, "cpu")
    pro = make_depth_pro({"depth-pro": tiny.save(tiny.tiny_depth_pro(), tmp_path / "p")}, {"dtype": "bfloat16"}, "cpu")
    assert (anything.name, pro.name) == ("depth-anything", "depth-pro")
    assert next(pro.network.network.parameters()).dtype is torch.bfloat16  # type: ignore[attr-defined]


def test_a_missing_moge_is_named_with_what_installs_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "moge", None)
    monkeypatch.delitem(sys.modules, "moge.model.v2", raising=False)
    with pytest.raises(ModelMissingError, match="microsoft/MoGe"):
        make_moge({"moge": tmp_path}, {}, "cpu")


def test_the_real_moge_answers_through_the_same_adapter(tmp_path: Path) -> None:
    """With random weights: shapes, units and the field of view are its own."""
    v2 = pytest.importorskip("moge.model.v2", reason="the user's package moge is not installed (docs/models.md)")
    torch.manual_seed(0)
    stack = {"dim_res_blocks": [32, 16, 8, 8, 8], "res_block_hidden_norm": "none", "resamplers": ["bilinear"] * 4}
    head = {**stack, "dim_in": [32, 16, 8, 8, 8]}
    config = {
        "encoder": {"backbone": "dinov2_vits14", "intermediate_layers": 2, "dim_out": 30},
        "neck": {**stack, "dim_in": [32, 2, 2, 2, 2], "dim_out": None},
        "points_head": {**head, "dim_out": [None, None, None, None, 3]},
        "mask_head": {**head, "dim_out": [None, None, None, None, 1]},
        "normal_head": {**head, "dim_out": [None, None, None, None, 3]},
        "scale_head": {"dims": [384, 16, 1]},
        "remap_output": "exp",
        "num_tokens_range": [64, 128],
    }
    model = v2.MoGeModel(**config)
    with torch.no_grad():  # random weights are sure of nothing
        model.mask_head.output_blocks[-1].bias += 0.5
    torch.save({"model_config": config, "model": model.state_dict()}, tmp_path / "model.pt")
    mapper = make_moge({"moge": tmp_path}, {"resolution_level": 0}, "cpu")
    real = CAMERAS["square pixels no more"]
    view = centred_view(real)
    image = np.random.default_rng(0).integers(0, 255, (240, 320, 3), np.uint8)
    surface = mapper.network.look(view.picture(image), view.camera)
    assert surface.depth.shape == (view.camera.height, view.camera.width) and surface.normals is not None
    known = np.isfinite(surface.depth)
    np.testing.assert_allclose(np.linalg.norm(surface.normals[known], axis=-1), 1, atol=1e-4)
    assert (surface.depth[known] > 0).all()
    # The camera it was told of is ours: its points are seen where their pixels are.
    picture = torch.as_tensor(view.picture(image)).permute(2, 0, 1) / 255
    told = model.eval().infer(picture, fov_x=view.fov_x, resolution_level=0, use_fp16=False)
    points = told["points"].numpy()[known].astype(np.float64)
    assert known.sum() > 1000
    np.testing.assert_allclose(view.camera.project(points), view.camera.pixel_grid()[known], atol=2e-3)
    np.testing.assert_allclose(surface.depth[known], points[:, 2], rtol=1e-5)


def posed(scale: float = 1.0) -> HandMesh:
    """The generic hand, half a metre away, seen from its back."""
    rig = load_generic_rig()
    R = np.array([[0.0, 1, 0], [-1.0, 0, 0], [0, 0, 1]]) @ np.diag([1.0, -1, -1])
    pose = Similarity(R, np.array([0.0, 0.08, 0.5]))
    return HandMesh(
        "right", pose, scale * rig.vertices, rig.faces, rig.vertex_finger, scale * rig.keypoints, scale, 0.08, 1.0, 0.9
    )


def rendered(hand: HandMesh, real: CameraModel) -> NDArray[np.float32]:
    """Depth (H, W) of a hand before a wall, metres."""
    rays = real.rays(real.pixel_grid()).reshape(-1, 3)
    hits = MeshQueries(hand.T_camera_hand.apply(hand.vertices), hand.faces).cast(np.zeros(3), rays)
    depth = np.where(hits.face >= 0, hits.distance / np.linalg.norm(rays, axis=1), 1.2)
    return depth.reshape(real.height, real.width).astype(np.float32)


def test_a_networks_depth_is_scaled_to_the_hand_and_measured_depth_is_not() -> None:
    real, hand = CAMERAS["a little off"], posed()
    depth = rendered(hand, real)
    mask = depth < 1.0
    assert mask.sum() > 1000
    guess = PointMap(1.17 * depth, None, "network", 0.1)
    anchored = anchor_on_hand(guess, hand, real, mask)
    np.testing.assert_allclose(anchored.depth, depth, rtol=2e-3)
    assert 0.08 <= anchored.scale_sigma < 0.09  # that of the hand's size
    assert anchor_on_hand(replace(guess, source="sensor"), hand, real, mask).depth is guess.depth
    far = anchor_on_depth(posed(), real, (1.3 * depth).astype(np.float32), mask)  # measured: then the hand moves
    np.testing.assert_allclose(far.T_camera_hand.translation, 1.3 * hand.T_camera_hand.translation, rtol=2e-3)
    seen = [real.project(h.T_camera_hand.apply(h.keypoints)) for h in (far, hand)]
    np.testing.assert_allclose(seen[0], seen[1], atol=1e-6)
    assert far.scale == pytest.approx(1.3, rel=2e-3) and far.scale_sigma < hand.scale_sigma
    nothing = np.zeros_like(mask)
    assert anchor_on_depth(hand, real, depth, nothing) is hand
    assert anchor_on_hand(guess, hand, real, nothing) is guess
