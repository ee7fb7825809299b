# SPDX-License-Identifier: Apache-2.0
"""Networks that turn boxes and points into masks: SAM 2 and the tracker of SAM 3, through transformers.

Both squash the image to a square (1024 for SAM 2, 1008 for SAM 3) and answer each prompt with three masks of a quarter
of that side, as logits, and a predicted overlap for each. The square is cut at that size here, and never squashed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from fmh_ros.core.pretrained import HALF, IMAGENET, Placement, load_network, to_tensor, where_is

FloatArray = NDArray[np.float64]
Map = NDArray[np.float32]


def _no_points() -> FloatArray:
    return np.zeros((0, 2))


@dataclass(frozen=True)
class MaskPrompt:
    """What is asked for, in pixels of the square, centres at integers.

    box : x0, y0, x1, y1 or None; on, off : (N, 2) points on it and not on it.
    """

    box: tuple[float, float, float, float] | None = None
    on: FloatArray = field(default_factory=_no_points)
    off: FloatArray = field(default_factory=_no_points)


@dataclass(frozen=True)
class MaskCandidates:
    """Answers to one prompt. logits : (N, S, S) float32, positive inside; scores : (N,) predicted overlap, 0 to 1."""

    logits: Map
    scores: FloatArray


class PromptableNetwork(Protocol):
    """Masks for prompts on one square image of side ``input_size``."""

    name: str

    @property
    def input_size(self) -> int:
        """Side of the image that the network takes, pixels."""
        ...

    def embed(self, image: NDArray[np.uint8]) -> Any:
        """Look at an image (S, S, 3) RGB once, for any number of prompts."""
        ...

    def masks(self, embedding: Any, prompt: MaskPrompt) -> MaskCandidates:
        """Return candidates for a prompt."""
        ...


class SamNetwork:
    """`PromptableNetwork` by ``Sam2Model`` or ``Sam3TrackerModel``, with weights in float32.

    dtype : what the image encoder computes in, which takes nearly all of the time. Prompts and masks stay in float32:
    in bfloat16 a point could be told to some pixels only.
    """

    def __init__(self, network: Any, name: str = "sam2", dtype: torch.dtype = torch.float32) -> None:
        self.name, self.network, self.dtype = name, network, dtype

    @classmethod
    def load(cls, folder: Path, where: Placement, kind: str = "sam2") -> SamNetwork:
        """Load facebook/sam2.1-hiera-* ("sam2") or facebook/sam3 ("sam3") from its folder."""
        names = {"sam2": "Sam2Model", "sam3": "Sam3TrackerModel"}
        return cls(load_network("transformers", names[kind], folder, Placement(where.device)), kind, where.dtype)

    @property
    def input_size(self) -> int:
        """Side of the image that the network takes, pixels."""
        return int(self.network.config.prompt_encoder_config.image_size)

    def embed(self, image: NDArray[np.uint8]) -> list[torch.Tensor]:
        """Look at an image (S, S, 3) RGB."""
        size = (self.input_size, self.input_size)
        where = where_is(self.network)
        pixels = to_tensor(image, size, IMAGENET if self.name == "sam2" else HALF, where)
        narrow = self.dtype != torch.float32
        with torch.inference_mode(), torch.autocast(where.device.split(":")[0], self.dtype, enabled=narrow):
            found = self.network.get_image_embeddings(pixels)
        return [features.float() for features in found]

    def masks(self, embedding: list[torch.Tensor], prompt: MaskPrompt) -> MaskCandidates:
        """Return three candidates, at the resolution of the image."""
        inputs = to_sam_prompt(prompt, where_is(self.network))
        with torch.inference_mode():
            answer = self.network(image_embeddings=embedding, multimask_output=True, **inputs)
            size = (self.input_size, self.input_size)
            logits = torch.nn.functional.interpolate(answer.pred_masks[0].float(), size, mode="bilinear")[0]
        scores = answer.iou_scores[0, 0].float().clamp(0, 1)
        return MaskCandidates(logits.cpu().numpy(), scores.cpu().numpy().astype(np.float64))


def to_sam_prompt(prompt: MaskPrompt, where: Placement) -> dict[str, torch.Tensor]:
    """Return the network's keyword arguments: points (1, 1, N, 2) with labels 1 and 0, boxes (1, 1, 4).

    The network counts pixels as we do, with centres at integers: it adds the half pixel itself.
    """
    inputs: dict[str, torch.Tensor] = {}
    points = np.concatenate([prompt.on, prompt.off])
    if len(points):
        labels = np.repeat([1, 0], [len(prompt.on), len(prompt.off)])
        inputs["input_points"] = torch.as_tensor(points[None, None], device=where.device).to(where.dtype)
        inputs["input_labels"] = torch.as_tensor(labels[None, None], device=where.device)
    if prompt.box is not None:
        inputs["input_boxes"] = torch.as_tensor([[prompt.box]], device=where.device).to(where.dtype)
    return inputs
