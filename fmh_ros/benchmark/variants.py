# SPDX-License-Identifier: Apache-2.0
"""What is compared: the method, the method without each of its parts, with more or less time, and baselines.

A variant's name may begin with a preset's and a colon: ``paper:swapped`` is the paper's preset with phases swapped.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from fmh_ros.core.errors import UsageError
from fmh_ros.core.guidance.config import PRESETS, Ablation, GuidanceConfig, preset

#: The paper's ablation of phases (its Table 2), in its order.
PHASES = ("unguided", "no-hand-phase", "no-object-phase", "swapped", "joint-from-start")
#: Loss terms that are left out, one at a time (its Table 3, and what the table leaves out); "depth" is its disparity.
TERMS = ("normal", "depth", "silhouette", "surface", "intersection", "proximity", "keypoints", "ordering")
#: "no-grip" leaves the hand as the three phases leave it.
NO_GRIP = "no-grip"
LOSSES = (*(f"no-{term}" for term in TERMS), NO_GRIP)
#: Factors on the inner iterations of every phase beside 1, and numbers of samples beside 1.
EFFORTS = (0.25, 0.5, 2.0)
SAMPLES = (2, 4)
BUDGETS = tuple(f"effort-{factor:g}" for factor in EFFORTS) + tuple(f"samples-{count}" for count in SAMPLES)
BASELINES = ("unguided", "icp", "two-stage")
#: The object decoded densely and meshed at every iteration, as published, in place of its traced field.
SURFACES = ("dense-mesh",)
#: The same by the published rasteriser, which the user has to install: in no group.
PUBLISHED = "dense-mesh-pytorch3d"
#: Short names for several variants.
GROUPS: dict[str, tuple[str, ...]] = {
    "phases": PHASES,
    "losses": LOSSES,
    "budgets": BUDGETS,
    "baselines": BASELINES,
    "surfaces": SURFACES,
    "all": tuple(dict.fromkeys(("default", "unguided", "paper", *PHASES, *LOSSES, *BASELINES, *BUDGETS))),
}

_LABELS = {
    "default": "full method",
    "paper": "full method, paper preset",
    "unguided": "without guidance",
    "no-hand-phase": "without phase 1 (hand)",
    "no-object-phase": "without phase 2 (object)",
    "swapped": "phases 1 and 2 swapped",
    "joint-from-start": "all joint from the start",
    "icp": "unguided flow, ICP onto the visible points",
    "two-stage": "generate, then optimise poses only",
    NO_GRIP: "without laying the fingers on the object",
    "dense-mesh": "dense decoding and mesh in the loop",
    PUBLISHED: "dense decoding, mesh and PyTorch3D in the loop",
}


@dataclass(frozen=True)
class Variant:
    """One way to reconstruct.

    name : as on the command line; label : for tables. preset, config : guidance settings. samples : how many shapes
    are drawn. finish : "icp" registers the finished object to the visible points once more, with scale.
    """

    name: str
    label: str
    preset: str
    config: GuidanceConfig
    samples: int = 1
    finish: Literal["none", "icp"] = "none"


def variant(name: str) -> Variant:
    """Return a variant by name. Raises UsageError for a name that does not exist."""
    prefix, colon, rest = name.rpartition(":")
    if not colon:
        prefix, rest = ("paper", "default") if name == "paper" else ("default", name)
    config = preset(prefix)
    made = Variant(name, _label(name, rest), prefix, config)
    if rest == "icp":
        return replace(made, config=replace(config, ablation=Ablation(guided=False)), finish="icp")
    if rest in _CHANGES:
        return replace(made, config=_CHANGES[rest](config))
    if rest in _ABLATIONS:
        return replace(made, config=replace(config, ablation=_ABLATIONS[rest]))
    kind, _, value = rest.partition("-")
    if rest in LOSSES:
        return replace(made, config=config.without(value))
    if rest in BUDGETS:
        if kind == "samples":
            return replace(made, samples=int(value))
        return replace(made, config=config.with_effort(float(value)))
    raise UsageError(
        f"There is no variant {name!r}",
        expected="one of " + ", ".join((*GROUPS["all"], *SURFACES, PUBLISHED, *GROUPS)),
        change=f"Choose one of these with --variants; a preset may stand before it ({', '.join(PRESETS)}), as in "
        "paper:swapped",
    )


_ABLATIONS = {
    "default": Ablation(),
    "unguided": Ablation(guided=False),
    "no-hand-phase": Ablation(hand_phase=False),
    "no-object-phase": Ablation(object_phase=False),
    "swapped": Ablation(order="swapped"),
    "joint-from-start": Ablation(order="joint"),
}


def variants(names: Sequence[str]) -> tuple[Variant, ...]:
    """Return variants by name or group, each once. Raises UsageError."""
    single = [each for name in names for each in GROUPS.get(name, (name,))]
    return tuple(variant(name) for name in dict.fromkeys(single))


def two_stage(config: GuidanceConfig) -> GuidanceConfig:
    """Return a two-stage fit in the manner of EasyHOI: the shape is generated first, and stays as it is.

    The same losses then move the poses only, for as many iterations: hand, object and joint phase have the last three
    flow steps, whose clean estimates are within rounding the finished shape (the very last one is that shape). The
    grip follows, as in the full method.
    """
    joint_steps = config.flow_steps - config.first_guided_step - 2
    return replace(
        config,
        first_guided_step=config.flow_steps - 3,
        joint=replace(config.joint, iterations=joint_steps * config.joint.iterations),
        ablation=Ablation(steer_shape=False),
    )


def no_grip(config: GuidanceConfig) -> GuidanceConfig:
    """Return the same schedule whose hand moves as a whole alone."""
    return replace(config, grip=False)


def dense_mesh(config: GuidanceConfig) -> GuidanceConfig:
    """Return the same schedule over the object's mesh instead of its traced field."""
    return replace(config, object_surface="dense_mesh")


def dense_mesh_pytorch3d(config: GuidanceConfig) -> GuidanceConfig:
    """Return the same schedule over the object's mesh, rendered by PyTorch3D. Raises ModelMissingError without it."""
    from fmh_ros.core.fields.dense_pytorch3d import INSTALL
    from fmh_ros.core.pretrained import library

    library("pytorch3d.renderer", INSTALL)
    return replace(config, object_surface="dense_mesh_pytorch3d")


_CHANGES: dict[str, Callable[[GuidanceConfig], GuidanceConfig]] = {
    "two-stage": two_stage,
    NO_GRIP: no_grip,
    "dense-mesh": dense_mesh,
    PUBLISHED: dense_mesh_pytorch3d,
}


def _label(name: str, rest: str) -> str:
    if name in _LABELS:
        return _LABELS[name]
    kind, _, value = rest.partition("-")
    known = {"no": f"without {value}", "effort": f"{value} times the iterations", "samples": f"best of {value} samples"}
    label = _LABELS.get(rest) or known.get(kind, rest)
    return f"{label}, {name.rpartition(':')[0]} preset" if ":" in name else label
