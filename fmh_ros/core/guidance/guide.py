# SPDX-License-Identifier: Apache-2.0
"""Samples a shape while steering it: the three phases (hand, object, joint) of the paper's Algorithm 1."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fmh_ros.core.errors import CancelledError, UsageError
from fmh_ros.core.fields.mesh import MeshField
from fmh_ros.core.fields.pose import PoseParameters
from fmh_ros.core.fields.protocol import ImplicitField
from fmh_ros.core.flow.protocol import LatentShapeModel
from fmh_ros.core.flow.sampler import clean_estimate, euler_step, initial_noise, schedule
from fmh_ros.core.guidance.config import GuidanceConfig, PhaseConfig
from fmh_ros.core.guidance.objective import OBJECT_RESOLUTION, Bodies, Objective, Terms
from fmh_ros.core.guidance.optimiser import PoseOptimiser, VelocityLeaf
from fmh_ros.core.guidance.report import PhaseReport
from fmh_ros.core.guidance.supervision import Supervision
from fmh_ros.core.hand.types import HandMesh
from fmh_ros.core.progress import CancelCheck, Progress, ProgressCallback
from fmh_ros.core.transforms import Similarity

HurryCheck = Callable[[int], bool]
EstimateCallback = Callable[[ImplicitField, Similarity], None]
#: Share of the rates that a flow step begins with at least: its estimate is new, however slow the one before ended.
LEAST_PACE = 0.4


@dataclass(frozen=True)
class GuidedSample:
    """The steered sample.

    latent : (1, *latent_shape) at sigma = 1; field : its decoded shape, canonical frame, without gradient.
    T_camera_canonical : pose of the shape, scale in metres per unit. T_camera_hand : corrected pose of the hand, its
    scale the correction of the hand's size (1 for none).
    phases : what each phase did; terms : the weighted losses at the end, empty without guidance.
    """

    latent: Tensor
    field: ImplicitField
    T_camera_canonical: Similarity
    T_camera_hand: Similarity
    phases: tuple[PhaseReport, ...]
    terms: dict[str, float]


@dataclass(frozen=True)
class PlannedPhase:
    """A phase and the consecutive flow steps it works in."""

    name: str
    steps: tuple[int, ...]
    settings: PhaseConfig


def plan_phases(config: GuidanceConfig) -> tuple[PlannedPhase, ...]:
    """Lay the phases out over the flow steps, as the config and its ablation say. Raises UsageError when the hand's and
    the object's do not fit."""
    ablation, first, count = config.ablation, config.first_guided_step, config.flow_steps
    if not ablation.guided:
        return ()
    least = first + (1 if ablation.order == "joint" else 2)
    if count < least:
        raise UsageError(
            f"Guidance begins at step {first} of {count} flow steps",
            expected=f"at least {least} flow steps",
            change="Raise flow_steps or lower first_guided_step",
        )
    if ablation.order == "joint":
        phases = [PlannedPhase("joint", tuple(range(first, count)), config.joint)]
    else:
        single = [("hand", config.hand, ablation.hand_phase), ("object", config.object, ablation.object_phase)]
        if ablation.order == "swapped":
            single.reverse()
        phases = [PlannedPhase(n, (first + k,), s) for k, (n, s, wanted) in enumerate(single) if wanted]
        phases.append(PlannedPhase("joint", tuple(range(first + 2, count)), config.joint))
    if not ablation.steer_shape:
        phases = [replace(phase, settings=replace(phase.settings, velocity_rate=0.0)) for phase in phases]
    return tuple(phase for phase in phases if phase.steps)


def guide(
    model: LatentShapeModel,
    condition: Any,
    T_camera_canonical: Similarity,
    hand: HandMesh,
    hand_field: MeshField,
    supervision: Supervision,
    config: GuidanceConfig,
    *,
    generator: torch.Generator,
    progress: ProgressCallback | None = None,
    cancelled: CancelCheck | None = None,
    hurry: HurryCheck | None = None,
    on_estimate: EstimateCallback | None = None,
) -> GuidedSample:
    """Sample a shape under the condition, with poses and shape steered by what the image shows.

    T_camera_canonical : registered pose of the generator's canonical frame. hand_field : the hand's field, sampled
    from ``hand.vertices``. The result depends on nothing but the arguments and the generator's state.
    hurry : asked between iterations with the number of flow steps to come; True ends this step's iterations.
    on_estimate : given the clean estimate at the start of each guided flow step, with its T_camera_canonical.
    Raises CancelledError when ``cancelled`` says so between two iterations.
    """
    device = getattr(model, "device", torch.device("cpu"))
    objective = Objective(supervision.to(device), hand, hand_field.to(device), config)
    run = _Run(model, condition, objective, config, progress, cancelled, hurry, on_estimate)
    hand_pose = PoseParameters(hand.T_camera_hand, hand.vertices.mean(0), device=device)
    return run.sample(initial_noise(model.latent_shape, generator, model.temperature), hand_pose, T_camera_canonical)


@dataclass(frozen=True)
class _Step:
    """What one flow step did: the steered velocity, the clean estimate's shift, the first loss, the iterations."""

    velocity: Tensor
    shift: Tensor
    first: float
    iterations: int


class _Run:
    """One guided sampling; its state lives only as long as the call."""

    def __init__(
        self,
        model: LatentShapeModel,
        condition: Any,
        objective: Objective,
        config: GuidanceConfig,
        progress: ProgressCallback | None,
        cancelled: CancelCheck | None,
        hurry: HurryCheck | None,
        on_estimate: EstimateCallback | None,
    ) -> None:
        self.model, self.condition, self.objective, self.config = model, condition, objective, config
        self.progress, self.cancelled, self.hurry, self.on_estimate = progress, cancelled, hurry, on_estimate
        self.sigmas = schedule(model, config.flow_steps)
        self.plan = plan_phases(config)
        self.planned = sum(len(p.steps) * p.settings.iterations for p in self.plan) + config.flow_steps
        self.furthest = 0.0
        self.begin = time.monotonic()

    def sample(self, noise: Tensor, hand: PoseParameters, T_camera_canonical: Similarity) -> GuidedSample:
        """Run the flow and its phases."""
        x, at, reports = noise, 0, []
        device = hand.log_scale.device
        self.hand, self.object = hand, PoseParameters(T_camera_canonical, np.zeros(3), device=device)
        centred = False
        for phase in self.plan:
            x = self._flow(x, at, phase.steps[0])
            at = phase.steps[-1] + 1
            if not centred and phase.name != "hand":
                centre = self._centre(x, phase.steps[0])
                self.object = PoseParameters(T_camera_canonical, centre, device=device)
                centred = True
            x, report = self._phase(phase, x)
            reports.append(report)
        x = self._flow(x, at, self.config.flow_steps)
        with torch.no_grad():
            field = self.model.decode(x)
            terms = self._terms(self.plan[-1].settings, field) if self.plan else {}
        return GuidedSample(
            x,
            field,
            self.object.pose().similarity() if self.plan else T_camera_canonical,
            self.hand.pose().similarity() if self.plan else hand.initial.similarity(),
            tuple(reports),
            {name: float(value) for name, value in terms.items()},
        )

    def _flow(self, x: Tensor, first: int, last: int) -> Tensor:
        """Sample without guidance from step ``first`` up to, not including, step ``last``."""
        for step in range(first, last):
            self._tick("", step, 0, None)
            x = euler_step(x, self._velocity(x, step), self.sigmas[step], self.sigmas[step + 1])
        return x

    def _velocity(self, x: Tensor, step: int) -> Tensor:
        return self.model.velocity(x, self.sigmas[step], self.condition)

    def _centre(self, x: Tensor, step: int) -> NDArray[np.float64]:
        """Centre (3,) of the current estimate's body in the canonical frame, the origin when it has none."""
        with torch.no_grad():
            estimate = clean_estimate(x, self._velocity(x, step), self.sigmas[step])
            field = self.model.decode(estimate)
            inside = torch.nonzero(field.grid(OBJECT_RESOLUTION) < 0).double()
        if len(inside) == 0:
            return np.zeros(3)
        middle = 0.5 * (inside.amin(0) + inside.amax(0)) / (OBJECT_RESOLUTION - 1)
        return np.asarray(((2.0 * middle - 1.0) * field.bounds).cpu().numpy(), np.float64)

    def _phase(self, phase: PlannedPhase, x: Tensor) -> tuple[Tensor, PhaseReport]:
        """Run a phase; when leaving it out would have ended at a lower loss, leave it out."""
        self.pace = 1.0
        start, start_poses = x, self._poses()
        shift, optimiser = None, self._optimiser(phase.settings)
        total, first = 0, math.inf
        steered = result = None
        for index, step in enumerate(phase.steps):
            if not self.config.optimiser.keep_moments:
                shift, optimiser = None, self._optimiser(phase.settings)
            self._tick(phase.name, step, 0, None)
            result = self._optimise(phase, index, x, self._velocity(x, step), shift, optimiser)
            shift, total = result.shift, total + result.iterations
            first = result.first if index == 0 else first
            steered, x = x, euler_step(x, result.velocity, self.sigmas[step], self.sigmas[step + 1])
        assert steered is not None and result is not None
        last = self._loss(phase, steered, result.velocity)
        guided = self._poses()
        self._load(start_poses)
        without, alternative = self._without(phase, start)
        # Not-a-number compares false: a phase that ended in one is rolled back too.
        worse = not last <= alternative
        if worse:
            x, last = without, alternative
        else:
            self._load(guided)
        return x, PhaseReport(phase.name, phase.steps, total, first, last, worse)

    def _without(self, phase: PlannedPhase, x: Tensor) -> tuple[Tensor, float]:
        """Latent and loss at the phase's end with the flow left alone and the poses as they are."""
        before, velocity = x, x
        for step in phase.steps:
            velocity = self._velocity(x, step)
            before, x = x, euler_step(x, velocity, self.sigmas[step], self.sigmas[step + 1])
        return x, self._loss(phase, before, velocity)

    def _optimise(
        self,
        phase: PlannedPhase,
        index: int,
        x: Tensor,
        velocity: Tensor,
        shift: Tensor | None,
        optimiser: PoseOptimiser,
    ) -> _Step:
        """Move the leaves at one flow step and leave them at the best iterate."""
        settings, step = phase.settings, phase.steps[index]
        steers = settings.velocity_rate > 0
        self.pace = max(self.pace, LEAST_PACE)
        remaining = 1.0 - self.sigmas[step]
        clean = clean_estimate(x, velocity, self.sigmas[step])
        if self.on_estimate is not None:
            with torch.no_grad():
                self.on_estimate(self.model.decode(clean), self.object.pose().similarity())
        leaf = VelocityLeaf(velocity, clean, remaining, self.config.optimiser, shift if steers else None)
        field = None if steers or phase.name == "hand" else self._estimate(x, leaf.velocity, step)
        best, best_poses, best_change = math.inf, self._poses(), leaf.change.detach().clone()
        first, history = math.nan, []
        for k in range(settings.iterations):
            optimiser.zero()
            leaf.change.grad = None
            if steers and phase.name != "hand":
                earlier = field if k % self.config.search_every else None
                field = _followed(self._estimate(x, leaf.velocity + leaf.change, step), earlier)
            terms = self._terms(settings, field, leaf.relative_shift() if steers else None)
            total = torch.stack(list(terms.values())).sum() if terms else torch.zeros(())
            value = float(total.detach())
            first = value if k == 0 else first
            history.append(value)
            self._tick(phase.name, step, k, value)
            if value < best:
                best, best_poses, best_change = value, self._poses(), leaf.change.detach().clone()
            if not math.isfinite(value) or not total.requires_grad or self._plateau(history) or self._hurried(step):
                break
            total.backward()  # type: ignore[no-untyped-call]
            self._adapt(value, best)
            share = self.pace * self._rate_share((index + k / settings.iterations) / len(phase.steps))
            optimiser.step(share)
            leaf.step(settings.velocity_rate * share)
        self._load(best_poses)
        return _Step(velocity + best_change, remaining * best_change, first, len(history))

    def _estimate(self, x: Tensor, velocity: Tensor, step: int) -> ImplicitField:
        return self.model.decode(clean_estimate(x, velocity, self.sigmas[step]))

    def _terms(self, settings: PhaseConfig, field: ImplicitField | None, change: Tensor | None = None) -> Terms:
        bodies = Bodies(self.hand, None if field is None else self.object, field, change)
        return self.objective.terms(settings, bodies)

    @torch.no_grad()
    def _loss(self, phase: PlannedPhase, x: Tensor, velocity: Tensor) -> float:
        """A phase's loss after its last flow step, which began at x with this velocity."""
        field = None if phase.name == "hand" else self._estimate(x, velocity, phase.steps[-1])
        return float(sum(self._terms(phase.settings, field).values()))

    def _adapt(self, value: float, best: float) -> None:
        """Slow down while the loss is above the best of this flow step and speed up when it is the best: Adam's first
        steps have the full rate however near the optimum a phase begins."""
        slower, faster = self.config.optimiser.pace
        self.pace = min(self.pace * (slower if value > best else faster), 1.0)

    def _hurried(self, step: int) -> bool:
        return self.hurry is not None and self.hurry(self.config.flow_steps - step)

    def _plateau(self, history: list[float]) -> bool:
        """Whether the best loss fell too little over the last iterations."""
        patience, least = self.config.optimiser.patience, self.config.optimiser.improvement
        if patience <= 0 or len(history) <= patience:
            return False
        before = min(history[:-patience])
        return min(history[-patience:]) > before - least * abs(before)

    def _rate_share(self, done: float) -> float:
        """Share of the rates after this share of the phase."""
        return 1.0 - (1.0 - self.config.optimiser.rate_end) * done

    def _poses(self) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        return self.hand.state(), self.object.state()

    def _load(self, poses: tuple[tuple[Tensor, ...], tuple[Tensor, ...]]) -> None:
        self.hand.load(poses[0])
        self.object.load(poses[1])

    def _optimiser(self, settings: PhaseConfig) -> PoseOptimiser:
        bodies = [(self.hand, settings.hand_rates), (self.object, settings.object_rates)]
        return PoseOptimiser(self.config.optimiser, bodies)

    def _tick(self, phase: str, step: int, iteration: int, loss: float | None) -> None:
        """Report progress and stop when asked to."""
        if self.cancelled is not None and self.cancelled():
            raise CancelledError(f"Cancelled in flow step {step}, iteration {iteration}")
        before = sum(p.settings.iterations * sum(s < step for s in p.steps) for p in self.plan)
        if self.progress is not None:
            share = min((before + step + iteration) / self.planned, 1.0)
            self.furthest = max(self.furthest, share)
            elapsed = time.monotonic() - self.begin
            self.progress(Progress("flow", phase, step, iteration, self.furthest, elapsed, loss))


def _followed(field: ImplicitField, earlier: ImplicitField | None) -> ImplicitField:
    """The field, told where an earlier one had its surface if it can make use of that."""
    follow = getattr(field, "follow", None)
    if earlier is not None and follow is not None:
        follow(earlier)
    return field
