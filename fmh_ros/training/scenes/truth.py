# SPDX-License-Identifier: Apache-2.0
"""Whole RGB-D pictures of grasps with exact truth, for measuring the pipeline end to end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from fmh_ros.core.cues.types import HandObservation
from fmh_ros.core.frame.camera import CameraModel
from fmh_ros.core.frame.frame import Frame
from fmh_ros.core.hand.rig import HandRig
from fmh_ros.core.transforms import Similarity
from fmh_ros.training.scenes.backgrounds import background, photograph
from fmh_ros.training.scenes.grasp import Grasp, draw_grasp
from fmh_ros.training.scenes.looks import draw_lighting, shade
from fmh_ros.training.scenes.objects import SceneObject, procedural_object
from fmh_ros.training.scenes.render import HAND, OBJECT, Buffers, Scene, scene_parts
from fmh_ros.training.scenes.textures import Image
from fmh_ros.training.scenes.views import draw_camera_pose

Rng = np.random.Generator
FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class SceneTruth:
    """A rendered scene: a right hand that holds an object. Everything is in the camera optical frame, metres.

    frame : image with camera and sensor-like depth. hand_vertices (V, 3), hand_faces (F, 3): the rig, posed;
    object_vertices, object_faces : closed mesh of the object; keypoints : (21, 3); keypoints_2d : (21, 2) px.
    hand_mask : visible hand and forearm; object_mask : visible object; amodal_mask : the whole object; depth : (H, W)
    exact depth of hand, forearm and object, NaN elsewhere; normals : (H, W, 3) exact, NaN elsewhere.
    T_camera_hand : pose of the hand; kind : kind of grasp; name : family or file of the object.
    """

    frame: Frame
    hand_vertices: FloatArray
    hand_faces: NDArray[np.int64]
    object_vertices: FloatArray
    object_faces: NDArray[np.int64]
    keypoints: FloatArray
    keypoints_2d: FloatArray
    hand_mask: NDArray[np.bool_]
    object_mask: NDArray[np.bool_]
    amodal_mask: NDArray[np.bool_]
    depth: NDArray[np.float32]
    normals: NDArray[np.float32]
    T_camera_hand: Similarity
    kind: str
    name: str

    def observation(self) -> HandObservation:
        """The hand as a perfect detector would report it."""
        low, high = self.keypoints_2d.min(0), self.keypoints_2d.max(0)
        world = self.keypoints - self.keypoints[[0, 5, 9, 13, 17]].mean(0)
        box = (float(low[0]), float(low[1]), float(high[0]), float(high[1]))
        return HandObservation("right", 1.0, 1.0, box, self.keypoints_2d, world)


def depth_camera(rng: Rng, depth: NDArray[np.floating], *, quantum_m: float = 0.001) -> NDArray[np.float32]:
    """What a stereo depth camera reports of exact depth (H, W), metres, NaN where nothing is.

    Noise grows with the square of the distance and is smooth over a few pixels, edges mix or drop out, grazing and
    random patches are missing, values are whole quanta.
    """
    known = np.isfinite(depth)
    filled = np.where(known, depth, 0).astype(np.float32)
    height, width = depth.shape
    shift = rng.normal(0, 0.5, (2, height, width)).astype(np.float32)
    columns, rows = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    jittered = cv2.remap(filled, columns + shift[0], rows + shift[1], cv2.INTER_NEAREST)
    grain = cv2.GaussianBlur(rng.normal(0, 1, depth.shape).astype(np.float32), (0, 0), 0.8)
    noisy = jittered + grain / grain.std() * np.float32(0.0016) * jittered**2 / 0.5
    slope = cv2.morphologyEx(jittered, cv2.MORPH_GRADIENT, np.ones((3, 3)))
    edge = slope > 0.04
    cells = (max(height // 24, 2), max(width // 24, 2))
    patches = cv2.resize(rng.random(cells, dtype=np.float32), (width, height)) < 0.04
    missing = (edge & (rng.random(depth.shape) < 0.6)) | patches | (jittered <= 0)
    result = np.round(noisy / quantum_m) * quantum_m
    return np.where(missing, np.nan, result).astype(np.float32)


def draw_camera(rng: Rng, width: int, height: int) -> CameraModel:
    """Draw intrinsics: 40 to 75 degrees along the longer side, principal point off the centre."""
    focal = max(width, height) / 2 / np.tan(np.radians(rng.uniform(40, 75)) / 2)
    centre = np.array([width - 1, height - 1]) / 2 + rng.normal(0, 0.02, 2) * [width, height]
    K = np.array([[focal, 0, centre[0]], [0, focal * rng.normal(1, 0.003), centre[1]], [0, 0, 1.0]])
    return CameraModel(width, height, K)


def _well_seen(buffers: Buffers, keypoints_2d: FloatArray) -> bool:
    height, width = buffers.label.shape
    inside = ((keypoints_2d > 4) & (keypoints_2d < np.array([width, height]) - 5)).all()
    hand, solo = int((buffers.label == HAND).sum()), int(buffers.hand_only.sum())
    visible, whole = int((buffers.label == OBJECT).sum()), int(buffers.amodal.sum())
    rim = (
        buffers.amodal[0].any() or buffers.amodal[-1].any() or buffers.amodal[:, 0].any() or buffers.amodal[:, -1].any()
    )
    return bool(inside and not rim and hand > 0.35 * solo * 0.6 and hand > 900 and visible > max(0.3 * whole, 500))


def _walls(rng: Rng, camera: CameraModel, nearest: float) -> NDArray[np.float32]:
    """Depth (H, W) of a tilted plane behind everything."""
    normal = np.array([rng.normal(0, 0.25), rng.normal(0, 0.25), 1.0])
    rays = camera.rays(camera.pixel_grid())
    distance = nearest + rng.uniform(0.25, 1.2)
    return np.maximum(distance / np.maximum(rays @ normal, 0.3), nearest + 0.05).astype(np.float32)


def render_truth(
    rng: Rng,
    rig: HandRig,
    grasp: Grasp,
    camera: CameraModel,
    T_camera_hand: Similarity,
    photos: Sequence[Image] = (),
    scene: Scene | None = None,
) -> tuple[SceneTruth, Buffers]:
    """Render a grasp as one RGB-D picture."""
    if grasp.object is None:
        raise ValueError("A scene with truth needs a grasp that holds an object")
    held = grasp.object
    buffers = (scene or Scene(scene_parts(rng, rig, grasp))).render(rng, camera, T_camera_hand)
    solid = buffers.label > 0
    size = (camera.width, camera.height)
    picture = cv2.resize(background(rng, photos), size, interpolation=cv2.INTER_CUBIC)
    look = shade(rng, rig, buffers, draw_lighting(rng), photos)
    soft = cv2.GaussianBlur(solid.astype(np.float32), (0, 0), 0.6)[..., None]
    spread = cv2.dilate(look, np.ones((5, 5)))
    picture = picture * (1 - soft) + np.where(solid[..., None], look, spread) * soft
    exact = np.where(solid, buffers.depth, np.nan).astype(np.float32)
    everything = np.where(solid, buffers.depth, _walls(rng, camera, float(np.nanmax(exact))))
    frame = Frame(photograph(rng, picture.astype(np.float32)), camera, depth_camera(rng, everything))
    keypoints = T_camera_hand.apply(grasp.keypoints)
    object_in_hand = held.vertices @ grasp.rotation.T + grasp.translation
    truth = SceneTruth(
        frame=frame,
        hand_vertices=T_camera_hand.apply(grasp.vertices),
        hand_faces=rig.faces,
        object_vertices=T_camera_hand.apply(object_in_hand),
        object_faces=held.faces.astype(np.int64),
        keypoints=keypoints,
        keypoints_2d=camera.project(keypoints),
        hand_mask=solid & (buffers.label != OBJECT),
        object_mask=buffers.label == OBJECT,
        amodal_mask=buffers.amodal,
        depth=exact,
        normals=np.where(solid[..., None], buffers.normal, np.nan).astype(np.float32),
        T_camera_hand=T_camera_hand,
        kind=grasp.kind,
        name=held.name,
    )
    return truth, buffers


def draw_truth(
    seed: int,
    rig: HandRig,
    *,
    width: int = 640,
    height: int = 480,
    objects: Sequence[SceneObject] = (),
    photos: Sequence[Image] = (),
    family: str | None = None,
) -> SceneTruth:
    """Draw a scene in which hand and object lie inside the picture and are both well seen.

    Args:
        seed: the same seed gives the same scene.
        rig: the hand.
        width: picture width, px.
        height: picture height, px.
        objects: choose the held object from these; procedural ones by default.
        photos: background photographs (`textures.load_photos`); procedural backgrounds by default.
        family: draw procedural objects of this family only.
    """
    rng = np.random.default_rng([seed, 7])
    while True:
        held = objects[int(rng.integers(len(objects)))] if objects else procedural_object(rng, family)
        grasp = draw_grasp(rng, rig, held)
        if grasp is None:
            continue
        scene = Scene(scene_parts(rng, rig, grasp))
        for _ in range(6):
            camera = draw_camera(rng, width, height)
            object_centre = (held.vertices @ grasp.rotation.T + grasp.translation).mean(0)
            pose = draw_camera_pose(rng, (object_centre + grasp.keypoints.mean(0)) / 2)
            keypoints = pose.apply(grasp.keypoints)
            if keypoints[:, 2].min() < 0.1:
                continue
            quick = scene.render(rng, camera.crop((0, 0, width, height), width // 4, height // 4), pose, shading=False)
            small = (camera.project(keypoints) + 0.5) / 4 - 0.5
            if quick_check(quick, small):
                truth, buffers = render_truth(rng, rig, grasp, camera, pose, photos, scene)
                if _well_seen(buffers, truth.keypoints_2d):
                    return truth


def quick_check(quick: Buffers, keypoints_2d: FloatArray) -> bool:
    """Cheap test on a picture of a quarter of the size: is it worth rendering in full?"""
    height, width = quick.label.shape
    inside = ((keypoints_2d > 1) & (keypoints_2d < np.array([width, height]) - 2)).all()
    visible = int((quick.label == OBJECT).sum())
    rim = quick.amodal[0].any() or quick.amodal[-1].any() or quick.amodal[:, 0].any() or quick.amodal[:, -1].any()
    return bool(inside and not rim and (quick.label == HAND).sum() > 55 and visible > 30)
