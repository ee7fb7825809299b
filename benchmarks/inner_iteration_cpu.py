# SPDX-License-Identifier: Apache-2.0
"""Where the time of one inner iteration of guidance goes, on one core, as shares of the whole.

``python benchmarks/inner_iteration_cpu.py``: a synthetic scene, the embedded generator, the joint phase.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch

from fmh_ros.core.cues.completion import complete_view
from fmh_ros.core.cues.point_map import SensorPointMapper
from fmh_ros.core.cues.types import SceneMasks
from fmh_ros.core.fields.mesh import mesh_field
from fmh_ros.core.fields.pose import PoseParameters
from fmh_ros.core.fields.render import RenderSettings, render
from fmh_ros.core.flow.embedded.model import WEIGHTS, EmbeddedShapeModel
from fmh_ros.core.flow.sampler import clean_estimate, euler_step, initial_noise, sigmas
from fmh_ros.core.guidance.config import BodyWeights, PairWeights, preset
from fmh_ros.core.guidance.objective import Bodies, Objective
from fmh_ros.core.guidance.supervision import build_supervision
from fmh_ros.core.hand.fit import fit_hand
from fmh_ros.core.hand.rig import load_generic_rig
from fmh_ros.training.scenes.truth import draw_truth

REPEATS = 15
#: Seed of scene 0.
FIRST_SEED = 4242


def median_ms(action: Callable[[], object]) -> float:
    """Median processor milliseconds of ``action``, warmed up; hardly changed by what else the machine does."""
    seconds = []
    for _ in range(REPEATS + 2):
        begin = time.process_time()
        action()
        seconds.append(time.process_time() - begin)
    return 1e3 * float(np.median(seconds[2:]))


def decoding_ms(model: EmbeddedShapeModel, latent: torch.Tensor) -> tuple[float, float]:
    """Milliseconds to decode one latent with its gradient: frozen, and as torch does for weights that are trained."""
    trained = deepcopy(model.decoder).requires_grad_(True)

    def decode(decoder: torch.nn.Module) -> None:
        decoder(latent.clone().requires_grad_(True)).sum().backward()

    return median_ms(lambda: decode(model.decoder)), median_ms(lambda: decode(trained))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", type=Path, default=WEIGHTS)
    parser.add_argument("--scene", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rig, model, config = load_generic_rig(), EmbeddedShapeModel(arguments.weights), preset("default")
    model.load()
    truth = draw_truth(FIRST_SEED + arguments.scene, rig)
    frame, seen = truth.frame, truth.observation()
    whole = truth.amodal_mask.astype(np.float32)
    masks = SceneMasks(truth.hand_mask, truth.object_mask, truth.object_mask.astype(np.float32), whole, 1.0)
    points = SensorPointMapper().map_points(frame, seen, masks)
    hand = fit_hand(seen, frame.camera, rig, depth=frame.depth, hand_mask=masks.hand).mesh
    view = complete_view(frame, masks, points, hand)
    supervision = build_supervision(frame, masks, points, seen, config.render_size)
    begin = time.process_time()
    field_of_hand = mesh_field(hand.vertices, hand.faces)
    sampling = time.process_time() - begin
    objective = Objective(supervision, hand, field_of_hand, config)

    condition, levels = model.encode_condition(view), sigmas(config.flow_steps)
    x = initial_noise(model.latent_shape, torch.Generator().manual_seed(0))
    velocity = x
    for here, there in pairwise(levels[:13]):
        velocity = model.velocity(x, here, condition)
        x = euler_step(x, velocity, here, there)
    change = torch.zeros_like(x, requires_grad=True)
    hand_pose = PoseParameters(hand.T_camera_hand, hand.vertices.mean(0))
    pose = PoseParameters(view.T_camera_view, np.zeros(3))
    field = model.decode(clean_estimate(x, velocity, levels[12]))
    bodies = Bodies(hand_pose, pose, field)
    joint = config.joint
    nothing, alone = BodyWeights(), PairWeights()

    def loss(bodies: Bodies, **changes: object) -> torch.Tensor:
        terms = objective.terms(replace(joint, **changes), bodies)  # type: ignore[arg-type]
        return torch.stack(list(terms.values())).sum()

    def iterate() -> None:
        decoded = model.decode(clean_estimate(x, velocity + change, levels[12]))
        loss(Bodies(hand_pose, pose, decoded)).backward()  # type: ignore[no-untyped-call]

    pair = PairWeights(intersection=1.0, proximity=1.0)
    parts = {
        "whole iteration, forward and backward": median_ms(iterate),
        "decode": median_ms(lambda: model.decode(clean_estimate(x, velocity + change, levels[12]))),
        "object: images and losses": median_ms(lambda: loss(bodies, hand=nothing, pair=alone)),
        "hand: images and losses": median_ms(lambda: loss(Bodies(hand_pose, None, None), pair=alone)),
        "contact between them": median_ms(
            lambda: loss(bodies, hand=nothing, object=BodyWeights(rotation=1), pair=pair)
        ),
        "all losses together, with order of depth": median_ms(lambda: loss(bodies)),
    }
    whole = parts["whole iteration, forward and backward"]
    print(f"{'part':44s} {'ms':>7s} {'share':>6s}")
    for name, milliseconds in parts.items():
        print(f"{name:44s} {milliseconds:7.1f} {milliseconds / whole:6.2f}")
    rest = whole - parts["decode"] - parts["all losses together, with order of depth"]
    print(f"{'backward (the rest)':44s} {rest:7.1f} {rest / whole:6.2f}")
    full = median_ms(lambda: render(field, pose.pose(), supervision.rays, RenderSettings()))
    print(f"\nevery pixel of the object's images, {config.render_size}^2: {full:.1f} ms")
    ours, torchs = decoding_ms(model, x)
    print(f"decoding in float32, forward and backward: {ours:.1f} ms, {ours / torchs:.2f} of torch's own way")
    velocity_ms = median_ms(lambda: model.velocity(x, 0.6, condition))
    print(f"velocity of one flow step: {velocity_ms:.1f} ms; the hand's field, once: {1e3 * sampling:.0f} ms")


if __name__ == "__main__":
    main()
