# SPDX-License-Identifier: Apache-2.0
"""Scores of the mask network alone (no refinement) on held-out views."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from fmh_ros.core.cues.mask_inputs import CropPrompt, guidance_maps
from fmh_ros.core.cues.mask_network import MaskNetwork
from fmh_ros.core.hand.rig import load_generic_rig
from fmh_ros.training.masks_data import IGNORED, make_example, noisy_keypoints
from fmh_ros.training.scenes.compose import Bank, Picture, compose
from fmh_ros.training.scenes.textures import load_photos

Rng = np.random.Generator


def _iou(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    union = int((a | b).sum())
    return float((a & b).sum() / union) if union else 1.0


def _box_prompt(rng: Rng, picture: Picture) -> CropPrompt:
    rows, columns = np.nonzero((picture.label == 2) & picture.inside)
    if len(rows) == 0:
        return CropPrompt()
    low, high = np.array([columns.min(), rows.min()]), np.array([columns.max(), rows.max()])
    jitter = rng.normal(0, 0.03, 4) * np.tile(high - low, 2)
    return CropPrompt(tuple(float(v) for v in np.concatenate([low, high]) + jitter))  # type: ignore[arg-type]


def evaluate(bank_folder: Path, weights: Path, photos_folder: Path | None, count: int) -> dict[str, float]:
    """Mean scores over ``count`` pictures with noisy landmarks.

    object, hand, amodal : intersection over union with a threshold at one half; *_box : with a box prompt; *_depth :
    with noisy depth; median_* : medians; normals_deg, depth_cm : median error on hand and visible object;
    holds : share of right verdicts whether the hand holds something.
    """
    rig, bank = load_generic_rig(), Bank(bank_folder)
    if bank.refresh() == 0:
        raise FileNotFoundError(f"{bank_folder} has no views; render some with the views command")
    photos = load_photos(photos_folder)
    network = MaskNetwork.from_file(weights)
    found: dict[str, list[float]] = defaultdict(list)
    for index in range(count):
        rng = np.random.default_rng([5, index])
        picture = compose(rng, rig, bank, int(rng.integers(len(bank))), photos)
        _score_picture(rng, network, picture, found)
    scores = {key: float(np.mean(values)) for key, values in found.items()}
    scores.update({f"median_{key}": float(np.median(found[key])) for key in ("object", "object_box", "hand", "amodal")})
    scores["pictures"] = count
    return {key: round(value, 4) for key, value in scores.items()}


def _score_picture(rng: Rng, network: MaskNetwork, picture: Picture, found: dict[str, list[float]]) -> None:
    for kind in ("", "_box", "_depth"):
        example = make_example(rng, picture, prompts=False, with_depth=kind == "_depth")
        image, maps, classes, amodal, normals, depth, holds = example
        if kind == "_box":
            maps = guidance_maps(noisy_keypoints(rng, picture.keypoints_2d), _box_prompt(rng, picture), picture.inside)
        with torch.no_grad():
            output = network(torch.as_tensor(image)[None], torch.as_tensor(maps)[None])
        known = classes != IGNORED
        answer = output.classes[0].argmax(0).numpy()
        found[f"hand{kind}"].append(_iou((answer == 1) & known, classes == 1))
        if not kind:
            found["holds"].append(float((float(output.holds[0]) > 0) == bool(holds)))
        if not (classes == 2).any():
            continue
        found[f"object{kind}"].append(_iou((answer == 2) & known, classes == 2))
        if not kind:
            found["amodal"].append(_iou((output.amodal[0].numpy() > 0) & known, (amodal > 0.5) & known))
            solid = (classes == 1) | (classes == 2)
            cosine = (output.normals[0].numpy() * normals).sum(0)[solid].clip(-1, 1)
            found["normals_deg"].append(float(np.degrees(np.median(np.arccos(cosine)))))
            length = float(np.linalg.norm(picture.keypoints[9] - picture.keypoints[0]))
            error = np.abs(output.depth[0].numpy() - depth)[solid] * length
            found["depth_cm"].append(100 * float(np.median(error)))
