# SPDX-License-Identifier: Apache-2.0
"""Views of grasps for the amodal network: only geometry, so that many cameras can look at each grasp.

Held are the procedural objects and the scanned ones of the benchmark's train split, which is there to be trained on, by
the benchmark's own grasps: fingers closed round the object, opposed by the thumb.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fmh_ros.benchmark.objects import load_object, objects_of
from fmh_ros.benchmark.scenes.grasps import draw_held, mirrored_object
from fmh_ros.core.hand.rig import HandRig
from fmh_ros.training.scenes.objects import SceneObject, procedural_object
from fmh_ros.training.scenes.render import Scene, scene_parts
from fmh_ros.training.scenes.views import View, draw_view

Rng = np.random.Generator
FloatArray = NDArray[np.float64]
log = logging.getLogger(__name__)

#: Share of the grasps that hold a scanned object, and cameras per grasp and grasps per file.
SCANNED, CAMERAS, FILE_GRASPS = 0.6, 14, 24


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
    """Read every view that holds something: of this module's files, and of ``fmh_ros.training.masks views``."""
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


def _draw_grasp_views(rng: Rng, rig: HandRig, scanned: list[SceneObject]) -> list[View]:
    """Views of one grasp; none when no grasp is found."""
    held = scanned[int(rng.integers(len(scanned)))] if scanned and rng.random() < SCANNED else procedural_object(rng)
    if rng.random() < 0.5:  # held by a left hand and seen in the mirror
        held = mirrored_object(held)
    grasp = draw_held(rng, rig, held, tries=4)
    if grasp is None:
        return []
    scene = Scene(scene_parts(rng, rig, grasp))
    views = (draw_view(rng, scene, grasp, holds=True, shading=False) for _ in range(CAMERAS))
    return [view for view in views if view is not None]


def scanned_objects() -> list[SceneObject]:
    """The benchmark's objects for training. Raises ModelMissingError when the scans are not installed."""
    return [load_object(row) for row in objects_of("train")]


def write_views(
    folder: Path, rig: HandRig, seed: int, minutes: float, scanned: list[SceneObject], grasps: int = FILE_GRASPS
) -> int:
    """Render views into ``folder`` for so long, in files of so many grasps, and return how many there are."""
    folder.mkdir(parents=True, exist_ok=True)
    end, total, number = time.monotonic() + 60 * minutes, 0, 0
    while time.monotonic() < end:
        path = folder / f"{seed:03d}_{number:06d}.npz"
        rng = np.random.default_rng([seed, number])
        number += 1
        if path.exists():
            continue
        views = [view for _ in range(grasps) for view in _draw_grasp_views(rng, rig, scanned)]
        if not views:
            continue
        temporary = path.with_suffix(".part.npz")
        np.savez(
            temporary,
            label=np.stack([v.buffers.label for v in views]),
            depth=np.stack([v.buffers.depth for v in views]).astype(np.float16),
            amodal=np.stack([v.buffers.amodal for v in views]),
            keypoints=np.stack([v.keypoints for v in views]),
            K=np.stack([v.camera.K for v in views]),
            holds=np.ones(len(views), np.bool_),
        )
        temporary.rename(path)
        total += len(views)
        log.info("%s: %d views", path.name, len(views))
    return total
