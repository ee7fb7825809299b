# SPDX-License-Identifier: Apache-2.0
"""From an annotated photograph to a benchmark scene: what is seen where follows from the annotated surfaces."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import trimesh
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from fmh_ros.benchmark.objects import is_thin, size_class
from fmh_ros.benchmark.types import BenchmarkScene, SceneAttributes
from fmh_ros.core.errors import UsageError
from fmh_ros.core.fields.mesh_queries import MeshQueries, join
from fmh_ros.core.frame.camera import CameraModel
from fmh_ros.core.frame.frame import Frame, Side
from fmh_ros.core.transforms import Similarity
from fmh_ros.evaluation.overlap import make_solid, signed_volume
from fmh_ros.evaluation.types import GroundTruth

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
Mask = NDArray[np.bool_]

#: Longest side of the box of a hand and of an object, metres: what is outside is in another unit.
HAND_M, OBJECT_M = (0.06, 0.40), (0.01, 1.5)
#: So many of a hand's 21 joints have to be in the picture.
LEAST_JOINTS = 7
#: A hand's distance to the object is that of so many of its vertices, the nearest ones.
NEAREST = 30


@dataclass(frozen=True)
class AnnotatedHand:
    """A hand in the camera optical frame, metres: vertices (V, 3), faces (F, 3) outward, keypoints (21, 3)."""

    side: Side
    vertices: FloatArray
    faces: IntArray
    keypoints: FloatArray


@dataclass(frozen=True)
class AnnotatedSample:
    """What a data set says of one photograph, in the camera optical frame, metres.

    frame : undistorted image, calibrated camera, depth where the data set has it. hands : all that are annotated.
    object_vertices (V, 3), object_faces (F, 3) : posed; T_camera_object : its pose.
    hand_mask, object_mask : (H, W) as the data set has them, None: drawn from the surfaces.
    object_name, grasp, source, licence : for the record.
    """

    frame: Frame
    hands: tuple[AnnotatedHand, ...]
    object_vertices: FloatArray
    object_faces: IntArray
    T_camera_object: Similarity
    object_name: str
    source: str
    licence: str
    grasp: str = ""
    hand_mask: Mask | None = None
    object_mask: Mask | None = None


def to_scene(sample: AnnotatedSample, name: str, index: int) -> BenchmarkScene:
    """Return the scene of a sample.

    Its truth is the hand nearest to the object; other hands in view are ``rivals``. Its exact depth and normals are
    those of hands and object only, NaN elsewhere. Raises UsageError for annotations that cannot be.
    """
    check_metric(sample)
    hands = _in_view(sample)
    seen = _draw(sample, hands)
    hand_mask = seen.label == 0 if sample.hand_mask is None else sample.hand_mask
    object_mask = seen.label == len(hands) if sample.object_mask is None else sample.object_mask
    if not seen.whole.any():
        raise UsageError(f"The object of {name} is not in the picture", expected="a picture of a held object")
    truths = [_truth(sample, hand, name) for hand in hands]
    return BenchmarkScene(
        name=name,
        split="test",
        index=index,
        seed=0,
        frame=sample.frame,
        truth=truths[0],
        hand_mask=hand_mask,
        object_mask=object_mask & ~hand_mask,
        amodal_mask=seen.whole | object_mask,
        keypoints_2d=sample.frame.camera.project(hands[0].keypoints),
        exact_depth=seen.depth,
        normals=seen.normals,
        attributes=_attributes(sample, hands[0], seen, object_mask),
        rivals=tuple(truths[1:]),
    )


def check_metric(sample: AnnotatedSample) -> None:
    """Raise UsageError unless hands and object are finite, of a possible size in metres, and before the camera."""
    parts = [("hand", hand.vertices, HAND_M) for hand in sample.hands]
    for what, vertices, (least, most) in [*parts, ("object", sample.object_vertices, OBJECT_M)]:
        size = float(np.ptp(vertices, axis=0).max())
        if not np.isfinite(vertices).all() or not least <= size <= most:
            raise UsageError(
                f"The annotated {what} measures {size:.3g} m",
                expected=f"{least:g} to {most:g} m",
                change="Check that the files are those of the release: another unit, or damaged ones",
            )
        if float(np.median(vertices[:, 2])) <= 0:
            raise UsageError(f"The annotated {what} is behind the camera", expected="z forward, as the release has it")


def box_extents(vertices: FloatArray) -> tuple[float, float, float]:
    """Return the sides of the smallest oriented box of points, longest first, metres."""
    sides = np.sort(trimesh.PointCloud(vertices).bounding_box_oriented.primitive.extents)[::-1]
    return float(sides[0]), float(sides[1]), float(sides[2])


@dataclass(frozen=True)
class _Seen:
    """What each pixel sees.

    label (H, W) : index of the hand, or the number of hands for the object, -1 for neither; depth (H, W) metres,
    normals (H, W, 3), NaN where neither is; whole (H, W): the object as if no hand were there.
    """

    label: IntArray
    depth: NDArray[np.float32]
    normals: NDArray[np.float32]
    whole: Mask


def _in_view(sample: AnnotatedSample) -> list[AnnotatedHand]:
    """Return the hands in the picture, nearest to the object first."""
    camera = sample.frame.camera
    tree = cKDTree(sample.object_vertices)

    def joints(hand: AnnotatedHand) -> int:
        pixels = camera.project(hand.keypoints)
        inside = (pixels > -0.5) & (pixels < np.array([camera.width, camera.height]) - 0.5)
        return int((inside.all(-1) & (hand.keypoints[:, 2] > 0)).sum())

    def distance(hand: AnnotatedHand) -> float:
        return float(np.sort(tree.query(hand.vertices)[0])[:NEAREST].mean())

    found = [hand for hand in sample.hands if joints(hand) >= LEAST_JOINTS]
    if not found:
        raise UsageError(
            f"None of the {len(sample.hands)} annotated hands is in the picture",
            expected=f"at least {LEAST_JOINTS} of the 21 joints of one in it",
            change="Leave this image out of the list of test images",
        )
    return sorted(found, key=distance)


def _draw(sample: AnnotatedSample, hands: list[AnnotatedHand]) -> _Seen:
    camera = sample.frame.camera
    held = (sample.object_vertices, sample.object_faces)
    vertices, faces, part = join([*((hand.vertices, hand.faces) for hand in hands), held])
    label, depth, normals = np.full((camera.height, camera.width), -1), _blank(camera), _blank(camera, 3)
    whole = np.zeros(label.shape, bool)
    place, region = _region(camera, vertices)
    rays = region.rays(region.pixel_grid()).reshape(-1, 3)
    hits = MeshQueries(vertices, faces).cast(np.zeros(3), rays)
    known = hits.face >= 0
    shape = (region.height, region.width)
    label[place] = np.where(known, part[hits.face], -1).reshape(shape)
    depth[place] = np.where(known, hits.distance / np.linalg.norm(rays, axis=-1), np.nan).reshape(shape)
    away = (hits.normal * rays).sum(-1, keepdims=True) > 0
    normals[place] = np.where(known[:, None], np.where(away, -hits.normal, hits.normal), np.nan).reshape(*shape, 3)
    whole[place] = np.isfinite(MeshQueries(*held).distances(np.zeros(3), rays)).reshape(shape)
    return _Seen(label, depth, normals, whole)


def _region(camera: CameraModel, vertices: FloatArray) -> tuple[tuple[slice, slice], CameraModel]:
    """Return rows and columns of the picture that the vertices can be seen in, and the camera of them."""
    low, high = np.zeros(2, int), np.array([camera.width, camera.height])
    if vertices[:, 2].min() > 0:
        pixels = camera.project(vertices)
        low = np.clip(np.floor(pixels.min(0)).astype(int) - 1, 0, high - 1)
        high = np.clip(np.ceil(pixels.max(0)).astype(int) + 2, low + 1, high)
    box = (float(low[0]), float(low[1]), float(high[0]), float(high[1]))
    place = slice(int(low[1]), int(high[1])), slice(int(low[0]), int(high[0]))
    return place, camera.crop(box, int(high[0] - low[0]), int(high[1] - low[1]))


def _blank(camera: CameraModel, *channels: int) -> NDArray[np.float32]:
    return np.full((camera.height, camera.width, *channels), np.nan, np.float32)


def _truth(sample: AnnotatedSample, hand: AnnotatedHand, name: str) -> GroundTruth:
    # Contacts are not annotated, and surfaces that are some millimetres off do not tell them. Symmetries neither.
    return GroundTruth(
        name=name,
        side=hand.side,
        hand_vertices=hand.vertices,
        hand_faces=hand.faces,
        object_vertices=sample.object_vertices,
        object_faces=sample.object_faces,
        keypoints=hand.keypoints,
        T_camera_object=sample.T_camera_object,
    )


def _attributes(sample: AnnotatedSample, hand: AnnotatedHand, seen: _Seen, visible: Mask) -> SceneAttributes:
    camera = sample.frame.camera
    middle = (np.array([camera.width, camera.height]) - 1) / 2
    offset = camera.K[:2, 2] - middle
    extents = box_extents(sample.object_vertices)
    solid = make_solid(sample.object_vertices, sample.object_faces)
    area = float(trimesh.triangles.area(sample.object_vertices[sample.object_faces]).sum())
    volume = abs(signed_volume(sample.object_vertices, sample.object_faces))
    hidden = 1 - float((visible & seen.whole).sum()) / float(seen.whole.sum())
    return SceneAttributes(
        object_name=sample.object_name,
        object_source=sample.source,
        object_licence=sample.licence,
        size_class=size_class(extents[0]),
        thin=is_thin(volume, area, extents[0]),
        symmetry="unknown",
        occlusion=hidden,
        side=hand.side,
        grasp=sample.grasp,
        touching=(),
        penetration_m=max(0.0, -float(solid.signed_distance(hand.vertices).min())),
        distance_m=float(np.linalg.norm(hand.keypoints.mean(0))),
        hand_px=float(np.ptp(camera.project(hand.keypoints), axis=0).max()),
        focal_px=camera.focal,
        principal_offset_px=(float(offset[0]), float(offset[1])),
        extents_m=extents,
    )
