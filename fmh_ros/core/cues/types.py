# SPDX-License-Identifier: Apache-2.0
"""What the cue stages hand on. All pixels are of the full frame unless a crop camera says otherwise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from fmh_ros.core.frame.camera import CameraModel
from fmh_ros.core.frame.frame import Frame, ObjectPrompt, Side
from fmh_ros.core.hand.landmarks import Convention
from fmh_ros.core.transforms import Similarity

if TYPE_CHECKING:
    from fmh_ros.core.hand.types import HandMesh

FloatArray = NDArray[np.float64]

#: The 21 joints in order: wrist, then thumb, index, middle, ring, little, each from the base to the tip.
KEYPOINT_NAMES: tuple[str, ...] = ("wrist",) + tuple(
    f"{finger}_{joint}"
    for finger, joints in (
        ("thumb", ("cmc", "mcp", "ip", "tip")),
        ("index", ("mcp", "pip", "dip", "tip")),
        ("middle", ("mcp", "pip", "dip", "tip")),
        ("ring", ("mcp", "pip", "dip", "tip")),
        ("little", ("mcp", "pip", "dip", "tip")),
    )
    for joint in joints
)


@dataclass(frozen=True)
class HandObservation:
    """One detected hand.

    side : anatomical side; side_score : confidence in the side, 0.5 to 1.
    score : presence, 0 to 1; box : x0, y0, x1, y1 around the keypoints, px.
    keypoints_2d : (21, 2) px, KEYPOINT_NAMES order, pixel centres at integers.
    keypoints_world : (21, 3) metres, x right, y down, z away from the camera, origin near the palm centre; a rough
        metric pose, of an average hand.
    convention : what the keypoints mark, the hand model's joints or what a network was taught; see
        ``fmh_ros.core.hand.landmarks``.
    """

    side: Side
    side_score: float
    score: float
    box: tuple[float, float, float, float]
    keypoints_2d: FloatArray
    keypoints_world: FloatArray
    convention: Convention = "joints"


@dataclass(frozen=True)
class SeenHand:
    """A hand as a quick look sees it.

    side : anatomical side; score : presence, 0 to 1; box : x0, y0, x1, y1 around the landmarks, px.
    landmarks : (21, 2) px, KEYPOINT_NAMES order, pixel centres at integers.
    holds : probability that it holds something.
    """

    side: Side
    score: float
    box: tuple[float, float, float, float]
    landmarks: FloatArray
    holds: float


@dataclass(frozen=True)
class SceneMasks:
    """Where hand and object are seen.

    hand, object : (H, W) bool, disjoint, visible parts only; hand includes the forearm that continues it.
    object_probability : (H, W) float32, the raw estimate of the object mask.
    amodal_probability : (H, W) float32 or None, estimate of the whole object's silhouette, hidden part included.
    object_score : 0 to 1, how sure the stage is that the hand holds this object.
    object_name : what the object is called, "" when nobody said.
    warnings : sentences for the user.
    """

    hand: NDArray[np.bool_]
    object: NDArray[np.bool_]
    object_probability: NDArray[np.float32]
    amodal_probability: NDArray[np.float32] | None
    object_score: float
    warnings: tuple[str, ...] = ()
    object_name: str = ""


@dataclass(frozen=True)
class PointMap:
    """Surface seen by the camera.

    depth : (H, W) float32 metres along z, NaN where unknown.
    normals : (H, W, 3) float32 unit, camera optical frame, towards the camera (z < 0), NaN where unknown; or None.
    source : "sensor" for aligned depth, "network" for a monocular estimate anchored on the hand.
    scale_sigma : relative one-sigma uncertainty of the metric scale.
    """

    depth: NDArray[np.float32]
    normals: NDArray[np.float32] | None
    source: Literal["sensor", "network"]
    scale_sigma: float


@dataclass(frozen=True)
class ObjectView:
    """The completed view of the object, hand removed, in a square crop: what the shape generator is conditioned on.

    The crop is seen by a virtual camera: same centre as the real one, turned to look along the viewing ray through the
    object, so its axes are the view frame's. The cube's middle slice fills the crop.

    camera : the virtual camera's intrinsics; its width and height are the arrays' size S.
    mask : (S, S) float32 in 0..1, the object, seen or surely behind the hand.
    unknown : (S, S) bool, hidden by the hand or outside the image: may or may not be object, never background. Where it
        is nearly sure what the hand hides it is not unknown.
    depth : (S, S) float32 metres along the virtual camera's z, NaN where unknown, or None; normals : (S, S, 3) float32
        in the virtual camera's axes, towards the camera, NaN where unknown, or None; image : (T, T, 3) uint8 RGB of the
        same crop with everything but the object white, T at least S.
    T_camera_view : the cube the object is thought to lie in: its frame is the "view frame", x right, y down, z along
        the viewing ray through the object's centre, the cube spans -1 to 1, scale is metres per unit.
    """

    camera: CameraModel
    mask: NDArray[np.float32]
    unknown: NDArray[np.bool_]
    depth: NDArray[np.float32] | None
    normals: NDArray[np.float32] | None
    image: NDArray[np.uint8]
    T_camera_view: Similarity


def keypoint_distance(a: FloatArray, b: FloatArray) -> float:
    """Mean distance of two sets of keypoints (21, 2), over the longer side of the second one's box."""
    size = max(float(np.ptp(b, axis=0).max()), 1.0)
    return float(np.linalg.norm(a - b, axis=1).mean()) / size


class HandDetector(Protocol):
    """Finds hands and their landmarks."""

    name: str

    def detect(self, frame: Frame) -> list[HandObservation]:
        """Return every hand in the frame, best first; an empty list when there is none."""
        ...


@runtime_checkable
class RereadingDetector(HandDetector, Protocol):
    """A detector that can be asked what else a hand it found may be."""

    def readings(self, frame: Frame, hand: HandObservation) -> list[HandObservation]:
        """Return other landmarks for the same hand, surest first."""
        ...


class HandRegressor(Protocol):
    """Gives the mesh of a hand directly, in place of the fit of a rig to its landmarks."""

    name: str

    def regress(self, frame: Frame, hand: HandObservation) -> HandMesh:
        """Return a right hand's mesh at its true place for the frame's camera. Raises HandFitError."""
        ...


class AmodalEstimator(Protocol):
    """Tells how far the object reaches behind the hand."""

    name: str

    def estimate(self, frame: Frame, masks: SceneMasks, points: PointMap | None, hand: HandMesh) -> SceneMasks:
        """Return the masks with the whole object's ``amodal_probability``; the hand is a right one."""
        ...


class Completer(Protocol):
    """Paints what the hand hides of the object."""

    name: str

    def complete(self, frame: Frame, masks: SceneMasks, view: ObjectView) -> tuple[ObjectView, tuple[str, ...]]:
        """Return the view with hidden parts painted in, and sentences for the user; the same view where that fails."""
        ...


class ObjectNamer(Protocol):
    """Says what a hand holds."""

    name: str

    def name_object(self, frame: Frame, hand: HandObservation) -> str:
        """Return a few words for what the hand holds, such as "red mug"; "" when it cannot tell."""
        ...


class Segmenter(Protocol):
    """Separates hand, object and the rest, for one chosen hand."""

    name: str

    def segment(self, frame: Frame, hand: HandObservation, prompt: ObjectPrompt) -> SceneMasks:
        """Return masks of the hand and of what it holds. Raises NoObjectError or EmptyObjectMaskError."""
        ...


class PointMapper(Protocol):
    """Estimates the visible surface."""

    name: str

    def map_points(self, frame: Frame, hand: HandObservation, masks: SceneMasks) -> PointMap | None:
        """Return the visible surface, or None when nothing is known about it."""
        ...


class Watcher(Protocol):
    """Keeps an eye on hands from image to image, at a small part of a job's cost."""

    def look(self, image: NDArray[np.uint8]) -> tuple[SeenHand, ...]:
        """Return the hands in an image (H, W, 3) RGB, the surest first; it remembers where they were."""
        ...
