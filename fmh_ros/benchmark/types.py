# SPDX-License-Identifier: Apache-2.0
"""A benchmark scene: what a camera sees of a hand that holds an object, the truth behind it, and how hard it is.

Everything is in the camera optical frame (x right, y down, z forward), metres, pixel centres at integers.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from fmh_ros.core.errors import UsageError
from fmh_ros.core.frame.frame import Frame, Side
from fmh_ros.evaluation.types import GroundTruth

Split = Literal["train", "validation", "test"]
SizeClass = Literal["tiny", "normal", "large"]
#: Symmetry of an object: none; of a few turns or mirrors, as a box; about an axis, as a can; about a point, as a ball;
#: or nobody has said, as in data sets of photographs.
SymmetryKind = Literal["none", "discrete", "axis", "ball", "unknown"]
HandCue = Literal["true", "noisy", "embedded"]
MaskCue = Literal["true", "noisy", "embedded"]
DepthCue = Literal["exact", "sensor", "noisy", "none"]
CameraCue = Literal["true", "noisy", "estimated"]

SPLITS: tuple[Split, ...] = get_args(Split)


@dataclass(frozen=True)
class SceneAttributes:
    """How a scene was made and how hard it is.

    object_name, object_source, object_licence : which object, where it is from, and on what terms.
    size_class : by the longest side of the bounding box; thin : rods and sheets; symmetry : see ``SymmetryKind``.
    occlusion : share of the object's silhouette that hand and forearm hide, 0 to 1.
    side : of the hand, anatomical; grasp : kind of grasp; touching : which of FINGERS touch, none where it is not said.
    penetration_m : depth of the deepest hand vertex inside the object, metres, 0 when none is.
    distance_m : from the camera to the hand's middle, metres; hand_px : longer side of the keypoints' box, pixels.
    focal_px : focal length, pixels; principal_offset_px : (2,) principal point minus image centre, pixels.
    extents_m : sides of the object's axis-aligned box in its own frame, longest first, metres.
    """

    object_name: str
    object_source: str
    object_licence: str
    size_class: SizeClass
    thin: bool
    symmetry: SymmetryKind
    occlusion: float
    side: Side
    grasp: str
    touching: tuple[str, ...]
    penetration_m: float
    distance_m: float
    hand_px: float
    focal_px: float
    principal_offset_px: tuple[float, float]
    extents_m: tuple[float, float, float]

    @property
    def symmetric(self) -> bool:
        """Whether some turn or mirror maps the object onto itself, so that its orientation is not unique."""
        return self.symmetry not in ("none", "unknown")

    def to_json(self) -> dict[str, Any]:
        """Return plain values for a JSON file."""
        return asdict(self)

    @staticmethod
    def from_json(values: dict[str, Any]) -> SceneAttributes:
        """Read what ``to_json`` returned."""
        known = {field.name for field in fields(SceneAttributes)}
        pairs: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items() if k in known}
        return SceneAttributes(**pairs)


@dataclass(frozen=True)
class BenchmarkScene:
    """A scene with exact truth. Maps are (H, W) or (H, W, 3).

    name : unique within a benchmark, ``test_0007``; split, index, seed : what the generator was asked for.
    frame : RGB image, calibrated camera, depth as the sensor reports it (NaN unknown).
    truth : hand and object meshes, keypoints, side, pose and symmetry of the object, contacts.
    hand_mask : visible hand and forearm; object_mask : visible object; amodal_mask : the object as if nothing were in
        front of it; bool.
    keypoints_2d : (21, 2) px, the true keypoints projected.
    exact_depth : float32 metres along z of whatever each pixel sees, background included, no pixel unknown; of a
        photograph only of hands and object, NaN elsewhere.
    normals : float32 unit, towards the camera, of hand, forearm and object, NaN elsewhere.
    rivals : truths with other annotated hands in view, of the same object: whoever reconstructs one of these is
        measured against it.
    """

    name: str
    split: Split
    index: int
    seed: int
    frame: Frame
    truth: GroundTruth
    hand_mask: NDArray[np.bool_]
    object_mask: NDArray[np.bool_]
    amodal_mask: NDArray[np.bool_]
    keypoints_2d: NDArray[np.float64]
    exact_depth: NDArray[np.float32]
    normals: NDArray[np.float32]
    attributes: SceneAttributes
    rivals: tuple[GroundTruth, ...] = ()


@dataclass(frozen=True)
class CueChoice:
    """Where each stage of a reconstruction gets its cues from, so that a loss of accuracy has an address.

    hand : landmarks: exact; with stated errors; from the shipped detector.
    masks : exact; with stated errors; from the shipped network.
    depth : exact; as the sensor reports it; the sensor with more noise and holes; none, an RGB camera.
    camera : the true calibration; one with stated errors; none, the field of view is assumed.
    """

    hand: HandCue = "embedded"
    masks: MaskCue = "embedded"
    depth: DepthCue = "sensor"
    camera: CameraCue = "true"

    @property
    def name(self) -> str:
        """A short name, ``hand=true,masks=embedded,depth=sensor,camera=true``."""
        return ",".join(f"{field.name}={getattr(self, field.name)}" for field in fields(self))


#: Choices with a name of their own; "embedded" is what a user with an RGB-D camera has.
CUE_PRESETS: dict[str, CueChoice] = {
    "true": CueChoice("true", "true", "exact", "true"),
    "noisy": CueChoice("noisy", "noisy", "noisy", "noisy"),
    "embedded": CueChoice("embedded", "embedded", "sensor", "true"),
    "embedded-rgb": CueChoice("embedded", "embedded", "none", "true"),
}
_ALLOWED = {"hand": get_args(HandCue), "masks": get_args(MaskCue), "depth": get_args(DepthCue)}
_ALLOWED["camera"] = get_args(CameraCue)


def parse_cues(text: str) -> CueChoice:
    """Read a preset's name, ``stage=source`` pairs, or a preset followed by such pairs, separated by commas.

    ``true,masks=embedded`` takes everything exact but the masks. Raises UsageError.
    """
    values: dict[str, Any] = {}
    for index, part in enumerate(p.strip() for p in text.split(",")):
        stage, equals, source = part.partition("=")
        if not equals and index == 0 and part in CUE_PRESETS:
            values.update(asdict(CUE_PRESETS[part]))
        elif equals and source in _ALLOWED.get(stage, ()):
            values[stage] = source
        else:
            stages = "; ".join(f"{name}={'|'.join(sources)}" for name, sources in _ALLOWED.items())
            raise UsageError(
                f"Cues {part!r} are not known", expected=f"one of {', '.join(CUE_PRESETS)}, or pairs of {stages}"
            )
    return CueChoice(**values)
