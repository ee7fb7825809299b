# SPDX-License-Identifier: Apache-2.0
"""Masks by SAM 2 and SAM 3 and what names find: the real classes at tiny sizes, and the choices made round them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_cues as tiny
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file, save_file
from scipy import ndimage

pytest.importorskip("transformers", reason="the extra 'foundation' is not installed")

from fmh_ros.core.cues.foundation.finders import (
    Found,
    GroundingDinoFinder,
    Sam3Finder,
    caption,
    to_pixel_boxes,
)
from fmh_ros.core.cues.foundation.masks import PromptedSegmenter, make_sam2, make_sam3
from fmh_ros.core.cues.foundation.promptable import MaskCandidates, MaskPrompt, SamNetwork
from fmh_ros.core.cues.types import HandObservation, SceneMasks
from fmh_ros.core.errors import (
    EmptyObjectMaskError,
    ModelFileError,
    ModelMissingError,
    NoObjectError,
    ProfileError,
)
from fmh_ros.core.frame.frame import Frame, ObjectPrompt
from fmh_ros.core.pretrained import IMAGENET, Placement, size_for, to_tensor

CPU = Placement()
BOX = (94.0, 49.0, 151.0, 136.0)


def iou(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    return float((a & b).sum() / max((a | b).sum(), 1))


class SameColour:
    """A promptable network for flat pictures: a mask is what is connected to a point in one colour."""

    name, input_size = "same-colour", 256

    def embed(self, image: NDArray[np.uint8]) -> NDArray[np.int64]:
        """Number the connected regions of one colour; borders between them, blurred by the resampling, are 0."""
        palette = np.array([tiny.SKIN, tiny.RED, tiny.GROUND, (0, 0, 0)], np.float64)
        distance = np.linalg.norm(image[:, :, None] - palette, axis=-1)
        colour, regions = distance.argmin(-1), np.zeros(image.shape[:2], np.int64)
        for k in range(len(palette)):
            pieces, count = ndimage.label(colour == k)
            regions[pieces > 0] = pieces[pieces > 0] + regions.max()
            assert count is not None
        return regions

    def masks(self, embedding: NDArray[np.int64], prompt: MaskPrompt) -> MaskCandidates:
        def at(points: NDArray[np.float64]) -> list[int]:
            x, y = np.round(points).astype(int).clip(0, self.input_size - 1).T
            return [int(k) for k in embedding[y, x]]

        wanted = at(prompt.on)
        if prompt.box is not None and not wanted:
            x0, y0, x1, y1 = (int(v) for v in np.clip(prompt.box, 0, self.input_size - 1))
            wanted = [int(k) for k in np.unique(embedding[y0 : y1 + 1, x0 : x1 + 1])]
        refused = set(at(prompt.off))
        regions = [k for k in dict.fromkeys(wanted) if k not in refused][:3] or [-1]
        logits = np.stack([np.where(embedding == k, 8.0, -8.0) for k in regions]).astype(np.float32)
        return MaskCandidates(logits, np.full(len(regions), 0.8))


class Told:
    """A finder, a namer and a proposer that answer as told."""

    name, reads_text = "told", False

    def __init__(self, found: list[Found] | None = None, called: str = "", masks: SceneMasks | None = None) -> None:
        self.found, self.called, self.masks = found or [], called, masks
        self.asked: list[str] = []

    def find(self, image: NDArray[np.uint8], text: str) -> list[Found]:
        self.asked.append(text)
        return self.found

    def name_object(self, frame: Frame, hand: HandObservation) -> str:
        return self.called

    def segment(self, frame: Frame, hand: HandObservation, prompt: ObjectPrompt) -> SceneMasks:
        assert self.masks is not None
        return self.masks


def ask(segmenter: PromptedSegmenter, prompt: ObjectPrompt | None = None) -> SceneMasks:
    scene = tiny.painted_scene()
    return segmenter.segment(scene.frame, scene.hand, prompt or ObjectPrompt())


def hand_iou(masks: SceneMasks) -> float:
    """Overlap up to the middle of the forearm, which is hand."""
    near = np.s_[:205, :260]
    return iou(masks.hand[near], tiny.painted_scene().hand_mask[near])


def assert_right(masks: SceneMasks) -> None:
    assert iou(masks.object, tiny.painted_scene().object_mask) > 0.98
    assert hand_iou(masks) > 0.97
    assert not (masks.hand & masks.object).any()


PROMPTS = {
    "box": ObjectPrompt(box=BOX),
    "point": ObjectPrompt(points=((110.0, 70.0),)),
    "box and point": ObjectPrompt(box=BOX, points=((110.0, 70.0),)),
}


@pytest.mark.parametrize("how", PROMPTS)
def test_what_is_pointed_at_and_the_hand_with_its_forearm_are_told_apart(how: str) -> None:
    masks = ask(PromptedSegmenter(SameColour()), PROMPTS[how])
    assert_right(masks)
    assert masks.object_score == pytest.approx(0.8, abs=0.01) and masks.amodal_probability is None


def test_a_name_is_looked_for_within_reach_of_the_hand_and_the_best_find_wins() -> None:
    far, whole = Found((250.0, 10.0, 300.0, 40.0), 0.99), Found((0.0, 0.0, 319.0, 239.0), 0.95)
    finder = Told([far, whole, Found(BOX, 0.64), Found((150.0, 120.0, 170.0, 140.0), 0.4)])
    masks = ask(PromptedSegmenter(SameColour(), finder), ObjectPrompt(text="red box"))
    assert_right(masks)
    assert finder.asked == ["red box"] and masks.object_name == "red box"
    assert masks.object_score == pytest.approx(0.8 * 0.8, abs=0.01)  # the mask's and the root of the find's


def test_the_namer_names_what_nobody_named_and_the_user_knows_better() -> None:
    finder = Told([Found(BOX, 0.9)])
    segmenter = PromptedSegmenter(SameColour(), finder, Told(called="carton"))
    assert ask(segmenter).object_name == "carton"
    assert ask(segmenter, ObjectPrompt(text="red box")).object_name == "red box"
    assert finder.asked == ["carton", "red box"]
    assert ask(segmenter, ObjectPrompt(box=BOX)).object_name == "carton"  # a box needs no search
    assert len(finder.asked) == 2


def test_without_any_word_the_proposal_is_followed() -> None:
    scene = tiny.painted_scene()
    rough = ndimage.binary_erosion(scene.object_mask, iterations=4)
    masks = SceneMasks(scene.hand_mask, rough, rough.astype(np.float32), None, 0.7)
    found = ask(PromptedSegmenter(SameColour(), proposer=Told(masks=masks)))
    assert_right(found)
    assert found.object_score == pytest.approx(0.7 * 0.8, abs=0.01)


def test_a_mask_of_the_user_is_taken_as_it_is() -> None:
    mask = tiny.painted_scene().object_mask
    masks = ask(PromptedSegmenter(SameColour()), ObjectPrompt(mask=mask))
    np.testing.assert_array_equal(masks.object, mask)
    assert hand_iou(masks) > 0.97


def test_an_object_before_the_palm_is_not_taken_for_the_hand() -> None:
    scene = tiny.painted_scene()
    image, thing = scene.frame.image.copy(), np.zeros((240, 320), bool)
    thing[108:138, 150:176] = True  # it covers most of the knuckles
    image[thing] = tiny.RED
    frame = replace(scene.frame, image=image)
    masks = PromptedSegmenter(SameColour()).segment(frame, scene.hand, ObjectPrompt(box=(149.0, 107.0, 176.0, 138.0)))
    assert iou(masks.object, thing) > 0.95
    assert (masks.hand & thing).sum() < 0.02 * thing.sum()
    assert iou(masks.hand[:205, :260], (scene.hand_mask & ~thing)[:205, :260]) > 0.93


def test_an_object_larger_than_the_first_look_is_seen_whole() -> None:
    scene = tiny.painted_scene()
    image = np.full((600, 1200, 3), tiny.GROUND, np.uint8)
    image[230:470, 700:1020] = scene.frame.image
    image[310:330, 60:830] = tiny.RED  # a long rod that ends in the hand
    keypoints = scene.hand.keypoints_2d + [700, 230]
    hand = replace(scene.hand, keypoints_2d=keypoints, box=(*keypoints.min(0), *keypoints.max(0)))
    frame = Frame(image, replace(scene.frame.camera, width=1200, height=600))
    found = PromptedSegmenter(SameColour()).segment(frame, hand, ObjectPrompt(points=((750.0, 320.0),)))
    _, columns = np.nonzero(found.object)
    assert np.ptp(columns) > 500


def test_nothing_held_is_an_error_that_says_what_was_looked_for() -> None:
    with pytest.raises(NoObjectError, match="teapot"):
        ask(PromptedSegmenter(SameColour(), Told([])), ObjectPrompt(text="teapot"))
    with pytest.raises(NoObjectError, match="Nobody said"):
        ask(PromptedSegmenter(SameColour()))
    with pytest.raises(EmptyObjectMaskError):
        ask(PromptedSegmenter(SameColour()), ObjectPrompt(points=((30.0, 200.0),)))  # on the ground


def test_images_are_normalised_as_published() -> None:
    grey = np.full((30, 50, 3), 128, np.uint8)
    expected = [(128 / 255 - m) / s for m, s in zip(*IMAGENET, strict=True)]
    values = to_tensor(grey, (16, 16), IMAGENET, CPU)
    assert values.shape == (1, 3, 16, 16)
    np.testing.assert_allclose(values.mean((0, 2, 3)), expected, rtol=1e-5)


def test_images_are_resized_as_grounding_dinos_own_processor_does() -> None:
    from transformers.models.grounding_dino import image_processing_pil_grounding_dino as own

    image = np.random.default_rng(0).integers(0, 255, (90, 140, 3), np.uint8)
    processor = own.GroundingDinoImageProcessorPil(size={"shortest_edge": 60, "longest_edge": 100})
    wanted = processor(Image.fromarray(image), return_tensors="pt")["pixel_values"]
    size = size_for(image.shape, 60, 100)
    assert wanted.shape[2:] == size
    # Pillow rounds to whole grey levels between the passes; nothing else differs.
    np.testing.assert_allclose(to_tensor(image, size, IMAGENET, CPU), wanted, atol=1.5 / 255 / 0.22)


NETWORKS: dict[str, tuple[Callable[[], Any], str]] = {
    "sam2": (tiny.tiny_sam2, "sam2"),
    "sam3": (tiny.tiny_sam3_tracker, "sam3"),
}


@pytest.mark.parametrize("kind", NETWORKS)
def test_prompts_reach_sam_in_its_own_coordinates(kind: str) -> None:
    """The whole network at once, asked in its processor's coordinates, says the same as embedding and prompting."""
    model = NETWORKS[kind][0]()
    adapter = SamNetwork(model, kind)
    side = adapter.input_size
    image = np.random.default_rng(1).integers(0, 255, (side, side, 3), np.uint8)
    statistics = IMAGENET if kind == "sam2" else ((0.5,) * 3, (0.5,) * 3)
    with torch.no_grad():
        direct = model(
            pixel_values=to_tensor(image, (side, side), statistics, CPU),
            input_points=torch.tensor([[[[10.0, 30.0], [40.0, 5.0]]]]),
            input_labels=torch.tensor([[[1, 0]]]),
            input_boxes=torch.tensor([[[4.0, 20.0, 30.0, 50.0]]]),
        )
        logits = torch.nn.functional.interpolate(direct.pred_masks[0], (side, side), mode="bilinear")[0]
    prompt = MaskPrompt((4.0, 20.0, 30.0, 50.0), np.array([[10.0, 30.0]]), np.array([[40.0, 5.0]]))
    found = adapter.masks(adapter.embed(image), prompt)
    np.testing.assert_allclose(found.logits, logits.numpy(), atol=1e-5)
    moved = adapter.masks(adapter.embed(image), replace(prompt, on=np.array([[30.0, 10.0]])))
    assert np.abs(moved.logits - found.logits).max() > 1e-6  # x and y are not the same to it


def test_half_precision_moves_no_point() -> None:
    image = np.random.default_rng(3).integers(0, 255, (64, 64, 3), np.uint8)
    exact, narrow = SamNetwork(tiny.tiny_sam2()), SamNetwork(tiny.tiny_sam2(), dtype=torch.bfloat16)
    embedding = exact.embed(image)
    assert all(features.dtype is torch.float32 for features in narrow.embed(image))
    assert any((a != b).any() for a, b in zip(embedding, narrow.embed(image), strict=True))
    prompt = MaskPrompt((10.3, 20.2, 40.1, 50.7), np.array([[33.3, 44.4]]))
    np.testing.assert_array_equal(exact.masks(embedding, prompt).logits, narrow.masks(embedding, prompt).logits)


def test_boxes_are_those_of_grounding_dinos_own_processor() -> None:
    from transformers import GroundingDinoProcessor
    from transformers.models.grounding_dino import image_processing_pil_grounding_dino as own

    image = np.random.default_rng(2).integers(0, 255, (64, 96, 3), np.uint8)
    finder = GroundingDinoFinder(tiny.tiny_grounding_dino(), tiny.tiny_words(), least=0.2, size=(64, 96))
    found = finder.find(image, " Red mug. ")
    processor = GroundingDinoProcessor(own.GroundingDinoImageProcessorPil(), tiny.tiny_words())
    words = tiny.tiny_words()("red mug.", return_tensors="pt")
    with torch.no_grad():
        answer = finder.network(pixel_values=to_tensor(image, (64, 96), IMAGENET, CPU), **words)
    wanted = processor.post_process_grounded_object_detection(
        answer, words.input_ids, threshold=0.2, text_threshold=0.2, target_sizes=[(64, 96)]
    )[0]
    order = np.argsort(-wanted["scores"].numpy(), kind="stable")
    edges = wanted["boxes"].numpy()[order].clip([0, 0, 0, 0], [95, 63, 96, 64])
    assert len(found) == len(order) > 0
    np.testing.assert_allclose([one.score for one in found], wanted["scores"].numpy()[order], rtol=1e-5)
    # Theirs are edges, ours the centres of the first and the last pixel.
    expected = np.concatenate([edges[:, :2], np.maximum(edges[:, 2:] - 1, edges[:, :2])], 1)
    np.testing.assert_allclose([one.box for one in found], expected, atol=1e-3)


def test_relative_boxes_become_first_and_last_pixel() -> None:
    shape = (100, 200)
    one = np.array([[0.25, 0.5, 0.5, 0.2]])
    np.testing.assert_allclose(to_pixel_boxes(one, shape, centred=True), [[0, 40, 99, 59]])
    np.testing.assert_allclose(
        to_pixel_boxes(np.array([[0.1, 0.2, 1.2, 0.21]]), shape, centred=False), [[20, 20, 199, 20]]
    )
    assert caption(" Red.  Mug ") == "red mug."


def test_sam_3_finds_instances_with_the_scores_of_instance_and_presence() -> None:
    finder = Sam3Finder(tiny.tiny_sam3(), tiny.tiny_words(), least=0.0)
    image = tiny.painted_scene().frame.image
    found = finder.find(image, "red mug")
    assert len(found) == 8 and all(a.score >= b.score for a, b in pairwise(found))
    words = tiny.tiny_words()("red mug", return_tensors="pt", padding="max_length", max_length=32)
    half = ((0.5,) * 3, (0.5,) * 3)
    with torch.no_grad():
        answer = finder.network(
            pixel_values=to_tensor(image, (56, 56), half, CPU),
            input_ids=words.input_ids,
            attention_mask=words.attention_mask,
        )
    best = answer.pred_logits[0].sigmoid().max() * answer.presence_logits[0].sigmoid()
    assert found[0].score == pytest.approx(float(best), abs=1e-5)
    x0, y0, x1, y1 = answer.pred_boxes[0, int(answer.pred_logits[0].argmax())].tolist()
    np.testing.assert_allclose(found[0].box, [x0 * 320, y0 * 240, x1 * 320 - 1, y1 * 240 - 1], atol=1e-3)


def published(folder: Path) -> dict[str, Path]:
    """Folders as they are downloaded, of tiny networks."""
    sam2, dino = tiny.save(tiny.tiny_sam2(), folder / "sam2"), tiny.save(tiny.tiny_grounding_dino(), folder / "dino")
    tiny.tiny_words().save_pretrained(dino)
    return {"sam2": sam2, "grounding-dino": dino}


def test_networks_load_from_their_folders_and_answer_in_half_precision(tmp_path: Path) -> None:
    models = published(tmp_path)
    loaded, narrow = (make_sam2(models, {"dtype": d, "box_score": 0.9}, "cpu") for d in ("float32", "bfloat16"))
    prompt = ObjectPrompt(box=BOX)
    masks = ask(loaded, prompt)
    np.testing.assert_array_equal(masks.object, ask(PromptedSegmenter(SamNetwork(tiny.tiny_sam2())), prompt).object)
    assert loaded.name == "sam2+grounding-dino" and loaded.reads_text
    assert not PromptedSegmenter(loaded.network).reads_text  # nothing finds what a name means
    assert isinstance(narrow.network, SamNetwork) and narrow.network.dtype is torch.bfloat16
    assert ask(narrow, prompt).object.dtype == bool
    assert isinstance(loaded.finder, GroundingDinoFinder) and loaded.finder.find(np.zeros((64, 64, 3), np.uint8), "mug")


def test_sam_3_loads_from_its_folder(tmp_path: Path) -> None:
    folder = tiny.save(tiny.tiny_sam3(), tmp_path / "sam3")
    tiny.tiny_words().save_pretrained(folder)
    assert Sam3Finder.load(folder, CPU).network.config.model_type == "sam3"
    tracker = tiny.save(tiny.tiny_sam3_tracker(), tmp_path / "tracker")
    assert SamNetwork.load(tracker, CPU, "sam3").input_size == 56


@pytest.mark.parametrize("kind", ["sam2", "sam3"])
def test_every_weight_is_found_in_the_published_file_of_the_video_model(kind: str, tmp_path: Path) -> None:
    folder = tiny.published_video_model(kind, tmp_path / kind)
    stored = load_file(folder / "model.safetensors")
    prefix = "" if kind == "sam2" else "tracker_model."
    network = SamNetwork.load(folder, CPU, kind).network
    own = network.state_dict()
    for name in ("no_memory_embedding", "mask_decoder.iou_token.weight", "prompt_encoder.point_embed.weight"):
        torch.testing.assert_close(own[name], stored[prefix + name])
    if kind == "sam3":
        finder = Sam3Finder.load(folder, CPU)
        stored_name = "detector_model.detr_decoder.query_embed.weight"
        torch.testing.assert_close(finder.network.state_dict()["detr_decoder.query_embed.weight"], stored[stored_name])
        torch.testing.assert_close(
            own["vision_encoder.backbone.embeddings.position_embeddings"],
            stored["detector_model.vision_encoder.backbone.embeddings.position_embeddings"],
        )


def test_weights_that_are_not_in_the_file_are_not_made_up(tmp_path: Path) -> None:
    folder = tiny.published_video_model("sam2", tmp_path)
    stored = load_file(folder / "model.safetensors")
    del stored["mask_decoder.iou_token.weight"]
    save_file(stored, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelFileError, match="iou_token"):
        SamNetwork.load(folder, CPU)


def test_what_is_missing_or_damaged_is_named_with_the_command_that_helps(tmp_path: Path) -> None:
    with pytest.raises(ModelMissingError, match="fmh models pull"):
        make_sam3({}, {}, "cpu")
    with pytest.raises(ModelMissingError, match="nowhere"):
        make_sam2({"sam2": tmp_path / "nowhere"}, {}, "cpu")
    with pytest.raises(ProfileError, match="float32"):
        make_sam2(published(tmp_path), {"dtype": "float8"}, "cpu")
    (tmp_path / "sam2" / "model.safetensors").write_bytes(b"not weights")
    with pytest.raises(ModelFileError, match="fmh models verify"):
        make_sam2({"sam2": tmp_path / "sam2"}, {}, "cpu")
