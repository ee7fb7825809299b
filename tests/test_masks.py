# SPDX-License-Identifier: Apache-2.0
"""The mask network, its segmenter on the bundled example and on synthetic scenes, and the sensor point map."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from photos import PHOTOS, needs_photos
from safetensors.torch import load_file

import fmh_ros
from fmh_ros.core.cues.hand_detector import MediaPipeHandDetector
from fmh_ros.core.cues.mask_inputs import CROP_SIZE, MAP_COUNT, MAP_SIZE, CropPrompt, guidance_maps
from fmh_ros.core.cues.mask_network import MaskNetwork
from fmh_ros.core.cues.mask_predictor import WEIGHTS, MaskPredictor, Prediction
from fmh_ros.core.cues.mask_refine import Canvas, refine
from fmh_ros.core.cues.point_map import SensorPointMapper, normals_from_depth, remove_flying_pixels
from fmh_ros.core.cues.segmenter import EmbeddedSegmenter
from fmh_ros.core.cues.squares import Square, apply, invert
from fmh_ros.core.cues.types import HandObservation, SceneMasks
from fmh_ros.core.errors import EmptyObjectMaskError, ModelMissingError, NoObjectError
from fmh_ros.core.frame.camera import camera_from_field_of_view
from fmh_ros.core.frame.frame import Frame, ObjectPrompt
from fmh_ros.core.frame.load import load_frame
from fmh_ros.core.hand.rig import load_generic_rig
from fmh_ros.core.reconstruction.choose import choose_hand
from fmh_ros.training.masks_train import TrainConfig, save_network
from fmh_ros.training.scenes.grasp import draw_free_hand
from fmh_ros.training.scenes.looks import Lighting, shade
from fmh_ros.training.scenes.render import Scene, scene_parts
from fmh_ros.training.scenes.truth import SceneTruth, draw_truth
from fmh_ros.training.scenes.views import draw_view

EXAMPLE = Path(fmh_ros.__file__).parent / "assets" / "example"


@pytest.fixture(scope="module")
def example() -> tuple[Frame, HandObservation]:
    frame = load_frame(EXAMPLE / "rgb.png", EXAMPLE / "depth.png", EXAMPLE / "camera.yaml")
    return frame, MediaPipeHandDetector().detect(frame)[0]


@pytest.fixture(scope="module")
def segmenter() -> EmbeddedSegmenter:
    return EmbeddedSegmenter()


@pytest.fixture(scope="module")
def masks(segmenter: EmbeddedSegmenter, example: tuple[Frame, HandObservation]) -> SceneMasks:
    return segmenter.segment(*example, ObjectPrompt())


@pytest.fixture(scope="module")
def truths() -> list[SceneTruth]:
    rig = load_generic_rig()
    return [draw_truth(100 + k, rig, family=name) for k, name in enumerate(("can", "cuboid", "bottle", "mug"))]


def _iou(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    return float((a & b).sum() / max((a | b).sum(), 1))


def test_weights_are_small_and_come_with_a_model_card() -> None:
    assert WEIGHTS.stat().st_size <= 5 * 1024 * 1024
    card = (WEIGHTS.parent / "MODEL_CARD.md").read_text(encoding="utf-8")
    for word in ("Apache-2.0", "EfficientNet-Lite0", "IoU", "hours"):
        assert word in card


def test_missing_weights_are_named(tmp_path: Path) -> None:
    with pytest.raises(ModelMissingError, match=r"nothing\.safetensors"):
        MaskPredictor(tmp_path / "nothing.safetensors").load()


def test_the_network_is_deterministic_and_its_normals_are_unit() -> None:
    network = MaskNetwork.from_file(WEIGHTS)
    generator = torch.Generator().manual_seed(0)
    image = 255 * torch.rand(1, 3, CROP_SIZE, CROP_SIZE, generator=generator)
    maps = torch.rand(1, MAP_COUNT, MAP_SIZE, MAP_SIZE, generator=generator)
    with torch.no_grad():
        first, second = network(image, maps), network(image, maps)
    assert torch.equal(first.classes, second.classes)
    assert torch.allclose(first.normals.norm(dim=1), torch.ones(1, MAP_SIZE, MAP_SIZE), atol=1e-4)
    assert first.classes.shape == (1, 3, MAP_SIZE, MAP_SIZE)


def test_guidance_maps_show_the_prompt_where_it_is() -> None:
    keypoints = np.random.default_rng(0).uniform(60, 120, (21, 2))
    inside = np.ones((CROP_SIZE, CROP_SIZE), bool)
    maps = guidance_maps(keypoints, CropPrompt((20, 40, 60, 100), np.array([[150.0, 30.0]])), inside)
    rows, columns = np.nonzero(maps[7])
    assert (columns.min(), columns.max(), rows.min(), rows.max()) == (10, 30, 20, 50)
    rows, columns = np.nonzero(maps[8])
    assert abs(columns.mean() - 75) < 0.6
    assert abs(rows.mean() - 15) < 0.6
    assert not maps[9].any()
    assert guidance_maps(keypoints, CropPrompt(), inside)[9].all()


def test_squares_map_there_and_back() -> None:
    square = Square(np.array([100.0, 50.0]), 80.0, 0.4)
    affine = square.to_frame(192)
    points = np.random.default_rng(1).uniform(0, 192, (5, 2))
    np.testing.assert_allclose(apply(invert(affine), apply(affine, points)), points, atol=1e-9)
    np.testing.assert_allclose(apply(affine, np.array([[95.5, 95.5]]))[0], [100, 50])


def test_the_example_is_segmented_into_disjoint_parts(
    example: tuple[Frame, HandObservation], masks: SceneMasks
) -> None:
    frame, hand = example
    assert masks.object_score > 0.5
    assert not (masks.hand & masks.object).any()
    keypoints = hand.keypoints_2d.round().astype(int)
    assert masks.hand[keypoints[:, 1], keypoints[:, 0]].mean() > 0.8
    # The mug is the only green thing in the picture.
    r, g, b = frame.image.astype(int).transpose(2, 0, 1)
    green = (g > r + 40) & (g > b + 40)
    assert _iou(masks.object, green) > 0.85
    assert masks.amodal_probability is not None
    assert (masks.amodal_probability[masks.object] >= 0.5).all()


def test_segmenting_twice_gives_the_same(
    segmenter: EmbeddedSegmenter, example: tuple[Frame, HandObservation], masks: SceneMasks
) -> None:
    again = segmenter.segment(*example, ObjectPrompt())
    np.testing.assert_array_equal(again.object, masks.object)
    assert again.object_score == masks.object_score


def test_a_box_bounds_the_object(
    segmenter: EmbeddedSegmenter, example: tuple[Frame, HandObservation], masks: SceneMasks
) -> None:
    rows, columns = np.nonzero(masks.object)
    middle = int(np.median(columns))
    box = (float(middle), float(rows.min()), float(columns.max()), float(rows.max()))
    boxed = segmenter.segment(*example, ObjectPrompt(box=box)).object
    rows, columns = np.nonzero(boxed)
    assert columns.min() >= box[0]
    assert columns.max() <= box[2]
    assert _iou(boxed, masks.object & (np.arange(boxed.shape[1]) >= middle)) > 0.8


def test_a_point_lies_in_the_object(
    segmenter: EmbeddedSegmenter, example: tuple[Frame, HandObservation], masks: SceneMasks
) -> None:
    rows, columns = np.nonzero(masks.object)
    x, y = int(columns[len(rows) // 3]), int(rows[len(rows) // 3])
    pointed = segmenter.segment(*example, ObjectPrompt(points=((x, y),)))
    assert pointed.object[y, x]
    assert _iou(pointed.object, masks.object) > 0.8


def test_a_mask_is_taken_as_it_is(segmenter: EmbeddedSegmenter, example: tuple[Frame, HandObservation]) -> None:
    frame, hand = example
    mask = np.zeros(frame.image.shape[:2], bool)
    mask[150:300, 300:420] = True
    result = segmenter.segment(frame, hand, ObjectPrompt(mask=mask))
    np.testing.assert_array_equal(result.object, mask)
    assert not (result.hand & mask).any()


def free_hand(seed: int) -> tuple[Frame, HandObservation]:
    """A rendered hand that holds nothing, before a plain wall."""
    rng, rig = np.random.default_rng(seed), load_generic_rig()
    hand = draw_free_hand(rng, rig)
    view = None
    while view is None:
        view = draw_view(rng, Scene(scene_parts(rng, rig, hand)), hand, holds=False, size=256)
    light = Lighting(np.full(3, 0.7), np.full((2, 3), 0.25))
    look = shade(rng, rig, view.buffers, light)
    picture = np.where((view.buffers.label > 0)[..., None], look, np.array([0.62, 0.68, 0.72]))
    pixels = view.camera.project(view.keypoints)
    low, high = pixels.min(0), pixels.max(0)
    box = (float(low[0]), float(low[1]), float(high[0]), float(high[1]))
    world = view.keypoints - view.keypoints.mean(0)
    image = (255 * picture.clip(0, 1)).astype(np.uint8)
    return Frame(image, view.camera), HandObservation("right", 1.0, 1.0, box, pixels, world)


def test_an_empty_hand_is_reported_as_one(segmenter: EmbeddedSegmenter) -> None:
    said_so = 0
    for seed in range(6):
        try:
            segmenter.segment(*free_hand(seed), ObjectPrompt())
        except NoObjectError as error:
            assert "--object-box" in str(error)
            said_so += 1
    assert said_so >= 4


@needs_photos
def test_of_two_hands_the_one_with_the_brick_is_chosen(segmenter: EmbeddedSegmenter) -> None:
    """The other one shades a rug in its own colours: those must not make it look more like holding something."""
    frame = load_frame(PHOTOS / "ihoi_demo_13.jpg")
    chosen = choose_hand(frame, MediaPipeHandDetector(), segmenter, ObjectPrompt(), None)
    assert chosen.mirrored, "the child's left hand"
    rows, columns = np.nonzero(chosen.masks.object[:, ::-1])
    width, height = frame.camera.width, frame.camera.height
    # By eye the brick's white half is about here, and nothing of it at the wrist.
    assert columns.min() / width > 0.80 and columns.max() / width < 0.96
    assert rows.min() / height > 0.38 and rows.max() / height < 0.62


@needs_photos
def test_what_the_network_does_not_know_is_found_before_a_plain_background(segmenter: EmbeddedSegmenter) -> None:
    frame = load_frame(PHOTOS / "easyhoi_airplane.jpg").mirrored()  # a left hand with a toy of cardboard
    (hand,) = MediaPipeHandDetector().detect(frame)
    masks = segmenter.segment(frame, hand, ObjectPrompt())
    rows, columns = np.nonzero(masks.object)
    width, height = frame.camera.width, frame.camera.height
    # Wings, tail and nose: by eye the toy spans these parts of the photo.
    assert np.ptp(columns) / width == pytest.approx(0.65, abs=0.03)
    assert np.ptp(rows) / height == pytest.approx(0.355, abs=0.03)
    assert any("unsure" in warning for warning in masks.warnings)


class _Hinted(MaskPredictor):
    """Answers vaguely until it is pointed at the object, as the network does; notes the prompts it was given."""

    def __init__(self, peak: float, holds: float) -> None:
        super().__init__()
        self.peak, self.holds_something = peak, holds
        self.prompts: list[ObjectPrompt] = []

    def predict(self, frame: Frame, hand: HandObservation, prompt: ObjectPrompt) -> Prediction:
        """The real answer, with the object's probability lowered to ``peak`` where there is no prompt."""
        self.prompts.append(prompt)
        seen = super().predict(frame, hand, prompt)
        if prompt.given:
            return seen
        held = np.minimum(seen.classes[..., 2], self.peak)
        classes = np.stack([1 - held - np.minimum(seen.classes[..., 1], 1 - held), seen.classes[..., 1], held], -1)
        return replace(seen, classes=classes.astype(np.float32), holds=self.holds_something)


def test_the_likeliest_pixel_of_a_vague_answer_is_asked_about(example: tuple[Frame, HandObservation]) -> None:
    """The object comes out as if the user had pointed at it, and no surer than a guess."""
    frame, hand = example
    frame = replace(frame, depth=None)
    predictor = _Hinted(peak=0.4, holds=0.8)
    masks = EmbeddedSegmenter(predictor).segment(frame, hand, ObjectPrompt())
    first, second = predictor.prompts
    assert not first.given and len(second.points) == 1
    pointed = EmbeddedSegmenter().segment(frame, hand, second)
    assert _iou(masks.object, pointed.object) > 0.9
    assert masks.object_score <= 0.4 < pointed.object_score


@pytest.mark.parametrize(("peak", "holds"), [(0.1, 0.8), (0.4, 0.1)])
def test_a_hand_that_hardly_holds_anything_is_not_asked_again(
    example: tuple[Frame, HandObservation], peak: float, holds: float
) -> None:
    """What stands out before the plain background is still found, but by its colours, not by a second answer."""
    predictor = _Hinted(peak, holds)
    frame, hand = example
    EmbeddedSegmenter(predictor).segment(replace(frame, depth=None), hand, ObjectPrompt())
    assert [prompt.given for prompt in predictor.prompts] == [False]


def test_a_mask_that_fills_the_picture_is_refused(
    segmenter: EmbeddedSegmenter, example: tuple[Frame, HandObservation]
) -> None:
    frame, hand = example
    with pytest.raises(EmptyObjectMaskError, match="every border"):
        segmenter.segment(frame, hand, ObjectPrompt(mask=np.ones(frame.image.shape[:2], bool)))


def test_masks_of_synthetic_scenes_match_their_truth(segmenter: EmbeddedSegmenter, truths: list[SceneTruth]) -> None:
    found = []
    for truth in truths:
        rows, columns = np.nonzero(truth.object_mask)
        box = (float(columns.min()), float(rows.min()), float(columns.max()), float(rows.max()))
        result = segmenter.segment(truth.frame, truth.observation(), ObjectPrompt(box=box))
        found.append(_iou(result.object, truth.object_mask))
    assert np.mean(found) > 0.75


def test_sensor_depth_becomes_points_with_normals(truths: list[SceneTruth]) -> None:
    truth = truths[0]
    masks = SceneMasks(truth.hand_mask, truth.object_mask, truth.object_mask.astype(np.float32), None, 1.0)
    points = SensorPointMapper().map_points(truth.frame, truth.observation(), masks)
    assert points is not None
    assert points.normals is not None
    seen = truth.object_mask & np.isfinite(points.depth)
    assert seen.sum() > 0.7 * truth.object_mask.sum()
    assert np.median(np.abs(points.depth - truth.depth)[seen]) < 0.004
    known = seen & np.isfinite(points.normals).all(-1)
    cosine = (points.normals * truth.normals).sum(-1)[known]
    assert np.degrees(np.median(np.arccos(cosine.clip(-1, 1)))) < 20


def test_no_depth_gives_no_points(truths: list[SceneTruth]) -> None:
    frame = replace(truths[0].frame, depth=None)
    masks = SceneMasks(truths[0].hand_mask, truths[0].object_mask, np.zeros((480, 640), np.float32), None, 1.0)
    assert SensorPointMapper().map_points(frame, truths[0].observation(), masks) is None


def test_flying_pixels_go_and_surfaces_stay() -> None:
    depth = np.full((20, 30), 0.5, np.float32)
    depth[:, 15:] = 0.8
    depth[:, 15] = 0.65
    cleaned = remove_flying_pixels(depth)
    assert np.isnan(cleaned[:, 15]).all()
    assert np.isfinite(cleaned[1:-1, 1:14]).all()
    assert np.isfinite(cleaned[1:-1, 17:-1]).all()


def test_normals_of_a_plane_are_its_own_and_nearly_so_under_noise() -> None:
    camera = camera_from_field_of_view(160, 120)
    normal = np.array([0.3, 0.2, -0.9]) / np.linalg.norm([0.3, 0.2, -0.9])
    depth = -0.4 / (camera.rays(camera.pixel_grid()) @ normal)
    clean = normals_from_depth(depth.astype(np.float32), camera)
    # Smoothing reaches over the picture's border; inside a plane stays a plane.
    assert (clean[8:-8, 8:-8] @ normal).min() > np.cos(np.radians(0.2))
    depth += np.random.default_rng(0).normal(0, 0.0005, depth.shape)
    normals = normals_from_depth(depth.astype(np.float32), camera)
    angle = np.degrees(np.arccos(np.clip(normals @ normal, -1, 1)))
    assert np.nanmedian(angle) < 4
    assert np.isfinite(angle).mean() > 0.9


@pytest.mark.parametrize("sureness", [0.6, 0.95])
def test_depth_cuts_the_background_off_however_sure_the_network_is(sureness: float) -> None:
    rows, columns = np.mgrid[:128, :128]
    ball = (rows - 64) ** 2 + (columns - 80) ** 2 < 20**2
    spill = (np.abs(rows - 64) < 15) & (columns >= 98) & ~ball
    hand = (np.abs(rows - 64) < 15) & (columns < 62) & ~ball
    probability = np.where(ball, sureness, np.where(spill, 0.51, 0)).astype(np.float32)
    colours = np.select([ball[..., None], hand[..., None]], [[200, 30, 30], [220, 170, 140]], [40, 60, 90])
    keypoints = np.stack([np.linspace(5, 60, 21), np.full(21, 64) + 12 * np.sin(np.arange(21))], 1)
    canvas = Canvas(
        image=colours.astype(np.uint8),
        inside=np.ones((128, 128), bool),
        object_probability=probability,
        hand_probability=(0.95 * hand).astype(np.float32),
        keypoints=keypoints,
        box=None,
        points=np.zeros((0, 2)),
        depth=np.where(ball | hand, 0.5, 0.9).astype(np.float32),
    )
    held, _ = refine(canvas)
    assert (held & ball).sum() / (held | ball).sum() > 0.9
    assert not (held & spill & (columns > 102)).any()


@pytest.mark.parametrize(
    ("sureness", "told_by", "taken"),
    [(0.99, "", False), (0.8, "", True), (0.99, "box", True), (0.99, "depth", True)],
)
def test_beside_a_sure_part_an_unsure_one_is_no_object_unless_nothing_is_sure_or_it_is_told(
    sureness: float, told_by: str, taken: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fmh_ros.core.cues.mask_refine._grabcut", lambda *given: None)  # nothing to see by colours
    rows, columns = np.mgrid[:128, :128]
    ball = (rows - 64) ** 2 + (columns - 80) ** 2 < 20**2
    beside = (np.abs(rows - 64) < 18) & (columns >= 90) & (columns < 124) & ~ball
    hand = (np.abs(rows - 64) < 15) & (columns < 62) & ~ball
    canvas = Canvas(
        image=np.full((128, 128, 3), 90, np.uint8),
        inside=np.ones((128, 128), bool),
        object_probability=np.where(ball, sureness, np.where(beside, 0.62, 0)).astype(np.float32),
        hand_probability=(0.95 * hand).astype(np.float32),
        keypoints=np.stack([np.linspace(5, 60, 21), np.full(21, 64) + 12 * np.sin(np.arange(21))], 1),
        box=(np.array([60.0, 44.0]), np.array([124.0, 84.0])) if told_by == "box" else None,
        points=np.zeros((0, 2)),
        depth=np.full((128, 128), 0.5, np.float32) if told_by == "depth" else None,
    )
    held, _ = refine(canvas)
    assert held[ball].mean() > 0.7
    far = (np.abs(rows - 64) < 10) & (columns > 106) & (columns < 116)
    assert held[far].mean() > 0.95 if taken else not held[far].any()


def test_saved_weights_keep_their_share_of_those_that_training_began_with(tmp_path: Path) -> None:
    begin, end = MaskNetwork(), MaskNetwork()
    save_network(begin, TrainConfig(tmp_path, None, tmp_path / "begin.safetensors"))
    plain, blended = (
        TrainConfig(tmp_path, None, tmp_path / f"{keep}.safetensors", start=tmp_path / "begin.safetensors", keep=keep)
        for keep in (0.0, 0.4)
    )
    for config in (plain, blended):
        save_network(end, config)
    first, last, mixed = (load_file(path) for path in (blended.start, plain.output, blended.output) if path)
    assert set(mixed) == set(first) and not list(tmp_path.glob("*.part"))
    for name, value in mixed.items():
        assert value.dtype == torch.float16
        expected = 0.4 * first[name].float() + 0.6 * last[name].float()
        torch.testing.assert_close(value.float(), expected, rtol=2e-3, atol=2e-3)
        torch.testing.assert_close(last[name], end.state_dict()[name].half())
    assert MaskNetwork.from_file(blended.output).training is False
