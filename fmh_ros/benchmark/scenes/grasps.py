# SPDX-License-Identifier: Apache-2.0
"""Grasps of given objects that could hold them: closed by the fingers, opposed, and clear of everything else.

The grasps are those of `training.scenes.grasp`, and pinches of small objects, which those seldom find. Kept are grasps
whose contacts push against each other, in which neither mesh is inside the other and the thumb passes no finger.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from fmh_ros.core.fields.mesh_queries import MeshQueries
from fmh_ros.core.hand.rig import HandRig
from fmh_ros.training.scenes.grasp import (
    MAX_PENETRATION_M,
    TOUCH_M,
    ClosingHand,
    Grasp,
    back_off,
    checked,
    draw_grasp,
    draw_hand_shape,
    face_palm,
    palm_anchor,
    preshape,
)
from fmh_ros.training.scenes.objects import SceneObject

Rng = np.random.Generator
FloatArray = NDArray[np.float64]

#: Objects up to this long are pinched or wrapped alike often, longer ones are seldom pinched, metres.
SMALL_M = 0.075
PINCH_SHARES = (0.6, 0.1)
#: Surface normals at two fingers' contacts must differ by more than this: the object cannot slip out between them.
OPPOSED_COSINE = -0.35
#: Flexions of the thumb that are tried.
THUMB_STEPS = np.linspace(0.0, 1.0, 11)
#: Within this and an edge of the mesh, distances are exact, metres.
NEAR_M = 0.004
#: Bones of the thumb and of another finger keep this apart: two half fingers, pressed together.
FINGER_M = 0.011
#: Room between the fingertips' pads and an object before they close on it, and half a finger, metres.
PINCH_ROOM_M, PAD_M = (0.003, 0.012), 0.008


def draw_held(rng: Rng, rig: HandRig, target: SceneObject, tries: int = 12) -> Grasp | None:
    """Draw a right hand's grasp of an object; None when ``tries`` attempts give none that could hold it."""
    small = float(np.ptp(target.vertices, axis=0).max()) <= SMALL_M
    target, exact = _quick_distance(target), target
    for _ in range(tries):
        way = rng.random()
        if way < PINCH_SHARES[0 if small else 1]:
            grasp = _draw_pinch(rng, rig, target)
        elif way < 0.85:
            grasp = _draw_wrap(rng, rig, target)
        else:
            grasp = draw_grasp(rng, rig, target, attempts=1)
        if grasp is not None and could_hold(grasp, rig):
            return replace(grasp, object=exact)
    return None


def _quick_distance(target: SceneObject) -> SceneObject:
    """The object with a distance that is exact near the surface and inside; elsewhere it is that of the nearest vertex.

    Most points of a hand are far from what it closes on, and exact distances to a scan take long.
    """
    tree, inner = cKDTree(target.vertices), target.distance
    edges = target.vertices[target.faces] - target.vertices[np.roll(target.faces, 1, 1)]
    near = NEAR_M + float(np.linalg.norm(edges, axis=2).max())

    def distance(points: NDArray[np.floating]) -> FloatArray:
        places = np.asarray(points, np.float64)
        result, vertex = tree.query(places)
        behind = np.einsum("nc,nc->n", places - target.vertices[vertex], target.normals[vertex]) < 0
        exact = np.flatnonzero(behind | (result < near))
        if len(exact):
            result[exact] = inner(places[exact])
        return np.asarray(result, np.float64)

    return replace(target, distance=distance)


def could_hold(grasp: Grasp, rig: HandRig) -> bool:
    """Whether the contacts oppose each other, the object stays out of the hand, and the thumb out of the fingers."""
    clear = bool((thumb_gaps(grasp.keypoints) > 0.9 * FINGER_M * grasp.shape.scale).all())
    clear = clear and not (grasp.kind == "carry" and "thumb" not in grasp.touching)
    return clear and _opposed(grasp, rig) and object_depth(grasp, rig) < MAX_PENETRATION_M


def object_depth(grasp: Grasp, rig: HandRig) -> float:
    """Depth in metres of the deepest vertex of the object inside the hand, 0 when none is."""
    return _deepest_point(grasp, rig)[0]


def _opposed(grasp: Grasp, rig: HandRig) -> bool:
    """Whether the object's normals where two fingers (or the palm) touch it point away from each other."""
    touching = np.flatnonzero(grasp.object_distance(grasp.vertices) < TOUCH_M)
    normals = _normals(grasp, grasp.vertices[touching])
    fingers = rig.vertex_finger[touching]
    for first in np.unique(fingers):
        other = normals[fingers != first]
        if len(other) and (normals[fingers == first] @ other.T).min() < OPPOSED_COSINE:
            return True
    return False


def _take(
    closer: ClosingHand,
    kind: str,
    target: SceneObject,
    pose: tuple[FloatArray, FloatArray],
    start: FloatArray,
    limit: FloatArray,
) -> Grasp | None:
    """Close the fingers, bring the thumb against them from the other side, loosen what cuts in; None if that fails."""
    clear = back_off(closer, kind, target, pose, start)
    if clear is None:
        return None
    limit = limit.copy()
    limit[0] = start[0]
    curl = closer.close(clear, start, limit)
    found = _oppose(closer, curl, clear)
    if found is None:
        return None
    loosened = _loosen(*found, start, clear)
    return None if loosened is None else checked(*loosened)


def _oppose(closer: ClosingHand, curl: FloatArray, grasp: Grasp) -> tuple[ClosingHand, FloatArray] | None:
    """Find the opposition and flexion of the thumb that touch the object most opposite to the other fingers."""
    assert grasp.object is not None
    rig = closer.rig
    vertices = closer.vertices(curl)[0]
    touched = (grasp.object_distance(vertices) < TOUCH_M) & (rig.vertex_finger != 0)
    if not touched.any():
        return None
    against = _normals(grasp, vertices[touched]).mean(0)
    own = np.flatnonzero(np.isin(closer.owner, (1, 2, 3)))
    best: tuple[float, ClosingHand, FloatArray] | None = None
    for opposition in np.linspace(0.0, 1.0, 6):
        for bend in (0.5, 1.3):
            hand = replace(closer, opposition=float(opposition))
            curls = np.repeat(curl[None], len(THUMB_STEPS), 0)
            curls[:, 0] = np.clip(THUMB_STEPS[:, None] * np.array([1.0, 1.0, bend]), 0, 1)
            posed = np.stack([hand.vertices(c)[0][own] for c in curls])
            gap = grasp.object_distance(posed.reshape(-1, 3)).reshape(len(curls), -1).min(1)
            hits = np.flatnonzero(gap < 0)
            last = (int(hits[0]) if len(hits) else len(gap)) - 1
            if last < 0 or (gap[last] > TOUCH_M and not len(hits)):
                continue
            near = gap[last] < TOUCH_M / 2 or not len(hits)
            final = curls[last] if near else _between(hand, grasp, own, curls[last], curls[last + 1])
            tip, keypoints, _ = hand.vertices(final)
            if (thumb_gaps(keypoints) < FINGER_M * closer.shape.scale).any():
                continue
            first = own[grasp.object_distance(tip[own]).argmin()]
            score = float(_normals(grasp, tip[first][None])[0] @ against)
            if best is None or score < best[0]:
                best = (score, hand, final)
    return None if best is None else best[1:]


def _between(
    hand: ClosingHand, grasp: Grasp, own: NDArray[np.int64], free: FloatArray, inside: FloatArray
) -> FloatArray:
    """The curl between a free one and one that cuts in, at which the vertices ``own`` just touch."""
    for _ in range(5):
        middle = (free + inside) / 2
        if grasp.object_distance(hand.vertices(middle)[0][own]).min() < 0:
            inside = middle
        else:
            free = middle
    return free


def _loosen(
    closer: ClosingHand, curl: FloatArray, start: FloatArray, grasp: Grasp
) -> tuple[ClosingHand, FloatArray, Grasp] | None:
    """Open fingers that a thin edge of the object cuts into, and move it off the palm; None when that does not help."""
    for _ in range(12):
        vertices = closer.vertices(curl)[0]
        deep, place = _deepest_point(replace(grasp, vertices=vertices), closer.rig)
        if deep < 0.7 * MAX_PENETRATION_M:
            return closer, curl, grasp
        bone = int(closer.owner[np.linalg.norm(vertices - place, axis=1).argmin()])
        if bone == 0:
            grasp = replace(grasp, translation=grasp.translation - np.array([0, 0, deep]))
        else:
            curl = curl.copy()
            finger = (bone - 1) // 3
            curl[finger] = np.maximum(curl[finger] - 0.03, np.minimum(start[finger], curl[finger]))
    return None


def _deepest_point(grasp: Grasp, rig: HandRig) -> tuple[float, FloatArray]:
    """Depth in metres of the object's vertex deepest inside the hand, 0 when none is, and where it is (3,)."""
    assert grasp.object is not None
    points = grasp.object.vertices @ grasp.rotation.T + grasp.translation
    low, high = grasp.vertices.min(0), grasp.vertices.max(0)
    near = points[((points > low) & (points < high)).all(1)]
    if not len(near):
        return 0.0, np.zeros(3)
    distance = MeshQueries(grasp.vertices, rig.faces).nearest(near).signed_distance
    return max(0.0, -float(distance.min())), near[distance.argmin()]


def thumb_gaps(keypoints: FloatArray) -> FloatArray:
    """Smallest distance (4,), metres, of the thumb's two outer bones to the bones of each other finger."""
    share = np.linspace(0, 1, 7)[:, None, None]
    bones = [keypoints[k : k + 3] + share * (keypoints[k + 1 : k + 4] - keypoints[k : k + 3]) for k in (5, 9, 13, 17)]
    thumb = (keypoints[2:4] + share * (keypoints[3:5] - keypoints[2:4])).reshape(-1, 1, 3)
    return np.array([np.linalg.norm(thumb - bone.reshape(1, -1, 3), axis=2).min() for bone in bones])


def _normals(grasp: Grasp, points: FloatArray) -> FloatArray:
    """The object's normals (N, 3), hand frame, where it is nearest to points (N, 3) of the hand."""
    assert grasp.object is not None
    local = (points - grasp.translation) @ grasp.rotation
    gaps = np.linalg.norm(local[:, None] - grasp.object.vertices[None], axis=2)
    return np.asarray(grasp.object.normals[gaps.argmin(1)] @ grasp.rotation.T, np.float64)


def _hand(rng: Rng, rig: HandRig, spread: float, opposition: float) -> ClosingHand:
    shape = draw_hand_shape(rng)
    return ClosingHand(rig, shape, rig.weights.argmax(1), spread, opposition, dense=True)


def _draw_wrap(rng: Rng, rig: HandRig, target: SceneObject) -> Grasp | None:
    """Put the palm where fingers and thumb reach round the object, then close; None when that fails."""
    kind = "wrap" if rng.random() < 0.65 else "precision"
    start, limit, spread, _ = preshape(rng, kind)
    closer = _hand(rng, rig, spread, float(rng.uniform(0.6, 1.0)))
    vertices, keypoints, _ = closer.vertices(start)
    place = face_palm(rng, *_narrow_place(rng, target), palm_anchor(vertices, keypoints), kind)
    return _take(closer, kind, target, place, start, limit)


def _narrow_place(rng: Rng, target: SceneObject) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Draw a surface point, its normal and a direction across the palm: where the object is narrow between thumb and
    fingers."""
    vertices = target.vertices.astype(np.float64)
    best: tuple[float, FloatArray, FloatArray, FloatArray] | None = None
    for _ in range(24):
        pick = int(rng.integers(len(vertices)))
        p, n = vertices[pick], target.normals[pick].astype(np.float64)
        angle = rng.uniform(0, np.pi)
        side = np.cross(n, np.eye(3)[int(np.abs(n).argmin())])
        side /= np.linalg.norm(side)
        along = np.cos(angle) * side + np.sin(angle) * np.cross(n, side)
        across = np.cross(along, n)
        offset = vertices - p
        # What the fingers have to reach round: a slice as wide as the palm, as deep as the fingers are long.
        slab = offset[(np.abs(offset @ along) < 0.035) & (offset @ n > -0.06)] @ across
        width = float(np.ptp(slab)) * rng.uniform(0.8, 1.25)
        if best is None or width < best[0]:
            best = (width, p + across * (slab.max() + slab.min()) / 2, n, along)
    assert best is not None
    return best[1:]


def _draw_pinch(rng: Rng, rig: HandRig, target: SceneObject) -> Grasp | None:
    """Put the object between the pads of thumb and one or two fingers, then close; None when that fails."""
    rotation = np.asarray(Rotation.random(random_state=rng).as_matrix(), np.float64)
    turned = target.vertices @ rotation.T
    tips = [8] if rng.random() < 0.4 else [8, 12]
    hold = _open_just_enough(rng, rig, turned, tips)
    if hold is None:
        return None
    closer, curl, middle, axis = hold
    centre = (turned.max(0) + turned.min(0)) / 2
    off = rng.normal(0, 0.004, 3)
    # Fingers that do not take part flex a little; the others until they touch.
    chosen = np.zeros((5, 1), bool)
    chosen[[0, *(k // 4 - 1 for k in tips)]] = True
    limit = np.where(chosen, 1.0, np.minimum(curl + 0.15, 1))
    return _take(closer, "pinch", target, (rotation, middle - centre + off - axis * (off @ axis)), curl, limit)


def _open_just_enough(
    rng: Rng, rig: HandRig, points: FloatArray, tips: list[int]
) -> tuple[ClosingHand, FloatArray, FloatArray, FloatArray] | None:
    """Find a hand whose pads leave little more room than an object's points (N, 3) need along the line between them.

    Returns the hand, its curl (5, 3), the middle between the pads (3,) and the direction from the thumb (3,); None when
    no hand drawn fits.
    """
    for _ in range(8):
        closer = _hand(rng, rig, float(rng.uniform(-0.6, 0.3)), float(rng.uniform(0.25, 0.9)))
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
            room = gap - float(np.ptp(points @ (across / gap))) - 2 * PAD_M * closer.shape.scale
            clear = (thumb_gaps(keypoints) > 1.3 * FINGER_M * closer.shape.scale).all()
            if clear and PINCH_ROOM_M[0] < room < PINCH_ROOM_M[1]:
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
