# SPDX-License-Identifier: Apache-2.0
"""What one inner iteration of guidance costs over the full-size autoencoder of Hunyuan3D-2: the published dense loop
and this project's, in one run, with random weights.

``python benchmarks/inner_iteration.py`` (needs the optional hy3dgen). What is done, and what is not:

* Work is counted, not estimated: PyTorch's flop counter follows the publisher's classes at full size, forward and
  backward, on tensors without memory. The dense loop is the publisher's own ``geo_decoder`` over a 65^3 grid in chunks
  of 8000 points (keys and values again for each), its weights with gradients as the public code leaves them, and once
  more with frozen weights. Ours is this project's decoder for the points that its renderer and losses ask for.
* Those points are counted in a synthetic scene with the real renderer and losses. Random weights have no sensible
  surface, so there the shape is the scene's own object, as a truncated distance in place of the network's value.
* Seconds are measured on this processor for one layer of the token transformer and for a few thousand points, and
  multiplied: both are linear in layers and points. Nothing else is extrapolated.
* Seconds on an H100 are the counted work over an assumed rate. They are a projection and say so.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
import trimesh
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from fmh_ros.core.cues.point_map import SensorPointMapper
from fmh_ros.core.cues.types import SceneMasks
from fmh_ros.core.fields.dense import DENSE_RESOLUTION
from fmh_ros.core.fields.grid import GridField
from fmh_ros.core.fields.mesh import mesh_field
from fmh_ros.core.fields.pose import PoseParameters
from fmh_ros.core.flow.hunyuan.decoder import BOUNDS, LINEAR_UNTIL, HunyuanDecoder
from fmh_ros.core.flow.hunyuan.library import build
from fmh_ros.core.flow.vecset.decoder import DecodeSettings
from fmh_ros.core.flow.vecset.field import VecsetField
from fmh_ros.core.guidance.config import GuidanceConfig, preset
from fmh_ros.core.guidance.objective import Bodies, Objective
from fmh_ros.core.guidance.supervision import build_supervision
from fmh_ros.core.hand.fit import fit_hand
from fmh_ros.core.hand.rig import load_generic_rig
from fmh_ros.core.transforms import Similarity
from fmh_ros.training.scenes.truth import SceneTruth, draw_truth

TERA = 1e12
#: The published parameters of the two released autoencoders.
SHARED = {
    "embed_dim": 64,
    "num_freqs": 8,
    "include_pi": False,
    "heads": 16,
    "width": 1024,
    "num_decoder_layers": 16,
    "qkv_bias": False,
    "qk_norm": True,
}
VARIANTS = {
    "2.0": SHARED | {"num_latents": 3072, "scale_factor": 0.9990943042622529},
    "mini": SHARED | {"num_latents": 512, "scale_factor": 1.0188137142395404},
}
#: Points of one call of the publisher's decoder in the public code's loop.
CHUNK = 8000
#: Points that seconds are measured with.
TIMED_POINTS = 2000


@dataclass(frozen=True)
class Work:
    """Floating-point operations of one inner iteration, forward and backward."""

    forward: float
    backward: float

    @property
    def total(self) -> float:
        """Both."""
        return self.forward + self.backward

    def __add__(self, other: Work) -> Work:
        return Work(self.forward + other.forward, self.backward + other.backward)

    def times(self, count: float) -> Work:
        """So many of these."""
        return Work(count * self.forward, count * self.backward)


@dataclass
class Asked:
    """Points that an iteration evaluates: plain ones, and ones with a gradient."""

    plain: float = 0.0
    graded: float = 0.0


@dataclass
class ShapeInPlace:
    """A ``TokenDecoder`` that counts points and answers with a given shape, truncated as the network's values are.

    shape : distances over the canonical cube; truncation : canonical units.
    """

    shape: GridField
    truncation: float
    bounds: float = BOUNDS
    linear_until: float | None = LINEAR_UNTIL
    bytes_per_point: int = 2**10
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    asked: Asked = field(default_factory=Asked)

    def remember(self, latent: Tensor) -> tuple[Tensor, ...]:
        """An offset of the surface, so that something depends on the latent."""
        return (latent.mean(),)

    def values(self, memory: tuple[Tensor, ...], points: Tensor) -> Tensor:
        """The shape's distance over the truncation."""
        if torch.is_grad_enabled() and (points.requires_grad or memory[0].requires_grad):
            self.asked.graded += len(points)
        else:
            self.asked.plain += len(points)
        return ((self.shape.query(points) + memory[0]) / self.truncation).clamp(-1.0, 1.0)


def count(forward: Callable[[], Tensor]) -> Work:
    """Count a function's work and, where its result has a gradient, that of its backward pass."""
    with FlopCounterMode(display=False) as first:
        result = forward()
    with FlopCounterMode(display=False) as second:
        if result.requires_grad:
            result.sum().backward()  # type: ignore[no-untyped-call]
    return Work(first.get_total_flops(), second.get_total_flops())


def dense_work(parameters: dict[str, Any], frozen: bool) -> Work:
    """The published loop's decoding: token transformer, then the whole grid in chunks, by the publisher's classes."""
    with torch.device("meta"):
        vae = build("ShapeVAE", parameters).requires_grad_(not frozen)
        latent = torch.empty(1, parameters["num_latents"], parameters["embed_dim"]).requires_grad_()
        tokens = torch.empty(1, parameters["num_latents"], parameters["width"]).requires_grad_()
        whole, rest = divmod(DENSE_RESOLUTION**3, CHUNK)
        work = count(lambda: vae(latent / vae.scale_factor))
        for points, times in ((CHUNK, whole), (rest, 1)):
            queries = torch.empty(1, points, 3)
            work += count(lambda queries=queries: vae.geo_decoder(queries=queries, latents=tokens)).times(times)
    return work


@dataclass(frozen=True)
class OurWork:
    """The parts of ours: decoding the tokens, a plain point, a point with a gradient to tokens and place."""

    tokens: Work
    plain: Work
    graded: Work

    def total(self, asked: Asked) -> Work:
        """One iteration's work."""
        return self.tokens + self.plain.times(asked.plain) + self.graded.times(asked.graded)


def our_work(parameters: dict[str, Any]) -> OurWork:
    """Count this project's decoder at full size."""
    with torch.device("meta"):
        vae = build("ShapeVAE", parameters).requires_grad_(False)
        decoder = HunyuanDecoder(vae, memory_mb=10**6)
        latent = torch.empty(1, parameters["num_latents"], parameters["embed_dim"]).requires_grad_()

        def remember() -> Tensor:
            return torch.cat([each.flatten() for each in decoder.remember(latent)])

        memory = tuple(each.detach().requires_grad_() for each in decoder.remember(latent))
        points = torch.empty(CHUNK, 3)
        fixed = tuple(each.detach() for each in memory)
        plain = count(lambda: decoder.values(fixed, points)).times(1 / CHUNK)
        graded = count(lambda: decoder.values(memory, points.clone().requires_grad_())).times(1 / CHUNK)
        return OurWork(count(remember), plain, graded)


@dataclass(frozen=True)
class Case:
    """A scene whose object stands in the canonical cube."""

    truth: SceneTruth
    objective: Objective
    hand: PoseParameters
    object: PoseParameters
    shape: GridField


def make_case(seed: int, config: GuidanceConfig) -> Case:
    """Draw a scene and put its object's distances into the generator's cube."""
    rig = load_generic_rig()
    truth = draw_truth(seed, rig)
    frame, seen = truth.frame, truth.observation()
    masks = SceneMasks(
        truth.hand_mask, truth.object_mask, truth.object_mask.astype(np.float32), truth.amodal_mask * np.float32(1), 1.0
    )
    points = SensorPointMapper().map_points(frame, seen, masks)
    hand = fit_hand(seen, frame.camera, rig, depth=frame.depth, hand_mask=masks.hand).mesh
    supervision = build_supervision(frame, masks, points, seen, config.render_size)
    objective = Objective(supervision, hand, mesh_field(hand.vertices, hand.faces), config)
    low, high = truth.object_vertices.min(0), truth.object_vertices.max(0)
    T_camera_canonical = Similarity(np.eye(3), (low + high) / 2, float((high - low).max()) / 2)
    canonical = T_camera_canonical.inverse().apply(truth.object_vertices)
    faces = truth.object_faces
    outward = trimesh.Trimesh(canonical, faces, process=False).volume > 0
    made = mesh_field(canonical, faces if outward else faces[:, ::-1], 2.0 / 96)
    assert np.abs(made.T_mesh_field.translation).max() < 1e-6
    poses = PoseParameters(hand.T_camera_hand, hand.vertices.mean(0)), PoseParameters(T_camera_canonical, np.zeros(3))
    return Case(truth, objective, *poses, made.field)


def ask(case: Case, config: GuidanceConfig, truncation: float) -> tuple[Asked, float]:
    """Points per iteration of the joint phase, averaged over one search and the iterations that follow it, and the
    processor seconds of all but the network, forward and backward."""
    decoder = ShapeInPlace(case.shape, truncation)
    earlier, seconds = None, 0.0
    for k in range(config.search_every):
        latent = torch.zeros(1, requires_grad=True)
        begin = time.process_time()
        made = VecsetField(decoder, decoder.remember(latent), DecodeSettings(memory_mb=10**6))
        if earlier is not None:
            made.follow(earlier)
        earlier = made
        terms = case.objective.terms(config.joint, Bodies(case.hand, case.object, made))
        torch.stack(list(terms.values())).sum().backward()  # type: ignore[no-untyped-call]
        seconds += time.process_time() - begin if k else 0.0
    share = 1.0 / config.search_every
    asked = Asked(share * decoder.asked.plain, share * decoder.asked.graded)
    return asked, seconds / max(config.search_every - 1, 1)


@dataclass(frozen=True)
class Seconds:
    """Processor seconds of an iteration's network on this machine: the dense loop with weight gradients as published
    and without, ours but for its points, and one point of each kind."""

    published: float
    frozen: float
    tokens: float
    plain: float
    graded: float


def clock(action: Callable[[], object]) -> float:
    """Processor seconds of one run."""
    begin = time.process_time()
    action()
    return time.process_time() - begin


def back(function: Callable[[Tensor], Tensor], start: Tensor) -> Callable[[], None]:
    """A function that runs ``function`` on a fresh leaf, and back."""

    def run() -> None:
        function(start.clone().requires_grad_()).sum().backward()  # type: ignore[no-untyped-call]

    return run


def measure(parameters: dict[str, Any]) -> Seconds:
    """Time one layer at full width, one chunk of the dense loop, and a few points of ours; then multiply."""
    vae = build("ShapeVAE", parameters | {"num_decoder_layers": 1})
    layers, chunks = parameters["num_decoder_layers"], DENSE_RESOLUTION**3 / CHUNK
    tokens = torch.randn(1, parameters["num_latents"], parameters["width"])
    latent = torch.randn(1, parameters["num_latents"], parameters["embed_dim"])
    points = 2.0 * torch.rand(CHUNK, 3) - 1.0
    layer, dense = {}, {}
    for name, frozen in (("warm-up", True), ("published", False), ("frozen", True)):
        vae.requires_grad_(not frozen)
        layer[name] = clock(back(vae.transformer.resblocks[0], tokens))
        queries = points[: 100 if name == "warm-up" else CHUNK]
        chunk = clock(back(lambda t, queries=queries: vae.geo_decoder(queries=queries[None], latents=t), tokens))
        dense[name] = layers * layer[name] + chunks * chunk
        vae.zero_grad(set_to_none=True)
    decoder, few = HunyuanDecoder(vae, memory_mb=10**6), points[:TIMED_POINTS]
    first = clock(back(lambda z: torch.cat([each.flatten() for each in decoder.remember(z)]), latent))
    memory = tuple(each.detach() for each in decoder.remember(latent))
    graded = tuple(each.clone().requires_grad_() for each in memory)
    with torch.no_grad():
        plain = clock(lambda: decoder.values(memory, few)) / TIMED_POINTS
    point = clock(back(lambda p: decoder.values(graded, p), few)) / TIMED_POINTS
    return Seconds(dense["published"], dense["frozen"], first + (layers - 1) * layer["frozen"], plain, point)


@dataclass(frozen=True)
class Machine:
    """The assumed GPU: tera-operations per second of dense 16-bit matrix products, the share of them that is reached,
    and milliseconds of an iteration that are not matrix products (searching, tracing, losses, optimiser, launches)."""

    peak: float
    reached: float
    other_ms: float

    def milliseconds(self, work: Work) -> float:
        """Projected time of one iteration."""
        return 1e3 * work.total / (self.peak * self.reached * TERA) + self.other_ms


def report_work(name: str, parameters: dict[str, Any], asked: dict[int, Asked], machine: Machine) -> dict[str, Work]:
    """Print the work of both loops and their ratios; return the dense ones' and ours at the first resolution."""
    published, frozen = dense_work(parameters, frozen=False), dense_work(parameters, frozen=True)
    ours = our_work(parameters)
    print(f"\nHunyuan3D {name}, {parameters['num_latents']} tokens: counted work of one joint iteration, TFLOP")
    print(f"{'':46s} {'forward':>8s} {'backward':>9s} {'total':>7s} {'published / ours':>17s} {'frozen / ours':>14s}")
    rows = [("dense, weights with gradients as published", published), ("dense, frozen weights", frozen)]
    for label, work in rows:
        print(f"{label:46s} {work.forward / TERA:8.2f} {work.backward / TERA:9.2f} {work.total / TERA:7.2f}")
    for size, points in asked.items():
        work = ours.total(points)
        ratios = f"{published.total / work.total:17.1f} {frozen.total / work.total:14.1f}"
        label = f"ours, losses at {size}^2"
        print(f"{label:46s} {work.forward / TERA:8.2f} {work.backward / TERA:9.2f} {work.total / TERA:7.2f} {ratios}")
    tokens, plain, graded = (each.total / TERA for each in (ours.tokens, ours.plain, ours.graded))
    first = next(iter(asked.values()))
    print(
        f"  of ours at the first size: tokens {tokens:.2f}, {first.plain:.0f} plain points {plain * first.plain:.2f}, "
        f"{first.graded:.0f} points with gradients {graded * first.graded:.2f}"
    )
    return {"published": published, "frozen": frozen, "ours": ours.total(first)}


def report_seconds(parameters: dict[str, Any], asked: Asked, rest: float) -> None:
    """Print measured and multiplied seconds on this processor."""
    seconds = measure(parameters)
    ours = seconds.tokens + asked.plain * seconds.plain + asked.graded * seconds.graded
    print(
        f"\non this processor, float32, {torch.get_num_threads()} thread(s), seconds of an iteration's network\n"
        f"  (one layer times {parameters['num_decoder_layers']}, one chunk of {CHUNK} points times "
        f"{DENSE_RESOLUTION**3 / CHUNK:.1f}, {TIMED_POINTS} points of ours scaled to what is asked):\n"
        f"  dense as published {seconds.published:.0f}, dense frozen {seconds.frozen:.0f}, ours {ours:.0f}: "
        f"{seconds.published / ours:.1f} and {seconds.frozen / ours:.1f} times cheaper\n"
        f"  all but the network, ours, measured whole: {rest:.2f} s"
    )


def report_projection(works: dict[str, Work], machine: Machine, config: GuidanceConfig) -> None:
    """Print what an H100 would take, and every assumption."""
    paper = preset("paper")
    print(
        f"\nprojected on an H100 (not measured): {machine.peak:g} TFLOP/s peak in 16 bits without sparsity, "
        f"{machine.reached:.0%} of it reached,\n  {machine.other_ms:g} ms an iteration for all but matrix products in "
        "every loop, one iteration after the other"
    )
    for preset_name, plan in (("paper", paper), (config.preset, config)):
        held, joint = plan.object.iterations, plan.joint.iterations * (plan.flow_steps - plan.first_guided_step - 2)
        print(f"  preset {preset_name}: {held} object + {joint} joint iterations with a decode, at most")
        for name, label in (("published", "dense as published"), ("frozen", "dense, frozen"), ("ours", "ours")):
            ms = machine.milliseconds(works[name])
            print(f"    {label:20s} {ms:7.1f} ms an iteration, {(held + joint) * ms / 1e3:6.1f} s a frame")
    print("  the denoiser, the first estimate, phase 1 and the final mesh come on top and are the same in all")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=3, help="synthetic scenes that points are counted in")
    parser.add_argument("--sizes", type=int, nargs="+", default=[96, 64, 128, 192], help="losses' images, px a side")
    parser.add_argument("--truncation", type=float, default=0.05, help="of the value, canonical units")
    parser.add_argument("--no-seconds", action="store_true", help="count only")
    parser.add_argument("--peak", type=float, default=989.0, help="TFLOP/s")
    parser.add_argument("--reached", type=float, default=0.4, help="share of the peak")
    parser.add_argument("--other-ms", type=float, default=15.0, help="an iteration's time beside matrix products")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    machine = Machine(arguments.peak, arguments.reached, arguments.other_ms)
    config = preset("default")
    asked, rest = {}, 0.0
    print(
        f"points per joint iteration ({config.preset} preset, surface searched every {config.search_every} iterations):"
    )
    for size in arguments.sizes:
        sized = replace(config, render_size=size)
        results = [ask(make_case(4242 + k, sized), sized, arguments.truncation) for k in range(arguments.scenes)]
        plain, graded = (float(np.mean([getattr(a, n) for a, _ in results])) for n in ("plain", "graded"))
        asked[size] = Asked(plain, graded)
        rest = rest or float(np.mean([r for _, r in results]))
        print(f"  losses at {size}^2: {plain:.0f} plain, {graded:.0f} with gradients (dense: {DENSE_RESOLUTION**3})")
    works = {name: report_work(name, parameters, asked, machine) for name, parameters in VARIANTS.items()}
    if not arguments.no_seconds:
        report_seconds(VARIANTS["2.0"], asked[arguments.sizes[0]], rest)
    report_projection(works["2.0"], machine, config)


if __name__ == "__main__":
    main()
