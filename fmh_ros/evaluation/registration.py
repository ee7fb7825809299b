# SPDX-License-Identifier: Apache-2.0
"""Registration of whole surfaces to each other by iterative closest points.

Correspondences go both ways, from every point of the one surface to the other and back. One way alone lets the free
scale collapse: a source shrunk to a point lies perfectly on the target. The scale is bounded as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import trimesh
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from fmh_ros.core.transforms import Similarity
from fmh_ros.evaluation.overlap import signed_volume
from fmh_ros.evaluation.types import FloatArray

#: Points per surface that a start is tried with, and that the best ones are refined with.
COARSE_POINTS, FINE_POINTS = 250, 3_000
#: Iterations of the two stages, and how many starts are refined.
COARSE_ITERATIONS, FINE_ITERATIONS, REFINED = 12, 80, 4
#: The scale stays within this factor of the ratio of the surfaces' sizes.
SCALE_RANGE = 1.6
#: Fewer matched points whose normals agree than this leave a pose as it is, as with a mesh that is inside out.
FEWEST_FACING = 12
#: Point-to-point iterations end when no number of the pose changes by more, relative to its scale.
STILL = 1e-5
#: Seed of the points.
SEED = 0


@dataclass(frozen=True)
class Surface:
    """Area-uniform points (N, 3), with outward unit normals (N, 3) or None for a cloud, their search tree, and the
    median distance of a point from the next one."""

    points: FloatArray
    normals: FloatArray | None
    tree: cKDTree
    spacing: float

    @property
    def size(self) -> float:
        """Root mean square distance of the points from their mean."""
        return float(np.sqrt(self.points.var(0).sum()))


@dataclass(frozen=True)
class Registered:
    """T_target_source, and the root mean square distance of the points that were kept, both ways, target's units.

    Between meshes what a point is off along the other surface counts only beyond the points' spacing, so that equal
    surfaces are at about 0 although they were sampled.
    """

    T_target_source: Similarity
    rms: float


def make_surface(
    vertices: FloatArray, faces: NDArray[np.integer], samples: int = FINE_POINTS, seed: int = SEED
) -> Surface:
    """Return points on a mesh (V, 3), (F, 3), or of a cloud when it has no faces."""
    if not len(faces):
        chosen = np.random.default_rng(seed).choice(len(vertices), min(samples, len(vertices)), replace=False)
        return _surface(vertices[chosen], None)
    mesh = trimesh.Trimesh(vertices, faces, process=False)
    points, index = trimesh.sample.sample_surface(mesh, samples, seed=seed)
    outward = 1.0 if signed_volume(vertices, faces) >= 0 else -1.0
    return _surface(np.asarray(points, np.float64), outward * np.asarray(mesh.face_normals[index], np.float64))


def _surface(points: FloatArray, normals: FloatArray | None) -> Surface:
    tree = cKDTree(points)
    return Surface(points, normals, tree, float(np.median(tree.query(points, k=2)[0][:, 1])))


def rotation_starts(source: Surface, target: Surface, turned: bool = True) -> list[Similarity]:
    """Return similarities that put the source's mean and size on the target's.

    turned : in the 24 ways that principal axes can be laid on principal axes and in the 60 rotations of an
    icosahedron, of which one is within 45 degrees of any rotation; False only as it is.
    """
    rotations = [np.eye(3)]
    if turned:
        axes = [np.linalg.svd(s.points - s.points.mean(0), full_matrices=False)[2] for s in (source, target)]
        a, b = (x * np.array([1, 1, np.sign(np.linalg.det(x))])[:, None] for x in axes)
        rotations += [b.T @ turn @ a for turn in Rotation.create_group("O").as_matrix()]
        rotations += list(Rotation.create_group("I").as_matrix())
    scale = target.size / source.size
    centre, goal = source.points.mean(0), target.points.mean(0)
    return [Similarity(r, goal - scale * r @ centre, scale) for r in rotations]


def register_all(
    source: Surface,
    target: Surface,
    starts: Sequence[Similarity],
    *,
    keep: float = 1.0,
    expected: float | None = None,
    always: int = 0,
) -> list[Registered]:
    """Return the refined best starts, the best one first.

    starts : each is T_target_source. keep : share of the closest correspondences of each direction that counts.
    expected : scale that the result may differ from by SCALE_RANGE at most; the ratio of the sizes when None.
    always : so many of the first starts are refined, however bad they look, and along the normals alone, so that
        what the surfaces do not determine (the spin of a cylinder) stays as it is.
    """
    middle = target.size / source.size if expected is None else expected
    bounds = (middle / SCALE_RANGE, middle * SCALE_RANGE)
    some, others = (_surface(s.points[:COARSE_POINTS], None) for s in (source, target))
    coarse = [_point_to_point(some, others, start, keep, bounds, COARSE_ITERATIONS) for start in starts[always:]]
    coarse.sort(key=lambda result: result.rms)
    fine = [_refined(source, target, start, keep, bounds, 0) for start in starts[:always]]
    fine += [_refined(source, target, result.T_target_source, keep, bounds, 8) for result in coarse[:REFINED]]
    return sorted(fine, key=lambda result: result.rms)


def translation_and_scale(source: Surface, target: Surface, iterations: int = 100) -> Similarity:
    """Return the T_target_source without rotation that least squares of both ways' distances converge to.

    The registration of the object that EasyHOI, HORT, gSDF and MOHO report after: it begins at equal means and sizes,
    and drops no correspondence.
    """
    start = rotation_starts(source, target, turned=False)[0]
    scale, shift = start.scale, start.translation
    for _ in range(iterations):
        a, b = _pairs(source, target, Similarity(np.eye(3), shift, scale), 1.0)[:2]
        p, q = source.points[a], target.points[b]
        spread = p - p.mean(0)
        new = float((spread * (q - q.mean(0))).sum() / (spread**2).sum())
        new = float(np.clip(new, start.scale / SCALE_RANGE, start.scale * SCALE_RANGE))
        moved = q.mean(0) - new * p.mean(0)
        done = abs(new - scale) < 1e-6 * scale and float(np.abs(moved - shift).max()) < 1e-6
        scale, shift = new, moved
        if done:
            break
    return Similarity(np.eye(3), shift, scale)


def align_points(source: FloatArray, target: FloatArray) -> Similarity:
    """Least-squares similarity (Umeyama) that maps corresponding points (N, 3) of source onto target."""
    matrix, _, _ = trimesh.registration.procrustes(source, target, reflection=False, scale=True)
    scale = float(np.cbrt(np.linalg.det(matrix[:3, :3])))
    return Similarity(matrix[:3, :3] / scale, matrix[:3, 3], scale)


def _pairs(
    source: Surface, target: Surface, pose: Similarity, keep: float
) -> tuple[NDArray[np.int64], NDArray[np.int64], FloatArray]:
    """Return indices of matched source and target points, both ways, and distances in the target's units."""
    there, b = target.tree.query(pose.apply(source.points))
    back, a = source.tree.query(pose.inverse().apply(target.points))
    back = back * pose.scale
    forth_kept, back_kept = (_closest(distance, keep) for distance in (there, back))
    return (
        np.concatenate([forth_kept, a[back_kept]]),
        np.concatenate([b[forth_kept], back_kept]),
        np.concatenate([there[forth_kept], back[back_kept]]),
    )


def _closest(distance: FloatArray, keep: float) -> NDArray[np.int64]:
    count = max(4, round(keep * len(distance)))
    return np.arange(len(distance)) if count >= len(distance) else np.argpartition(distance, count)[:count]


def _point_to_point(
    source: Surface, target: Surface, pose: Similarity, keep: float, bounds: tuple[float, float], iterations: int
) -> Registered:
    for _ in range(iterations):
        a, b, _ = _pairs(source, target, pose, keep)
        before = pose
        found = align_points(source.points[a], target.points[b])
        pose = _bounded(found, source.points[a].mean(0), bounds)
        if np.abs(pose.matrix() - before.matrix()).max() < STILL * pose.scale:
            break
    return Registered(pose, _rms(source, target, pose, keep))


def _refined(
    source: Surface, target: Surface, pose: Similarity, keep: float, bounds: tuple[float, float], coarse: int
) -> Registered:
    """``coarse`` point-to-point iterations, then point-to-plane ones, which converge much closer; only the former
    where one of the surfaces has no normals."""
    planes = source.normals is not None and target.normals is not None
    few = coarse if planes else FINE_ITERATIONS
    pose = _point_to_point(source, target, pose, keep, bounds, few).T_target_source
    if planes:
        for _ in range(FINE_ITERATIONS):
            step = _plane_step(source, target, pose, keep)
            pose = _bounded(step @ pose, source.points.mean(0), bounds)
            if np.abs(step.matrix() - np.eye(4)).max() < 1e-7:
                break
    return Registered(pose, _rms(source, target, pose, keep))


def _plane_step(source: Surface, target: Surface, pose: Similarity, keep: float) -> Similarity:
    """One Gauss-Newton step along the mean of both points' normals (Rusinkiewicz, A Symmetric Objective Function for
    ICP, 2019): no bias from a sampled curved surface, since either plane alone lies outside of it."""
    assert source.normals is not None and target.normals is not None
    a, b, _ = _pairs(source, target, pose, keep)
    own, other = source.normals[a] @ pose.rotation.T, target.normals[b]
    facing = (own * other).sum(1) > 0.3
    if facing.sum() < FEWEST_FACING:
        return Similarity()
    normal = own[facing] + other[facing]
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    p, q = pose.apply(source.points[a[facing]]), target.points[b[facing]]
    centre = p.mean(0)
    arm = p - centre
    size = float(np.sqrt((arm**2).sum(1).mean())) + 1e-12
    jacobian = np.concatenate(
        [np.cross(arm, normal) / size, normal, (arm * normal).sum(1, keepdims=True) / size], axis=1
    )
    residual = ((q - p) * normal).sum(1)
    # Damped a little: what the surfaces do not determine (the spin of a cylinder) stays as it is.
    hessian = jacobian.T @ jacobian + 1e-4 * len(jacobian) * np.eye(7)
    step = np.linalg.solve(hessian, jacobian.T @ residual)
    turn = Rotation.from_rotvec(step[:3] / size).as_matrix()
    growth = max(1 + step[6] / size, 0.5)
    return Similarity(turn, centre + step[3:6] - growth * turn @ centre, growth)


def _bounded(pose: Similarity, centre: FloatArray, bounds: tuple[float, float]) -> Similarity:
    """Return the pose with its scale in bounds, and the source's ``centre`` (3,) where it was."""
    scale = float(np.clip(pose.scale, *bounds))
    return Similarity(pose.rotation, pose.apply(centre) - scale * pose.rotation @ centre, scale)


def _rms(source: Surface, target: Surface, pose: Similarity, keep: float) -> float:
    a, b, distance = _pairs(source, target, pose, keep)
    if source.normals is None or target.normals is None:
        return float(np.sqrt(np.mean(distance**2)))
    normal = source.normals[a] @ pose.rotation.T + target.normals[b]
    length = np.linalg.norm(normal, axis=1)
    across = ((pose.apply(source.points[a]) - target.points[b]) * normal).sum(1) / np.maximum(length, 1e-9)
    along = np.sqrt(np.maximum(distance**2 - across**2, 0))
    beyond = np.maximum(along - 2 * max(target.spacing, source.spacing * pose.scale), 0)
    return float(np.sqrt(np.mean(np.where(length > 1, across**2 + beyond**2, distance**2))))
