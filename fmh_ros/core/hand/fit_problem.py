# SPDX-License-Identifier: Apache-2.0
"""The least-squares problem of fitting the hand rig to one observation: its parameters, residuals and solutions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import least_squares
from scipy.spatial.transform import Rotation
from torch import Tensor

from fmh_ros.core.cues.types import HandObservation
from fmh_ros.core.errors import HandFitError
from fmh_ros.core.frame.camera import CameraModel
from fmh_ros.core.hand.landmarks import marked_points, marked_tensor
from fmh_ros.core.hand.rig import JOINT_NAMES, HandRig, joint_limits, rotation_matrices
from fmh_ros.core.hand.skin_depth import SkinDepth, SkinPoints, SurfacePlaces
from fmh_ros.core.hand.touches import NEAREST, Touches
from fmh_ros.core.hand.types import HandMesh
from fmh_ros.core.transforms import Similarity, nearest_rotation

FloatArray = NDArray[np.float64]

#: Bones between keypoints, (base, end); the first row of each finger leaves the wrist.
_BONES = np.array([(0 if k == 0 else 4 * f + k, 4 * f + k + 1) for f in range(5) for k in range(4)])
#: Keypoints that a flat palm holds nearly rigid, for the first guess of the orientation.
_RIGID = np.array([0, 1, 5, 9, 13, 17])


@dataclass(frozen=True)
class FitSettings:
    """One-sigma sizes of what the fit believes; smaller is stronger.

    keypoint : reprojection error over the hand box's longer side. direction : bone directions of the world landmarks,
    as a difference of unit vectors. angle : joint angles about a relaxed hand, radians. coupling : fingertip bend
    against middle joint bend, radians. limit : excess over the joint limits, radians. bone : log of each finger's
    length and of the palm's length and width. size : log of the overall size, over adults; any_size : over everybody,
    children too, for when depth tells. skin : measured depth of the skin, metres; skin_samples : how many independent
    samples of it there are, since neighbours err together; nearest, nearest_samples : the same for the distance of
    measured skin from the nearest surface, and along : the same along the surface, over nearest; overlap,
    overlap_samples : the same for the depth of vertices in the held object; touch, touch_samples : for the gap of each
    finger that ends just before it. landmark_size : relative error of the size that landmarks alone leave when the
    distance is known.

    starts : bends of the fingers to start from; doubt : reprojection error over the hand box above which the palm's
    other reading in depth is tried too.
    """

    keypoint: float = 0.02
    direction: float = 0.3
    angle: float = 0.9
    coupling: float = 0.35
    limit: float = 0.06
    bone: float = 0.07
    size: float = 0.08
    any_size: float = 0.25
    skin: float = 0.006
    skin_samples: float = 100.0
    nearest: float = 0.004
    nearest_samples: float = 600.0
    along: float = 5.0
    overlap: float = 0.004
    overlap_samples: float = 60.0
    touch: float = 0.008
    touch_samples: float = 6.0
    landmark_size: float = 0.03
    starts: tuple[float, ...] = (0.2, 0.65)
    doubt: float = 0.025
    max_evaluations: int = 60
    depth_rounds: int = 3


def _angle_basis() -> tuple[FloatArray, NDArray[np.int64]]:
    """Return the joint rotation components the fit may turn as a (45, A) selection matrix, and their indices (A,)."""
    free = []
    for j, name in enumerate(JOINT_NAMES):
        count = {"thumb_cmc": 3, "thumb_mcp": 2}.get(name, 2 if name.endswith("mcp") else 1)
        free += [3 * j + k for k in range(count)]
    index = np.array(free, np.int64)
    return np.eye(45)[:, index], index


class HandProblem:
    """The least-squares problem of one observation.

    theta : rotation vector (3), translation correction over the first distance (3), log size (1), log finger lengths
    (5), log palm length and width (2), joint angles (A).
    """

    def __init__(self, observation: HandObservation, camera: CameraModel, rig: HandRig, settings: FitSettings) -> None:
        self.observation, self.camera, self.rig, self.settings = observation, camera, rig, settings
        self.check: Callable[[], None] | None = None
        self.box = float(np.ptp(observation.keypoints_2d, axis=0).max())
        basis, index = _angle_basis()
        self.basis = torch.as_tensor(basis)
        lower, upper = joint_limits()
        self.lower, self.upper = torch.as_tensor(lower.ravel()[index]), torch.as_tensor(upper.ravel()[index])
        relaxed = rig.curl(np.full(5, 0.3), 0.0, 0.3).ravel()[index]
        self.relaxed = torch.as_tensor(relaxed)
        names = [JOINT_NAMES[i // 3] for i in index]
        self.pip = [i for i, name in enumerate(names) if name.endswith("pip")]
        self.dip = [i for i, name in enumerate(names) if name.endswith("dip")]
        self.index = index
        self.target = torch.as_tensor(observation.keypoints_2d)
        self.K = torch.as_tensor(camera.K)
        self.R0, self.t0, directions, self.flip = self._first_guess()
        self.directions = torch.as_tensor(directions)
        self.skin: SkinDepth | None = None
        self.nearest: SkinPoints | None = None
        self.touches: Touches | None = None

    def _first_guess(self) -> tuple[Tensor, Tensor, FloatArray, FloatArray]:
        """Return orientation, translation and the observed bone directions (20, 3) in the camera frame.

        Last comes the rotation vector to the palm's other reading: flat pictures are ambiguous in depth, and the
        landmark network sometimes takes the wrong one.
        """
        pixels, world = self.observation.keypoints_2d, self.observation.keypoints_world
        rays = self.camera.rays(pixels)
        # World landmarks are relative to a camera that looks straight at the hand.
        ahead = rays.mean(0) / np.linalg.norm(rays.mean(0))
        axis = np.cross([0.0, 0.0, 1.0], ahead)
        turn = axis / max(np.linalg.norm(axis), 1e-12) * np.arccos(np.clip(ahead[2], -1, 1))
        world = world @ rotation_matrices(torch.as_tensor(turn)).numpy().T
        bones = world[_BONES[:, 1]] - world[_BONES[:, 0]]
        rest = marked_points(self.rig.keypoints, self.observation.convention)
        R = _align(rest[_RIGID], world[_RIGID])
        other = _align(rest[_RIGID], world[_RIGID] - 2.0 * (world[_RIGID] @ ahead)[:, None] * ahead)
        flip = Rotation.from_matrix(other @ R.T).as_rotvec()
        placed = rest @ R.T
        # Translation that puts the palm on its rays: two linear equations per keypoint.
        rows, values = [], []
        for point, ray in zip(placed[_RIGID], rays[_RIGID], strict=True):
            for k in range(2):
                row = np.zeros(3)
                row[k], row[2] = 1.0, -ray[k]
                rows.append(row)
                values.append(ray[k] * point[2] - point[k])
        t = np.linalg.lstsq(np.array(rows), np.array(values), rcond=None)[0]
        if t[2] < 0.02:
            spread = np.linalg.norm(placed - placed.mean(0), axis=1).mean() / np.std(rays[:, :2], axis=0).max()
            t = rays[0] * max(float(spread), 0.1)
        return torch.as_tensor(R), torch.as_tensor(t), bones / np.linalg.norm(bones, axis=1, keepdims=True), flip

    def start(self, curl: float, flipped: bool) -> FloatArray:
        """Return a first theta whose fingers are bent by ``curl``, in the first or the other reading of the palm."""
        angles = self.rig.curl(np.full(5, curl), 0.0, 0.4).ravel()[self.index]
        return np.concatenate([self.flip if flipped else np.zeros(3), np.zeros(11), angles])

    def moved(self, theta: FloatArray, T_camera_hand: Similarity) -> FloatArray:
        """Return ``theta`` with the hand as a whole at another pose; its scale multiplies the hand's size."""
        result = theta.copy()
        result[:3] = Rotation.from_matrix(T_camera_hand.rotation @ self.R0.numpy().T).as_rotvec()
        result[3:6] = (T_camera_hand.translation - self.t0.numpy()) / self.t0[2].item()
        result[6] += np.log(T_camera_hand.scale)
        return result

    def _pose(self, theta: Tensor, vertex_ids: NDArray[np.int64] | None) -> tuple[Tensor, Tensor]:
        """Return vertices and keypoints in the hand frame, metres."""
        palm = torch.cat([torch.exp(theta[12:14]), torch.ones(1, dtype=theta.dtype)])
        rotations = (self.basis @ theta[14:]).reshape(15, 3)
        return self.rig.pose(
            rotations, torch.exp(theta[7:12]), torch.exp(theta[6]), palm_scale=palm, vertex_ids=vertex_ids
        )

    def _placement(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        return rotation_matrices(theta[:3]) @ self.R0, self.t0 + self.t0[2] * theta[3:6]

    def residuals(self, theta: Tensor) -> Tensor:
        """Return all weighted residuals; a robust one is shrunk so that its square is the robust loss."""
        s = self.settings
        keypoints = self._pose(theta, np.empty(0, np.int64))[1]
        R, t = self._placement(theta)
        points = marked_tensor(keypoints, self.observation.convention) @ R.T + t
        projected = points @ self.K.T
        depth = projected[:, 2:].clamp_min(1e-3)
        offset = (projected[:, :2] / depth - self.target) / (s.keypoint * self.box)
        bones = points[_BONES[:, 1]] - points[_BONES[:, 0]]
        turned = bones / bones.norm(dim=1, keepdim=True) - self.directions
        angles = theta[14:]
        excess = torch.relu(angles - self.upper) + torch.relu(self.lower - angles)
        parts = [
            _robust(offset, 2.0).ravel(),
            _robust(turned / s.direction, 2.0).ravel(),
            (angles - self.relaxed) / s.angle,
            (angles[self.dip] - 0.6 * angles[self.pip]) / s.coupling,
            excess / s.limit,
            theta[7:14] / s.bone,
            # Proportions must not take over what is overall size.
            theta[7:14].mean()[None] / (0.1 * s.bone),
            theta[6:7] / (s.size if self.skin is None else s.any_size),
        ]
        if self.skin is not None:
            error = self._on_surface(theta, self.skin.places)[:, 2:] - torch.as_tensor(self.skin.depth)[:, None]
            parts.append(_robust(error / s.skin, 1.5)[:, 0] * np.sqrt(s.skin_samples / len(error)))
        if self.nearest is not None:
            error = self._on_surface(theta, self.nearest.places) - torch.as_tensor(self.nearest.points)
            # Which place of a smooth surface a point belongs to is hardly known: held to the nearest one along the
            # surface too, the hand would grow to meet its points rather than move.
            normals = torch.as_tensor(self.nearest.normals)
            across = (error * normals).sum(1, keepdim=True) * normals
            error = across + (error - across) / s.along
            parts.append(_robust(error / s.nearest, 1.5).ravel() * np.sqrt(s.nearest_samples / len(error)))
        if self.touches is not None:
            parts.append(self._gaps(theta, self.touches))
        return torch.cat(parts)

    def _gaps(self, theta: Tensor, touches: Touches) -> Tensor:
        """Return the weighted distances (N,) of the hand's places from where the object's surface is."""
        s, inside = self.settings, touches.inside
        apart = self._on_surface(theta, touches.places) - torch.as_tensor(touches.points)
        gaps = (apart * torch.as_tensor(touches.normals)).sum(1, keepdim=True)
        most = min(s.overlap_samples, float(inside.sum()))
        overlap = np.sqrt(most / max(inside.sum(), 1)) / s.overlap
        # NEAREST of each finger: together they count as touch_samples.
        weights = np.where(inside, overlap, np.sqrt(s.touch_samples / NEAREST) / s.touch)
        return _robust(gaps * torch.as_tensor(weights)[:, None], 2.0)[:, 0]

    def _on_surface(self, theta: Tensor, places: SurfacePlaces) -> Tensor:
        """Return places of the surface (N, 3) in the camera frame."""
        R, t = self._placement(theta)
        vertices = self._pose(theta, places.vertex_ids)[0] @ R.T + t
        return torch.einsum("nk,nkd->nd", torch.as_tensor(places.weights), vertices[places.corners])

    def solve(self, theta: FloatArray) -> FloatArray:
        """Minimise from a start."""

        def values(x: FloatArray) -> FloatArray:
            if self.check is not None:
                self.check()
            with torch.no_grad():
                return self.residuals(torch.as_tensor(x)).numpy()

        def jacobian(x: FloatArray) -> FloatArray:
            # Forward mode: there are tens of parameters and hundreds of residuals.
            result: Any = torch.autograd.functional.jacobian(
                self.residuals, torch.as_tensor(x), vectorize=True, strategy="forward-mode"
            )
            return result.numpy()

        most = self.settings.max_evaluations
        try:
            fit = least_squares(values, theta, jacobian, method="lm", max_nfev=most, xtol=1e-6, ftol=1e-6)
        except ValueError as error:  # scipy's only complaint here: a residual is not finite
            raise HandFitError(
                f"The hand fit broke down ({error})", change="Check the camera calibration and the depth"
            ) from error
        return np.asarray(fit.x, np.float64)

    def cost(self, theta: FloatArray) -> float:
        """Return the sum of squared residuals."""
        with torch.no_grad():
            return float(self.residuals(torch.as_tensor(theta)).square().sum())

    def error(self, theta: FloatArray) -> float:
        """Return the root mean square reprojection error over the hand box's longer side."""
        mesh = self.result(theta, self.settings.size, strict=False)
        return mesh.reprojection_px / self.box

    def result(self, theta: FloatArray, sigma: float, *, strict: bool = True) -> HandMesh:
        """Turn a solution into the posed mesh, or raise HandFitError."""
        with torch.no_grad():
            x = torch.as_tensor(theta)
            vertices, keypoints = (value.numpy() for value in self._pose(x, None))
            R, t = (value.numpy() for value in self._placement(x))
        pose = Similarity(nearest_rotation(R), t)
        seen = pose.apply(keypoints)
        if strict and (not np.isfinite(seen).all() or seen[:, 2].min() < 0.01):
            raise HandFitError("The fitted hand is not in front of the camera", change="Check the camera calibration")
        marks = marked_points(seen, self.observation.convention)
        error = np.linalg.norm(self.camera.project(marks) - self.observation.keypoints_2d, axis=1)
        rms = float(np.sqrt((error**2).mean()))
        if strict and not rms <= 0.25 * self.box:
            raise HandFitError(
                f"The best hand pose misses the landmarks by {rms:.0f} px in a hand of {self.box:.0f} px",
                expected="less than a quarter of the hand",
                change="Choose another hand, or check the camera calibration",
            )
        bones = marks[_BONES[:, 1]] - marks[_BONES[:, 0]]
        cosine = (bones * self.directions.numpy()).sum(1) / np.linalg.norm(bones, axis=1)
        disagreement = float(np.arccos(np.clip(cosine, -1, 1)).mean())
        unlikely = max(0.0, abs(float(theta[6])) - 0.2) / 0.2
        score = float(np.exp(-((rms / self.box / 0.06) ** 2) - (disagreement / 0.9) ** 2 - unlikely**2))
        rig = self.rig
        return HandMesh(
            "right",
            pose,
            np.asarray(vertices, np.float64),
            rig.faces,
            rig.vertex_finger,
            np.asarray(keypoints, np.float64),
            float(np.exp(theta[6])),
            sigma,
            rms,
            score,
        )


def _align(source: FloatArray, target: FloatArray) -> FloatArray:
    """Return the rotation (3, 3) that turns points (N, 3) best onto others about their means."""
    u, _, vt = np.linalg.svd((target - target.mean(0)).T @ (source - source.mean(0)))
    result: FloatArray = u @ np.diag([1.0, 1.0, np.linalg.det(u @ vt)]) @ vt
    return result


def _robust(residual: Tensor, knee: float) -> Tensor:
    """Shrink rows (N, D) so that their squared norm grows only linearly beyond ``knee``; smooth."""
    square = residual.square().sum(-1, keepdim=True) / knee**2
    return residual * torch.sqrt(2.0 / (torch.sqrt(1.0 + square) + 1.0))
