# SPDX-License-Identifier: Apache-2.0
"""The geometry of rendered grasps that the amodal network is trained on, as files hold it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Views:
    """Geometry of N views that hold something: label (N, S, S) uint8 of ``render``'s kinds, depth (N, S, S) float16
    metres, amodal (N, S, S) bool, keypoints (N, 21, 3) metres, camera frame, K (N, 3, 3)."""

    label: NDArray[np.uint8]
    depth: NDArray[np.float16]
    amodal: NDArray[np.bool_]
    keypoints: FloatArray
    K: FloatArray

    def __len__(self) -> int:
        return len(self.label)


def load_views(folders: list[Path]) -> Views:
    """Read every view that holds something, of ``fmh_ros.benchmark.training_views`` and ``fmh_ros.training.masks``."""
    columns: list[list[NDArray[np.generic]]] = [[], [], [], [], []]
    for path in (each for folder in folders for each in sorted(folder.glob("*.npz"))):
        if path.name.endswith(".part.npz"):
            continue
        with np.load(path) as data:
            holds = data["holds"]
            # A bank of the mask network packs it as the third of eight bits.
            amodal = data["amodal"] if "amodal" in data.files else (data["bits"] >> 5) & 1 > 0
            every = (data["label"], data["depth"], amodal, data["keypoints"], data["K"])
            for column, values in zip(columns, every, strict=True):
                column.append(values[holds])
    return Views(*(np.concatenate(column) for column in columns))  # type: ignore[arg-type]
