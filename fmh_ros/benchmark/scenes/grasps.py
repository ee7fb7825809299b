# SPDX-License-Identifier: Apache-2.0
"""Grasps of given objects that could hold them: closed by the fingers, opposed, and clear of everything else.

The grasps are those of `training.scenes.grasp`, and pinches of small objects, which those seldom find. Kept are grasps
whose contacts push against each other, in which neither mesh is inside the other and the thumb passes no finger.
"""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from fmh_ros.core.fields.mesh_queries import MeshQueries
from fmh_ros.core.hand.rig import HandRig
from fmh_ros.training.scenes.grasp import (
    MAX_PENETRATION_M,
    TOUCH_M,
    ClosingHand,
    Grasp,
    HandShape,
    close_on,
    draw_grasp,
    draw_hand_shape,
)
from fmh_ros.training.scenes.objects import SceneObject

Rng = np.random.Generator
FloatArray = NDArray[np.float64]

#: Objects up to this long are pinched or wrapped alike often, longer ones are seldom pinched, metres.
SMALL_M = 0.075
PINCH_SHARES = (0.6, 0.1)
#: Surface normals at two fingers' contacts must differ by more than this: the object cannot slip out between them.
OPPOSED_COSINE = -0.35
#: Bones of the thumb and of another finger keep this apart: two half fingers, pressed together.
FINGER_M = 0.011
#: Room between the fingertips' pads and an object before they close on it, and half a finger, metres.
PINCH_ROOM_M, PAD_M = (0.003, 0.012), 0.008


def draw_held(rng: Rng, rig: HandRig, target: SceneObject, tries: int = 12) -> Grasp | None:
    """Draw a right hand's grasp of an object; None when ``tries`` attempts give none that could hold it."""
    small = float(np.ptp(target.vertices, axis=0).max()) <= SMALL_M
    for _ in range(tries):
        if rng.random() < PINCH_SHARES[0 if small else 1]:
            grasp = _draw_pinch(rng, rig, target)
        else:
            grasp = draw_grasp(rng, rig, target, attempts=2)
        if grasp is not None and could_hold(grasp, rig):
            return grasp
    return None


def could_hold(grasp: Grasp, rig: HandRig) -> bool:
    """Whether the contacts oppose each other, the object stays out of the hand, and the thumb out of the fingers."""
    return _opposed(grasp, rig) and _thumb_clear(grasp) and object_depth(grasp, rig) < MAX_PENETRATION_M


def object_depth(grasp: Grasp, rig: HandRig) -> float:
    """Depth in metres of the deepest vertex of the object inside the hand, 0 when none is."""
    assert grasp.object is not None
    points = grasp.object.vertices @ grasp.rotation.T + grasp.translation
    low, high = grasp.vertices.min(0), grasp.vertices.max(0)
    near = points[((points > low) & (points < high)).all(1)]
    if not len(near):
        return 0.0
    return max(0.0, -float(MeshQueries(grasp.vertices, rig.faces).nearest(near).signed_distance.min()))


def _opposed(grasp: Grasp, rig: HandRig) -> bool:
    """Whether the object's normals where two fingers (or the palm) touch it point away from each other."""
    assert grasp.object is not None
    local = (grasp.vertices - grasp.translation) @ grasp.rotation
    touching = np.flatnonzero(grasp.object.distance(local) < TOUCH_M)
    gaps = np.linalg.norm(local[touching][:, None] - grasp.object.vertices[None], axis=2)
    normals = grasp.object.normals[gaps.argmin(1)].astype(np.float64)
    fingers = rig.vertex_finger[touching]
    for first in np.unique(fingers):
        other = normals[fingers != first]
        if len(other) and (normals[fingers == first] @ other.T).min() < OPPOSED_COSINE:
            return True
    return False


def _thumb_clear(grasp: Grasp) -> bool:
    """Whether the thumb's two outer bones keep their distance from every other finger's bones."""
    thumb = _along(grasp.keypoints[2:5])
    others = np.concatenate([_along(grasp.keypoints[k : k + 4]) for k in (5, 9, 13, 17)])
    gap = np.linalg.norm(thumb[:, None] - others[None], axis=2).min()
    return bool(gap > FINGER_M * grasp.shape.scale)


def _along(joints: FloatArray) -> FloatArray:
    """Points (n, 3) along a chain of joints (m, 3), a few to each bone."""
    share = np.linspace(0, 1, 7)[:, None]
    return np.concatenate([a + share * (b - a) for a, b in itertools.pairwise(joints)])


def _draw_pinch(rng: Rng, rig: HandRig, target: SceneObject) -> Grasp | None:
    """Put the object between the pads of thumb and one or two fingers, then close; None when that fails."""
    rotation = np.asarray(Rotation.random(random_state=rng).as_matrix(), np.float64)
    turned = target.vertices @ rotation.T
    shape = draw_hand_shape(rng)
    tips = [8] if rng.random() < 0.4 else [8, 12]
    hold = _open_just_enough(rng, rig, shape, turned, tips)
    if hold is None:
        return None
    closer, curl, middle, axis = hold
    centre = (turned.max(0) + turned.min(0)) / 2
    off = rng.normal(0, 0.004, 3)
    # Fingers that do not take part flex a little; the others until they touch.
    chosen = np.zeros((5, 1), bool)
    chosen[[0, *(k // 4 - 1 for k in tips)]] = True
    limit = np.where(chosen, 1.0, np.minimum(curl + 0.15, 1))
    return close_on(closer, "pinch", target, (rotation, middle - centre + off - axis * (off @ axis)), curl, limit)


def _open_just_enough(
    rng: Rng, rig: HandRig, shape: HandShape, points: FloatArray, tips: list[int]
) -> tuple[ClosingHand, FloatArray, FloatArray, FloatArray] | None:
    """Find a hand whose pads leave little more room than an object's points (N, 3) need along the line between them.

    Returns the hand, its curl (5, 3), the middle between the pads (3,) and the direction from the thumb (3,); None when
    no hand drawn fits.
    """
    for _ in range(8):
        closer = ClosingHand(
            rig, shape, rig.weights.argmax(1), float(rng.uniform(-0.6, 0.3)), float(rng.uniform(0.25, 0.9))
        )
        curl = np.empty((5, 3))
        curl[0] = rng.uniform(0.15, 0.6)
        bend, fold = rng.uniform(0.7, 1.5), rng.uniform(0.0, 0.4)
        idle = slice(2 if 12 not in tips else 3, 5)
        for amount in np.linspace(0.75, 0.05, 15):
            curl[1:, 0], curl[1:, 1:] = amount, min(amount * bend, 1.0)
            curl[idle] = np.clip(curl[idle] + fold, 0, 1)
            keypoints = closer.vertices(curl)[1]
            across = keypoints[tips].mean(0) - keypoints[4]
            gap = float(np.linalg.norm(across))
            room = gap - float(np.ptp(points @ (across / gap))) - 2 * PAD_M * shape.scale
            if PINCH_ROOM_M[0] < room < PINCH_ROOM_M[1]:
                return closer, curl, (keypoints[tips].mean(0) + keypoints[4]) / 2, across / gap
    return None


def mirrored_object(target: SceneObject) -> SceneObject:
    """The object seen in a mirror at its frame's yz plane: what a right hand holds when a left one holds the object."""
    flip = np.array([-1.0, 1.0, 1.0])
    inner = target.distance
    return replace(
        target,
        distance=lambda points: inner(np.asarray(points) * flip),
        vertices=(target.vertices * flip).astype(np.float32),
        normals=(target.normals * flip).astype(np.float32),
        faces=np.ascontiguousarray(target.faces[:, ::-1]),
    )
