# SPDX-License-Identifier: Apache-2.0
"""The picture that TripoSG's image encoder sees, prepared as its publisher does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from fmh_ros.core.cues.types import ObjectView
from fmh_ros.core.flow.vecset.picture import cut_out, on_white, opaque_box
from fmh_ros.core.pretrained import IMAGENET

#: Free border on each side of the object, as a share of its larger side.
PADDING = 0.1


@dataclass(frozen=True)
class EncoderFormat:
    """How the image encoder's input is made, as its preprocessor_config.json says.

    shorter_side, or else size (height, width) : what the picture is resized to, neither for not at all; crop : (height,
    width) cut from the middle, or None; resample : PIL's filter; mean, deviation : of RGB in 0..1.
    """

    shorter_side: int | None = 256
    size: tuple[int, int] | None = None
    crop: tuple[int, int] | None = (224, 224)
    resample: int = 3
    mean: tuple[float, ...] = IMAGENET[0]
    deviation: tuple[float, ...] = IMAGENET[1]

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> EncoderFormat:
        """Read a preprocessor_config.json's content; what it does not say is DINOv2's default."""
        size, crop = config.get("size", {"shortest_edge": 256}), config.get("crop_size", {"height": 224, "width": 224})
        resized, cropped = config.get("do_resize", True), config.get("do_center_crop", True)
        return cls(
            size.get("shortest_edge") if resized else None,
            (size["height"], size["width"]) if resized and "height" in size else None,
            (crop["height"], crop["width"]) if cropped else None,
            int(config.get("resample", 3)),
            tuple(config.get("image_mean", cls.mean)),
            tuple(config.get("image_std", cls.deviation)),
        )


def prepare_picture(view: ObjectView) -> NDArray[np.uint8]:
    """The object on white (H, W, 3) in the middle of a square, up to a pixel, with a border of ``PADDING``.

    Raises EmptyObjectMaskError when there is nothing to see.
    """
    picture = cut_out(view)
    cut = on_white(picture[opaque_box(picture, 1)])
    height, width = cut.shape[:2]
    border = int(PADDING * max(height, width))
    across, down = (border + int((max(height, width) - side) / 2) for side in (width, height))
    padding = ((down, down), (across, across), (0, 0))
    return np.pad(cut, padding, constant_values=255)


def encoder_input(picture: NDArray[np.uint8], how: EncoderFormat) -> Tensor:
    """Resize, cut and normalise a picture (H, W, 3): (1, 3, h, w) float32."""
    image = Image.fromarray(picture)
    size = None if how.size is None else (how.size[1], how.size[0])
    if how.shorter_side is not None:
        shorter = min(image.size)
        size = (int(how.shorter_side * image.width / shorter), int(how.shorter_side * image.height / shorter))
    if size is not None:
        image = image.resize(size, Image.Resampling(how.resample))
    if how.crop is not None:
        top, left = (image.height - how.crop[0]) // 2, (image.width - how.crop[1]) // 2
        image = image.crop((left, top, left + how.crop[1], top + how.crop[0]))
    unit = torch.from_numpy(np.array(image, np.float32) / 255)
    return ((unit - torch.tensor(how.mean)) / torch.tensor(how.deviation)).permute(2, 0, 1)[None]
