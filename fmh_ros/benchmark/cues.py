# SPDX-License-Identifier: Apache-2.0
"""The cues of a scene: exact, with stated errors, or left to the stage that is measured.

Errors are drawn from the scene's own seed, each stage from a stream of its own: noisy masks are the same whatever the
landmarks are, and on every run.
"""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from fmh_ros.benchmark.given import Cues
from fmh_ros.benchmark.types import BenchmarkScene, CueChoice
from fmh_ros.core.cues.types import HandObservation, SceneMasks
from fmh_ros.core.errors import UsageError
from fmh_ros.core.frame.camera import CameraModel
from fmh_ros.core.frame.frame import Frame
from fmh_ros.core.frame.load import make_frame

Mask = NDArray[np.bool_]
Rng = np.random.Generator

#: Deviations of noisy landmarks: in the image as a share of the hand's box, in 3D in metres; their 3D hand has the
#: average hand's size (wrist to middle knuckle, metres), as that of a landmark network has.
LANDMARK_SHARE, LANDMARK_M, AVERAGE_PALM_M = 0.015, 0.003, 0.093
#: Deviation of a noisy mask's outline, as a share of the hand's box, and over how many such it changes.
OUTLINE_SHARE, OUTLINE_SMOOTH = 0.015, 4.0
#: Further noise of noisy depth, metres at 1 m, rising with the square of the distance; share of patches that are lost.
DEPTH_NOISE_M, DEPTH_LOST = 0.004, 0.15
#: Deviation of a noisy calibration: of the focal length, relative; of the principal point, share of the image.
FOCAL_SHARE, CENTRE_SHARE = 0.03, 0.01
_HAND, _MASKS, _DEPTH, _CAMERA = range(4)


def choose_cues(scene: BenchmarkScene, choice: CueChoice) -> Cues:
    """Return what a reconstruction of the scene is given. Raises UsageError for cues that the scene does not have."""
    hand = masks = None
    if choice.hand != "embedded":
        hand = true_hand(scene)
        hand = hand if choice.hand == "true" else noisy_hand(_stream(scene, _HAND), hand)
    if choice.masks != "embedded":
        masks = true_masks(scene)
        if choice.masks == "noisy":
            size = float(np.ptp(scene.keypoints_2d, 0).max())
            masks = noisy_masks(_stream(scene, _MASKS), masks, size)
    return Cues(_with_camera(scene, _with_depth(scene, choice), choice), hand, masks)


def true_hand(scene: BenchmarkScene) -> HandObservation:
    """The hand as a perfect detector would report it. Raises UsageError when the truth has no joints."""
    points = scene.truth.keypoints
    if points is None:
        raise UsageError(
            f"Scene {scene.name} has no true joints", expected="a truth with them", change="Use --cues hand=embedded"
        )
    world = points - points[[0, 5, 9, 13, 17]].mean(0)
    return HandObservation(scene.truth.side, 1.0, 1.0, _box(scene.keypoints_2d), scene.keypoints_2d, world)


def noisy_hand(rng: Rng, exact: HandObservation) -> HandObservation:
    """The same hand with a landmark network's errors, and an average hand's size in 3D."""
    size = float(np.ptp(exact.keypoints_2d, 0).max())
    average = AVERAGE_PALM_M / float(np.linalg.norm(exact.keypoints_world[9] - exact.keypoints_world[0]))
    pixels = exact.keypoints_2d + rng.normal(0, LANDMARK_SHARE * size, (21, 2))
    world = exact.keypoints_world * average + rng.normal(0, LANDMARK_M, (21, 3))
    return replace(exact, box=_box(pixels), keypoints_2d=pixels, keypoints_world=world)


def true_masks(scene: BenchmarkScene) -> SceneMasks:
    """The masks of a perfect segmenter, the hidden part of the object included."""
    seen = scene.object_mask.astype(np.float32)
    return SceneMasks(scene.hand_mask, scene.object_mask, seen, scene.amodal_mask.astype(np.float32), 1.0)


def noisy_masks(rng: Rng, exact: SceneMasks, hand_px: float) -> SceneMasks:
    """The same masks with outlines that wander, the same way for all; ``hand_px``: longer side of the hand's box."""
    deviation = OUTLINE_SHARE * hand_px
    height, width = exact.hand.shape
    noise = rng.normal(0, 1, (height, width, 2)).astype(np.float32)
    shift = cv2.GaussianBlur(noise, (0, 0), max(OUTLINE_SMOOTH * deviation, 1.0))
    shift *= deviation / shift.std()
    v, u = np.mgrid[:height, :width].astype(np.float32)

    def moved(mask: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.asarray(cv2.remap(mask, u + shift[..., 0], v + shift[..., 1], cv2.INTER_LINEAR), np.float32)

    hand, held = moved(exact.hand.astype(np.float32)), moved(exact.object.astype(np.float32))
    whole = exact.amodal_probability
    seen = (held > 0.5) & (held >= hand)
    return replace(
        exact,
        hand=(hand > 0.5) & ~seen,
        object=seen,
        object_probability=held,
        amodal_probability=None if whole is None else np.maximum(moved(whole), seen.astype(np.float32)),
    )


def noisy_depth(rng: Rng, depth: NDArray[np.float32]) -> NDArray[np.float32]:
    """Depth (H, W) of a worse sensor: more noise, smooth over a few pixels, and lost patches."""
    grain = cv2.GaussianBlur(rng.normal(0, 1, depth.shape).astype(np.float32), (0, 0), 1.5)
    noisy = depth + grain / grain.std() * np.float32(DEPTH_NOISE_M) * depth**2
    cells = (max(depth.shape[0] // 24, 2), max(depth.shape[1] // 24, 2))
    lost = cv2.resize(rng.random(cells, dtype=np.float32), depth.shape[::-1]) < DEPTH_LOST
    return np.where(lost, np.nan, noisy).astype(np.float32)


def _with_depth(scene: BenchmarkScene, choice: CueChoice) -> Frame:
    frame = scene.frame
    if choice.depth == "none":
        return replace(frame, depth=None)
    if choice.depth == "exact":
        return replace(frame, depth=scene.exact_depth)
    if frame.depth is None:
        raise UsageError(f"Scene {scene.name} has no depth", expected="an RGB-D scene", change="Use --no-depth")
    return frame if choice.depth == "sensor" else replace(frame, depth=noisy_depth(_stream(scene, _DEPTH), frame.depth))


def _with_camera(scene: BenchmarkScene, frame: Frame, choice: CueChoice) -> Frame:
    if choice.camera == "estimated":
        return make_frame(frame.image, depth=frame.depth)
    if choice.camera == "noisy":
        return replace(frame, camera=noisy_camera(_stream(scene, _CAMERA), frame.camera))
    return frame


def noisy_camera(rng: Rng, camera: CameraModel) -> CameraModel:
    """A calibration that is off."""
    K = camera.K.copy()
    K[[0, 1], [0, 1]] *= np.exp(rng.normal(0, FOCAL_SHARE))
    K[:2, 2] += rng.normal(0, CENTRE_SHARE, 2) * [camera.width, camera.height]
    return replace(camera, K=K)


def _stream(scene: BenchmarkScene, stage: int) -> Rng:
    return np.random.default_rng([scene.seed, scene.index, stage])


def _box(pixels: NDArray[np.float64]) -> tuple[float, float, float, float]:
    low, high = pixels.min(0), pixels.max(0)
    return float(low[0]), float(low[1]), float(high[0]), float(high[1])
