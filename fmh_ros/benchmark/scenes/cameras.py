# SPDX-License-Identifier: Apache-2.0
"""Cameras for a grasp: from where hand and object are well seen, and how much of the object is hidden."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from fmh_ros.benchmark.scenes.plan import DISTANCE_M, SMALLEST_HAND_PX, ScenePlan
from fmh_ros.core.frame.camera import CameraModel
from fmh_ros.core.transforms import Similarity
from fmh_ros.training.scenes.grasp import Grasp
from fmh_ros.training.scenes.render import BACKGROUND, OBJECT, Scene

Rng = np.random.Generator
FloatArray = NDArray[np.float64]

#: Field of view along the longer side, degrees; principal point off the centre, share of the longer side.
FIELD_OF_VIEW = (40.0, 75.0)
CENTRE_SHARE = 0.06
#: Keypoints and object stay this far from the picture's border, pixels.
MARGIN_PX = 6.0
#: Side of the small picture in which occlusion is measured, pixels.
PROBE_PX = 56
#: At least so many pixels of the object are seen, and so much of the hand that would be seen without the object.
SMALLEST_OBJECT_PX, HAND_SHARE = 150.0, 0.4
#: At least so many of the 21 joints are in view, so that one can see what the fingers do; skin over a joint, metres.
SEEN_JOINTS, JOINT_SKIN_M = 10, 0.02
#: How far the arm's direction in the picture strays from coming up from below, degrees (one deviation).
ARM_SPREAD = 50.0
#: No part of the arm in the picture is nearer than this share of the wrist's depth.
ARM_NEARNESS = 0.6


@dataclass(frozen=True)
class Candidate:
    """A camera at a pose, and the share of the object that is hidden from it."""

    camera: CameraModel
    T_camera_hand: Similarity
    occlusion: float


def candidates(
    rng: Rng, plan: ScenePlan, scene: Scene, grasp: Grasp, arm: tuple[FloatArray, FloatArray], tries: int
) -> Iterator[Candidate]:
    """Yield cameras from which object and hand are well seen, whatever the occlusion.

    arm : (N, 3) points of the arm, hand frame, and how far each is behind the wrist (N,), metres. Its end lies outside
    the picture, and no part of it close before the camera.
    """
    assert grasp.object is not None
    held = grasp.object.vertices[::7] @ grasp.rotation.T + grasp.translation
    points = np.concatenate([grasp.keypoints, held])
    for _ in range(tries):
        camera = _draw_intrinsics(rng, plan)
        pose = _place(rng, plan, camera, points, len(grasp.keypoints))
        if pose is None or not _arm_in_order(camera, pose, *arm):
            continue
        hidden = scene.covered(pose.inverse().translation, grasp.keypoints, JOINT_SKIN_M)
        if (~hidden).sum() < SEEN_JOINTS:
            continue
        occlusion = _probe(rng, scene, camera, pose, points)
        if occlusion is not None:
            yield Candidate(camera, pose, occlusion)


def _arm_in_order(camera: CameraModel, pose: Similarity, points: FloatArray, behind: FloatArray) -> bool:
    """Whether the arm leaves the picture before it ends, and does not come much nearer than the hand."""
    seen = pose.apply(points)
    front = seen[:, 2] > 0.01
    pixels = camera.project(seen[front])
    inside = ((pixels > 0) & (pixels < [camera.width, camera.height])).all(1)
    ends = behind[front] > behind.max() - 1e-6
    hand = seen[behind < behind.min() + 1e-6, 2].mean()
    return bool(not (inside & ends).any() and (seen[front][inside, 2] > ARM_NEARNESS * hand).all())


def _draw_intrinsics(rng: Rng, plan: ScenePlan) -> CameraModel:
    longest = max(plan.width, plan.height)
    focal = longest / 2 / np.tan(np.radians(rng.uniform(*FIELD_OF_VIEW)) / 2)
    centre = np.array([plan.width - 1, plan.height - 1]) / 2 + rng.uniform(-1, 1, 2) * CENTRE_SHARE * longest
    K = np.array([[focal, 0, centre[0]], [0, focal * rng.normal(1, 0.003), centre[1]], [0, 0, 1.0]])
    return CameraModel(plan.width, plan.height, np.round(K, 3))


def _place(rng: Rng, plan: ScenePlan, camera: CameraModel, points: FloatArray, joints: int) -> Similarity | None:
    """Draw a direction and put hand and object at the planned distance somewhere in the picture; None if it fails.

    points : (N, 3), hand frame, of which the first ``joints`` are the hand's.
    """
    rotation = np.asarray(Rotation.random(random_state=rng).as_matrix(), np.float64)
    arm = -rotation[:2, 0]
    turn = np.pi / 2 + np.radians(rng.normal(0, ARM_SPREAD)) - np.arctan2(arm[1], arm[0])
    rotation = np.asarray(Rotation.from_euler("z", turn).as_matrix()) @ rotation
    turned = points @ rotation.T
    middle = turned[:joints].mean(0)
    size = float(np.ptp(turned[:joints, :2], axis=0).max())
    nearest = DISTANCE_M[0]
    farthest = min(DISTANCE_M[1], camera.focal * size / SMALLEST_HAND_PX)
    if farthest < nearest:
        return None
    share = plan.distance_share
    for z in nearest * (farthest / nearest) ** np.array([share, (1 + share) / 2, 1.0]):
        if (turned[:, 2] - middle[2]).min() + z < 0.12:
            continue
        pose = _aim(rng, camera, rotation, turned, np.array([middle[0], middle[1], middle[2] - z]))
        if pose is not None:
            pixels = camera.project(pose.apply(points[:joints]))
            away = float(np.linalg.norm(pose.apply(points[:joints]).mean(0)))
            if np.ptp(pixels, axis=0).max() >= SMALLEST_HAND_PX and DISTANCE_M[0] <= away <= DISTANCE_M[1]:
                return pose
    return None


def _aim(
    rng: Rng, camera: CameraModel, rotation: FloatArray, turned: FloatArray, origin: FloatArray
) -> Similarity | None:
    """Move what is at ``turned`` (N, 3) sideways to a random place of the picture; None if it is too large."""
    place = rng.uniform(0.15, 0.85, 2)
    translation = -origin
    for _ in range(4):
        pixels = camera.project(turned + translation)
        low, high = pixels.min(0) - MARGIN_PX, pixels.max(0) + MARGIN_PX
        room = np.array([camera.width - 1.0, camera.height - 1.0]) - (high - low)
        if (room < 0).any():
            return None
        depth = float((turned + translation)[:, 2].mean())
        translation = translation + np.append((place * room - low) * depth / camera.focal, 0.0)
    pixels = camera.project(turned + translation)
    limit = np.array([camera.width - 1.0, camera.height - 1.0]) - MARGIN_PX / 2
    inside = bool((pixels > MARGIN_PX / 2).all() and (pixels < limit).all())
    return Similarity(rotation, translation) if inside else None


def _probe(rng: Rng, scene: Scene, camera: CameraModel, pose: Similarity, points: FloatArray) -> float | None:
    """Share of the object that is hidden, from a small picture of hand and object; None when either is hardly seen."""
    pixels = camera.project(pose.apply(points))
    low, high = pixels.min(0) - 2, pixels.max(0) + 3
    side = float((high - low).max())
    corner = (low + high - side) / 2
    square = (float(corner[0]), float(corner[1]), float(corner[0] + side), float(corner[1] + side))
    small = scene.render(rng, camera.crop(square, PROBE_PX, PROBE_PX), pose, shading=False)
    visible, whole = int((small.label == OBJECT).sum()), int(small.amodal.sum())
    hand, solo = int(((small.label != BACKGROUND) & (small.label != OBJECT)).sum()), int(small.hand_only.sum())
    area = (side / PROBE_PX) ** 2
    if not whole or visible * area < SMALLEST_OBJECT_PX or hand < HAND_SHARE * solo:
        return None
    return 1 - visible / whole
