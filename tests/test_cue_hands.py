# SPDX-License-Identifier: Apache-2.0
"""Hands by networks of the user's: places for the true camera, left hands, and landmarks by ViTPose's real class."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import tiny_cues as tiny
import torch
from numpy.typing import NDArray

pytest.importorskip("transformers", reason="the extra 'foundation' is not installed")

from fmh_ros.core.cues.foundation.hands import (
    HandBox,
    ManoRegressor,
    VitPoseHandDetector,
    YoloHandBoxes,
    hand_crop,
    make_hamer,
    make_vitpose,
)
from fmh_ros.core.cues.squares import Square
from fmh_ros.core.cues.types import HandObservation
from fmh_ros.core.errors import HandFitError, ModelFileError, ModelMissingError
from fmh_ros.core.frame.camera import CameraModel
from fmh_ros.core.frame.frame import Frame, Side
from fmh_ros.core.hand.rig import load_generic_rig
from fmh_ros.core.reconstruction.mirror import mirror_hand

#: The principal point is far from the middle, as after a crop.
CAMERA = CameraModel(640, 480, np.array([[610.0, 0, 250.0], [0, 610.0, 300.0], [0, 0, 1.0]]))
RIG = load_generic_rig()
#: A hand seen from its back, fingers up and a little away from the camera: no two of its axes look alike.
TURN = cv2.Rodrigues(np.array([0.35, 0.2, 0.1]))[0] @ np.array([[0.0, -1, 0], [-1, 0, 0], [0, 0, -1.0]])
PLACE = np.array([0.11, 0.05, 0.55])


class KnowsTheHand(torch.nn.Module):
    """Answers as HaMeR does, for one true right hand, from nothing but where a mark lies in the crop.

    Its weak perspective is what a network trained on such crops learns: the true place, as the crop shows it.
    """

    def __init__(self, square_side: float) -> None:
        super().__init__()
        self.anchor = torch.nn.Parameter(torch.zeros(1))
        self.side = square_side
        self.crops: list[NDArray[np.float64]] = []

    def forward(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        image = batch["img"]
        assert image.shape == (1, 3, 256, 256)
        mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
        grey = (image[0] * deviation[:, None, None] + mean[:, None, None])[0].double()
        rows, columns = torch.meshgrid(torch.arange(256.0), torch.arange(256.0), indexing="ij")
        mark = torch.stack([(grey * columns).sum(), (grey * rows).sum()]) / grey.sum()
        self.crops.append(mark.numpy())
        scale = 2 * CAMERA.focal / (self.side * PLACE[2])
        # The mark is the wrist's pixel; from the crop's middle to it in metres at the hand's depth.
        shift = (mark.numpy() - 128) * self.side / 256 * PLACE[2] / CAMERA.focal
        camera = torch.tensor([[scale, *shift]])
        keypoints = torch.as_tensor(RIG.keypoints @ TURN.T)[None]
        vertices = torch.as_tensor(RIG.vertices @ TURN.T)[None]
        return {"pred_cam": camera, "pred_vertices": vertices, "pred_keypoints_3d": keypoints}


class ToldBoxes:
    def __init__(self, *boxes: HandBox) -> None:
        self.boxes = list(boxes)

    def find(self, image: NDArray[np.uint8]) -> list[HandBox]:
        return self.boxes


TRUE = RIG.keypoints @ TURN.T + PLACE
PIXELS = CAMERA.project(TRUE)


def scene(side: Side = "right") -> tuple[Frame, HandBox]:
    """A black picture with a mark on the wrist, and the hand's box; a left hand is the same picture in a mirror."""
    image = np.zeros((480, 640, 3), np.uint8)
    cv2.circle(image, tuple(np.round(PIXELS[0] * 16).astype(int)), 6 * 16, (255, 255, 255), -1, cv2.LINE_AA, 4)
    frame = Frame(image, CAMERA)
    low, high = PIXELS.min(0), PIXELS.max(0)
    box = (float(low[0]), float(low[1]), float(high[0]), float(high[1]))
    if side == "left":
        box = (639 - box[2], box[1], 639 - box[0], box[3])
        frame = frame.mirrored()
    return frame, HandBox(box, side, 0.8)


def crop_side(box: HandBox) -> float:
    width, height = box.box[2] - box.box[0], box.box[3] - box.box[1]
    return 2.0 * max(height, width * 256 / 192)


def regressor(side: Side = "right") -> tuple[ManoRegressor, Frame, HandBox]:
    frame, box = scene(side)
    return ManoRegressor(KnowsTheHand(crop_side(box)), ToldBoxes(box), RIG), frame, box


def test_the_hand_stands_at_its_true_place_for_an_off_centre_camera() -> None:
    network, frame, box = regressor()
    found = network.look(frame, box)
    np.testing.assert_allclose(found.keypoints, TRUE, atol=1e-3)
    np.testing.assert_allclose(found.vertices, RIG.vertices @ TURN.T + PLACE, atol=1e-3)
    half = replace(frame, camera=replace(CAMERA, K=np.array([[305.0, 0, 250.0], [0, 305.0, 300.0], [0, 0, 1.0]])))
    nearer = network.look(half, box).keypoints  # the same picture by a wider lens: half as far away
    assert nearer[0, 2] == pytest.approx(PLACE[2] / 2, abs=2e-3)


@pytest.mark.parametrize("mirrored", [False, True])
def test_crops_have_their_middle_where_the_networks_were_trained_with_it(mirrored: bool) -> None:
    image = np.zeros((480, 640, 3), np.uint8)
    dot = np.array([300.0, 200.0])
    cv2.circle(image, (300, 200), 5, (255, 255, 255), -1)
    square = Square(np.array([290.25, 210.5]), 96.0)
    crop = hand_crop(image, square, mirrored=mirrored)[..., 0].astype(float)
    seen = np.array([(crop.sum(axis) * np.arange(256)).sum() / crop.sum() for axis in (0, 1)])
    flip = np.array([-1, 1]) if mirrored else 1
    np.testing.assert_allclose(seen, 128 + flip * (dot - square.centre) * 256 / 96, atol=0.06)


def test_detections_have_landmarks_in_the_image_and_a_metric_pose() -> None:
    network, frame, _ = regressor()
    (hand,) = network.detect(frame)
    assert hand.side == "right" and hand.score == 0.8
    np.testing.assert_allclose(hand.keypoints_2d, PIXELS, atol=1.0)
    np.testing.assert_allclose(np.diff(hand.keypoints_world, axis=0), np.diff(TRUE, axis=0), atol=1e-6)


def test_a_left_hand_is_seen_mirrored_and_answered_mirrored_back() -> None:
    network, frame, box = regressor()
    (right,) = network.detect(frame)
    other, mirrored_frame, mirrored_box = regressor("left")
    (left,) = other.detect(mirrored_frame)
    assert left.side == "left"
    np.testing.assert_allclose(left.keypoints_2d, right.keypoints_2d * [-1, 1] + [639, 0], atol=0.02)
    np.testing.assert_allclose(left.keypoints_world, right.keypoints_world * [-1, 1, 1], atol=1e-6)
    # The network itself saw the very same crop.
    np.testing.assert_allclose(other.network.crops[-1], network.network.crops[-1], atol=0.02)
    np.testing.assert_allclose(
        other.look(mirrored_frame, mirrored_box).vertices, network.look(frame, box).vertices * [-1, 1, 1], atol=1e-4
    )


def test_the_mesh_is_a_hand_in_its_own_frame_at_its_pose() -> None:
    network, frame, _ = regressor()
    (observation,) = network.detect(frame)
    hand = network.regress(frame, observation)
    np.testing.assert_allclose(hand.T_camera_hand.apply(hand.keypoints), TRUE, atol=2e-3)
    np.testing.assert_allclose(hand.keypoints, RIG.keypoints, atol=1e-6)  # the rig's frame is the hand frame
    np.testing.assert_allclose(hand.vertices, RIG.vertices, atol=1e-6)
    assert np.linalg.det(hand.T_camera_hand.rotation) == pytest.approx(1) and hand.T_camera_hand.scale == 1
    assert hand.scale == pytest.approx(1, abs=1e-6) and hand.reprojection_px < 1 and hand.score > 0.9
    assert mirror_hand(hand).side == "left"


def test_left_hands_and_answers_that_miss_are_refused() -> None:
    network, frame, _ = regressor()
    (observation,) = network.detect(frame)
    with pytest.raises(HandFitError, match="left"):
        network.regress(frame, replace(observation, side="left"))
    moved = replace(observation, keypoints_2d=observation.keypoints_2d + 90)
    with pytest.raises(HandFitError, match="misses the landmarks"):
        network.regress(frame, moved)


def test_wilors_detector_is_given_bgr_and_its_classes_are_sides() -> None:
    shown: list[NDArray[np.uint8]] = []

    def yolo(image: NDArray[np.uint8], **options: Any) -> list[Any]:
        shown.append(image)
        assert options["conf"] == 0.3 and options["iou"] == 0.5
        rows = torch.tensor([[10.0, 20, 50, 80, 0.6, 0], [100.5, 40.5, 160.5, 90.5, 0.9, 1]])
        return [SimpleNamespace(boxes=SimpleNamespace(data=rows))]

    image = np.zeros((100, 200, 3), np.uint8)
    image[..., 0] = 255
    best, second = YoloHandBoxes(yolo).find(image)
    assert best == HandBox((100.0, 40.0, 160.0, 90.0), "right", pytest.approx(0.9)) and second.side == "left"
    assert (shown[0][0, 0] == [0, 0, 255]).all()
    empty = YoloHandBoxes(lambda *_, **__: [SimpleNamespace(boxes=SimpleNamespace(data=torch.zeros(0, 6)))])
    assert ManoRegressor(None, empty, RIG).detect(Frame(image, replace(CAMERA, width=200, height=100))) == []


def test_what_the_user_must_bring_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelMissingError, match="mano"):
        make_hamer({"hamer": tmp_path}, {}, "cpu")


class ToldDetector:
    name = "told"

    def __init__(self, *hands: HandObservation) -> None:
        self.hands = list(hands)

    def detect(self, frame: Frame) -> list[HandObservation]:
        return self.hands


class Pointing(torch.nn.Module):
    """Wraps the real ViTPose and puts heat where it is told, in place of its random maps."""

    def __init__(self, real: Any, at: NDArray[np.float64], heat: NDArray[np.float64]) -> None:
        super().__init__()
        self.real, self.config, self.at, self.heat = real, real.config, at, heat

    def forward(self, pixel_values: torch.Tensor, **more: Any) -> Any:
        answer = self.real(pixel_values, **more)
        count, height, width = answer.heatmaps.shape[1:]
        rows, columns = np.mgrid[:height, :width]
        offset = np.stack([columns, rows], -1)[None] - self.at[:, None, None]
        maps = self.heat[:, None, None] * np.exp(-(offset**2).sum(-1) / (2 * 2.0**2))
        assert maps.shape == (count, height, width)
        answer.heatmaps = torch.as_tensor(maps, dtype=torch.float32)[None]
        return answer


@pytest.mark.parametrize(("count", "side"), [(21, "right"), (133, "right"), (133, "left")])
def test_vitpose_sharpens_the_landmarks_it_is_sure_of_in_our_order(count: int, side: Side) -> None:
    hand = replace(tiny.painted_scene().hand, side=side)
    frame = tiny.painted_scene().frame
    heat = np.full(count, 0.9)
    first = {21: 0, 133: 112 if side == "right" else 91}[count]
    heat[first + 3] = 0.1
    at = np.stack([np.linspace(6, 40, count), np.linspace(8, 56, count)], 1)
    network = Pointing(tiny.tiny_vitpose(count), at, heat)
    detector = VitPoseHandDetector(network, tiny.tiny_vitpose_images(), ToldDetector(hand))
    (found,) = detector.detect(frame)
    assert found.side == side and found.keypoints_2d.shape == (21, 2)
    np.testing.assert_allclose(found.keypoints_2d[3], hand.keypoints_2d[3])  # not sure of it
    # Independently: the box, fitted to 192 x 256 with a quarter more round it, holds 48 x 64 cells.
    x0, y0, x1, y1 = hand.box if count == 21 else (0.0, 0.0, 319.0, 239.0)
    width = 1.25 * max(x1 - x0, (y1 - y0) * 0.75)
    cell = width / 48
    corner = np.array([(x0 + x1) / 2 - width / 2, (y0 + y1) / 2 - width / 0.75 / 2])
    expected = corner + at[first : first + 21] * cell
    others = np.arange(21) != 3
    np.testing.assert_allclose(found.keypoints_2d[others], expected[others], atol=1.2 * cell)
    assert np.corrcoef(found.keypoints_2d[others].T, expected[others].T)[0, 2] > 0.99


def test_vitpose_loads_from_its_folder_and_a_body_without_hands_is_refused(tmp_path: Path) -> None:
    folder = tiny.save(tiny.tiny_vitpose(21), tmp_path / "v")
    tiny.tiny_vitpose_images().save_pretrained(folder)
    detector = make_vitpose({"vitpose-hand": folder}, {"dtype": "bfloat16"}, "cpu")
    pixels, scores = detector.landmarks(tiny.painted_scene().frame.image, tiny.painted_scene().hand)
    assert pixels.shape == (21, 2) and scores.shape == (21,) and np.isfinite(pixels).all()
    with pytest.raises(ModelFileError, match="no hands"):
        VitPoseHandDetector(tiny.tiny_vitpose(17), tiny.tiny_vitpose_images(), ToldDetector())
