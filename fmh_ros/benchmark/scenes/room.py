# SPDX-License-Identifier: Apache-2.0
"""What is behind and below a hand: a wall and a table with depth, light and the shadows that fall on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from fmh_ros.core.frame.camera import CameraModel
from fmh_ros.core.transforms import Similarity
from fmh_ros.training.scenes.backgrounds import background, cloth
from fmh_ros.training.scenes.looks import Lighting
from fmh_ros.training.scenes.render import Scene
from fmh_ros.training.scenes.textures import Image, texture

Rng = np.random.Generator
FloatArray = NDArray[np.float64]

#: Nothing is further away than this, metres; the sensor's range.
FARTHEST_M = 3.0
SHADOW_REACH_M = 1.5
SHADOW_STEP = 3
#: Rooms are less colourful than the textures that things are painted with.
COLOURFULNESS = (0.25, 0.9)
SKY, TABLE, WALL = 0, 1, 2


@dataclass(frozen=True)
class Room:
    """What each pixel would see without the hand.

    depth : (H, W) float64 metres along z; kind : (H, W) uint8, SKY, TABLE or WALL; flat : (H, W, 2) float32 metres,
    coordinates on the surface; normals : (3, 3) unit, towards the camera, of each kind.
    """

    depth: FloatArray
    kind: NDArray[np.uint8]
    flat: NDArray[np.float32]
    normals: FloatArray


def draw_room(rng: Rng, camera: CameraModel, points: FloatArray) -> Room:
    """Draw a table below and a wall behind everything.

    Args:
        rng: decides how the camera is tilted and how far table and wall are.
        camera: what sees the room.
        points: (N, 3) metres, camera frame, of all that is in front.
    """
    pitch, roll = np.radians(rng.uniform(0, 60)), np.radians(rng.normal(0, 6))
    up = np.array([np.sin(roll) * np.cos(pitch), -np.cos(roll) * np.cos(pitch), -np.sin(pitch)])
    level = np.array([0.0, 0, -1]) - up * (up @ [0, 0, -1.0])
    level /= np.linalg.norm(level)
    yaw = np.radians(rng.normal(0, 20))
    wall = np.cos(yaw) * level + np.sin(yaw) * np.cross(up, level)
    rays = camera.rays(camera.pixel_grid())
    table_at = float((points @ up).min()) - rng.uniform(0.02, 0.25)
    wall_at = float((points @ wall).min()) - np.exp(rng.uniform(np.log(0.15), np.log(1.2)))
    depths = np.stack([np.full(rays.shape[:2], FARTHEST_M), _plane(rays, up, table_at), _plane(rays, wall, wall_at)])
    kind = depths.argmin(0)
    depth = depths.min(0)
    places = rays * depth[..., None]
    normals = np.stack([np.array([0.0, 0, -1]), up, wall])
    flat = np.zeros((*kind.shape, 2), np.float32)
    for k, normal in enumerate(normals):
        across = np.cross(normal, [0.0, 1, 0] if k != TABLE else wall)
        across /= np.linalg.norm(across)
        here = kind == k
        flat[here] = places[here] @ np.stack([across, np.cross(normal, across)], 1)
    return Room(depth, kind.astype(np.uint8), flat, normals)


def _plane(rays: FloatArray, normal: FloatArray, offset: float) -> FloatArray:
    """Depth (H, W) of the plane ``normal @ x = offset`` on rays of depth 1, infinite where they miss it."""
    slope = rays @ normal
    depth = np.divide(offset, slope, out=np.full(slope.shape, np.inf), where=slope < -1e-6)
    return np.where(depth > 0, depth, np.inf)


def paint_room(
    rng: Rng,
    room: Room,
    camera: CameraModel,
    scene: Scene,
    T_camera_hand: Similarity,
    light: Lighting,
    lamps: FloatArray,
    photos: Sequence[Image] = (),
) -> Image:
    """Return the look (H, W, 3) of the room, float32 sRGB, lit by lamps in directions (L, 3), camera frame.

    1 is white, and what is lit strongly exceeds it.
    """
    size = (camera.width, camera.height)
    picture = cv2.resize(background(rng, photos), size, interpolation=cv2.INTER_CUBIC)
    cover = cloth(rng, photos) if rng.random() < 0.2 else texture(rng, photos)
    cover = np.asarray(cv2.resize(cover, None, fx=4, fy=4, interpolation=cv2.INTER_CUBIC), np.float32)
    span = float(np.exp(rng.uniform(np.log(0.25), np.log(1.0))))
    side = cover.shape[0]
    folded = (np.abs((room.flat / span + rng.uniform(0, 2, 2)) % 2 - 1) * (side - 1)).astype(np.float32)
    laid = cv2.remap(cover, folded[..., 0], folded[..., 1], cv2.INTER_LINEAR)
    picture = np.where((room.kind == TABLE)[..., None], laid, picture)
    grey = picture.mean(-1, keepdims=True)
    picture = grey + (picture - grey) * rng.uniform(*COLOURFULNESS)
    lit = _lit(room, camera, scene, T_camera_hand, lamps)
    normal = room.normals[room.kind]
    total = np.broadcast_to(light.ambient, picture.shape).astype(np.float64)
    for k, lamp in enumerate(light.lamps):
        total = total + lamp * (lit[k] * np.clip(normal @ lamps[k], 0, 1))[..., None]
    return np.asarray(picture * total, np.float32)


def _lit(
    room: Room, camera: CameraModel, scene: Scene, T_camera_hand: Similarity, lamps: FloatArray
) -> list[NDArray[np.float32]]:
    """How much of each lamp's light reaches each pixel of the room, (H, W) in 0..1, softer the longer the shadow."""
    half = SHADOW_STEP // 2
    rows = slice(half, camera.height, SHADOW_STEP)
    columns = slice(half, camera.width, SHADOW_STEP)
    places = (camera.rays(camera.pixel_grid()[rows, columns]) * room.depth[rows, columns, None]).reshape(-1, 3)
    inverse = T_camera_hand.inverse()
    result: list[NDArray[np.float32]] = []
    for lamp in lamps:
        shadow = scene.shadowed(inverse.apply(places), inverse.rotation @ lamp, SHADOW_REACH_M)
        coarse = (~shadow).astype(np.float32).reshape(room.depth[rows, columns].shape)
        soft = cv2.GaussianBlur(coarse, (0, 0), 0.008 * camera.width / SHADOW_STEP)
        result.append(np.asarray(cv2.resize(soft, (camera.width, camera.height)), np.float32))
    return result
