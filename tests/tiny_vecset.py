# SPDX-License-Identifier: Apache-2.0
"""What tests of the vector-set generators share: sizes, an image encoder, a latent, points, and a picture to show."""

from __future__ import annotations

import numpy as np
import torch

from fmh_ros.core.cues.types import ObjectView
from fmh_ros.core.flow.sampler import initial_noise
from fmh_ros.core.frame.camera import CameraModel
from fmh_ros.core.transforms import Similarity

TOKENS, CHANNELS = 12, 8
#: Config of a DINOv2 of four patches.
IMAGE_ENCODER = {
    "hidden_size": 24,
    "image_size": 28,
    "mlp_ratio": 2,
    "model_type": "dinov2",
    "num_attention_heads": 2,
    "num_hidden_layers": 1,
    "patch_size": 14,
}
LATENT = initial_noise((TOKENS, CHANNELS), torch.Generator().manual_seed(0))
POINTS = 2.0 * torch.rand((400, 3), generator=torch.Generator().manual_seed(1)) - 1.0


def view_of(image: np.ndarray, mask: np.ndarray) -> ObjectView:
    size = len(mask)
    K = np.array([[3.0 * size, 0, size / 2], [0, 3.0 * size, size / 2], [0, 0, 1]])
    pose = Similarity(np.eye(3), np.array([0, 0, 0.6]), 0.1)
    return ObjectView(CameraModel(size, size, K), mask, mask < 0, None, None, image, pose)


def flag_view(size: int = 96) -> ObjectView:
    """An L off the centre in two colours: neither mirrored nor turned does it look the same."""
    image = np.full((size, size, 3), 255, np.uint8)
    mask = np.zeros((size, size), np.float32)
    mask[20:70, 30:42], mask[58:70, 30:66] = 1, 1
    image[mask > 0] = (200, 30, 60)
    image[20:40, 30:42] = (10, 90, 240)
    return view_of(image, mask)
