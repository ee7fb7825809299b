# SPDX-License-Identifier: Apache-2.0
"""Random views of grasps in a crop round the hand, and a bank of them on disk."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from fmh_ros.core.frame.camera import CameraModel
from fmh_ros.core.hand.rig import HandRig
from fmh_ros.core.transforms import Similarity
from fmh_ros.training.scenes.grasp import Grasp, draw_free_hand, draw_grasp
from fmh_ros.training.scenes.objects import SceneObject, procedural_object
from fmh_ros.training.scenes.render import ARM, HAND, OBJECT, SLEEVE, Buffers, Scene, scene_parts

Rng = np.random.Generator
FloatArray = NDArray[np.float64]
log = logging.getLogger(__name__)

VIEW_SIZE = 192
FREE_HAND_SHARE = 0.18


@dataclass(frozen=True)
class View:
    """Buffers of one square crop; keypoints (21, 3) metres, camera frame; camera of the crop."""

    buffers: Buffers
    keypoints: FloatArray
    camera: CameraModel
    T_camera_hand: Similarity
    holds: bool
    name: str


def draw_camera_pose(rng: Rng, target: FloatArray) -> Similarity:
    """Draw T_camera_hand: looking at about ``target`` (hand frame) from 0.25 to 1.2 m, any direction, any roll."""
    distance = float(np.exp(rng.uniform(np.log(0.25), np.log(1.2))))
    rotation = Rotation.from_quat(rng.normal(size=4)).as_matrix()
    aim = np.array([rng.normal(0, 0.12) * distance, rng.normal(0, 0.12) * distance, distance])
    return Similarity(rotation, aim - rotation @ target)


def crop_camera(rng: Rng, keypoints: FloatArray, size: int) -> CameraModel:
    """Draw a camera whose square image is a jittered crop round keypoints (21, 3), metres, camera frame."""
    pixels = keypoints[:, :2] / keypoints[:, 2:]
    low, high = pixels.min(0), pixels.max(0)
    side = float((high - low).max() * np.clip(np.exp(rng.normal(np.log(2.5), 0.25)), 1.5, 4.5))
    centre = (low + high) / 2 + rng.uniform(-0.18, 0.18, 2) * side
    focal = size / side
    principal = (size - 1) / 2 - focal * centre
    K = np.array([[focal, 0, principal[0]], [0, focal, principal[1]], [0, 0, 1.0]])
    return CameraModel(size, size, K)


def _acceptable(buffers: Buffers, holds: bool) -> bool:
    area = buffers.label.size
    hand, solo = int((buffers.label == HAND).sum()), int(buffers.hand_only.sum())
    sleeved = int(np.isin(buffers.label, (ARM, SLEEVE)).sum())
    if hand < 0.02 * area or hand + sleeved < 0.3 * solo:
        return False
    visible = int((buffers.label == OBJECT).sum())
    return not holds or 0.002 * area < visible < 0.6 * area


def draw_view(
    rng: Rng, scene: Scene, grasp: Grasp, holds: bool, size: int = VIEW_SIZE, *, shading: bool = True
) -> View | None:
    """Draw one view of a scene; None when hand or object can hardly be seen in any of a few tries.

    shading : as in `Scene.render`; without it there is only geometry.
    """
    for _ in range(4):
        pose = draw_camera_pose(rng, grasp.keypoints.mean(0))
        keypoints = pose.apply(grasp.keypoints)
        if keypoints[:, 2].min() < 0.08:
            continue
        camera = crop_camera(rng, keypoints, size)
        buffers = scene.render(rng, camera, pose, shading=shading)
        if _acceptable(buffers, holds):
            name = grasp.object.name if holds and grasp.object is not None else "none"
            return View(buffers, keypoints, camera, pose, holds, name)
    return None


def draw_views(rng: Rng, rig: HandRig, count: int, objects: list[SceneObject] | None = None) -> list[View]:
    """Draw ``count`` views of one random scene (fewer when hand or object stay hidden).

    Args:
        rng: decides everything.
        rig: the hand.
        count: how many cameras look at the scene.
        objects: pick the held object from these; procedural ones by default.
    """
    holds = rng.random() > FREE_HAND_SHARE
    grasp: Grasp | None = None
    while grasp is None:
        if not holds and rng.random() < 0.7:
            grasp = draw_free_hand(rng, rig)
            break
        held = procedural_object(rng) if objects is None else objects[int(rng.integers(len(objects)))]
        grasp = draw_grasp(rng, rig, held)
    scene = Scene(scene_parts(rng, rig, grasp, with_object=holds))
    views = [draw_view(rng, scene, grasp, holds) for _ in range(count)]
    return [v for v in views if v is not None]


def pack_views(views: list[View]) -> dict[str, NDArray[np.generic]]:
    """Pack views into compact arrays whose first axis counts them."""
    buffers = [v.buffers for v in views]
    bits = [
        np.packbits(np.stack([b.lit[..., 0], b.lit[..., 1], b.amodal, b.hand_only], -1), axis=-1)[..., 0]
        for b in buffers
    ]
    return {
        "label": np.stack([b.label for b in buffers]),
        "depth": np.stack([b.depth for b in buffers]).astype(np.float16),
        "normal": np.stack([np.round(b.normal * 127) for b in buffers]).astype(np.int8),
        "surface": np.stack([b.surface for b in buffers]).astype(np.float16),
        "openness": np.stack([np.round(b.openness * 255) for b in buffers]).astype(np.uint8),
        "bits": np.stack(bits),
        "lights": np.stack([b.lights for b in buffers]),
        "keypoints": np.stack([v.keypoints for v in views]),
        "K": np.stack([v.camera.K for v in views]),
        "holds": np.array([v.holds for v in views]),
        "name": np.array([v.name for v in views]),
    }


def write_bank(
    folder: Path, rig: HandRig, seed: int, scenes: int, per_scene: int = 4, objects: list[SceneObject] | None = None
) -> int:
    """Render a bank of views into ``folder`` in files of 16 scenes each, and return how many views it has.

    A file that is already there is kept, so that an interrupted run goes on where it stopped.
    """
    folder.mkdir(parents=True, exist_ok=True)
    total = 0
    for start in range(0, scenes, 16):
        path = folder / f"{seed:03d}_{start:06d}.npz"
        if path.exists():
            continue
        views: list[View] = []
        for index in range(start, min(start + 16, scenes)):
            views += draw_views(np.random.default_rng([seed, index]), rig, per_scene, objects)
        total += len(views)
        temporary = path.with_suffix(".part.npz")
        np.savez(temporary, **pack_views(views))  # type: ignore[arg-type]
        temporary.rename(path)
        log.info("%s: %d views", path.name, len(views))
    return total
