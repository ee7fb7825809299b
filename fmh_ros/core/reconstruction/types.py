# SPDX-License-Identifier: Apache-2.0
"""The result of a reconstruction, as the JSON schema ``fmh.reconstruction/1`` writes it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fmh_ros.core.cues.types import HandObservation, SceneMasks
from fmh_ros.core.frame.frame import Frame
from fmh_ros.core.guidance.report import PhaseReport
from fmh_ros.core.hand.types import Finger, HandMesh
from fmh_ros.core.transforms import Similarity

#: Below this score the result says that it is weak: a quarter of 72 test scenes of the benchmark, of which two in three
#: are off by more than 5 cm2 (Chamfer), and so three in five of all that are; at 0.2 it would be every second result.
WEAK_SCORE = 0.1


@dataclass(frozen=True)
class ObjectMesh:
    """The held object.

    T_camera_object : rigid pose of the object frame: origin at the centre of the oriented bounding box, axes along it.
    vertices : (V, 3) float64 metres, object frame; faces : (F, 3) int64, one closed body, outward winding.
    extents_m : (3,) metres, sides of the oriented bounding box; volume_m3 : cubic metres.
    """

    T_camera_object: Similarity
    vertices: NDArray[np.float64]
    faces: NDArray[np.int64]
    extents_m: NDArray[np.float64]
    volume_m3: float
    watertight: bool


@dataclass(frozen=True)
class Contact:
    """A point of the object's surface that the hand touches.

    position : (3,) metres and normal : (3,) unit, outward from the object, camera optical frame; gap_m : signed
    distance of the nearest hand surface, metres, negative when the hand is inside.
    """

    position: NDArray[np.float64]
    normal: NDArray[np.float64]
    finger: Finger
    gap_m: float


@dataclass(frozen=True)
class Quality:
    """How well the result explains what was seen; score is 0 to 1 and rises with each metric's agreement."""

    score: float
    hand_silhouette_iou: float
    object_silhouette_iou: float
    keypoint_error_px: float
    depth_error_m: float | None
    penetration_cm3: float
    contact_fraction: float


@dataclass(frozen=True)
class Reconstruction:
    """Hand, object and contacts in one camera optical frame, with what they were made from."""

    frame: Frame
    observation: HandObservation
    masks: SceneMasks
    hand: HandMesh
    object: ObjectMesh
    contacts: tuple[Contact, ...]
    quality: Quality
    phases: tuple[PhaseReport, ...]
    profile: str
    preset: str
    seed: int
    timings_s: dict[str, float] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    versions: dict[str, str] = field(default_factory=dict)
