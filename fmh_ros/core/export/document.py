# SPDX-License-Identifier: Apache-2.0
"""A reconstruction as the JSON document ``fmh.reconstruction/1``; the schema ships in ``assets/schema``."""

from __future__ import annotations

import json
import math
from importlib import resources
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fmh_ros.core.guidance.report import PhaseReport
from fmh_ros.core.reconstruction.types import Contact, Reconstruction
from fmh_ros.core.transforms import Similarity

SCHEMA_NAME = "fmh.reconstruction/1"


def to_document(result: Reconstruction) -> dict[str, Any]:
    """Return the document as plain Python values.

    Positions are in metres in the camera optical frame, matrices row by row, pixels those of the full-size undistorted
    image (``Frame.reported_camera``).
    """
    camera = result.frame.reported_camera
    hand, obj = result.hand, result.object
    return {
        "schema": SCHEMA_NAME,
        "profile": result.profile,
        "preset": result.preset,
        "seed": int(result.seed),
        "frame": "camera_optical",
        "camera": {
            "width": camera.width,
            "height": camera.height,
            "K": _flat(camera.K),
            "distortion": [float(value) for value in camera.distortion],
            "source": camera.source,
        },
        "hand": {
            "side": hand.side,
            "score": _number(hand.score),
            "mesh": "hand.glb",
            "keypoints_3d": _rows(hand.T_camera_hand.apply(hand.keypoints)),
            "keypoints_2d": _rows(result.frame.to_reported(result.observation.keypoints_2d), 3),
            "T_camera_hand": _pose(hand.T_camera_hand),
        },
        "object": {
            "mesh": "object.glb",
            "T_camera_object": _pose(obj.T_camera_object),
            "extents_m": [_number(value) for value in obj.extents_m],
            "volume_m3": float(obj.volume_m3),
            "watertight": bool(obj.watertight),
        },
        "contacts": [_contact(contact) for contact in result.contacts],
        "quality": _quality(result),
        "guidance": {"phases": [_phase(phase) for phase in result.phases]},
        "timings_s": {name: round(float(value), 4) for name, value in result.timings_s.items()},
        "warnings": list(result.warnings),
        "versions": dict(result.versions),
    }


def to_json(result: Reconstruction) -> str:
    """Return the document as text. Raises ValueError when a number that must be finite is not."""
    return json.dumps(to_document(result), indent=2, allow_nan=False) + "\n"


def schema() -> dict[str, Any]:
    """Return the JSON Schema of the document."""
    path = resources.files("fmh_ros") / "assets" / "schema" / "reconstruction-1.json"
    loaded: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return loaded


def _quality(result: Reconstruction) -> dict[str, float | None]:
    quality = result.quality
    return {
        "score": _number(quality.score),
        "hand_silhouette_iou": _number(quality.hand_silhouette_iou),
        "object_silhouette_iou": _number(quality.object_silhouette_iou),
        "keypoint_error_px": _number(quality.keypoint_error_px),
        "depth_error_m": None if quality.depth_error_m is None else _number(quality.depth_error_m),
        "penetration_cm3": _number(quality.penetration_cm3),
        "contact_fraction": _number(quality.contact_fraction),
    }


def _contact(contact: Contact) -> dict[str, Any]:
    return {
        "position": [_number(value) for value in contact.position],
        "normal": [_number(value) for value in contact.normal],
        "finger": contact.finger,
        "gap_m": _number(contact.gap_m),
    }


def _phase(phase: PhaseReport) -> dict[str, Any]:
    return {
        "name": phase.name,
        "flow_steps": [int(step) for step in phase.flow_steps],
        "iterations": int(phase.iterations),
        "loss_first": float(phase.loss_first) if math.isfinite(phase.loss_first) else None,
        "loss_last": float(phase.loss_last) if math.isfinite(phase.loss_last) else None,
        "rolled_back": bool(phase.rolled_back),
    }


def _pose(pose: Similarity) -> list[float]:
    return _flat(pose.matrix())


def _flat(matrix: NDArray[np.floating]) -> list[float]:
    return [round(float(value), 9) for value in np.ravel(matrix)]


def _rows(points: NDArray[np.floating], digits: int = 6) -> list[list[float]]:
    return [[round(float(value), digits) for value in row] for row in points]


def _number(value: float) -> float:
    return round(float(value), 6)
