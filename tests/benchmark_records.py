# SPDX-License-Identifier: Apache-2.0
"""Records of a benchmark with chosen figures, and small real scenes, for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from fmh_ros.benchmark.results import Failure, SampleKey, SampleRecord
from fmh_ros.benchmark.store import save_scene
from fmh_ros.benchmark.types import CUE_PRESETS, BenchmarkScene, SceneAttributes
from fmh_ros.core.hand.rig import load_generic_rig
from fmh_ros.evaluation.types import GroundTruth
from fmh_ros.training.scenes.truth import draw_truth

TRUE, EMBEDDED = (CUE_PRESETS[name].name for name in ("true", "embedded"))


def record(
    scene: str,
    chamfer: float | None,
    variant: str = "default",
    cues: str = TRUE,
    seed: int = 0,
    f10: float = 0.5,
    score: float = 0.5,
    occlusion: float = 0.1,
    seconds: float = 10.0,
    **metrics: float,
) -> SampleRecord:
    """A sample; chamfer None: one that failed with NoObjectError."""
    values: dict[str, Any] = {
        "key": SampleKey(scene, variant, cues, seed),
        "scene_digest": "d",
        "split": "test",
        "code": "1.0",
        "settings": "s",
        "attributes": {
            "occlusion": occlusion,
            "size_class": "normal",
            "side": "right",
            "thin": False,
            "symmetry": "none",
        },
        "started": f"2026-01-01T00:00:{seed:02d}+00:00",
    }
    if chamfer is None:
        return SampleRecord(**values, failure=Failure(22, "NoObjectError", "nothing is held"))
    found = {"chamfer_cm2": chamfer, "f10": f10, "f5": f10 / 2, "intersection_voxel_cm3": 1.0, "scale_error": 0.02}
    found |= {"score": score, **metrics}
    return SampleRecord(**values, metrics=found, quality={"score": score}, seconds={"total": seconds})


def small_scene(seed: int, name: str) -> BenchmarkScene:
    """A rendered grasp with its truth."""
    drawn = draw_truth(seed, load_generic_rig(), width=320, height=240)
    exact = np.where(np.isfinite(drawn.depth), drawn.depth, np.nan_to_num(drawn.frame.depth, nan=1.5))
    truth = GroundTruth(
        name, "right", drawn.hand_vertices, drawn.hand_faces, drawn.object_vertices, drawn.object_faces, drawn.keypoints
    )
    hidden = 1 - float(drawn.object_mask.sum()) / float(drawn.amodal_mask.sum())
    attributes = SceneAttributes(
        drawn.name, "procedural", "Apache-2.0", "normal", False, "none", hidden, "right", drawn.kind, (), 0.0, 0.5,
        100.0, drawn.frame.camera.focal, (0.0, 0.0), (0.1, 0.1, 0.1),
    )  # fmt: skip
    return BenchmarkScene(
        name, "test", seed, seed, drawn.frame, truth, drawn.hand_mask, drawn.object_mask, drawn.amodal_mask,
        drawn.keypoints_2d, exact.astype(np.float32), drawn.normals, attributes,
    )  # fmt: skip


def write_scenes(folder: Path, count: int) -> Path:
    """Write small scenes as ``fmh bench make`` does."""
    for index in range(count):
        name = f"test_{index:04d}"
        save_scene(folder / name, small_scene(70 + index, name))
    return folder
