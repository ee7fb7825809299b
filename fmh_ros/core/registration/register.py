# SPDX-License-Identifier: Apache-2.0
"""Similarity registration of a generated shape to the seen surface, for generators whose canonical pose is unknown.

Matching every point of a whole shape to a surface seen from one side shrinks the shape, since its hidden back pulls
the scale down. So correspondences go from the seen points to the shape only, the scale is known (from metric depth or
the hand) or bounded, and several rotations are started and judged by what a camera would see: seen points explained,
and no part of the shape where the camera saw past it.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import trimesh
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from fmh_ros.core.cues.types import ObjectView
from fmh_ros.core.errors import RegistrationError
from fmh_ros.core.transforms import Similarity

FloatArray = NDArray[np.float64]
#: Share of the correspondences that is kept, best first.
INLIERS = 0.85
#: Weight of the share of the shape that stands where the camera saw past it, against residuals over size.
FREE_SPACE_WEIGHT = 0.5
#: Seen points that are matched, and points on the shape that they are matched to.
MAX_SEEN, SAMPLES = 1200, 4000


@dataclass(frozen=True)
class Registration:
    """T_view_canonical : pose of the canonical frame in the virtual camera's frame; residual_m : trimmed root mean
    square distance of seen points to the shape; free_space : share of the shape in space seen to be empty; cost : what
    the starts were compared by."""

    T_view_canonical: Similarity
    residual_m: float
    free_space: float
    cost: float


def view_points(view: ObjectView) -> FloatArray:
    """Seen surface points (N, 3), metres, virtual camera's frame. Raises RegistrationError when there are too few."""
    if view.depth is None:
        raise RegistrationError(
            "The view has no depth", expected="metric depth of the object", change="Use a profile with a point map"
        )
    known = np.isfinite(view.depth) & (view.mask > 0.5)
    if known.sum() < 30:
        raise RegistrationError(
            f"Only {int(known.sum())} object pixels have depth",
            expected="at least 30",
            change="Check the depth stream, or move the camera closer",
        )
    rays = view.camera.rays(view.camera.pixel_grid())
    result: FloatArray = (rays * view.depth[..., None])[known].astype(np.float64)
    return result


def free_space_share(points: FloatArray, view: ObjectView) -> float:
    """Share of points (N, 3), virtual camera's frame, that project where neither object nor hand was seen, or that
    stand clearly in front of the seen object surface."""
    pixels = np.round(view.camera.project(points)).astype(int)
    inside = (pixels >= 0).all(1) & (pixels < [view.camera.width, view.camera.height]).all(1) & (points[:, 2] > 0)
    if not inside.any():
        return 1.0
    u, v = pixels[inside].T
    # One pixel of slack: a silhouette is not better known than that.
    object_or_unknown = cv2.dilate(((view.mask > 0.5) | view.unknown).astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    background = ~object_or_unknown[v, u]
    if view.depth is not None:
        ahead = view.depth[v, u] - points[inside, 2]
        background |= np.nan_to_num(ahead, nan=0.0) > 0.15 * view.T_camera_view.scale
    return float(background.mean())


def start_rotations() -> tuple[FloatArray, ...]:
    """The 60 rotations of an icosahedron: every rotation is within 45 degrees of one of them."""
    return tuple(np.asarray(m) for m in Rotation.create_group("I").as_matrix())


def register(
    shape: trimesh.Trimesh,
    view: ObjectView,
    *,
    scale: float | None = None,
    rotations: tuple[FloatArray, ...] | None = None,
    seed: int = 0,
) -> Registration:
    """Find the pose of ``shape`` (canonical units) that explains the view.

    scale : metres per canonical unit when it is known from elsewhere; otherwise it is estimated, starting from the
        silhouette and kept within a factor of 1.6 of it.
    """
    target = view_points(view)
    if len(target) > MAX_SEEN:
        target = target[np.random.default_rng(seed).choice(len(target), MAX_SEEN, replace=False)]
    surface = _surface(shape, seed)
    starts = [_initial(surface.points, target, view, r, scale) for r in rotations or start_rotations()]
    coarse = [_judge(_align(surface, target, pose, scale is None, 15), surface, target, view) for pose in starts]
    coarse.sort(key=lambda r: r.cost)
    fine = [_align(surface, target, r.T_view_canonical, scale is None, 60) for r in coarse[:5]]
    return min((_judge(pose, surface, target, view) for pose in fine), key=lambda r: r.cost)


def align_to_points(
    shape: trimesh.Trimesh, target: FloatArray, pose: Similarity, *, free_scale: bool = True, seed: int = 0
) -> Similarity:
    """Improve a known pose of ``shape`` by trimmed point-to-plane ICP from seen points to its surface.

    target : (N, 3) seen points, metres, in the frame a of ``pose`` (T_a_shape); at most 1200 of them are used.
    Returns T_a_shape; its scale stays within a factor of 1.6 of the given one, and as it is unless ``free_scale``.
    """
    if len(target) > MAX_SEEN:
        target = target[np.random.default_rng(seed).choice(len(target), MAX_SEEN, replace=False)]
    return _align(_surface(shape, seed), target, pose, free_scale, 60)


@dataclass(frozen=True)
class _Surface:
    """Samples of the shape: points and normals (M, 3), canonical frame, and their search tree."""

    points: FloatArray
    normals: FloatArray
    tree: cKDTree


def _surface(shape: trimesh.Trimesh, seed: int) -> _Surface:
    points, faces = trimesh.sample.sample_surface(shape, SAMPLES, seed=seed)
    return _Surface(np.asarray(points), np.asarray(shape.face_normals[faces]), cKDTree(points))


def _initial(
    surface: FloatArray, target: FloatArray, view: ObjectView, rotation: FloatArray, scale: float | None
) -> Similarity:
    """Match the silhouette's extent, and put the near side of the shape on the near side of what is seen."""
    turned = surface @ rotation.T
    low, high = turned.min(0), turned.max(0)
    rows, columns = np.nonzero(view.mask > 0.5)
    rays = view.camera.rays(np.stack([columns, rows], -1).astype(float))[:, :2]
    extent = (rays.max(0) - rays.min(0)) * float(np.median(target[:, 2]))
    size = scale or float(extent.max() / max((high - low)[:2].max(), 1e-9))
    middle = (rays.max(0) + rays.min(0)) / 2
    near = float(np.quantile(target[:, 2], 0.05))
    z = near + size * (high[2] - low[2]) / 2
    return Similarity(rotation, np.array([*(middle * z), z]) - size * (low + high) / 2, size)


def _align(surface: _Surface, target: FloatArray, pose: Similarity, free_scale: bool, iterations: int) -> Similarity:
    """Trimmed point-to-plane iterations from seen points to the shape (Gauss-Newton on a small motion and scale)."""
    first_scale = pose.scale
    for _ in range(iterations):
        distance, index = surface.tree.query(pose.inverse().apply(target))
        kept = distance <= np.quantile(distance, INLIERS)
        at, normal = pose.apply(surface.points[index[kept]]), surface.normals[index[kept]] @ pose.rotation.T
        centre = at.mean(0)
        arm = at - centre
        size = float(np.sqrt((arm**2).sum(1).mean()))
        columns = [np.cross(arm, normal) / size, normal]
        if free_scale:
            columns.append((arm * normal).sum(1, keepdims=True) / size)
        jacobian = np.concatenate(columns, 1)
        residual = ((target[kept] - at) * normal).sum(1)
        # Damped: directions the seen points do not constrain (a cylinder's spin) stay put.
        hessian = jacobian.T @ jacobian + 1e-3 * len(jacobian) * np.eye(jacobian.shape[1])
        step = np.linalg.solve(hessian, jacobian.T @ residual)
        turn = Rotation.from_rotvec(step[:3] / size).as_matrix()
        growth = 1 + step[6] / size if free_scale else 1.0
        growth = float(np.clip(pose.scale * growth, first_scale / 1.6, first_scale * 1.6)) / pose.scale
        about = Similarity(turn, centre + step[3:6] - growth * turn @ centre, growth)
        pose = about @ pose
        if np.abs(step).max() < 1e-6:
            break
    return pose


def _judge(pose: Similarity, surface: _Surface, target: FloatArray, view: ObjectView) -> Registration:
    """Residual and free-space share of a pose."""
    distance = np.sort(surface.tree.query(pose.inverse().apply(target))[0]) * pose.scale
    residual = float(np.sqrt(np.mean(distance[: int(INLIERS * len(distance))] ** 2)))
    free = free_space_share(pose.apply(surface.points), view)
    return Registration(pose, residual, free, residual / view.T_camera_view.scale + FREE_SPACE_WEIGHT * free)
