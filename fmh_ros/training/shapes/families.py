# SPDX-License-Identifier: Apache-2.0
"""Families of hand-holdable shapes. Each takes a random generator and returns a signed distance function.

Shapes are built around the origin with a longest side of roughly 1 to 2 units; the view sampler measures and rescales
them, so only proportions matter. Walls are never thinner than about a thirtieth of the longest side, because the
generator's grid could not hold them.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator

from fmh_ros.training.shapes import primitives as sdf
from fmh_ros.training.shapes.primitives import Sdf

Rng = np.random.Generator
Family = Callable[[Rng], Sdf]


def _smooth_profile(knots: NDArray[np.floating], count: int = 28) -> NDArray[np.float64]:
    """Interpolate (radius, y) knots, y increasing, to a monotone-smooth outline."""
    y = np.linspace(knots[0, 1], knots[-1, 1], count)
    return np.stack([PchipInterpolator(knots[:, 1], knots[:, 0])(y), y], 1)


def _closed(outline: NDArray[np.floating]) -> NDArray[np.float64]:
    """Close a (radius, y) outline on the axis."""
    return np.concatenate([[[0.0, outline[0, 1]]], outline, [[0.0, outline[-1, 1]]]])


def _hollow(outline: NDArray[np.floating], wall: float, floor: float) -> NDArray[np.float64]:
    """Turn an outer (radius, y) outline, open at its high-y end, into a vessel with a wall and a floor."""
    inner = outline.copy()
    inner[:, 0] = np.maximum(inner[:, 0] - wall, 0.01)
    inner = inner[inner[:, 1] > outline[0, 1] + floor]
    start = np.array([[0.0, outline[0, 1] + floor], [inner[0, 0], outline[0, 1] + floor]])
    return np.concatenate([[[0.0, outline[0, 1]]], outline, inner[::-1], start[::-1]])


def cuboid(rng: Rng) -> Sdf:
    """Boxes, cartons, books."""
    half = rng.uniform(0.18, 1.0, 3)
    return sdf.box(half, float(rng.uniform(0.0, 0.25) * half.min()))


def slab(rng: Rng) -> Sdf:
    """Phones, remotes, tablets, bars of soap."""
    w, t = rng.uniform(0.3, 0.75), rng.uniform(0.06, 0.2)
    if rng.random() < 0.4:
        return sdf.superquadric([w, 1.0, t * 1.3], rng.uniform(0.25, 0.6), rng.uniform(0.25, 0.8))
    return sdf.box([w, 1.0, t], float(rng.uniform(0.2, 0.95) * t))


def can(rng: Rng) -> Sdf:
    """Cans and jars, with a neck at either rim."""
    r = rng.uniform(0.3, 0.75)
    body = sdf.cylinder(r, 1.0, float(rng.uniform(0.02, 0.12)))
    if rng.random() < 0.4:
        lid = sdf.cylinder(r * rng.uniform(0.8, 1.07), 0.12, 0.03)
        return sdf.union(body, sdf.moved(lid, [0, 1.05, 0]))
    return body


def bottle(rng: Rng) -> Sdf:
    """Bottles of round or square section with shoulder, neck and cap."""
    r, neck = rng.uniform(0.25, 0.5), rng.uniform(0.08, 0.2)
    shoulder, top = rng.uniform(0.1, 0.5), 1.0
    waist = r * rng.uniform(0.8, 1.0)
    knots = np.array(
        [
            [r * 0.93, -1.0],
            [r, -0.93],
            [waist, rng.uniform(-0.6, -0.1)],
            [r, shoulder - 0.05],
            [neck * rng.uniform(1.0, 1.4), shoulder + rng.uniform(0.15, 0.35)],
            [neck, top - 0.12],
            [neck * rng.uniform(0.95, 1.25), top],
        ]
    )
    knots = knots[np.argsort(knots[:, 1], kind="stable")]
    knots[:, 1] += np.arange(len(knots)) * 1e-4
    body = sdf.revolution(_closed(_smooth_profile(knots)))
    if rng.random() < 0.3:
        flat = rng.uniform(0.5, 0.9)
        body = sdf.intersection(body, sdf.box([r * 1.1, 1.2, r * flat], 0.1 * r))
    return body


def _handle(rng: Rng, radius: float, low: float, high: float) -> Sdf:
    """A handle beside a vessel of this radius between two heights, in the xy plane."""
    middle, half = (low + high) / 2, (high - low) / 2
    minor = rng.uniform(0.06, 0.11)
    major = min(half, rng.uniform(0.28, 0.45))
    ring = sdf.torus(major, minor, max(half - major, 0.0))
    return sdf.moved(ring, [radius + rng.uniform(-0.08, 0.05), middle, 0])


def mug(rng: Rng) -> Sdf:
    """Mugs: hollow or full to the brim, with a handle."""
    r = rng.uniform(0.5, 0.8)
    h = rng.uniform(0.55, 1.0)
    knots = np.array([[r * rng.uniform(0.75, 1.0), -h], [r, 0.0], [r * rng.uniform(0.95, 1.1), h]])
    outline = _smooth_profile(knots, 14)
    solid = sdf.revolution(_closed(outline))
    vessel = sdf.revolution(_hollow(outline, 0.1, 0.14)) if rng.random() < 0.75 else solid
    handle = sdf.difference(_handle(rng, r, -0.7 * h, 0.7 * h), solid)
    return sdf.union(vessel, handle)


def cup(rng: Rng) -> Sdf:
    """Paper cups and tumblers, open, full or with a lid."""
    top, bottom, h = rng.uniform(0.42, 0.65), rng.uniform(0.3, 0.5), rng.uniform(0.7, 1.0)
    outline = _smooth_profile(np.array([[bottom, -h], [(top + bottom) / 2, 0.0], [top, h]]), 10)
    kind = rng.random()
    if kind < 0.45:
        return sdf.revolution(_hollow(outline, 0.09, 0.1))
    body = sdf.revolution(_closed(outline))
    if kind < 0.6:
        return body
    lid = sdf.cylinder(top * 1.06, 0.08, 0.03)
    crown = sdf.cylinder(top * rng.uniform(0.75, 0.95), 0.16, 0.05)
    return sdf.union(body, sdf.moved(lid, [0, h, 0]), sdf.moved(crown, [0, h + 0.06, 0]))


def bowl(rng: Rng) -> Sdf:
    """Bowls and plates."""
    r, h = 1.0, rng.uniform(0.18, 0.8)
    base = rng.uniform(0.3, 0.6)
    knots = np.array([[base, -h / 2], [base + (r - base) * rng.uniform(0.5, 0.85), -h / 2 + 0.4 * h], [r, h / 2]])
    return sdf.revolution(_hollow(_smooth_profile(knots, 12), 0.1, 0.1))


def glass(rng: Rng) -> Sdf:
    """Stemmed glasses, goblets and egg cups."""
    bowl_r, stem, foot = rng.uniform(0.3, 0.5), rng.uniform(0.06, 0.1), rng.uniform(0.3, 0.45)
    split = rng.uniform(-0.2, 0.1)
    cup_knots = np.array([[0.09, split], [bowl_r, split + 0.45], [bowl_r * rng.uniform(0.75, 1.05), 1.0]])
    outline = _smooth_profile(cup_knots, 14)
    vessel = sdf.revolution(_hollow(outline, 0.08, 0.1)) if rng.random() < 0.6 else sdf.revolution(_closed(outline))
    return sdf.smooth_union(
        [
            vessel,
            sdf.capsule([0, -0.9, 0], [0, split + 0.1, 0], stem),
            sdf.moved(sdf.cylinder(foot, 0.06, 0.04), [0, -0.94, 0]),
        ],
        0.06,
    )


def pitcher(rng: Rng) -> Sdf:
    """Jugs, watering cans and teapots: a belly with handle and spout."""
    r, h = rng.uniform(0.4, 0.6), rng.uniform(0.6, 0.95)
    knots = np.array([[r * 0.8, -h], [r, -0.2 * h], [r * rng.uniform(0.6, 1.0), 0.6 * h], [r * 0.85, h]])
    solid = sdf.revolution(_closed(_smooth_profile(knots, 16)))
    handle = sdf.difference(_handle(rng, r * 0.9, -0.6 * h, 0.75 * h), solid)
    reach = rng.uniform(1.15, 1.8) * r
    spout = sdf.capsule([-0.6 * r, rng.uniform(-0.2, 0.5) * h, 0], [-reach, rng.uniform(0.6, 1.0) * h, 0], 0.14, 0.07)
    return sdf.union(solid, handle, spout)


def stick(rng: Rng) -> Sdf:
    """Pens, markers, screwdrivers, toothbrushes, candles: solids of revolution, long and thin."""
    r = rng.uniform(0.05, 0.14)
    count = int(rng.integers(3, 6))
    ys = np.sort(np.concatenate([[-1.0, 1.0], rng.uniform(-0.8, 0.8, count)])) + np.arange(count + 2) * 1e-3
    radii = r * rng.uniform(0.55, 1.25, count + 2)
    return sdf.revolution(_closed(_smooth_profile(np.stack([radii, ys], 1), 24)))


def hammer(rng: Rng) -> Sdf:
    """Hammers, mallets, brushes, axes: a handle with a head across its end."""
    grip = sdf.capsule([0, -1.0, 0], [0, 0.7, 0], rng.uniform(0.07, 0.12), rng.uniform(0.06, 0.1))
    w, h, d = rng.uniform(0.25, 0.6), rng.uniform(0.1, 0.25), rng.uniform(0.08, 0.25)
    if rng.random() < 0.5:
        head = sdf.moved(sdf.cylinder(h, w, 0.04), [rng.uniform(-0.2, 0.2), 0.75, 0], sdf.rotation_about(2, np.pi / 2))
    else:
        head = sdf.moved(sdf.box([w, h, d], 0.04), [rng.uniform(-0.2, 0.2), 0.75, 0])
    return sdf.union(grip, head)


def drill(rng: Rng) -> Sdf:
    """Drills, glue guns, hair dryers, spray triggers: a barrel on a grip."""
    r = rng.uniform(0.16, 0.28)
    barrel = sdf.moved(sdf.cylinder(r, rng.uniform(0.4, 0.6), 0.06), [0.1, 0.45, 0], sdf.rotation_about(2, np.pi / 2))
    nose = sdf.capsule([0.5, 0.45, 0], [rng.uniform(0.75, 1.0), 0.45, 0], r * 0.7, rng.uniform(0.06, 0.12))
    lean = rng.uniform(0.0, 0.3)
    grip = sdf.capsule([-0.05, 0.35, 0], [-0.05 - lean, -0.6, 0], rng.uniform(0.12, 0.17), rng.uniform(0.11, 0.17))
    parts = [barrel, nose, grip]
    if rng.random() < 0.6:
        parts.append(sdf.moved(sdf.box([0.28, 0.13, 0.18], 0.05), [-0.05 - lean, -0.72, 0]))
    return sdf.smooth_union(parts, 0.06)


def scissors(rng: Rng) -> Sdf:
    """Scissors and pliers: two crossing blades with ring or bar handles, flat."""
    spread, t = rng.uniform(0.05, 0.5), rng.uniform(0.05, 0.08)
    rings = rng.random() < 0.7
    parts: list[Sdf] = []
    for sign in (-1, 1):
        blade = sdf.box([rng.uniform(0.07, 0.1), 0.5, t], 0.02)
        arm = sdf.capsule([0, 0, 0], [0, -0.45, 0], 0.07)
        loop = sdf.torus(0.17, 0.06, rng.uniform(0, 0.12)) if rings else sdf.capsule([0, 0.2, 0], [0, -0.4, 0], 0.08)
        one = sdf.union(sdf.moved(blade, [0, 0.45, 0]), arm, sdf.moved(loop, [sign * (0.1 if rings else 0.0), -0.6, 0]))
        parts.append(sdf.moved(one, [0, 0, 0.02 * sign], sdf.rotation_about(2, sign * spread / 2)))
    return sdf.union(*parts)


def utensil(rng: Rng) -> Sdf:
    """Spoons, spatulas, knives, combs, ladles: a flat or dished end on a handle."""
    handle = sdf.capsule([0, -1, 0], [0, 0.35, 0], rng.uniform(0.055, 0.1), rng.uniform(0.05, 0.07))
    kind = rng.random()
    w = rng.uniform(0.12, 0.3)
    if kind < 0.4:
        end = sdf.ellipsoid([w, rng.uniform(0.25, 0.4), 0.09])
    elif kind < 0.75:
        end = sdf.box([w, rng.uniform(0.3, 0.45), 0.055], 0.03)
    else:
        end = sdf.sphere(w)
    return sdf.smooth_union([handle, sdf.moved(end, [0, 0.62, 0])], 0.05)


def banana(rng: Rng) -> Sdf:
    """Bananas, hooks, horns, handles."""
    angle = rng.uniform(0.5, 1.5)
    thick = rng.uniform(0.1, 0.24)
    return sdf.arc(1.0 / angle, angle, thick, thick * rng.uniform(0.3, 0.9))


def fruit(rng: Rng) -> Sdf:
    """Balls, eggs, fruit, stones."""
    body = sdf.ellipsoid(rng.uniform(0.65, 1.0, 3)) if rng.random() < 0.6 else sdf.sphere(1.0)
    if rng.random() < 0.4:
        bump = sdf.moved(sdf.sphere(rng.uniform(0.3, 0.6)), rng.normal(0, 0.5, 3))
        return sdf.smooth_union([body, bump], 0.3)
    return body


def superquadric(rng: Rng) -> Sdf:
    """Rounded blocks between box, cylinder and ellipsoid."""
    return sdf.superquadric(rng.uniform(0.3, 1.0, 3), rng.uniform(0.3, 1.0), rng.uniform(0.3, 1.0))


def prism(rng: Rng) -> Sdf:
    """Prisms of three to eight sides, some tapered stars."""
    n = int(rng.integers(3, 9))
    angles = np.arange(n) * 2 * np.pi / n
    radius = rng.uniform(0.35, 0.9)
    polygon = radius * np.stack([np.cos(angles), np.sin(angles)], 1) * rng.uniform(0.75, 1.0, (1, 2))
    return sdf.extrusion(polygon, rng.uniform(0.2, 1.0), 0.03)


def ring(rng: Rng) -> Sdf:
    """Rolls of tape, rings, doughnuts, wheels."""
    minor = rng.uniform(0.12, 0.35)
    if rng.random() < 0.5:
        return sdf.torus(1.0 - minor, minor)
    outer = sdf.cylinder(1.0, rng.uniform(0.15, 0.5), 0.04)
    return sdf.difference(outer, sdf.cylinder(rng.uniform(0.35, 0.75), 2.0))


def blob(rng: Rng) -> Sdf:
    """Toys, animals, puppets: fused ellipsoids and limbs."""
    parts: list[Sdf] = [sdf.ellipsoid(rng.uniform(0.35, 0.7, 3))]
    for _ in range(int(rng.integers(2, 6))):
        direction = rng.normal(size=3)
        direction /= np.linalg.norm(direction)
        start = 0.35 * direction
        if rng.random() < 0.5:
            parts.append(sdf.moved(sdf.ellipsoid(rng.uniform(0.15, 0.4, 3)), rng.uniform(0.45, 0.75) * direction))
        else:
            tip = direction * rng.uniform(0.7, 1.0) + rng.normal(0, 0.1, 3)
            parts.append(sdf.capsule(start.tolist(), tip.tolist(), rng.uniform(0.1, 0.2), rng.uniform(0.08, 0.15)))
    return sdf.smooth_union(parts, rng.uniform(0.05, 0.2))


def assembly(rng: Rng) -> Sdf:
    """Constructions of blocks, rods and discs, some with cuts."""
    parts: list[Sdf] = []
    position = np.zeros(3)
    for _ in range(int(rng.integers(2, 5))):
        kind = rng.random()
        size = rng.uniform(0.15, 0.55, 3)
        if kind < 0.5:
            part = sdf.box(size, 0.03)
        elif kind < 0.8:
            part = sdf.cylinder(size[0], size[1], 0.03)
        else:
            part = sdf.ellipsoid(size)
        axis = int(rng.integers(0, 3))
        parts.append(sdf.moved(part, position, sdf.rotation_about(axis, rng.choice([0, np.pi / 2, rng.uniform(0, 3)]))))
        position = position + rng.normal(0, 0.35, 3)
    whole = sdf.union(*parts)
    if rng.random() < 0.3:
        whole = sdf.difference(whole, sdf.moved(sdf.sphere(rng.uniform(0.2, 0.4)), rng.normal(0, 0.5, 3)))
    return whole


def glider(rng: Rng) -> Sdf:
    """Toy planes, crosses, dragonflies: a body with wings."""
    body = sdf.capsule([0, -0.9, 0], [0, 0.9, 0], rng.uniform(0.07, 0.16), rng.uniform(0.07, 0.2))
    wing = sdf.box([rng.uniform(0.5, 1.0), rng.uniform(0.12, 0.3), 0.05], 0.02)
    tail = sdf.box([rng.uniform(0.2, 0.4), rng.uniform(0.08, 0.15), 0.05], 0.02)
    fin = sdf.box([0.05, rng.uniform(0.08, 0.15), rng.uniform(0.15, 0.3)], 0.02)
    return sdf.union(
        body,
        sdf.moved(wing, [0, rng.uniform(0.0, 0.4), rng.uniform(-0.1, 0.1)]),
        sdf.moved(tail, [0, -0.8, 0]),
        sdf.moved(fin, [0, -0.8, 0.15]),
    )


def camera_body(rng: Rng) -> Sdf:
    """Cameras, tape measures, clocks, mice, dispensers: a block with something round on it."""
    half = np.array([rng.uniform(0.5, 1.0), rng.uniform(0.4, 0.8), rng.uniform(0.2, 0.5)])
    body = sdf.superquadric(half, 0.35, 0.35) if rng.random() < 0.5 else sdf.box(half, 0.35 * half.min())
    lens = sdf.cylinder(rng.uniform(0.4, 0.9) * half[1], rng.uniform(0.1, 0.4), 0.04)
    turned = sdf.rotation_about(0, np.pi / 2)
    return sdf.union(body, sdf.moved(lens, [rng.uniform(-0.3, 0.3), 0, half[2]], turned))


#: Name to family, with the weight it is drawn with.
FAMILIES: dict[str, tuple[Family, float]] = {
    "cuboid": (cuboid, 1.3),
    "slab": (slab, 1.2),
    "can": (can, 1.2),
    "bottle": (bottle, 1.3),
    "mug": (mug, 1.2),
    "cup": (cup, 1.2),
    "bowl": (bowl, 0.8),
    "glass": (glass, 0.5),
    "pitcher": (pitcher, 0.7),
    "stick": (stick, 1.0),
    "hammer": (hammer, 0.7),
    "drill": (drill, 0.8),
    "scissors": (scissors, 0.7),
    "utensil": (utensil, 0.7),
    "banana": (banana, 0.6),
    "fruit": (fruit, 1.0),
    "superquadric": (superquadric, 0.9),
    "prism": (prism, 0.7),
    "ring": (ring, 0.5),
    "blob": (blob, 1.0),
    "assembly": (assembly, 1.0),
    "glider": (glider, 0.5),
    "camera_body": (camera_body, 0.8),
}


def draw_shape(rng: Rng, family: str | None = None) -> tuple[str, Sdf]:
    """Draw a family by weight (or take the named one) and a shape from it; returns (family name, distance)."""
    if family is None:
        names = list(FAMILIES)
        weights = np.array([FAMILIES[n][1] for n in names])
        family = str(rng.choice(names, p=weights / weights.sum()))
    return family, FAMILIES[family][0](rng)
