# SPDX-License-Identifier: Apache-2.0
"""What every back end of a cue stage must hold, the embedded ones and those on foundation models alike."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_cues as tiny
import torch
from numpy.typing import NDArray
from scipy import ndimage

pytest.importorskip("transformers", reason="the extra 'foundation' is not installed")

import fmh_ros
from fmh_ros.core.cues.foundation.finders import Found, GroundingDinoFinder, Sam3Finder
from fmh_ros.core.cues.foundation.hands import DetectedHandBoxes, ManoRegressor, VitPoseHandDetector
from fmh_ros.core.cues.foundation.masks import PromptedSegmenter
from fmh_ros.core.cues.foundation.points import (
    DepthAnythingNetwork,
    DepthProNetwork,
    NetworkPointMapper,
)
from fmh_ros.core.cues.foundation.promptable import SamNetwork
from fmh_ros.core.cues.hand_detector import HandSearch, MediaPipeHandDetector
from fmh_ros.core.cues.point_map import SensorPointMapper
from fmh_ros.core.cues.segmenter import EmbeddedSegmenter
from fmh_ros.core.cues.types import HandDetector, HandObservation, PointMapper, SceneMasks, Segmenter
from fmh_ros.core.errors import EmptyObjectMaskError, NoObjectError
from fmh_ros.core.frame.frame import Frame, ObjectPrompt
from fmh_ros.core.frame.load import load_frame
from fmh_ros.core.hand.fit import mirror_observation
from fmh_ros.core.hand.rig import load_generic_rig
from fmh_ros.core.reconstruction.choose import choose_hand
from fmh_ros.core.reconstruction.mirror import mirror_masks

EXAMPLE = Path(fmh_ros.__file__).parent / "assets" / "example"
#: Looks once in every direction: enough for the example, and quick on an empty picture.
QUICK = HandSearch(tiles=(), paddings=(1.0,), weak_palm=0.5)


@pytest.fixture(scope="module")
def frame() -> Frame:
    return load_frame(EXAMPLE / "rgb.png", EXAMPLE / "depth.png", EXAMPLE / "camera.yaml")


@pytest.fixture(scope="module")
def hand(frame: Frame) -> HandObservation:
    return MediaPipeHandDetector(search=QUICK).detect(frame)[0]


class RandomMano(torch.nn.Module):
    """A network of HaMeR's interface with the generic rig's hand at a place that depends on the picture."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = torch.nn.Linear(3, 3)

    def forward(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        rig = load_generic_rig()
        moved = 0.02 * self.layer(batch["img"].mean((2, 3)))
        weak = torch.tensor([[5.0, 0, 0]]) + moved.float()
        points = (torch.as_tensor(values, dtype=torch.float32)[None] for values in (rig.vertices, rig.keypoints))
        return dict(zip(("pred_cam", "pred_vertices", "pred_keypoints_3d"), (weak, *points), strict=True))


DETECTORS: dict[str, Callable[[], HandDetector]] = {
    "embedded": lambda: MediaPipeHandDetector(search=QUICK),
    "mano regressor": lambda: ManoRegressor(
        RandomMano(), DetectedHandBoxes(MediaPipeHandDetector(search=QUICK)), load_generic_rig()
    ),
    "vitpose": lambda: VitPoseHandDetector(
        tiny.tiny_vitpose(21), tiny.tiny_vitpose_images(), MediaPipeHandDetector(search=QUICK)
    ),
}


@pytest.mark.parametrize("name", DETECTORS)
def test_detectors_return_hands_in_pixels_and_metres_and_nothing_for_an_empty_picture(name: str, frame: Frame) -> None:
    detector = DETECTORS[name]()
    before = frame.image.copy()
    hands = detector.detect(frame)
    assert hands and isinstance(detector.name, str)
    for hand in hands:
        assert hand.keypoints_2d.shape == (21, 2) and hand.keypoints_world.shape == (21, 3)
        assert hand.keypoints_2d.dtype == hand.keypoints_world.dtype == np.float64
        assert hand.side in ("left", "right") and 0 <= hand.score <= 1 and 0.5 <= hand.side_score <= 1
        np.testing.assert_allclose(hand.box, [*hand.keypoints_2d.min(0), *hand.keypoints_2d.max(0)])
        assert 0.02 < np.ptp(hand.keypoints_world, axis=0).max() < 0.4  # a hand's size, metres
    assert [h.score for h in hands] == sorted((h.score for h in hands), reverse=True)
    for first, second in zip(hands, detector.detect(frame), strict=True):
        np.testing.assert_array_equal(first.keypoints_2d, second.keypoints_2d)
    np.testing.assert_array_equal(frame.image, before)
    assert detector.detect(replace(frame, image=np.zeros_like(frame.image))) == []


@pytest.mark.parametrize("name", DETECTORS)
def test_a_mirrored_picture_has_the_other_hand(name: str, frame: Frame, hand: HandObservation) -> None:
    detector = DETECTORS[name]()
    (mirrored, *_) = detector.detect(frame.mirrored())
    assert mirrored.side != hand.side
    middle = hand.keypoints_2d.mean(0) * [-1, 1] + [frame.camera.width - 1, 0]
    assert np.linalg.norm(mirrored.keypoints_2d.mean(0) - middle) < 0.7 * np.ptp(hand.keypoints_2d, axis=0).max()


class NothingFound:
    name = "told"

    def find(self, image: NDArray[np.uint8], text: str) -> list[Found]:
        return []


def sam(dtype: torch.dtype = torch.float32) -> SamNetwork:
    return SamNetwork(tiny.tiny_sam2(), dtype=dtype)


SEGMENTERS: dict[str, Callable[[], Segmenter]] = {
    "embedded": EmbeddedSegmenter,
    "sam2, proposed to": lambda: PromptedSegmenter(sam(), proposer=EmbeddedSegmenter()),
    "sam2 in bfloat16": lambda: PromptedSegmenter(sam(torch.bfloat16), proposer=EmbeddedSegmenter()),
    "langsam": lambda: PromptedSegmenter(
        sam(), GroundingDinoFinder(tiny.tiny_grounding_dino(), tiny.tiny_words(), size=(64, 96))
    ),
    "sam3": lambda: PromptedSegmenter(
        SamNetwork(tiny.tiny_sam3_tracker(), "sam3"), Sam3Finder(tiny.tiny_sam3(), tiny.tiny_words(), least=0.1)
    ),
}


@pytest.fixture(scope="module")
def prompts(frame: Frame, hand: HandObservation) -> dict[str, ObjectPrompt]:
    """What a person would point at: the object as the embedded segmenter finds it."""
    held = EmbeddedSegmenter().segment(frame, hand, ObjectPrompt()).object
    rows, columns = np.nonzero(held)
    box = (float(columns.min()), float(rows.min()), float(columns.max()), float(rows.max()))
    row, column = np.unravel_index(ndimage.distance_transform_edt(held).argmax(), held.shape)
    return {"box": ObjectPrompt(box), "box and point": ObjectPrompt(box, ((float(column), float(row)),))}


def assert_masks(masks: SceneMasks, shape: tuple[int, ...]) -> None:
    assert masks.hand.shape == masks.object.shape == masks.object_probability.shape == shape
    assert masks.hand.dtype == masks.object.dtype == bool and masks.object_probability.dtype == np.float32
    assert not (masks.hand & masks.object).any() and masks.object.any()
    assert masks.object_probability.min() >= 0 and masks.object_probability.max() <= 1
    assert 0 <= masks.object_score <= 1 and all(isinstance(w, str) for w in masks.warnings)
    amodal = masks.amodal_probability
    assert amodal is None or (
        amodal.shape == shape and amodal.dtype == np.float32 and (amodal[masks.object] == 1).all()
    )


@pytest.mark.parametrize("name", SEGMENTERS)
@pytest.mark.parametrize("how", ["box", "box and point"])
def test_segmenters_return_disjoint_masks_within_the_box_and_the_same_again(
    name: str, how: str, frame: Frame, hand: HandObservation, prompts: dict[str, ObjectPrompt]
) -> None:
    segmenter, prompt = SEGMENTERS[name](), prompts[how]
    before = frame.image.copy()
    masks = segmenter.segment(frame, hand, prompt)
    assert_masks(masks, frame.image.shape[:2])
    rows, columns = np.nonzero(masks.object)
    assert prompt.box is not None
    assert columns.min() >= prompt.box[0] and rows.max() <= prompt.box[3]
    again = segmenter.segment(frame, hand, prompt)
    np.testing.assert_array_equal(masks.object, again.object)
    np.testing.assert_array_equal(masks.hand, again.hand)
    np.testing.assert_array_equal(frame.image, before)


@pytest.mark.parametrize("name", SEGMENTERS)
def test_a_mask_of_the_user_and_the_name_of_the_object_are_kept(name: str, frame: Frame, hand: HandObservation) -> None:
    mask = np.zeros(frame.image.shape[:2], bool)
    x, y = np.round(hand.keypoints_2d[8]).astype(int)
    mask[max(y - 40, 0) : y + 10, max(x - 30, 0) : x + 30] = True
    masks = SEGMENTERS[name]().segment(frame, hand, ObjectPrompt(mask=mask, text="red mug"))
    np.testing.assert_array_equal(masks.object, mask)
    assert_masks(masks, mask.shape)
    assert masks.object_name == "red mug"


EMPTY: dict[str, Callable[[], Segmenter]] = {
    **{name: SEGMENTERS[name] for name in ("embedded", "sam2, proposed to")},
    "nothing of that name": lambda: PromptedSegmenter(sam(), NothingFound()),
    "nobody says": lambda: PromptedSegmenter(sam()),
}


@pytest.mark.parametrize("name", EMPTY)
def test_nothing_in_an_empty_picture_is_a_typed_error(name: str, frame: Frame, hand: HandObservation) -> None:
    empty = replace(frame, image=np.full_like(frame.image, 127), depth=None)
    with pytest.raises((NoObjectError, EmptyObjectMaskError)) as raised:
        EMPTY[name]().segment(empty, hand, ObjectPrompt())
    assert raised.value.change


class Hands:
    """Reports one hand, mirrored in the mirrored picture."""

    name = "told"

    def __init__(self, frame: Frame, hand: HandObservation) -> None:
        self.image, self.hand = frame.image, hand

    def detect(self, frame: Frame) -> list[HandObservation]:
        same = np.array_equal(frame.image, self.image)
        return [self.hand if same else mirror_observation(self.hand, frame.camera.width)]


@pytest.mark.parametrize("name", SEGMENTERS)
def test_a_left_hand_gives_the_mirrored_masks_of_the_right_one(
    name: str, frame: Frame, hand: HandObservation, prompts: dict[str, ObjectPrompt]
) -> None:
    right = hand if hand.side == "right" else replace(hand, side="right")
    prompt = prompts["box"]
    segmenter = SEGMENTERS[name]()
    one = choose_hand(frame, Hands(frame, right), segmenter, prompt, None)
    turned = frame.mirrored()
    left = mirror_observation(right, frame.camera.width)
    other = choose_hand(turned, Hands(turned, left), segmenter, prompt.mirrored(frame.camera.width), None)
    assert other.mirrored and not one.mirrored
    np.testing.assert_array_equal(other.masks.object, one.masks.object)  # both as a right hand sees it
    np.testing.assert_array_equal(mirror_masks(mirror_masks(other.masks)).hand, one.masks.hand)


MAPPERS: dict[str, Callable[[], PointMapper]] = {
    "sensor": SensorPointMapper,
    "depth anything": lambda: NetworkPointMapper(DepthAnythingNetwork(tiny.tiny_depth_anything(), shortest=32)),
    "depth anything in bfloat16": lambda: NetworkPointMapper(
        DepthAnythingNetwork(copy.deepcopy(tiny.tiny_depth_anything()).to(torch.bfloat16), shortest=32)
    ),
    "depth pro": lambda: NetworkPointMapper(DepthProNetwork(tiny.tiny_depth_pro(), 32)),
}


@pytest.mark.parametrize("name", MAPPERS)
def test_point_maps_are_metres_along_z_with_unit_normals_towards_the_camera(
    name: str, frame: Frame, hand: HandObservation
) -> None:
    mapper = MAPPERS[name]()
    mask = np.zeros(frame.image.shape[:2], bool)
    x, y = np.round(hand.keypoints_2d.mean(0)).astype(int)
    mask[y - 40 : y + 40, x - 40 : x + 40] = True
    masks = SceneMasks(np.zeros_like(mask), mask, mask.astype(np.float32), None, 0.9)
    points = mapper.map_points(frame, hand, masks)
    assert points is not None
    assert points.depth.shape == mask.shape and points.depth.dtype == np.float32
    known = points.depth[np.isfinite(points.depth)]
    assert known.size and (known > 0).all()
    assert points.source == ("sensor" if name == "sensor" else "network") and 0 < points.scale_sigma < 1
    assert points.normals is not None and points.normals.dtype == np.float32
    sure = np.isfinite(points.normals).all(-1)
    np.testing.assert_allclose(np.linalg.norm(points.normals[sure], axis=-1), 1, atol=1e-4)
    rays = frame.camera.rays(frame.camera.pixel_grid())
    assert ((points.normals * rays).sum(-1)[sure] <= 1e-6).all()
    again: Any = mapper.map_points(frame, hand, masks)
    np.testing.assert_array_equal(points.depth, again.depth)


def test_without_a_sensor_there_is_no_measured_depth(frame: Frame, hand: HandObservation) -> None:
    mask = np.ones(frame.image.shape[:2], bool)
    masks = SceneMasks(~mask, mask, mask.astype(np.float32), None, 0.9)
    assert SensorPointMapper().map_points(replace(frame, depth=None), hand, masks) is None
