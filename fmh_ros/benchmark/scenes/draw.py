# SPDX-License-Identifier: Apache-2.0
"""Draws a planned scene: grasp, camera, room, picture, sensor depth and truth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from fmh_ros.benchmark.objects import load_object, object_row, object_symmetry, symmetry_kind
from fmh_ros.benchmark.scenes.cameras import Candidate, candidates
from fmh_ros.benchmark.scenes.grasps import draw_held, mirrored_object, object_depth
from fmh_ros.benchmark.scenes.plan import OCCLUSION_BINS, ScenePlan
from fmh_ros.benchmark.scenes.room import Room, draw_room, paint_room
from fmh_ros.benchmark.types import BenchmarkScene, SceneAttributes
from fmh_ros.core.errors import UsageError
from fmh_ros.core.frame.frame import Frame
from fmh_ros.core.hand.rig import HandRig
from fmh_ros.core.transforms import Similarity, mirror_x
from fmh_ros.evaluation.contact import touched_points
from fmh_ros.evaluation.types import GroundTruth
from fmh_ros.training.scenes.backgrounds import photograph
from fmh_ros.training.scenes.grasp import Grasp
from fmh_ros.training.scenes.looks import draw_lighting, shade
from fmh_ros.training.scenes.objects import SceneObject
from fmh_ros.training.scenes.render import ARM, HAND, OBJECT, SLEEVE, Buffers, Part, Scene, scene_parts
from fmh_ros.training.scenes.textures import Image
from fmh_ros.training.scenes.truth import depth_camera

Rng = np.random.Generator

#: Grasps that are tried for the planned occlusion, and cameras for each. Then the camera that came nearest is taken.
GRASPS, CAMERAS = 8, 120
#: Grasps tried in all before the plan is given up.
MOST_GRASPS = 24
#: Length of forearm and upper arm together, metres: it leaves the picture.
ARM_REACH = (0.5, 0.62)
#: The arm stays this far from the object, metres.
ARM_CLEARANCE_M = 0.004
#: Faults of the camera, of those that training pictures have.
FAULTS = 0.5
#: The camera's exposure makes hand and object at least and at most so bright.
EXPOSURE = (0.30, 0.55)
#: No more than a tenth of hand and object is brighter than this, 0 to 1.
BRIGHTEST = 0.85
#: Brightness, 0 to 1, from which the camera's curve flattens.
SHOULDER = 0.7
_MIRROR = np.array([-1.0, 1.0, 1.0])


@dataclass(frozen=True)
class _Take:
    """A grasp with its surfaces, and the camera that looks at it; ``parts``: for textures and truth."""

    grasp: Grasp
    parts: list[Part]
    scene: Scene
    view: Candidate


def draw_scene(plan: ScenePlan, rig: HandRig, photos: Sequence[Image] = ()) -> BenchmarkScene:
    """Draw the scene of a plan; the same plan gives the same scene.

    Everything is drawn as a right hand; for a left one the object is mirrored before and the whole scene after.

    Args:
        plan: what to show.
        rig: the right hand.
        photos: background pictures (`textures.load_photos`); procedural ones by default.

    Raises:
        UsageError: no grasp or camera fits the plan; another seed would.
        ModelMissingError: the scanned objects are not installed.
    """
    held = _loaded(plan.object.name)
    target = mirrored_object(held) if plan.side == "left" else held
    take, rng = _find(plan, rig, target)
    camera, pose = take.view.camera, take.view.T_camera_hand
    buffers = take.scene.render(rng, camera, pose)
    everything = np.concatenate([pose.apply(part.vertices) for part in take.parts])
    room = draw_room(rng, camera, everything)
    image = _picture(rng, rig, take, buffers, room, photos)
    solid = buffers.label > 0
    exact = np.where(solid, buffers.depth, room.depth).astype(np.float32)
    # Whole millimetres, in the one way in which a depth file is read.
    measured = (np.round(1000 * depth_camera(rng, exact).astype(np.float64)) * 0.001).astype(np.float32)
    object_pose = pose @ Similarity(take.grasp.rotation, take.grasp.translation)
    scene = BenchmarkScene(
        name=plan.name,
        split=plan.split,
        index=plan.index,
        seed=plan.seed,
        frame=Frame(image, camera, measured),
        truth=_truth(plan, rig, take.grasp, pose, object_pose, target),
        hand_mask=solid & (buffers.label != OBJECT),
        object_mask=buffers.label == OBJECT,
        amodal_mask=buffers.amodal,
        keypoints_2d=camera.project(pose.apply(take.grasp.keypoints)),
        exact_depth=exact,
        normals=np.where(solid[..., None], buffers.normal, np.nan).astype(np.float32),
        attributes=_attributes(plan, rig, take, buffers),
    )
    return _mirrored(scene, held) if plan.side == "left" else scene


@lru_cache(maxsize=4)
def _loaded(name: str) -> SceneObject:
    return load_object(object_row(name))


def _find(plan: ScenePlan, rig: HandRig, target: SceneObject) -> tuple[_Take, Rng]:
    """Find a grasp and a camera with the planned occlusion, or with the nearest to it within the benchmark's range."""
    low, high = plan.occlusion
    nearest: tuple[float, _Take, Rng] | None = None
    for attempt in range(MOST_GRASPS):
        rng = plan.stream(attempt)
        grasp = draw_held(rng, rig, target)
        if grasp is None:
            continue
        parts = _with_arm(rng, rig, grasp)
        if parts is None:
            continue
        scene = Scene(parts)
        for view in candidates(rng, plan, scene, grasp, _arm(parts), CAMERAS):
            if not OCCLUSION_BINS[0][0] < view.occlusion < OCCLUSION_BINS[-1][1]:
                continue
            off = max(low - view.occlusion, view.occlusion - high, 0.0)
            if nearest is None or off < nearest[0]:
                nearest = (off, _Take(grasp, parts, scene, view), rng)
            if off == 0:
                break
        if nearest is not None and (nearest[0] == 0 or attempt + 1 >= GRASPS):
            return nearest[1], nearest[2]
    raise UsageError(
        f"No grasp of {plan.object.name} and no camera were found for scene {plan.name}",
        expected=f"one among {MOST_GRASPS} grasps",
        change="Choose another --seed",
    )


def _arm(parts: list[Part]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Vertices (N, 3) of the arm, hand frame, and how far each is behind the wrist (N,), metres."""
    arm = [part for part in parts if part.label in (ARM, SLEEVE)]
    vertices, behind = (np.concatenate(v) for v in zip(*((p.vertices, -p.surface[:, 0]) for p in arm), strict=True))
    return vertices, behind


def _with_arm(rng: Rng, rig: HandRig, grasp: Grasp) -> list[Part] | None:
    """Surfaces with an arm that stays clear of the object; None when five arms don't."""
    for _ in range(5):
        parts = scene_parts(rng, rig, grasp, arm_reach=ARM_REACH)
        if grasp.object_distance(_arm(parts)[0]).min() > ARM_CLEARANCE_M:
            return parts
    return None


def _picture(
    rng: Rng, rig: HandRig, take: _Take, buffers: Buffers, room: Room, photos: Sequence[Image]
) -> NDArray[np.uint8]:
    """Light, paint and photograph: (H, W, 3) uint8 RGB."""
    camera, pose = take.view.camera, take.view.T_camera_hand
    light = draw_lighting(rng)
    # Few rays sample how open a place is: a little blur takes their grain away.
    smooth = replace(buffers, openness=cv2.GaussianBlur(buffers.openness, (0, 0), 1.5).astype(np.float32))
    solid = buffers.label > 0
    behind = paint_room(rng, room, camera, take.scene, pose, light, buffers.lights, photos)
    look = shade(rng, rig, smooth, light, photos)
    soft = cv2.GaussianBlur(solid.astype(np.float32), (0, 0), 0.6)[..., None]
    # Spread the look past its border so that the soft edge mixes surface and background, not black.
    spread = cv2.dilate(look, np.ones((5, 5)))
    picture = behind * (1 - soft) + np.where(solid[..., None], look, spread) * soft
    shot = _exposed(picture, np.isin(buffers.label, (HAND, OBJECT)))
    return photograph(rng, shot, FAULTS)


def _exposed(picture: NDArray[np.floating], subject: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Expose for the subject, as a camera does; what is brighter than white is rolled off."""
    brightness = 0.7 * float(picture[subject].mean()) + 0.3 * float(picture.mean())
    gain = float(np.clip(brightness, *EXPOSURE)) / max(brightness, 0.08)
    shot = picture * min(gain, BRIGHTEST / max(float(np.quantile(picture[subject], 0.9)), 0.1))
    over = np.maximum(shot - SHOULDER, 0) / (1 - SHOULDER)
    return np.where(over > 0, SHOULDER + (1 - SHOULDER) * (1 - np.exp(-over)), shot).astype(np.float32)


def _truth(
    plan: ScenePlan, rig: HandRig, grasp: Grasp, pose: Similarity, object_pose: Similarity, target: SceneObject
) -> GroundTruth:
    hand, held = pose.apply(grasp.vertices), object_pose.apply(target.vertices)
    faces = target.faces.astype(np.int64)
    return GroundTruth(
        name=plan.name,
        side="right",
        hand_vertices=hand,
        hand_faces=rig.faces,
        object_vertices=held,
        object_faces=faces,
        keypoints=pose.apply(grasp.keypoints),
        T_camera_object=object_pose,
        contacts=touched_points(hand, rig.faces, held, faces),
        symmetry=object_symmetry(plan.object.symmetry),
    )


def _attributes(plan: ScenePlan, rig: HandRig, take: _Take, buffers: Buffers) -> SceneAttributes:
    grasp, camera, row = take.grasp, take.view.camera, plan.object
    keypoints = take.view.T_camera_hand.apply(grasp.keypoints)
    inside = max(0.0, -float(grasp.object_distance(grasp.vertices).min()), object_depth(grasp, rig))
    middle = np.array([camera.width - 1, camera.height - 1]) / 2
    offset = (camera.K[:2, 2] - middle) * ([-1, 1] if plan.side == "left" else [1, 1])
    return SceneAttributes(
        object_name=row.name,
        object_source=row.source,
        object_licence=row.licence,
        size_class=row.size_class,
        thin=row.thin,
        symmetry=symmetry_kind(row.symmetry),
        occlusion=1 - float((buffers.label == OBJECT).sum()) / float(buffers.amodal.sum()),
        side=plan.side,
        grasp=grasp.kind,
        touching=grasp.touching,
        penetration_m=inside,
        distance_m=float(np.linalg.norm(keypoints.mean(0))),
        hand_px=float(np.ptp(camera.project(keypoints), axis=0).max()),
        focal_px=camera.focal,
        principal_offset_px=(float(offset[0]), float(offset[1])),
        extents_m=(float(row.extents_m[0]), float(row.extents_m[1]), float(row.extents_m[2])),
    )


def _mirrored(scene: BenchmarkScene, held: SceneObject) -> BenchmarkScene:
    """Turn a right hand with a mirrored object into a left hand with the object itself."""
    frame, truth = scene.frame.mirrored(), scene.truth
    assert truth.keypoints is not None
    assert truth.T_camera_object is not None
    assert truth.contacts is not None
    keypoints = truth.keypoints * _MIRROR
    camera = replace(frame.camera, K=np.round(frame.camera.K, 3) + 0.0)  # no negative zero
    return replace(
        scene,
        frame=replace(frame, camera=camera),
        truth=replace(
            truth,
            side="left",
            hand_vertices=truth.hand_vertices * _MIRROR,
            hand_faces=np.ascontiguousarray(truth.hand_faces[:, ::-1]),
            object_vertices=truth.object_vertices * _MIRROR,
            object_faces=held.faces.astype(np.int64),
            keypoints=keypoints,
            T_camera_object=mirror_x(truth.T_camera_object),
            contacts=truth.contacts * _MIRROR,
        ),
        hand_mask=np.ascontiguousarray(scene.hand_mask[:, ::-1]),
        object_mask=np.ascontiguousarray(scene.object_mask[:, ::-1]),
        amodal_mask=np.ascontiguousarray(scene.amodal_mask[:, ::-1]),
        keypoints_2d=camera.project(keypoints),
        exact_depth=np.ascontiguousarray(scene.exact_depth[:, ::-1]),
        normals=np.ascontiguousarray((scene.normals[:, ::-1] * _MIRROR).astype(np.float32)),
    )
