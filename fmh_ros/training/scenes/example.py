# SPDX-License-Identifier: Apache-2.0
"""Renders the RGB-D example that ships with the package. ``python -m fmh_ros.training.scenes.example --help``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from fmh_ros.core.frame.calibration import camera_yaml
from fmh_ros.core.frame.camera import CameraModel
from fmh_ros.core.hand.rig import load_generic_rig
from fmh_ros.core.transforms import Similarity
from fmh_ros.training.scenes.grasp import draw_grasp
from fmh_ros.training.scenes.looks import Lighting, shade
from fmh_ros.training.scenes.objects import procedural_object
from fmh_ros.training.scenes.render import OBJECT, Buffers, Scene, scene_parts
from fmh_ros.training.scenes.truth import depth_camera
from fmh_ros.training.scenes.views import draw_camera_pose

WIDTH, HEIGHT = 640, 480
SUPERSAMPLING = 2
#: Family and seed of the shipped example: chosen by eye among those whose hand the detector finds.
FAMILY, SEED, LOOK_SEED = "mug", 6, 15


def example_camera() -> CameraModel:
    """A depth camera's colour stream: 55 degrees wide."""
    K = np.array([[615.0, 0, 322.4], [0, 614.6, 238.1], [0, 0, 1.0]])
    return CameraModel(WIDTH, HEIGHT, K)


def _room(camera: CameraModel, nearest: float) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """A wall behind and a table below: colours (H, W, 3) in 0..1 and depth (H, W), metres."""
    rays = camera.rays(camera.pixel_grid())
    wall = np.full(rays.shape[:2], nearest + 0.7)
    height = 0.30
    table = np.where(rays[..., 1] > 0.02, height / np.maximum(rays[..., 1], 0.02), np.inf)
    on_table = table < wall
    depth = np.where(on_table, table, wall)
    x, z = rays[..., 0] * depth, depth
    grain = 0.5 + 0.5 * np.sin(60 * x + 3 * np.sin(5 * z) + 2 * np.sin(17 * z + 9 * x))
    wood = np.array([0.55, 0.40, 0.27]) * (0.86 + 0.16 * grain[..., None])
    fade = 1.0 - 0.18 * np.clip((rays[..., 0] + 0.5)[..., None], 0, 1)
    paint = np.array([0.78, 0.80, 0.79]) * fade
    colours = np.where(on_table[..., None], wood * fade, paint)
    return cv2.GaussianBlur(colours.astype(np.float32), (0, 0), 2.5).astype(np.float32), depth.astype(np.float32)


def _find(seed: int, family: str) -> tuple[Buffers, Buffers] | None:
    """Draw a well visible grasp: buffers at the supersampled and at the final size."""
    rng = np.random.default_rng([seed, 11])
    rig = load_generic_rig()
    held = procedural_object(rng, family)
    grasp = draw_grasp(rng, rig, held)
    if grasp is None or grasp.kind not in ("wrap", "precision") or len(grasp.touching) < 4:
        return None
    scene = Scene(scene_parts(rng, rig, grasp))
    camera = example_camera()
    fine = camera.crop((0, 0, WIDTH, HEIGHT), WIDTH * SUPERSAMPLING, HEIGHT * SUPERSAMPLING)
    coarse = camera.crop((0, 0, WIDTH, HEIGHT), WIDTH // 4, HEIGHT // 4)
    middle = 0.5 * (grasp.keypoints.mean(0) + grasp.translation)
    for _ in range(40):
        pose = draw_camera_pose(rng, middle)
        pose = Similarity(pose.rotation, np.array([0, 0, rng.uniform(0.42, 0.5)]) - pose.rotation @ middle)
        quick = scene.render(rng, coarse, pose, shading=False)
        visible, whole = (quick.label == OBJECT).sum(), quick.amodal.sum()
        hand = ((quick.label > 0) & (quick.label != OBJECT)).sum()
        upright = (pose.rotation @ np.array([1.0, 0, 0]))[1] < 0.3
        edges = np.concatenate([quick.amodal[0], quick.amodal[-1], quick.amodal[:, 0], quick.amodal[:, -1]])
        if whole and visible > 0.55 * whole and visible > 900 and hand > 1100 and upright and not edges.any():
            return scene.render(rng, fine, pose), scene.render(rng, camera, pose, shading=False)
    return None


def render_example(
    seed: int, family: str, look_seed: int = LOOK_SEED
) -> tuple[NDArray[np.uint8], NDArray[np.float32]] | None:
    """Render the scene of a seed with the materials of another seed.

    Returns the image (H, W, 3) uint8 RGB and the depth (H, W) metres, NaN unknown; None when the seed is no good.
    """
    found = _find(seed, family)
    if found is None:
        return None
    fine, plain = found
    rng = np.random.default_rng([look_seed, 12])
    # Occlusion is sampled with few rays: a little blur takes its grain away.
    fine = replace(fine, openness=cv2.GaussianBlur(fine.openness, (0, 0), 2.0).astype(np.float32))
    camera = example_camera()
    wide = camera.crop((0, 0, WIDTH, HEIGHT), WIDTH * SUPERSAMPLING, HEIGHT * SUPERSAMPLING)
    solid = fine.label > 0
    nearest = float(np.median(plain.depth[plain.label > 0]))
    ground, _ = _room(wide, nearest)
    _, behind = _room(camera, nearest)
    light = Lighting(np.array([0.62, 0.62, 0.63]), np.array([[0.42, 0.41, 0.38], [0.12, 0.12, 0.14]]))
    look = shade(rng, load_generic_rig(), fine, light)
    picture = np.where(solid[..., None], look, ground)
    small = cv2.resize(picture, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA)
    small = small + rng.normal(0, 0.008, small.shape)
    depth = depth_camera(rng, np.where(plain.label > 0, plain.depth, behind))
    return np.clip(255 * small, 0, 255).astype(np.uint8), depth


def write_example(folder: Path, image: NDArray[np.uint8], depth: NDArray[np.float32]) -> None:
    """Write rgb.png, depth.png (16-bit millimetres, 0 unknown) and camera.yaml (ROS camera_info)."""
    folder.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(folder / "rgb.png"), image[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 9])
    millimetres = np.nan_to_num(np.round(1000 * depth)).astype(np.uint16)
    cv2.imwrite(str(folder / "depth.png"), millimetres, [cv2.IMWRITE_PNG_COMPRESSION, 9])
    (folder / "camera.yaml").write_text(camera_yaml(example_camera(), "example"), encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> int:
    """Render one seed into a folder; exit status 1 when the seed gives no good view."""
    parser = argparse.ArgumentParser(prog="python -m fmh_ros.training.scenes.example", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--family", default=FAMILY)
    parser.add_argument("--look-seed", type=int, default=LOOK_SEED)
    options = parser.parse_args(arguments)
    rendered = render_example(options.seed, options.family, options.look_seed)
    if rendered is None:
        sys.stderr.write(f"Seed {options.seed} gives no good view of a {options.family}; try another.\n")
        return 1
    write_example(options.folder, *rendered)
    return 0


if __name__ == "__main__":
    sys.exit(main())
