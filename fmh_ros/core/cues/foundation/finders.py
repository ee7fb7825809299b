# SPDX-License-Identifier: Apache-2.0
"""Networks that find what a text names: GroundingDINO and SAM 3, through transformers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from fmh_ros.core.pretrained import (
    HALF,
    IMAGENET,
    Placement,
    load_helper,
    load_network,
    size_for,
    to_tensor,
    where_is,
)

FloatArray = NDArray[np.float64]

#: GroundingDINO's published input: shorter side, and the most the longer side may have.
_SHORTEST, _LONGEST = 800, 1333
#: Least score of a box; LangSAM's threshold.
BOX_SCORE = 0.3
#: Least score of an instance of SAM 3; its published default.
INSTANCE_SCORE = 0.5
#: Tokens of SAM 3's text encoder.
_SAM3_TOKENS = 32


@dataclass(frozen=True)
class Found:
    """One thing that a text names. box : x0, y0, x1, y1 px of the image, centres at integers; score : 0 to 1."""

    box: tuple[float, float, float, float]
    score: float


class Finder(Protocol):
    """Finds things by name."""

    name: str

    def find(self, image: NDArray[np.uint8], text: str) -> list[Found]:
        """Return where a text's things are in an image (H, W, 3) RGB, best first; empty when there are none."""
        ...


class GroundingDinoFinder:
    """`Finder` by ``GroundingDinoForObjectDetection`` and its BERT tokenizer.

    least : lowest score; shortest, longest : sides of the network's input, pixels.
    """

    name = "grounding-dino"

    def __init__(
        self, network: Any, tokenizer: Any, *, least: float = BOX_SCORE, size: tuple[int, int] = (_SHORTEST, _LONGEST)
    ) -> None:
        self.network, self.tokenizer = network, tokenizer
        self.least, self.size = least, size

    @classmethod
    def load(cls, folder: Path, where: Placement, least: float = BOX_SCORE) -> GroundingDinoFinder:
        """Load IDEA-Research/grounding-dino-* from its folder."""
        network = load_network("transformers", "GroundingDinoForObjectDetection", folder, where)
        return cls(network, load_helper("transformers", "AutoTokenizer", folder), least=least)

    def find(self, image: NDArray[np.uint8], text: str) -> list[Found]:
        """Return boxes whose best token score exceeds ``least``, best first."""
        where = where_is(self.network)
        pixels = to_tensor(image, size_for(image.shape, *self.size), IMAGENET, where)
        words = self.tokenizer(caption(text), return_tensors="pt", truncation=True, max_length=256).to(where.device)
        with torch.inference_mode():
            answer = self.network(pixel_values=pixels, **words)
        scores = answer.logits[0].float().sigmoid().amax(-1).cpu().numpy()
        boxes = to_pixel_boxes(answer.pred_boxes[0].float().cpu().numpy(), image.shape, centred=True)
        return _best(boxes, scores, self.least)


class Sam3Finder:
    """`Finder` by ``Sam3Model`` and its CLIP tokenizer; scores are those of the instance times that of its presence."""

    name = "sam3"

    def __init__(self, network: Any, tokenizer: Any, *, least: float = INSTANCE_SCORE) -> None:
        self.network, self.tokenizer, self.least = network, tokenizer, least

    @classmethod
    def load(cls, folder: Path, where: Placement, least: float = INSTANCE_SCORE) -> Sam3Finder:
        """Load facebook/sam3 from its folder."""
        network = load_network("transformers", "Sam3Model", folder, where)
        return cls(network, load_helper("transformers", "AutoTokenizer", folder), least=least)

    def find(self, image: NDArray[np.uint8], text: str) -> list[Found]:
        """Return the instances' boxes, best first."""
        where = where_is(self.network)
        side = int(self.network.config.vision_config.backbone_config.image_size)
        pixels = to_tensor(image, (side, side), HALF, where)
        words = self.tokenizer(
            text, return_tensors="pt", padding="max_length", truncation=True, max_length=_SAM3_TOKENS
        ).to(where.device)
        with torch.inference_mode():
            answer = self.network(
                pixel_values=pixels, input_ids=words["input_ids"], attention_mask=words["attention_mask"]
            )
            scores = answer.pred_logits.sigmoid() * answer.presence_logits.sigmoid()
        boxes = to_pixel_boxes(answer.pred_boxes[0].float().cpu().numpy(), image.shape, centred=False)
        return _best(boxes, scores[0].float().cpu().numpy(), self.least)


def caption(text: str) -> str:
    """GroundingDINO's form of a name: lower case, one phrase, ended by a full stop."""
    return " ".join(text.lower().replace(".", " ").split()) + "."


def to_pixel_boxes(boxes: NDArray[np.float32], shape: tuple[int, ...], *, centred: bool) -> FloatArray:
    """Turn relative boxes (N, 4) into x0, y0, x1, y1 in pixels with centres at integers, clipped to the image.

    centred : the boxes are (cx, cy, width, height), else (x0, y0, x1, y1); both relative to the whole image, whose
    left edge is 0 and whose right edge is 1.
    """
    boxes = np.asarray(boxes, np.float64)
    if centred:
        boxes = np.concatenate([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2], 1)
    height, width = shape[:2]
    # An edge between two pixels belongs half to each: a box that covers one pixel begins and ends at its centre.
    low = np.clip(boxes[:, :2] * [width, height], 0, [width - 1, height - 1])
    high = np.clip(boxes[:, 2:] * [width, height] - 1, low, [width - 1, height - 1])
    return np.concatenate([low, high], 1)


def _best(boxes: FloatArray, scores: NDArray[np.float32], least: float) -> list[Found]:
    order = [int(k) for k in np.argsort(-scores, kind="stable") if scores[k] > least]
    found = []
    for k in order:
        x0, y0, x1, y1 = (float(value) for value in boxes[k])
        found.append(Found((x0, y0, x1, y1), float(scores[k])))
    return found
