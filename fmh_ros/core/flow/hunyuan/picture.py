# SPDX-License-Identifier: Apache-2.0
"""The picture that the image encoder sees, prepared as in the publisher's training."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from fmh_ros.core.cues.types import ObjectView
from fmh_ros.core.flow.hunyuan.networks import PictureFormat
from fmh_ros.core.flow.vecset.picture import cut_out, on_white, opaque_box
from fmh_ros.core.pretrained import IMAGENET


def recentre(picture: NDArray[np.uint8], border: float) -> NDArray[np.uint8]:
    """Scale an RGBA picture (H, W, 4) so that its opaque part spans 1 - border of a white square, (S, S, 3).

    S is the larger side. The last row and column of the opaque box are left out, as in the publisher's preparation,
    which networks were trained behind. Raises EmptyObjectMaskError when there is nothing to see.
    """
    size = max(picture.shape[:2])
    rows, columns = opaque_box(picture, 2)
    height, width = rows.stop - 1 - rows.start, columns.stop - 1 - columns.start
    scale = int(size * (1 - border)) / max(height, width)
    # Never nothing: a needle's short side keeps a pixel.
    new_height, new_width = max(int(height * scale), 1), max(int(width * scale), 1)
    top, left = (size - new_height) // 2, (size - new_width) // 2
    cut = picture[rows.start : rows.stop - 1, columns.start : columns.stop - 1]
    whole = np.zeros((size, size, 4), np.uint8)
    resized = cv2.resize(cut, (new_width, new_height), interpolation=cv2.INTER_AREA)
    whole[top : top + new_height, left : left + new_width] = resized
    return on_white(whole)


def prepare_picture(view: ObjectView, how: PictureFormat) -> Tensor:
    """The view's picture (1, 3, size, size) float32 in -1..1, the object in the middle of white."""
    square = recentre(cut_out(view), how.border)
    resized = cv2.resize(square, (how.size, how.size), interpolation=cv2.INTER_CUBIC)
    return torch.from_numpy(resized.astype(np.float32) / 255 * 2 - 1).permute(2, 0, 1)[None]


def encoder_input(picture: Tensor, how: PictureFormat) -> Tensor:
    """Resize a picture (1, 3, S, S) in -1..1 for the encoder and normalise it as DINOv2 was trained."""
    size = (how.encoder_size, how.encoder_size)
    unit = 0.5 * (picture + 1.0)
    if unit.shape[-2:] != size:
        unit = F.interpolate(unit, size, mode="bilinear", antialias=True, align_corners=False)
    mean, deviation = (unit.new_tensor(each).view(1, 3, 1, 1) for each in IMAGENET)
    return (unit - mean) / deviation
