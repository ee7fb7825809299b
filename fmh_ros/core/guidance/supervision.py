# SPDX-License-Identifier: Apache-2.0
"""What the renders are compared with: one square crop around hand and object."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fmh_ros.core.cues.completion import hidden_parts
from fmh_ros.core.cues.types import HandObservation, PointMap, SceneMasks
from fmh_ros.core.fields.render import camera_rays
from fmh_ros.core.frame.camera import CameraModel
from fmh_ros.core.frame.frame import Frame
from fmh_ros.core.hand.landmarks import Convention

#: Free border around hand and object, as a share of their larger side.
MARGIN = 0.12
#: Beside the hand, up to this share of its box, what is not called the object may still be it: masks end early in the
#: shadow between fingers, and an outline taken from there carves balls in two.
BESIDE_HAND = 0.08
#: Relative deviation of a depth's scale at which its depth term has half its weight.
HALF_WEIGHT_SIGMA = 0.08


@dataclass(frozen=True)
class Target:
    """What is known of one body's image, (S, S).

    visible : bool, the body is seen here; covered : bool, it is seen here or known to be behind the other body;
    dont_care : bool, the other body, the image's border or (for the hand) the forearm says nothing about it here.
    signed_px : float32, distance to the covered outline in pixels, negative inside, exact within a few pixels.
    known : bool, visible and depth is known and not at an edge.
    """

    visible: Tensor
    covered: Tensor
    dont_care: Tensor
    signed_px: Tensor
    known: Tensor

    def to(self, device: torch.device) -> Target:
        """The same target on a device."""
        return Target(*(getattr(self, each.name).to(device) for each in fields(self)))


@dataclass(frozen=True)
class Supervision:
    """One crop of the frame, S x S.

    camera, rays : of the crop; rays (S, S, 3), z = 1. hand, object : what is seen of each.
    depth : (S, S) metres, NaN where unknown, or None; normals : (S, S, 3) unit, camera frame, NaN unknown, or None.
    depth_weight : 0 to 1, trust in the depth; depth_sigma : relative deviation of its scale: a common offset below
    it is not held against a body.
    keypoints_2d : (21, 2) crop pixels, marks of the ``convention``; hand_px : larger side of the hand's box, crop
    pixels.
    """

    camera: CameraModel
    rays: Tensor
    hand: Target
    object: Target
    depth: Tensor | None
    normals: Tensor | None
    depth_weight: float
    depth_sigma: float
    keypoints_2d: Tensor
    hand_px: float
    convention: Convention = "joints"

    def to(self, device: torch.device) -> Supervision:
        """The same supervision on a device."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        moved: dict[str, Any] = {k: v.to(device) for k, v in values.items() if isinstance(v, (Tensor, Target))}
        return replace(self, **moved)


def supervision_box(masks: SceneMasks, observation: HandObservation) -> tuple[float, float, float, float]:
    """Square around the object and the hand's landmarks, x0, y0, x1, y1 in pixel-edge coordinates of the frame; it
    may reach past the image."""
    rows, columns = np.nonzero(masks.object)
    x0, y0, x1, y1 = observation.box
    if len(rows):
        x0, x1 = min(x0, columns.min()), max(x1, columns.max() + 1)
        y0, y1 = min(y0, rows.min()), max(y1, rows.max() + 1)
    half = (0.5 + MARGIN) * max(x1 - x0, y1 - y0)
    cx, cy = (x0 + x1) / 2, (y0 + y1) / 2
    return cx - half, cy - half, cx + half, cy + half


def build_supervision(
    frame: Frame, masks: SceneMasks, points: PointMap | None, observation: HandObservation, size: int
) -> Supervision:
    """Cut the crop that guidance compares with."""
    box = supervision_box(masks, observation)
    camera = frame.camera.crop(box, size, size)
    scale = size / (box[2] - box[0])
    keypoints = (observation.keypoints_2d + 0.5 - np.array(box[:2])) * scale - 0.5
    hand = _share(masks.hand, box, size)
    held = _share(masks.object, box, size)
    outside = _share(np.ones(masks.hand.shape, np.bool_), box, size) < 0.99
    behind, empty = hidden_parts(masks)
    depth = None if points is None else _nearest(points.depth, box, size)
    normals = None if points is None or points.normals is None else _nearest(points.normals, box, size)
    hand_px = float(max(observation.box[2] - observation.box[0], observation.box[3] - observation.box[1]) * scale)
    sigma = 0.0 if points is None else points.scale_sigma
    forearm = (hand > 0) & _behind_wrist(keypoints, size, hand_px)
    beside_hand = cv2.distanceTransform((hand <= 0.05).astype(np.uint8), cv2.DIST_L2, 5) < BESIDE_HAND * hand_px
    # A pixel shared by both bodies says nothing about either's outline.
    return make_supervision(
        camera,
        hand_visible=(hand > 0.5) & ~forearm,
        object_visible=held > 0.5,
        object_covered=(held > 0.5) | (_share(behind, box, size) > 0.5),
        hand_dont_care=outside | _behind_wrist(keypoints, size, hand_px) | (held > 0.05),
        object_dont_care=outside | (beside_hand & (_share(empty, box, size) < 0.95)),
        depth=depth,
        normals=normals,
        depth_weight=1.0 / (1.0 + (sigma / HALF_WEIGHT_SIGMA) ** 2),
        # A sensor's error of scale is the same for hand and object: freeing each body from it would let them part.
        depth_sigma=0.0 if points is None or points.source == "sensor" else sigma,
        keypoints_2d=keypoints,
        hand_px=hand_px,
        convention=observation.convention,
    )


def make_supervision(
    camera: CameraModel,
    *,
    hand_visible: NDArray[np.bool_],
    object_visible: NDArray[np.bool_],
    hand_dont_care: NDArray[np.bool_],
    object_dont_care: NDArray[np.bool_],
    depth: NDArray[np.floating] | None,
    normals: NDArray[np.floating] | None,
    keypoints_2d: NDArray[np.floating],
    hand_px: float,
    depth_weight: float = 1.0,
    depth_sigma: float = 0.0,
    convention: Convention = "joints",
    object_covered: NDArray[np.bool_] | None = None,
) -> Supervision:
    """Turn arrays in the crop of ``camera`` (S x S) into tensors and derive the rest; Supervision documents them."""
    finite = np.zeros(hand_visible.shape, np.bool_) if depth is None else np.isfinite(depth)
    return Supervision(
        camera,
        camera_rays(camera),
        _target(hand_visible, hand_dont_care, finite),
        _target(object_visible, object_dont_care, finite, object_covered),
        None if depth is None else torch.as_tensor(depth, dtype=torch.float32),
        None if normals is None else torch.as_tensor(normals, dtype=torch.float32),
        depth_weight,
        depth_sigma,
        torch.as_tensor(keypoints_2d, dtype=torch.float32),
        hand_px,
        convention,
    )


def _target(
    visible: NDArray[np.bool_],
    dont_care: NDArray[np.bool_],
    finite: NDArray[np.bool_],
    covered: NDArray[np.bool_] | None = None,
) -> Target:
    covered = visible if covered is None else covered
    dont_care = dont_care & ~covered
    certain = _signed_distance(covered)
    possible = _signed_distance(covered | dont_care)
    # Beside a region that may hide the body its outline is not known: don't care as far as the two readings differ.
    ambiguous = ~covered & (certain - possible > 0.5) & (possible < 4.0)
    inner = cv2.erode(visible.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    known = (inner if inner.sum() >= 20 else visible) & finite
    return Target(
        torch.from_numpy(visible),
        torch.from_numpy(covered),
        torch.from_numpy(dont_care | ambiguous),
        torch.from_numpy(np.where(covered, possible, certain).astype(np.float32)),
        torch.from_numpy(known),
    )


def _signed_distance(mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Distance (S, S) in pixels to the boundary between True and False pixels, negative inside, at most S."""
    size = float(max(mask.shape))
    inside = cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, 5) if mask.any() else np.zeros(mask.shape)
    outside = (
        cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, 5) if not mask.all() else np.zeros(mask.shape)
    )
    if not mask.any():
        return np.full(mask.shape, size, np.float32)
    # A pixel beside the boundary has distance 1 to the nearest pixel of the other kind, and 1/2 to the boundary.
    signed = np.where(mask, 0.5 - inside, outside - 0.5)
    return np.clip(signed, -size, size).astype(np.float32)


def _behind_wrist(keypoints: NDArray[np.floating], size: int, hand_px: float) -> NDArray[np.bool_]:
    """Pixels (S, S) where the forearm may be: the hand's mask continues there and its model ends.

    Beyond the line through the wrist across the hand; for a hand seen along the forearm, where that line means
    nothing, whatever is farther from the landmarks than half the hand.
    """
    v, u = np.mgrid[:size, :size].astype(np.float64)
    wrist, knuckles = keypoints[0], keypoints[[5, 9, 13, 17]].mean(0)
    palm = knuckles - wrist
    length = float(np.linalg.norm(palm))
    hull = cv2.convexHull(keypoints.astype(np.float32))
    near = np.zeros((size, size), np.uint8)
    cv2.fillConvexPoly(near, np.round(hull).astype(np.int32), 1)
    distance = cv2.distanceTransform(1 - near, cv2.DIST_L2, 5) if near.any() else np.full((size, size), float(size))
    if length < 0.2 * hand_px:
        return np.asarray(distance > 0.25 * hand_px)
    along = ((u - wrist[0]) * palm[0] + (v - wrist[1]) * palm[1]) / length
    return np.asarray(along < 0.1 * length)


def _matrix(box: tuple[float, float, float, float], size: int) -> NDArray[np.float64]:
    """Affine map (2, 3) from frame pixels to crop pixels, pixel centres at integers."""
    scale = size / (box[2] - box[0])
    return np.array([[scale, 0, scale * (0.5 - box[0]) - 0.5], [0, scale, scale * (0.5 - box[1]) - 0.5]])


def _share(mask: NDArray[np.bool_], box: tuple[float, float, float, float], size: int) -> NDArray[np.float32]:
    """Covered share (size, size) of each crop pixel; 0 outside the image."""
    scale = size / (box[2] - box[0])
    values = mask.astype(np.float32)
    if scale < 1.0:
        width = 2 * round(0.5 / scale) + 1
        values = np.asarray(cv2.blur(values, (width, width), borderType=cv2.BORDER_CONSTANT), np.float32)
    warped = cv2.warpAffine(values, _matrix(box, size), (size, size), flags=cv2.INTER_LINEAR)
    return np.asarray(warped, np.float32)


def _nearest(values: NDArray[np.floating], box: tuple[float, float, float, float], size: int) -> NDArray[np.float32]:
    """Nearest samples (size, size, ...), NaN outside the image."""
    warped = cv2.warpAffine(
        values.astype(np.float32),
        _matrix(box, size),
        (size, size),
        flags=cv2.INTER_NEAREST,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=(float("nan"),) * 4,
    )
    return np.asarray(warped, np.float32)
