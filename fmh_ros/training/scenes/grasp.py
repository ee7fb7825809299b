# SPDX-License-Identifier: Apache-2.0
"""Grasps by closing: put the palm near an object, then flex joint after joint until the fingers touch it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from fmh_ros.core.hand.rig import HandRig
from fmh_ros.training.scenes.objects import SceneObject

Rng = np.random.Generator
FloatArray = NDArray[np.float64]

MAX_PENETRATION_M = 0.002
TOUCH_M = 0.003
KINDS = ("wrap", "precision", "pinch", "carry", "pen")


@dataclass(frozen=True)
class HandShape:
    """Proportions of one person's hand: arguments of `HandRig.pose`."""

    scale: float
    fingers: FloatArray
    palm: FloatArray


@dataclass(frozen=True)
class Grasp:
    """A right hand, and the object it holds if any, in the hand frame (metres).

    vertices : (V, 3) of the rig, posed; keypoints : (21, 3); rotation, translation : pose of the object in the hand.
    touching : names of the fingers within TOUCH_M of the object, the palm included.
    """

    kind: str
    shape: HandShape
    joint_rotations: FloatArray
    vertices: FloatArray
    keypoints: FloatArray
    object: SceneObject | None
    rotation: FloatArray
    translation: FloatArray
    touching: tuple[str, ...]

    def object_distance(self, points: NDArray[np.floating]) -> FloatArray:
        """Signed distance of points (N, 3), hand frame, metres, to the held object."""
        if self.object is None:
            return np.full(len(points), np.inf)
        return self.object.distance((points - self.translation) @ self.rotation)


def draw_hand_shape(rng: Rng) -> HandShape:
    """Draw the proportions of an adult or adolescent hand."""
    fingers = np.clip(rng.normal([1.0, 1.0], [0.05, 0.09], (5, 2)) * rng.normal(1, [0.04, 0.08]), 0.75, 1.3)
    return HandShape(
        float(rng.uniform(0.86, 1.14)), fingers, rng.uniform(0.92, 1.08, 3) * [1, 1, rng.uniform(0.9, 1.15)]
    )


def pose_hand(rig: HandRig, shape: HandShape, joint_rotations: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return vertices (V, 3) and keypoints (21, 3) of the rig, metres, hand frame."""
    with torch.no_grad():
        vertices, keypoints = rig.pose(
            torch.as_tensor(joint_rotations, dtype=torch.float32),
            torch.as_tensor(shape.fingers, dtype=torch.float32),
            shape.scale,
            palm_scale=torch.as_tensor(shape.palm, dtype=torch.float32),
        )
    return vertices.double().numpy(), keypoints.double().numpy()


def _unit(vector: FloatArray) -> FloatArray:
    result: FloatArray = vector / (np.linalg.norm(vector) + 1e-12)
    return result


def palm_anchor(vertices: FloatArray, keypoints: FloatArray) -> FloatArray:
    """A point of the palm's skin under the middle of the metacarpals."""
    centre = 0.45 * keypoints[0] + 0.55 * keypoints[[5, 9, 13, 17]].mean(0)
    near = vertices[np.linalg.norm(vertices[:, :2] - centre[:2], axis=1) < 0.015]
    return np.array([centre[0], centre[1], near[:, 2].min() if len(near) else centre[2] - 0.015])


def _surface_frame(rng: Rng, target: SceneObject, reach: float) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Draw a surface point, its normal and the object's local long direction; thin places are preferred."""
    picks = rng.integers(0, len(target.vertices), 12)
    best, best_width = int(picks[0]), np.inf
    for pick in picks:
        p, n = target.vertices[pick].astype(float), target.normals[pick].astype(float)
        depths = np.arange(0.006, 0.14, 0.006)
        outside = target.distance(p - depths[:, None] * n) > 0
        width = float(depths[outside.argmax()]) if outside.any() else 0.14
        width *= rng.uniform(0.6, 1.4)
        if width < best_width:
            best, best_width = int(pick), width
    p, n = target.vertices[best].astype(float), target.normals[best].astype(float)
    near = target.vertices[np.linalg.norm(target.vertices - p, axis=1) < reach]
    tangent = (near - near.mean(0)) @ (np.eye(3) - np.outer(n, n))
    _, _, axes = np.linalg.svd(tangent, full_matrices=False)
    return p, n, axes[0].astype(float)


def _place_on_surface(rng: Rng, target: SceneObject, anchor: FloatArray, kind: str) -> tuple[FloatArray, FloatArray]:
    """Draw the object's pose in the hand frame so that the palm faces a piece of its surface."""
    return face_palm(rng, *_surface_frame(rng, target, 0.06), anchor, kind)


def face_palm(
    rng: Rng, p: FloatArray, n: FloatArray, along: FloatArray, anchor: FloatArray, kind: str
) -> tuple[FloatArray, FloatArray]:
    """Draw an object's pose in the hand frame so that the palm faces a piece of its surface.

    p, n : (3,) point of the surface and outward normal there, object frame; along : (3,) unit, tangential, lies across
    the palm; anchor : (3,) point of the palm's skin, hand frame; kind : of the grasp. Returns rotation and translation.
    """
    gap = {"wrap": rng.uniform(0, 0.02), "carry": 0.0, "precision": rng.uniform(0.02, 0.07)}.get(
        kind, rng.uniform(0.06, 0.1)
    )
    turn = rng.uniform(-np.pi, np.pi) if kind == "carry" else rng.normal(0, 0.4) + np.pi * (rng.random() < 0.5)
    across = np.cos(turn) * along + np.sin(turn) * np.cross(n, along)
    tilt = rng.normal(0, 0.2)
    z = _unit(n + tilt * np.cross(across, n))
    y = _unit(across - (across @ z) * z)
    # Columns: the hand's axes in the object frame; z is dorsal, so the palm looks along -n.
    hand_in_object = np.stack([np.cross(y, z), y, z], 1)
    contact = anchor + [0.01 + 0.6 * gap + rng.normal(0, 0.012), rng.normal(0, 0.012), -gap]
    rotation = hand_in_object.T
    return rotation, contact - rotation @ p


def _place_pen(rng: Rng, target: SceneObject, keypoints: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Draw the pose of a long thin object between the tips of thumb and index finger, leaning on the web."""
    pinch = (keypoints[4] + keypoints[8]) / 2
    web = (keypoints[5] + keypoints[2]) / 2 + [0, 0, 0.01]
    direction = _unit(web - pinch + rng.normal(0, 0.012, 3))
    extent = np.ptp(target.vertices, axis=0)
    axis = int(np.argmax(extent))
    x = np.zeros(3)
    x[axis] = rng.choice([-1.0, 1.0])
    side = _unit(np.cross(direction, rng.normal(size=3)))
    world = np.stack([direction, side, np.cross(direction, side)], 1)
    other = np.eye(3)[(axis + 1) % 3]
    local = np.stack([x, other, np.cross(x, other)], 1)
    rotation = world @ local.T
    held = rng.uniform(-0.36, -0.15) * extent[axis]
    return rotation, pinch - held * direction


def preshape(rng: Rng, kind: str) -> tuple[FloatArray, FloatArray, float, float]:
    """Return initial and largest curl (5, 3), spread and opposition of a kind of grasp."""
    start = np.full((5, 3), rng.uniform(0.0, 0.15))
    limit = np.repeat(rng.uniform(0.6, 0.95, 5)[:, None], 3, 1)
    opposition = rng.uniform(0.5, 1.0)
    if kind == "carry":
        limit[:] = rng.uniform(0.05, 0.35)
        opposition = rng.uniform(0.0, 0.5)
    if kind in ("pinch", "pen"):
        start[1:] = rng.uniform(0.15, 0.35)
        start[2:] += rng.uniform(0, 0.4) * np.array([0.3, 0.7, 1.0])[:, None]
        opposition = rng.uniform(0.75, 1.0)
    if kind == "precision":
        start[1:, 0] = rng.uniform(0.15, 0.5)
        start[1:, 1:] = rng.uniform(0.05, 0.3)
    return start, np.maximum(limit, start), float(rng.uniform(-0.6, 0.8)), float(opposition)


def _deepest(owner: NDArray[np.int64], distance: FloatArray) -> FloatArray:
    """Smallest distance (16,) over the vertices each bone owns; column 0 is the palm."""
    result = np.full(16, np.inf)
    np.minimum.at(result, owner, distance)
    return result


@dataclass
class ClosingHand:
    """A hand that closes; owner : (V,) bone that each vertex follows most; spread, opposition : see `HandRig.curl`."""

    rig: HandRig
    shape: HandShape
    owner: NDArray[np.int64]
    spread: float
    opposition: float
    #: Feel with the middles of the faces too, which thin edges do not slip between.
    dense: bool = False

    def vertices(self, curl: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return vertices (V, 3), keypoints (21, 3) and joint rotations (15, 3) at a curl (5, 3)."""
        rotations = self.rig.curl(curl, self.spread, self.opposition)
        return *pose_hand(self.rig, self.shape, rotations), rotations

    def _depths(self, grasp: Grasp, vertices: FloatArray) -> FloatArray:
        """Smallest distance (16,) of each bone to the object."""
        if not self.dense:
            return _deepest(self.owner, grasp.object_distance(vertices))
        faces = self.rig.faces
        middles = vertices[faces].mean(1)
        owner = np.concatenate([self.owner, self.owner[faces[:, 0]]])
        return _deepest(owner, grasp.object_distance(np.concatenate([vertices, middles])))

    def close(self, grasp: Grasp, curl: FloatArray, limit: FloatArray) -> FloatArray:
        """Flex every joint until it, or a bone it carries, touches; coarse steps, then fine ones."""
        for step, stop in ((0.06, 0.0), (0.015, -0.0005)):
            free = curl < limit
            for _ in range(24):
                if not free.any():
                    break
                trial = np.where(free, np.minimum(curl + step, limit), curl)
                hit = (self._depths(grasp, self.vertices(trial)[0])[1:] < stop).reshape(5, 3)
                # A joint stops when any bone beyond it is in contact; the joints further out go on.
                blocked = np.flip(np.maximum.accumulate(np.flip(hit, 1), 1), 1)
                accepted = free & ~blocked
                moved = np.where(accepted, trial, curl)
                curl = moved
                free = accepted & (curl < limit - 1e-9)
        return curl


def draw_grasp(rng: Rng, rig: HandRig, target: SceneObject, attempts: int = 8) -> Grasp | None:
    """Draw a grasp of an object: at least two fingers touch, nothing penetrates by more than MAX_PENETRATION_M.

    Returns None when no attempt gives a valid grasp.
    """
    owner = rig.weights.argmax(1)
    extent = np.sort(np.ptp(target.vertices, axis=0))
    thin = extent[1] < 0.025
    for _ in range(attempts * (3 if thin else 1)):
        weights = np.array([0.42, 0.28, 0.12, 0.1, 0.0]) if not thin else np.array([0.3, 0.15, 0.2, 0.0, 0.35])
        kind = str(rng.choice(KINDS, p=weights / weights.sum()))
        start, limit, spread, opposition = preshape(rng, kind)
        closer = ClosingHand(rig, draw_hand_shape(rng), owner, spread, opposition)
        vertices, keypoints, _ = closer.vertices(start)
        if kind == "pen":
            closed = closer.vertices(np.clip(start + 0.2, 0, 1))[1]
            rotation, translation = _place_pen(rng, target, closed)
        else:
            rotation, translation = _place_on_surface(rng, target, palm_anchor(vertices, keypoints), kind)
        grasp = close_on(closer, kind, target, (rotation, translation), start, limit)
        if grasp is not None:
            return grasp
    return None


def close_on(
    closer: ClosingHand,
    kind: str,
    target: SceneObject,
    pose: tuple[FloatArray, FloatArray],
    start: FloatArray,
    limit: FloatArray,
) -> Grasp | None:
    """Back off until the open hand is clear of the object, close, and check; None when the grasp is not valid."""
    clear = back_off(closer, kind, target, pose, start)
    return None if clear is None else checked(closer, closer.close(clear, start, limit), clear)


def back_off(
    closer: ClosingHand, kind: str, target: SceneObject, pose: tuple[FloatArray, FloatArray], curl: FloatArray
) -> Grasp | None:
    """Move the object away from the palm until the hand at a curl (5, 3) is clear of it; None when it never is."""
    rotation, translation = pose
    vertices, keypoints, rotations = closer.vertices(curl)
    for _ in range(16):
        grasp = Grasp(kind, closer.shape, rotations, vertices, keypoints, target, rotation, translation, ())
        depth = float(grasp.object_distance(vertices).min())
        if depth > -0.0008:
            return grasp
        translation = translation + np.array([0, 0, min(-0.8 * depth, 0.01) + 0.0005]) * -1.0
    return None


def checked(closer: ClosingHand, curl: FloatArray, grasp: Grasp) -> Grasp | None:
    """Return the grasp at a curl (5, 3) of the hand, with who touches; None when it is not valid."""
    vertices, keypoints, rotations = closer.vertices(curl)
    distance = grasp.object_distance(vertices)
    per_finger = [float(distance[closer.rig.vertex_finger == k].min()) for k in range(6)]
    names = ("thumb", "index", "middle", "ring", "little", "palm")
    touching = tuple(n for n, d in zip(names, per_finger, strict=True) if d < TOUCH_M)
    arm = np.array([[-x, 0, 0] for x in (0.05, 0.1, 0.15, 0.2)])
    blocked = grasp.object_distance(arm).min() < 0.035
    if distance.min() < -MAX_PENETRATION_M or len(touching) < 2 or blocked:
        return None
    if "thumb" not in touching and "palm" not in touching:
        return None
    return replace(grasp, joint_rotations=rotations, vertices=vertices, keypoints=keypoints, touching=touching)


def draw_free_hand(rng: Rng, rig: HandRig) -> Grasp:
    """Draw a hand that holds nothing, in a relaxed, open, pointing or closed pose."""
    amount = np.clip(rng.uniform(0, 0.8) + rng.normal(0, 0.12, (5, 1)) + rng.normal(0, 0.05, (5, 3)), 0, 1)
    if rng.random() < 0.4:
        amount[1:] *= rng.choice([0.1, 1.0], 4, p=[0.5, 0.5])[:, None]
    rotations = rig.curl(amount, rng.uniform(-0.5, 1.0), rng.uniform(0.0, 0.9))
    shape = draw_hand_shape(rng)
    vertices, keypoints = pose_hand(rig, shape, rotations)
    return Grasp("free", shape, rotations, vertices, keypoints, None, np.eye(3), np.zeros(3), ())
