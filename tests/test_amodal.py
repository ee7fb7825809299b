# SPDX-License-Identifier: Apache-2.0
"""What the hand hides of the object: the network's input, its estimate on grasps, and what becomes of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from fmh_ros.benchmark.training_views import write_views
from fmh_ros.core.cues.amodal import WEIGHTS, AmodalNetworkEstimator
from fmh_ros.core.cues.amodal_network import (
    DEPTH_LIMIT,
    HAND,
    MAP_COUNT,
    MAP_SIZE,
    OBJECT,
    AmodalInput,
    AmodalNetwork,
    amodal_maps,
)
from fmh_ros.core.cues.completion import HARDLY, SURELY, complete_view, hidden_parts
from fmh_ros.core.cues.types import HandObservation, PointMap, SceneMasks
from fmh_ros.core.errors import ModelMissingError
from fmh_ros.core.frame.camera import CameraModel
from fmh_ros.core.frame.frame import Frame
from fmh_ros.core.guidance.supervision import build_supervision
from fmh_ros.core.hand.rig import load_generic_rig
from fmh_ros.core.hand.types import HandMesh
from fmh_ros.core.transforms import Similarity
from fmh_ros.training.amodal import draw_example, evaluate, train
from fmh_ros.training.amodal_views import Views, load_views
from fmh_ros.training.scenes import render
from fmh_ros.training.scenes.views import draw_views


def _input(**changes: object) -> AmodalInput:
    joints = np.zeros((21, 3))
    joints[:, 0] = np.linspace(30, 66, 21)
    joints[:, 1] = 40 + 10 * (np.arange(21) % 4)
    joints[:, 2] = np.linspace(-0.02, 0.03, 21)
    label = np.zeros((MAP_SIZE, MAP_SIZE), np.uint8)
    label[30:70, 20:60], label[20:30, 40:90] = HAND, OBJECT
    seen = AmodalInput(label, np.ones(label.shape, np.bool_), None, joints, 0.003)
    return replace(seen, **changes)  # type: ignore[arg-type]


def test_maps_hold_what_is_seen_and_the_skeletons_near_and_far_side() -> None:
    depth = np.full((MAP_SIZE, MAP_SIZE), 5.0, np.float32)
    depth[:, :10] = np.nan
    seen = _input(depth=depth)
    maps = amodal_maps(seen)
    assert maps.shape == (MAP_COUNT, MAP_SIZE, MAP_SIZE) and maps.dtype == np.float32 and np.isfinite(maps).all()
    assert np.array_equal(maps[0] > 0, seen.label == OBJECT) and np.array_equal(maps[1] > 0, seen.label == HAND)
    assert not maps[4, :, :10].any() and (maps[3, :, 10:] == DEPTH_LIMIT).all(), "far depth is bounded, unknown is 0"
    drawn = maps[13] > 0
    assert (maps[11] <= maps[12] + 1e-6)[drawn].all() and not maps[11:13][:, ~drawn].any()
    assert maps[11][drawn].min() == pytest.approx(-0.2) and maps[12][drawn].max() == pytest.approx(0.3)
    assert not amodal_maps(_input())[3:5].any(), "without a sensor no depth is known"


def test_landmarks_far_outside_the_crop_are_no_error() -> None:
    joints = np.full((21, 3), 1e7)
    assert np.isfinite(amodal_maps(_input(joints=joints))).all()


def test_missing_and_foreign_weights_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ModelMissingError, match="are missing"):
        AmodalNetwork.from_file(tmp_path / "none.safetensors")
    save_file({"weight": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(ModelMissingError, match="does not fit"):
        AmodalNetworkEstimator(tmp_path / "other.safetensors").load()


def _scene(seed: int) -> tuple[Frame, SceneMasks, PointMap, HandMesh, np.ndarray]:
    """A rendered grasp with exact cues, and the whole object's mask."""
    rig = load_generic_rig()
    rng = np.random.default_rng(seed)
    while True:
        for view in draw_views(rng, rig, 2):
            hidden = view.buffers.amodal & (view.buffers.label != render.OBJECT)
            if view.holds and hidden.sum() > 300:
                label = view.buffers.label
                held, solid = label == render.OBJECT, label != render.BACKGROUND
                depth = np.where(solid, view.buffers.depth, np.nan).astype(np.float32)
                masks = SceneMasks(solid & ~held, held, held.astype(np.float32), None, 1.0)
                pose = view.T_camera_hand
                keypoints = pose.inverse().apply(view.keypoints)
                hand = HandMesh(
                    "right", pose, keypoints, np.zeros((1, 3), int), np.zeros(21, int), keypoints, 1.0, 0.08, 0.0, 1.0
                )
                frame = Frame(np.zeros((*label.shape, 3), np.uint8), view.camera)
                return frame, masks, PointMap(depth, None, "sensor", 0.01), hand, view.buffers.amodal


@pytest.mark.parametrize("with_depth", [True, False])
def test_the_shipped_network_knows_more_of_unseen_grasps_than_their_mean(with_depth: bool) -> None:
    estimator = AmodalNetworkEstimator()
    said, true = [], []
    for seed in range(700, 712):
        frame, masks, points, hand, whole = _scene(seed)
        found = estimator.estimate(frame, masks, points if with_depth else None, hand)
        guess = found.amodal_probability
        assert guess is not None and guess.dtype == np.float32 and guess.min() >= 0 and guess.max() <= 1
        assert (guess[masks.object] == 1).all() and not guess[~masks.hand & ~masks.object].any()
        behind = masks.hand
        said.append(guess[behind])
        true.append(whole[behind])
    p, y = np.concatenate(said), np.concatenate(true)
    overlap = ((p > 0.5) & y).sum() / ((p > 0.5) | y).sum()
    assert overlap > 0.5, "nothing, or the whole hand, would be 0 or the mean"
    assert y.mean() < 0.4
    assert y[p > SURELY].mean() > 0.8 and y[p < 0.05].mean() < 0.05, "probabilities mean what they say"


def test_nothing_is_estimated_where_nothing_is_seen() -> None:
    frame, masks, points, hand, _ = _scene(700)
    empty = replace(masks, object=np.zeros_like(masks.object))
    found = AmodalNetworkEstimator(Path("no such file")).estimate(frame, empty, points, hand)
    assert found.amodal_probability is not None and not found.amodal_probability.any()


def test_a_turned_picture_gives_the_turned_estimate() -> None:
    frame, masks, points, hand, _ = _scene(701)
    size = frame.image.shape[0]
    K = frame.camera.K
    # A quarter turn: (x, y) becomes (y, size - 1 - x).
    turned_K = np.array([[K[1, 1], 0, K[1, 2]], [0, K[0, 0], size - 1 - K[0, 2]], [0, 0, 1]])
    quarter = np.array([[0, 1, 0], [-1, 0, 0], [0, 0, 1.0]])
    pose = Similarity(quarter) @ hand.T_camera_hand
    turned_masks = replace(
        masks,
        hand=np.rot90(masks.hand).copy(),
        object=np.rot90(masks.object).copy(),
        object_probability=np.rot90(masks.object_probability).copy(),
    )
    estimator = AmodalNetworkEstimator()
    plain = estimator.estimate(frame, masks, points, hand).amodal_probability
    turned = estimator.estimate(
        Frame(np.rot90(frame.image).copy(), CameraModel(size, size, turned_K)),
        turned_masks,
        PointMap(np.rot90(points.depth).copy(), None, "sensor", 0.01),
        replace(hand, T_camera_hand=pose),
    ).amodal_probability
    assert plain is not None and turned is not None
    behind = np.rot90(masks.hand)
    assert np.abs(np.rot90(plain) - turned)[behind].mean() < 0.01
    assert np.abs(np.rot90(plain, 2) - turned)[behind].mean() > 0.1, "another turn would not pass"


def _strip(probability: float | None) -> tuple[Frame, SceneMasks, PointMap, HandMesh]:
    """A bar seen left of a hand that hides its right half, with one probability for all that is hidden."""
    hand_mask, held = np.zeros((240, 320), np.bool_), np.zeros((240, 320), np.bool_)
    hand_mask[80:170, 150:230], held[110:130, 80:150] = True, True
    amodal = None
    if probability is not None:
        amodal = np.where(held, 1, np.where(hand_mask, probability, 0)).astype(np.float32)
    masks = SceneMasks(hand_mask, held, held.astype(np.float32), amodal, 1.0)
    depth = np.where(held, 0.5, np.where(hand_mask, 0.47, 1.2)).astype(np.float32)
    pose = Similarity(np.eye(3), np.array([0.03, 0.0, 0.5]))
    hand = HandMesh(
        "right", pose, np.zeros((1, 3)), np.zeros((1, 3), int), np.zeros(1, int), np.zeros((21, 3)), 1.0, 0.1, 0.0, 1.0
    )
    camera = CameraModel(320, 240, np.array([[300.0, 0, 160], [0, 300.0, 120], [0, 0, 1]]))
    return Frame(np.zeros((240, 320, 3), np.uint8), camera), masks, PointMap(depth, None, "sensor", 0.01), hand


def test_only_what_is_nearly_sure_is_taken_for_the_object_or_for_none_of_it() -> None:
    unknown = {}
    for probability in (None, 0.5 * (SURELY + HARDLY), 1.0, 0.0):
        frame, masks, points, hand = _strip(probability)
        behind, empty = hidden_parts(masks)
        assert bool(behind.any()) == (probability == 1.0) and bool(empty.any()) == (probability == 0.0)
        assert not ((behind | empty) & ~masks.hand).any()
        view = complete_view(frame, masks, points, hand)
        unknown[probability] = (view.unknown.mean(), (view.mask > 0.5).mean())
        assert view.depth is not None
        seen_depth = view.depth[np.isfinite(view.depth)]
        assert len(seen_depth) and seen_depth.min() > 0.49, "hidden parts do not get the hand's depth"
    shares = [unknown[key][0] for key in unknown]
    assert shares[0] > 0.05 and shares[1] == pytest.approx(shares[0], rel=0.3) and max(shares[2:]) < 0.005
    assert unknown[1.0][1] > unknown[0.0][1]


def test_guidance_holds_the_outline_against_what_is_known_behind_the_hand() -> None:
    targets = {}
    box = (150.0, 80.0, 229.0, 169.0)
    seen = HandObservation("right", 1.0, 1.0, box, np.full((21, 2), 190.0) * [1, 0.6], np.zeros((21, 3)))
    for probability in (None, 1.0, 0.0):
        frame, masks, points, _ = _strip(probability)
        targets[probability] = build_supervision(frame, masks, points, seen, 96).object
    plain, full, none = targets[None], targets[1.0], targets[0.0]
    assert torch.equal(plain.visible, full.visible) and torch.equal(plain.known, full.known), "depth is of what is seen"
    assert torch.equal(plain.covered, plain.visible) and full.covered.sum() > 2 * plain.covered.sum()
    hidden = full.covered & ~full.visible
    assert plain.dont_care[hidden].all() and not full.dont_care[hidden].any()
    assert none.dont_care[hidden].float().mean() < 0.5, "only its rim, where masks are not exact"
    assert (full.signed_px[hidden] < 0.6).all() and (none.signed_px[hidden] > -0.6).all()


def test_views_train_a_network_that_learns_from_them(tmp_path: Path) -> None:
    write_views(tmp_path, load_generic_rig(), seed=3, minutes=1e-3, scanned=[], grasps=8)
    views = load_views([tmp_path])
    assert isinstance(views, Views) and len(views) > 5
    assert ((views.label == render.OBJECT) <= views.amodal).all(), "what is seen of the object is part of it"
    example = draw_example(np.random.default_rng(0), views, 0) or draw_example(np.random.default_rng(0), views, 1)
    assert example is not None and example[0].shape == (MAP_COUNT, MAP_SIZE, MAP_SIZE)
    torch.manual_seed(1)
    before = evaluate(AmodalNetwork(), views, 8)
    after = evaluate(train(views, tmp_path / "w.safetensors", hours=8 / 3600, batch=4, workers=0), views, 8)
    assert after["cross_entropy"] < before["cross_entropy"]
    again = evaluate(AmodalNetwork.from_file(tmp_path / "w.safetensors"), views, 8)
    assert again["cross_entropy"] == pytest.approx(after["cross_entropy"], rel=0.02)


def test_the_weights_are_small_and_of_half_precision() -> None:
    assert WEIGHTS.stat().st_size < 4_000_000
    assert {value.dtype for value in load_file(WEIGHTS).values()} == {torch.float16}
