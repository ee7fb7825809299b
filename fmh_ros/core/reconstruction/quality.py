# SPDX-License-Identifier: Apache-2.0
"""How well a reconstruction explains its image, and one score that says so.

The score is a product of terms, each 0 to 1 and each rising with the agreement it measures, so it is monotone in every
metric and one bad metric cannot be hidden by good ones::

    score = object_iou
          * hand_iou ** 0.5
          * exp(-keypoint_error / (0.1 * hand box diagonal)) ** 0.5
          * exp(-depth_error / 0.03 m)                 (with a depth sensor)
          * exp(-penetration / 40 cm3)
          * (0.4 + 0.6 * min(1, contact_fraction / (1/3)))
          * exp(-unseen distance / 0.03 m)             (how far the object goes on beyond what of it was seen)
          * min(1, sqrt(0.05 m / seen size))           (longer side of the object's mask, at the hand's distance)
          * sqrt(hand score * object score)            (hand score: mean of detection's and fit's, geometric)
          * (0.5 + side score / 2)
          * (0.95 when the camera was estimated)

Each term is at least 0.01, so that results stay comparable when one of them fails completely. The unseen distance is
no disagreement: it says how much is the generator's guess, which guidance cannot correct. Without it a drill seen from
its end scores as well as one seen from its side. Nor is the seen size: of two objects that look equally right the
larger one is off by more metres. It is the mask's and not the shape's, so that of several samples for one image a
shape that is cut short does not win by it.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from fmh_ros.core.cues.types import HandObservation, SceneMasks
from fmh_ros.core.fields.mesh_queries import MeshQueries, join, render_first_hits
from fmh_ros.core.frame.frame import Frame
from fmh_ros.core.frame.load import reduced
from fmh_ros.core.hand.landmarks import marked_points
from fmh_ros.core.hand.types import FINGERS, HandMesh
from fmh_ros.core.reconstruction.types import Contact, ObjectMesh, Quality

FloatArray = NDArray[np.float64]
Mask = NDArray[np.bool_]

#: Longer side of the renderings that masks are compared in, pixels.
COMPARE_SIDE = 640
#: Edge of the cells that the overlap of hand and object is counted in, metres, and the most of them a side.
CELL_M = 0.0015
MAX_CELLS = 200
#: How many surfaces a line through a mesh is followed across, and how far behind one the next is looked for, metres.
MAX_CROSSINGS = 64
STEP_M = 1e-6
TERM_FLOOR = 0.01
#: Where measured and rendered depth differ by less, the surface was seen there, metres.
CONFIRMED_M = 0.01
#: Scale of the score's fall with the unseen distance, metres; chosen on scenes of the benchmark's training split.
UNSEEN_SCALE_M = 0.03
#: Seen size from which the score falls, metres, and its power. On 39 scenes of the benchmark's training split the
#: rank correlation of score and distance is 0.28 so and 0.23 without; other powers are no better there.
SEEN_SIZE_M, SEEN_SIZE_POWER = 0.05, 0.5


@dataclass(frozen=True)
class RenderedParts:
    """What the reconstruction looks like from the camera, all (H, W).

    depth : metres along z of the first hit, NaN where nothing is; hand, object : which of them is hit first;
    hand_anywhere : whether the ray meets the hand at all.
    """

    depth: FloatArray
    hand: Mask
    object: Mask
    hand_anywhere: Mask


def measure_quality(
    frame: Frame,
    observation: HandObservation,
    masks: SceneMasks,
    hand: HandMesh,
    obj: ObjectMesh,
    contacts: tuple[Contact, ...],
) -> Quality:
    """Compare a reconstruction with the frame it came from; all arguments in the same (mirrored or not) frame.

    hand_silhouette_iou, object_silhouette_iou : rendered visible part against visible mask. The forearm is not
        modelled, so pixels behind the wrist count for neither; where the hand's mask hides what is behind it and no
        hand is rendered, the object may or may not be there and the pixel is left out.
    keypoint_error_px : root mean square over the 21 joints, pixels of the full-size image.
    depth_error_m : median absolute difference to the depth sensor over hand and object; None without a sensor.
    penetration_cm3 : volume that hand and object share.
    contact_fraction : share of the five fingers and the palm that have a contact.
    """
    small, hand_mask, object_mask = _comparison(frame, masks)
    parts = render_parts(small, hand, obj)
    arm = _behind_wrist(small, observation.keypoints_2d * (small.camera.width / frame.camera.width))
    hand_iou = _iou(parts.hand, hand_mask, ~arm & ~(object_mask & parts.object))
    hidden = hand_mask & (arm | ~parts.hand_anywhere)
    object_iou = _iou(parts.object, object_mask, ~hidden)
    error_px = keypoint_error(frame, observation, hand)
    depth_error = _depth_error(small, parts, hand_mask | object_mask)
    penetration = penetration_volume(hand, obj) * 1e6
    fraction = len({contact.finger for contact in contacts}) / len(FINGERS)
    quality = Quality(0.0, hand_iou, object_iou, error_px, depth_error, penetration, fraction)
    unseen = unseen_distance(small, parts, obj)
    return Quality(
        combined_score(quality, frame, observation, masks, hand, unseen),
        *(hand_iou, object_iou, error_px, depth_error, penetration, fraction),
    )


def combined_score(
    quality: Quality, frame: Frame, observation: HandObservation, masks: SceneMasks, hand: HandMesh, unseen_m: float
) -> float:
    """Return the score of the module's formula, 0 to 1; ``quality.score`` itself is not read.

    unseen_m : see ``unseen_distance``.
    """
    x0, y0, x1, y1 = observation.box
    corners = frame.to_reported(np.array([[x0, y0], [x1, y1]]))
    diagonal = float(np.linalg.norm(corners[1] - corners[0]))
    hand_score = float(np.sqrt(max(observation.score, 0.0) * max(hand.score, 0.0)))
    terms = [
        quality.object_silhouette_iou,
        np.sqrt(quality.hand_silhouette_iou),
        np.exp(-0.5 * quality.keypoint_error_px / (0.1 * max(diagonal, 1.0))),
        1.0 if quality.depth_error_m is None else np.exp(-quality.depth_error_m / 0.03),
        np.exp(-quality.penetration_cm3 / 40.0),
        0.4 + 0.6 * min(1.0, 3.0 * quality.contact_fraction),
        np.exp(-unseen_m / UNSEEN_SCALE_M),
        (SEEN_SIZE_M / max(seen_size(frame, masks, hand), 1e-6)) ** SEEN_SIZE_POWER,
        np.sqrt(hand_score * max(masks.object_score, 0.0)),
        0.5 + 0.5 * observation.side_score,
        1.0 if frame.camera.source == "given" else 0.95,
    ]
    return float(np.prod(np.clip(np.nan_to_num(terms), TERM_FLOOR, 1.0)))


def render_parts(frame: Frame, hand: HandMesh, obj: ObjectMesh) -> RenderedParts:
    """Render hand and object from the frame's camera."""
    hand_vertices = hand.T_camera_hand.apply(hand.vertices)
    parts = [(hand_vertices, hand.faces), (obj.T_camera_object.apply(obj.vertices), obj.faces)]
    vertices, faces, part = join(list(parts))
    depth, face = render_first_hits(MeshQueries(vertices, faces), frame.camera)
    which = np.where(face >= 0, part[face], -1)
    alone, _ = render_first_hits(MeshQueries(hand_vertices, hand.faces), frame.camera)
    return RenderedParts(depth, which == 0, which == 1, np.isfinite(alone))


def unseen_distance(frame: Frame, parts: RenderedParts, obj: ObjectMesh) -> float:
    """Return how far the object's surface is from what was seen of it, metres: the root mean square over its area.

    Seen is what the camera's rays hit first and, where it was measured there, what the depth agrees with. Infinite when
    nothing of the object was seen.
    """
    seen = parts.object
    if frame.depth is not None:
        seen = seen & ~(np.abs(frame.depth - parts.depth) > CONFIRMED_M)
    if not seen.any():
        return float("inf")
    points = (frame.camera.rays(frame.camera.pixel_grid()) * parts.depth[..., None])[seen]
    corners = obj.T_camera_object.apply(obj.vertices)[obj.faces]
    areas = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
    distances, _ = cKDTree(points).query(corners.mean(1))
    return float(np.sqrt(np.average(distances**2, weights=areas)))


def seen_size(frame: Frame, masks: SceneMasks, hand: HandMesh) -> float:
    """Return the longer side of the box round the object's mask, metres at the hand's distance; 0 without a mask."""
    rows, columns = np.nonzero(masks.object)
    if not len(rows):
        return 0.0
    side = max(np.ptp(rows), np.ptp(columns)) + 1
    return float(side / frame.camera.focal * hand.T_camera_hand.translation[2])


def keypoint_error(frame: Frame, observation: HandObservation, hand: HandMesh) -> float:
    """Root mean square distance between where the landmarks should be and are, pixels of the full-size image."""
    marks = marked_points(hand.T_camera_hand.apply(hand.keypoints), observation.convention)
    projected = frame.camera.project(marks)
    difference = frame.to_reported(projected) - frame.to_reported(observation.keypoints_2d)
    return float(np.sqrt((difference**2).sum(-1).mean()))


def penetration_volume(hand: HandMesh, obj: ObjectMesh) -> float:
    """Return the volume inside both meshes, cubic metres, summed over columns of CELL_M along z."""
    hand_vertices = hand.T_camera_hand.apply(hand.vertices)
    object_vertices = obj.T_camera_object.apply(obj.vertices)
    low = np.maximum(hand_vertices.min(0), object_vertices.min(0))
    high = np.minimum(hand_vertices.max(0), object_vertices.max(0))
    if (high <= low).any():
        return 0.0
    counts = np.clip(np.ceil((high - low) / CELL_M), 1, MAX_CELLS).astype(int)
    x, y, z = (low[k] + (np.arange(counts[k]) + 0.5) * (high[k] - low[k]) / counts[k] for k in range(3))
    # From in front of both meshes, so that every ray starts outside.
    front = min(hand_vertices[:, 2].min(), object_vertices[:, 2].min()) - CELL_M
    starts = np.stack(np.meshgrid(x, y, [front], indexing="ij"), -1).reshape(-1, 3)
    both = _inside(object_vertices, obj.faces, starts, z) & _inside(hand_vertices, hand.faces, starts, z)
    return float(both.sum() * np.prod((high - low) / counts))


def _inside(vertices: FloatArray, faces: NDArray[np.int64], starts: FloatArray, z: FloatArray) -> Mask:
    """Whether the points at heights ``z`` (M,) over ``starts`` (N, 3) are inside a closed mesh, (N, M).

    Walks along z from surface to surface and counts how often it went in and out, so the mesh may overlap itself.
    """
    mesh = MeshQueries(vertices, faces)
    a, b, c = (vertices[faces[:, k], :2] for k in range(3))
    entering = np.where((b[:, 0] - a[:, 0]) * (c[:, 1] - a[:, 1]) < (b[:, 1] - a[:, 1]) * (c[:, 0] - a[:, 0]), 1, -1)
    winding = np.zeros((len(starts), len(z) + 1), np.int64)
    position, active = starts.copy(), np.arange(len(starts))
    forward = np.array([0.0, 0.0, 1.0])
    for _ in range(MAX_CROSSINGS):
        hits = mesh.cast(position[active], np.broadcast_to(forward, (len(active), 3)))
        met = hits.face >= 0
        active = active[met]
        if not len(active):
            break
        height = position[active, 2] + hits.distance[met]
        np.add.at(winding, (active, np.searchsorted(z, height)), entering[hits.face[met]])
        position[active, 2] = height + STEP_M
    return np.asarray(winding.cumsum(1)[:, :-1] > 0)


def _comparison(frame: Frame, masks: SceneMasks) -> tuple[Frame, Mask, Mask]:
    """Return frame and masks reduced to COMPARE_SIDE."""
    small = reduced(frame, COMPARE_SIDE)
    size = (small.camera.width, small.camera.height)
    hand, obj = (
        np.asarray(cv2.resize(mask.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST_EXACT)) > 0
        for mask in (masks.hand, masks.object)
    )
    return small, hand, obj


def _behind_wrist(small: Frame, keypoints: FloatArray) -> Mask:
    """Pixels on the forearm's side of the wrist, seen along the line from the wrist to the knuckles."""
    wrist, knuckles = keypoints[0], keypoints[[5, 9, 13, 17]].mean(0)
    behind: Mask = (small.camera.pixel_grid() - wrist) @ (knuckles - wrist) < 0
    return behind


def _iou(a: Mask, b: Mask, where: Mask) -> float:
    union = ((a | b) & where).sum()
    return float((a & b & where).sum() / union) if union else 0.0


def _depth_error(small: Frame, parts: RenderedParts, seen: Mask) -> float | None:
    if small.depth is None:
        return None
    compared = seen & (parts.hand | parts.object) & np.isfinite(small.depth)
    if not compared.any():
        return None
    return float(np.median(np.abs(parts.depth[compared] - small.depth[compared])))
