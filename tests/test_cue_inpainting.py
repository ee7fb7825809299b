# SPDX-License-Identifier: Apache-2.0
"""The hand painted out: diffusers' real pipelines at tiny sizes, and which of an editor's answers are believed."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tiny_cues as tiny
import torch
from numpy.typing import NDArray

pytest.importorskip("diffusers", reason="the extra 'foundation' is not installed")

from fmh_ros.core.cues.completion import complete_view
from fmh_ros.core.cues.foundation.editors import (
    DiffusersEditor,
    klein_arguments,
    kontext_arguments,
    load_pipeline,
    qwen_edit_arguments,
    tell_pictures,
)
from fmh_ros.core.cues.foundation.inpainting import PaintingCompleter, make_klein
from fmh_ros.core.cues.foundation.qwen_inputs import QwenInputs
from fmh_ros.core.cues.types import HandObservation, ObjectView, SceneMasks
from fmh_ros.core.errors import ModelFileError, ModelMissingError, ProfileError
from fmh_ros.core.frame.camera import CameraModel
from fmh_ros.core.frame.frame import Frame
from fmh_ros.core.hand.types import HandMesh
from fmh_ros.core.pretrained import Placement
from fmh_ros.core.transforms import Similarity

CAMERA = CameraModel(640, 480, np.array([[580.0, 0, 300.0], [0, 580.0, 260.0], [0, 0, 1.0]]))
MIDDLE, RADIUS = (380, 210), 80
SIDE = 256
Picture = NDArray[np.uint8]


def scenes() -> tuple[Frame, Frame, SceneMasks, NDArray[np.bool_]]:
    """A shaded ball before a patterned wall, behind a hand's bar and without it; masks; the whole ball."""
    rows, columns = np.mgrid[:480, :640].astype(float)
    wall = 110 + 25 * np.sin(columns / 17) + 20 * np.cos(rows / 13)
    image = np.stack([0.6 * wall, 0.9 * wall, wall], -1)
    inside = (columns - MIDDLE[0]) ** 2 + (rows - MIDDLE[1]) ** 2 < RADIUS**2
    shade = 1 - 0.4 * np.hypot(columns - MIDDLE[0] + 25, rows - MIDDLE[1] + 25) / RADIUS
    image[inside] = (shade[..., None] * np.array([225, 60, 50]))[inside]
    clean = np.clip(image, 0, 255).astype(np.uint8)
    hand = np.zeros((480, 640), np.uint8)
    cv2.line(hand, (470, 400), (390, 220), 1, 60)
    held = clean.copy()
    held[hand > 0] = tiny.SKIN
    masks = SceneMasks(hand > 0, inside & (hand == 0), inside.astype(np.float32), None, 0.9, object_name="red ball")
    return Frame(held, CAMERA), Frame(clean, CAMERA), masks, inside


def first_view(frame: Frame, masks: SceneMasks) -> ObjectView:
    grasp = Similarity(np.eye(3), np.array([0.06, -0.04, 0.6]))
    hand = HandMesh(
        "right", grasp, np.zeros((1, 3)), np.zeros((1, 3), int), np.zeros(1, int), np.zeros((21, 3)), 1, 0.08, 0, 1
    )
    return complete_view(frame, masks, None, hand)


class Told:
    """An editor that answers by a function of what it is shown and of the picture without a hand."""

    name, side = "told", SIDE

    def __init__(self, answer: Callable[[Picture, Picture, int], Picture], clean: Picture | None = None) -> None:
        self.answer, self.clean = answer, clean
        self.asked: list[tuple[Picture, str, int]] = []

    def edit(self, image: Picture, instruction: str, seed: int) -> Picture:
        self.asked.append((image, instruction, seed))
        return self.answer(image, image if self.clean is None else self.clean, seed)


def clean_crop() -> Picture:
    """What a perfect editor answers: the crop of the scene without a hand."""
    held, clean, masks, _ = scenes()
    spy = Told(lambda image, *_: image)
    PaintingCompleter(spy).complete(clean, masks, first_view(held, masks))
    return spy.asked[0][0]


def drifted(_: Picture, clean: Picture, seed: int) -> Picture:
    """What editors do: everything moves by some pixels, grows a little, and changes its colours."""
    affine = np.array([[1.012, 0.003, 3.2], [-0.003, 1.012, -2.6]])
    moved = cv2.warpAffine(clean, affine, (SIDE, SIDE), borderMode=cv2.BORDER_REPLICATE)
    return np.clip(moved.astype(float) * [1.06, 0.95, 1.0] + [-6, 5, 8], 0, 255).astype(np.uint8)


def complete(
    answer: Callable[[Picture, Picture, int], Picture], detector: Any = None
) -> tuple[ObjectView, ObjectView, tuple[str, ...], Told]:
    held, _, masks, _ = scenes()
    before = first_view(held, masks)
    editor = Told(answer, clean_crop())
    view, warnings = PaintingCompleter(editor, detector).complete(held, masks, before)
    return before, view, warnings, editor


def true_mask(view: ObjectView) -> NDArray[np.bool_]:
    """The whole ball in the view's maps."""
    rays = view.camera.rays(view.camera.pixel_grid()) @ view.T_camera_view.rotation.T
    pixels = CAMERA.project(rays)
    return np.asarray(((pixels - MIDDLE) ** 2).sum(-1) < RADIUS**2)


@pytest.mark.parametrize("answer", [lambda _, clean, __: clean, drifted], ids=["perfect", "drifted"])
def test_what_the_hand_hid_is_painted_and_what_was_seen_stays(answer: Any) -> None:
    before, view, warnings, editor = complete(answer)
    assert warnings == () and len(editor.asked) == 1
    assert "red ball" in editor.asked[0][1]
    whole = true_mask(view)
    painted = view.mask > 0.5
    assert (painted & whole).sum() / (painted | whole).sum() > 0.96
    assert ((before.mask > 0.5) & whole).sum() < 0.85 * whole.sum()  # there was much to paint
    np.testing.assert_array_equal(view.mask[~before.unknown], before.mask[~before.unknown])
    assert not (view.unknown & painted).any() and view.unknown.sum() < before.unknown.sum()
    assert (view.unknown & ~before.unknown).sum() == 0
    # The picture is the true ball on white, seen and painted parts alike.
    _, clean, _, inside = scenes()
    small = cv2.resize(view.image, (128, 128), interpolation=cv2.INTER_AREA).astype(float)
    assert np.abs(small - _same_crop(view, clean, inside)).mean() < 4
    assert view.image.shape == (SIDE, SIDE, 3)
    assert (view.image[0] == 255).all()


def _same_crop(view: ObjectView, clean: Frame, inside: NDArray[np.bool_]) -> Picture:
    """The scene without a hand in the view's crop, everything but the ball white."""
    K = view.camera.K
    homography = K @ view.T_camera_view.rotation.T @ np.linalg.inv(CAMERA.K)
    white = np.where(inside[..., None], clean.image, 255).astype(np.uint8)
    return np.asarray(cv2.warpPerspective(white, homography, (128, 128), borderValue=(255, 255, 255)), np.uint8)


def recoloured(_: Picture, clean: Picture, seed: int) -> Picture:
    """Another object in the same place."""
    red = (clean[..., 0] > 1.5 * clean[..., 2])[..., None]
    return np.where(red, clean[..., ::-1], clean).astype(np.uint8)


def noise(image: Picture, _: Picture, seed: int) -> Picture:
    return np.random.default_rng(seed).integers(0, 255, image.shape, np.uint8)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [(lambda image, *_: image, "left the hand"), (recoloured, "changed the object"), (noise, "changed the object")],
    ids=["nothing done", "another object", "noise"],
)
def test_answers_that_the_picture_disproves_leave_the_view_as_it_was(answer: Any, reason: str) -> None:
    before, view, warnings, editor = complete(answer)
    assert view is before
    assert len(warnings) == 1 and reason in warnings[0]
    assert [seed for _, _, seed in editor.asked] == [0, 1]  # another seed is tried


def test_the_second_attempt_may_succeed() -> None:
    _, view, warnings, editor = complete(lambda image, clean, seed: clean if seed else image)
    assert warnings == () and len(editor.asked) == 2 and (view.mask > 0.5).sum() > 0


class FindsHand:
    """Sees a hand at the given place of whatever it is shown."""

    name = "told"

    def __init__(self, place: tuple[float, float]) -> None:
        self.place = place

    def detect(self, frame: Frame) -> list[HandObservation]:
        keypoints = np.tile(self.place, (21, 1)) + np.random.default_rng(0).normal(0, 2, (21, 2))
        return [HandObservation("right", 0.9, 0.9, (0, 0, 1, 1), keypoints, np.zeros((21, 3)))]


def test_a_hand_that_is_still_found_where_it_was_is_not_believed_away() -> None:
    held, _, masks, _ = scenes()
    view = first_view(held, masks)
    K = view.camera.K.copy()
    wrist = CAMERA.rays(np.array([410.0, 262.0])) @ view.T_camera_view.rotation
    at = (K[0, 0] * SIDE / 128 / 1.5) * wrist[:2] / wrist[2] + (SIDE - 1) / 2
    _, _, warnings, _ = complete(lambda _, clean, __: clean, FindsHand((float(at[0]), float(at[1]))))
    assert "a hand is left" in warnings[0]
    _, _, warnings, _ = complete(lambda _, clean, __: clean, FindsHand((8.0, 8.0)))
    assert warnings == ()  # somebody else's hand


def test_an_object_that_nothing_hides_is_left_alone() -> None:
    _, clean, masks, inside = scenes()
    away = np.zeros_like(inside)
    away[440:, :60] = True
    free = replace(masks, object=inside, hand=away)
    view = first_view(clean, free)
    editor = Told(noise)
    assert PaintingCompleter(editor).complete(clean, free, view) == (view, ()) and editor.asked == []


PIPELINES: dict[str, tuple[Callable[[], Any], dict[str, Any]]] = {
    "flux-kontext": (tiny.tiny_kontext, kontext_arguments(2, 32)),
    "flux2-klein": (tiny.tiny_klein, {**klein_arguments(2, 32), "text_encoder_out_layers": (1,)}),
    "qwen-image-edit": (tiny.tiny_qwen_edit, {**qwen_edit_arguments(1), "height": 32, "width": 32}),
}


@pytest.mark.parametrize("name", PIPELINES)
def test_real_pipelines_answer_the_same_for_a_seed_and_random_weights_are_not_believed(name: str) -> None:
    build, arguments = PIPELINES[name]
    pipeline = build()
    pipeline.set_progress_bar_config(disable=True)
    editor = DiffusersEditor(pipeline, name, arguments, side=64)
    held, _, masks, _ = scenes()
    image = cv2.resize(held.image, (64, 64))
    first = editor.edit(image, "Remove the hand and keep the red box exactly", 0)
    assert first.shape == image.shape and first.dtype == np.uint8 and first.std() > 1
    if name != "qwen-image-edit":  # seconds each
        np.testing.assert_array_equal(first, editor.edit(image, "Remove the hand and keep the red box exactly", 0))
        assert (editor.edit(image, "Remove the hand and keep the red box exactly", 1) != first).any()
    view = first_view(held, masks)
    completed, warnings = PaintingCompleter(editor, attempts=1).complete(held, masks, view)
    assert completed is view and name in warnings[0]


def test_qwens_encoder_is_told_which_tokens_are_picture() -> None:
    """Otherwise transformers 5 places the patches in a line: other features, and no error."""
    encoder = copy.deepcopy(tiny.tiny_qwen())
    image = np.arange(56 * 56 * 3, dtype=np.uint8).reshape(56, 56, 3)
    chat = ["red <|vision_start|><|image_pad|><|vision_end|> mug"]
    inputs = dict(QwenInputs(tiny.tiny_qwen_images(), tiny.tiny_qwen_words())(chat, [image]))
    if "mm_token_type_ids" not in inspect.signature(encoder.forward).parameters:
        pytest.skip("this version of transformers looks for itself")
    told = (inputs["input_ids"] == encoder.config.image_token_id).int()
    with torch.no_grad():
        right = encoder(**inputs, mm_token_type_ids=told).logits
        assert (encoder(**inputs).logits - right).abs().max() > 1e-5
        tell_pictures(encoder)
        torch.testing.assert_close(encoder(**inputs).logits, right)


def test_the_published_settings_are_passed() -> None:
    kontext = kontext_arguments()
    assert kontext["guidance_scale"] == 2.5 and kontext["num_inference_steps"] == 28
    assert kontext["max_area"] == 1024**2 and "negative_prompt" not in kontext
    assert qwen_edit_arguments()["true_cfg_scale"] == 4.0 and klein_arguments()["num_inference_steps"] == 4


def test_a_pipeline_loads_from_its_folder_and_what_is_wrong_is_named(tmp_path: Path) -> None:
    tiny.tiny_klein().save_pretrained(tmp_path / "klein")
    loaded = load_pipeline("Flux2KleinPipeline", tmp_path / "klein", Placement())
    assert loaded.transformer.config.num_layers == 1
    completer = make_klein({"flux2-klein": tmp_path / "klein"}, {"side": 32, "steps": 1, "attempts": 1}, "cpu")
    assert completer.name == "flux2-klein" and completer.editor.side == 32 and completer.detector is not None
    with pytest.raises(ModelMissingError, match="flux2-klein"):
        make_klein({}, {}, "cpu")
    with pytest.raises(ProfileError, match="offload"):
        load_pipeline("Flux2KleinPipeline", tmp_path / "klein", Placement(), "disk")
    (tmp_path / "klein" / "vae" / "diffusion_pytorch_model.safetensors").write_bytes(b"no weights")
    with pytest.raises(ModelFileError, match="fmh models verify"):
        load_pipeline("Flux2KleinPipeline", tmp_path / "klein", Placement())
