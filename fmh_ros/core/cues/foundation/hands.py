# SPDX-License-Identifier: Apache-2.0
"""Hands by the networks of HaMeR and WiLoR, which the user has, and landmarks sharpened by ViTPose.

HaMeR's code is MIT, WiLoR's CC BY-NC-ND, its detector needs Ultralytics (AGPL), and both need MANO, whose licence is
for research only. None of them is on PyPI, and this package has nothing of them: a network is handed over loaded, or
loaded by the user's own package. The `open` profile has the embedded detector and rig instead.

``make_hamer``: models ``hamer`` or ``wilor`` (the checkpoint), ``mano`` (MANO_RIGHT.pkl); optionally ``wilor-detector``
(detector.pt). ``make_vitpose``: model ``vitpose-hand``, a ``VitPoseForPoseEstimation`` of 21 keypoints
(one hand) or 133 (COCO-WholeBody, whose annotations are for research only); the common ones have 17 and no hands.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from fmh_ros.core.cues.foundation.hand_networks import load_regressor
from fmh_ros.core.cues.squares import Square, cut
from fmh_ros.core.cues.types import HandDetector, HandObservation
from fmh_ros.core.errors import HandFitError, ModelFileError, ModelMissingError
from fmh_ros.core.frame.camera import CameraModel
from fmh_ros.core.frame.frame import Frame, Side
from fmh_ros.core.hand.mano import load_mano_rig
from fmh_ros.core.hand.rig import HandRig, hand_axes
from fmh_ros.core.hand.types import HandMesh
from fmh_ros.core.pretrained import (
    IMAGENET,
    library_class,
    load_helper,
    load_network,
    local_path,
    placement,
    shared,
    to_tensor,
    where_is,
)
from fmh_ros.core.transforms import Similarity

FloatArray = NDArray[np.float64]

#: Side of the network's picture, pixels; its crop over the hand's box; the box's shape that both were trained with.
_INPUT, _RESCALE, _ASPECT = 256, 2.0, 256 / 192
#: Relative error, one sigma, of a hand's size as MANO regressors guess it.
SIZE_SIGMA = 0.08
#: Thresholds of WiLoR's detector.
BOX_SCORE, BOX_OVERLAP = 0.3, 0.5
#: Landmarks of ViTPose below this score are left as they were.
LANDMARK_SCORE = 0.3
_WHOLE_BODY, _LEFT_HAND, _RIGHT_HAND = 133, 91, 112


@dataclass(frozen=True)
class HandBox:
    """A hand in an image. box : x0, y0, x1, y1 px, centres at integers; side : anatomical; score : 0 to 1."""

    box: tuple[float, float, float, float]
    side: Side
    score: float


class HandBoxes(Protocol):
    """Finds hands and their sides."""

    def find(self, image: NDArray[np.uint8]) -> list[HandBox]:
        """Return the hands of an image (H, W, 3) RGB, best first."""
        ...


class YoloHandBoxes:
    """`HandBoxes` by WiLoR's detector, an ``ultralytics.YOLO`` with the classes 0 left and 1 right.

    detector : called with a BGR image, ``conf`` and ``iou``; its first result has ``boxes.data`` (N, 6): x0, y0, x1,
    y1, score, class.
    """

    def __init__(self, detector: Any) -> None:
        self.detector = detector

    def find(self, image: NDArray[np.uint8]) -> list[HandBox]:
        """Return boxes above the published thresholds."""
        found = self.detector(np.ascontiguousarray(image[..., ::-1]), conf=BOX_SCORE, iou=BOX_OVERLAP, verbose=False)
        rows = np.asarray(found[0].boxes.data.cpu(), np.float64).reshape(-1, 6)
        # Its edges lie between pixels: the first pixel spans 0 to 1.
        boxes = rows[:, :4] - 0.5
        sides: list[Side] = ["right" if row[5] > 0.5 else "left" for row in rows]
        hands = [
            HandBox((float(b[0]), float(b[1]), float(b[2]), float(b[3])), side, float(row[4]))
            for b, side, row in zip(boxes, sides, rows, strict=True)
        ]
        return sorted(hands, key=lambda hand: -hand.score)


class DetectedHandBoxes:
    """`HandBoxes` of another detector's hands."""

    def __init__(self, detector: HandDetector, frame: Frame | None = None) -> None:
        self.detector = detector

    def find(self, image: NDArray[np.uint8]) -> list[HandBox]:
        """Return the boxes round that detector's landmarks."""
        from fmh_ros.core.frame.camera import camera_from_field_of_view

        frame = Frame(image, camera_from_field_of_view(image.shape[1], image.shape[0]))
        return [HandBox(hand.box, hand.side, hand.score) for hand in self.detector.detect(frame)]


@dataclass(frozen=True)
class RegressedHand:
    """What the network says of one hand, at its place for the true camera, of the side that is in the image.

    vertices : (778, 3), keypoints : (21, 3) in KEYPOINT_NAMES order; metres, camera optical frame.
    """

    vertices: FloatArray
    keypoints: FloatArray


class ManoRegressor:
    """`HandDetector` and `HandRegressor` by HaMeR, WiLoR or a network of the same interface.

    network : called with {"img": (1, 3, 256, 256)}, a right hand normalised by ImageNet's statistics; returns a dict:
    pred_cam (1, 3): scale and shift of a weak perspective over the crop's half side; pred_vertices (1, 778, 3) and
    pred_keypoints_3d (1, 21, 3), metres, x right, y down, z away, in OpenPose's order of joints, which is ours.
    boxes : where the hands are. rig : the user's MANO, for its faces.
    """

    def __init__(self, network: Any, boxes: HandBoxes, rig: HandRig, name: str = "hamer") -> None:
        self.network, self.boxes, self.rig, self.name = network, boxes, rig, name

    def detect(self, frame: Frame) -> list[HandObservation]:
        """Return every hand of the boxes, best first; left hands are seen mirrored and mirrored back."""
        return [self._observe(frame, box) for box in self.boxes.find(frame.image)]

    def regress(self, frame: Frame, hand: HandObservation) -> HandMesh:
        """Return a right hand's mesh. Raises HandFitError for a left hand, and where the answer makes no sense."""
        if hand.side != "right":
            raise HandFitError("The hand to regress is a left one", expected="a right hand in the mirrored frame")
        found = self.look(frame, HandBox(hand.box, "right", hand.score))
        seen = frame.camera.project(found.keypoints)
        error = np.linalg.norm(seen - hand.keypoints_2d, axis=1)
        rms = float(np.sqrt((error**2).mean()))
        size = float(np.ptp(hand.keypoints_2d, axis=0).max())
        if not (np.isfinite(found.vertices).all() and found.vertices[:, 2].min() > 0.01 and rms <= 0.25 * size):
            raise HandFitError(
                f"{self.name} misses the landmarks by {rms:.0f} px in a hand of {size:.0f} px",
                expected="less than a quarter of the hand, in front of the camera",
                change="Choose another hand, or check the camera calibration",
            )
        return to_hand_mesh(found, self.rig, rms, float(np.exp(-((rms / size / 0.06) ** 2))))

    def look(self, frame: Frame, box: HandBox) -> RegressedHand:
        """Run the network on one hand."""
        low, high = np.array(box.box[:2]), np.array(box.box[2:])
        width, height = (high - low) * _RESCALE
        square = Square((low + high) / 2, float(max(height, width * _ASPECT)))
        crop = hand_crop(frame.image, square, mirrored=box.side == "left")
        pixels = to_tensor(crop, (_INPUT, _INPUT), IMAGENET, where_is(self.network))
        with torch.inference_mode():
            answer = self.network({"img": pixels})
        camera, vertices, keypoints = (
            answer[key][0].float().cpu().numpy().astype(np.float64)
            for key in ("pred_cam", "pred_vertices", "pred_keypoints_3d")
        )
        return place_for_camera(camera, vertices, keypoints, square, frame.camera, mirrored=box.side == "left")

    def _observe(self, frame: Frame, box: HandBox) -> HandObservation:
        found = self.look(frame, box)
        pixels = frame.camera.project(found.keypoints)
        (x0, y0), (x1, y1) = (tuple(float(v) for v in corner) for corner in (pixels.min(0), pixels.max(0)))
        world = found.keypoints - found.keypoints[[0, 5, 9, 13, 17]].mean(0)
        return HandObservation(box.side, 0.5 + 0.5 * box.score, box.score, (x0, y0, x1, y1), pixels, world)


def hand_crop(image: NDArray[np.uint8], square: Square, *, mirrored: bool) -> NDArray[np.uint8]:
    """Cut a square as the networks were trained on it, (256, 256, 3): its middle at the crop's pixel 128, not 127.5.

    mirrored : cut it from the image in a mirror.
    """
    half = 0.5 * square.side / _INPUT * np.array([1.0 if mirrored else -1.0, -1.0])
    crop, _ = cut(image, replace(square, centre=square.centre + half).to_frame(_INPUT), _INPUT)
    return np.ascontiguousarray(crop[:, ::-1]) if mirrored else crop


def place_for_camera(
    weak: FloatArray,
    vertices: FloatArray,
    keypoints: FloatArray,
    square: Square,
    camera: CameraModel,
    *,
    mirrored: bool,
) -> RegressedHand:
    """Turn a weak perspective over a crop into a place before the true camera.

    A scale s means that one metre spans s times half the crop, so at focal length f the hand is 2 f / (s side) away;
    the shift is in metres, to which the offset of the crop's middle from the principal point is added along its ray.
    mirrored : the network saw the crop flipped, and answered for the other hand.
    """
    flip = np.array([-1.0 if mirrored else 1.0, 1.0, 1.0])
    depth = 2 * camera.focal / max(float(weak[0]) * square.side, 1e-9)
    shift = np.array([weak[1], weak[2], 0.0]) * flip
    place = camera.rays(square.centre) * depth + shift
    return RegressedHand(vertices * flip + place, keypoints * flip + place)


def to_hand_mesh(found: RegressedHand, rig: HandRig, reprojection_px: float, score: float) -> HandMesh:
    """Put a right hand's vertices into the hand frame that its own knuckles define."""
    points = found.keypoints
    R = hand_axes(points[0], points[5], points[9], points[17])  # rows: the hand's axes in the camera frame
    pose = Similarity(R.T, points[0])
    keypoints = (points - points[0]) @ R.T
    size = float(np.linalg.norm(keypoints[9]) / np.linalg.norm(rig.keypoints[9]))
    return HandMesh(
        "right",
        pose,
        (found.vertices - points[0]) @ R.T,
        rig.faces,
        rig.vertex_finger,
        keypoints,
        size,
        SIZE_SIGMA,
        reprojection_px,
        score,
    )


class VitPoseHandDetector:
    """`HandDetector` that sharpens another detector's landmarks by ViTPose; sides and depth stay that detector's.

    network : ``VitPoseForPoseEstimation`` of 21 or 133 keypoints. processor : its ``VitPoseImageProcessor``.
    """

    name = "vitpose"

    def __init__(self, network: Any, processor: Any, base: HandDetector) -> None:
        self.network, self.processor, self.base = network, processor, base
        self._count = int(network.config.num_labels)
        if self._count not in (21, _WHOLE_BODY):
            raise ModelFileError(
                f"This ViTPose knows {self._count} keypoints, and no hands",
                expected="21 (a hand) or 133 (COCO-WholeBody)",
                change="Use weights that were trained for hands or for the whole body",
            )

    def detect(self, frame: Frame) -> list[HandObservation]:
        """Return the base's hands, best first, each with the landmarks that the network is sure of."""
        return [self._sharpen(frame, hand) for hand in self.base.detect(frame)]

    def _sharpen(self, frame: Frame, hand: HandObservation) -> HandObservation:
        pixels, scores = self.landmarks(frame.image, hand)
        sure = scores > LANDMARK_SCORE
        keypoints = np.where(sure[:, None], pixels, hand.keypoints_2d)
        x0, y0, x1, y1 = (float(v) for v in (*keypoints.min(0), *keypoints.max(0)))
        return replace(hand, keypoints_2d=keypoints, box=(x0, y0, x1, y1))

    def landmarks(self, image: NDArray[np.uint8], hand: HandObservation) -> tuple[FloatArray, FloatArray]:
        """Return the network's (21, 2) px and scores (21,) for one hand."""
        where = where_is(self.network)
        x0, y0, x1, y1 = hand.box if self._count == 21 else (0.0, 0.0, image.shape[1] - 1.0, image.shape[0] - 1.0)
        boxes = [[[x0, y0, x1 - x0, y1 - y0]]]
        pixels = self.processor(image, boxes=boxes, return_tensors="pt")["pixel_values"]
        inputs: dict[str, Any] = {"pixel_values": pixels.to(where.device, where.dtype)}
        if int(self.network.config.backbone_config.num_experts) > 1:
            # The last expert of ViTPose+ is that of whole bodies.
            expert = int(self.network.config.backbone_config.num_experts) - 1
            inputs["dataset_index"] = torch.full((1,), expert, device=where.device)
        with torch.inference_mode():
            answer = self.network(**inputs)
        answer.heatmaps = answer.heatmaps.float().cpu()
        found = self.processor.post_process_pose_estimation(answer, boxes=boxes)[0][0]
        first = {21: 0, _WHOLE_BODY: _RIGHT_HAND if hand.side == "right" else _LEFT_HAND}[self._count]
        rows = slice(first, first + 21)
        return found["keypoints"][rows].numpy().astype(np.float64), found["scores"][rows].numpy().astype(np.float64)


def _embedded_detector() -> HandDetector:
    from fmh_ros.core.cues.hand_detector import MediaPipeHandDetector

    return MediaPipeHandDetector()


def make_hamer(models: Mapping[str, Path], options: Mapping[str, Any], device: str) -> ManoRegressor:
    """Load HaMeR, or WiLoR, by the user's own package, in float32. Raises ModelMissingError or ModelFileError."""
    mano = _file(local_path(models, "mano"), "MANO_RIGHT.pkl")
    rig = load_mano_rig(mano)
    name = "hamer" if "hamer" in models else "wilor"
    network = load_regressor(name, _file(local_path(models, "hamer", "wilor"), "*.ckpt"), mano, device)
    boxes: HandBoxes = DetectedHandBoxes(options.get("detector") or _embedded_detector())
    if "wilor-detector" in models:
        kind = library_class("ultralytics", "YOLO", "pip install ultralytics (AGPL-3.0)")
        file = _file(models["wilor-detector"], "detector.pt")
        boxes = YoloHandBoxes(shared(("ultralytics", file, device), lambda: kind(str(file)).to(device)))
    return ManoRegressor(network, boxes, rig, name)


def _file(path: Path, pattern: str) -> Path:
    """Return the file, or the first one below a folder that is named like it. Raises ModelMissingError."""
    found = [path] if path.is_file() else sorted(path.rglob(pattern))
    if not found:
        raise ModelMissingError(f"There is no {pattern} at {path}", change="Run fmh models pull with the profile")
    return found[0]


def make_vitpose(models: Mapping[str, Path], options: Mapping[str, Any], device: str) -> VitPoseHandDetector:
    """Load a ViTPose that knows hands. Raises ModelMissingError, ModelFileError or ProfileError."""
    folder = local_path(models, "vitpose-hand")
    network = load_network("transformers", "VitPoseForPoseEstimation", folder, placement(options, device))
    processor = load_helper("transformers", "VitPoseImageProcessor", folder)
    return VitPoseHandDetector(network, processor, options.get("detector") or _embedded_detector())
