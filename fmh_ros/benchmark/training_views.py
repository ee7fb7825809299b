# SPDX-License-Identifier: Apache-2.0
"""Views of grasps to train on, of the benchmark's own kind: ``python -m fmh_ros.benchmark.training_views FOLDER``.

Only geometry, so that many cameras can look at each grasp. Held are procedural objects and the scanned ones of the
train split, which is there to be trained on, by fingers closed round the object and opposed by the thumb.
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fmh_ros.benchmark.objects import load_object, objects_of
from fmh_ros.benchmark.scenes.grasps import draw_held, mirrored_object
from fmh_ros.core.hand.rig import HandRig, load_generic_rig
from fmh_ros.training.scenes.objects import SceneObject, procedural_object
from fmh_ros.training.scenes.render import Scene, scene_parts
from fmh_ros.training.scenes.views import View, draw_view

Rng = np.random.Generator
log = logging.getLogger(__name__)

#: Share of the grasps that hold a scanned object, cameras per grasp, and grasps per file.
SCANNED, CAMERAS, FILE_GRASPS = 0.6, 14, 24


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


def main(arguments: Sequence[str] | None = None) -> int:
    """Render views; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m fmh_ros.benchmark.training_views", description=__doc__)
    parser.add_argument("folder", type=Path, help="where they go; files already there are kept")
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    write_views(options.folder, load_generic_rig(), options.seed, options.minutes, scanned_objects())
    return 0


if __name__ == "__main__":
    sys.exit(main())
