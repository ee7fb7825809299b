# SPDX-License-Identifier: Apache-2.0
"""Runs the stages in order: frame, cues, registration, guided flow, reconstruction."""

from __future__ import annotations

from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from fmh_ros import __version__
from fmh_ros.core.cues.anchoring import anchor_on_hand
from fmh_ros.core.cues.completion import complete_view
from fmh_ros.core.cues.types import HandObservation, ObjectView, PointMap, SceneMasks, SeenHand
from fmh_ros.core.errors import CancelledError, EmptyShapeError, FmhError, TimeBudgetError
from fmh_ros.core.fields.mesh import MeshField, mesh_field
from fmh_ros.core.fields.mesh_queries import MeshQueries
from fmh_ros.core.fields.protocol import ImplicitField
from fmh_ros.core.frame.frame import Frame, ObjectPrompt, Side
from fmh_ros.core.guidance.config import Ablation, GuidanceConfig
from fmh_ros.core.guidance.config import preset as guidance_preset
from fmh_ros.core.guidance.guide import GuidedSample, guide
from fmh_ros.core.guidance.supervision import build_supervision
from fmh_ros.core.hand.fit import FittedHand
from fmh_ros.core.hand.settle import grip_hand
from fmh_ros.core.hand.types import HandMesh
from fmh_ros.core.progress import CancelCheck, Progress, ProgressCallback
from fmh_ros.core.reconstruction.bodies import Sight
from fmh_ros.core.reconstruction.choose import ChosenHand, choose_hand
from fmh_ros.core.reconstruction.contacts import find_contacts
from fmh_ros.core.reconstruction.job import Job
from fmh_ros.core.reconstruction.loading import ModelCache
from fmh_ros.core.reconstruction.mesh import field_to_mesh, preview_mesh
from fmh_ros.core.reconstruction.mirror import mirror_preview, mirror_reconstruction
from fmh_ros.core.reconstruction.place_hand import measured, place_hand
from fmh_ros.core.reconstruction.profile import Profile, Stages, check_readable, load_profile, load_stages
from fmh_ros.core.reconstruction.quality import measure_quality
from fmh_ros.core.reconstruction.types import WEAK_SCORE, ObjectMesh, Reconstruction
from fmh_ros.core.registration.place import canonical_pose
from fmh_ros.core.transforms import Similarity

#: Below this IoU with the object's mask guidance may have torn a body that is thinner than a voxel, and is doubted; it
#: is left out when the shape without it has so much more. Of 36 training scenes of the benchmark this changes one.
LOST_IOU, LOST_IOU_MARGIN = 0.6, 0.1


@dataclass(frozen=True)
class _Cues:
    """What is known before the flow, all for a right hand. fitted : the hand's fit, where it is settled on its skin."""

    chosen: ChosenHand
    points: PointMap | None
    hand: HandMesh
    fitted: FittedHand | None
    hand_field: MeshField
    view: ObjectView
    condition: Any
    T_camera_canonical: Similarity


class Reconstructor:
    """Holds loaded models and turns frames into reconstructions; deterministic for a seed on one machine.

    profile : which back ends fill the stages: a name of ``PROFILES``, a path, or a ``Profile``; see ``profile``.
    preset : guidance settings, "default" or "paper"; the profile's by default.
    stages : loaded back ends to use in place of the profile's own, for instance with known cues for a measurement.
    cache : loaded models that several reconstructors of a process share.
    """

    def __init__(
        self,
        profile: str | Profile = "embedded",
        preset: str | None = None,
        stages: Stages | None = None,
        cache: ModelCache | None = None,
    ) -> None:
        self.profile = profile if isinstance(profile, str) else profile.text
        self.preset = preset
        self._wanted, self._cache = profile, cache
        self._stages, self._given = stages, stages is not None

    def load(self) -> None:
        """Load every model. Called by ``reconstruct`` when needed; raises ProfileError and ModelMissingError."""
        if self._stages is None:
            self._stages = load_stages(self._wanted, self._cache)

    def watch(self, image: NDArray[np.uint8]) -> tuple[SeenHand, ...]:
        """Have a quick look at an image (H, W, 3) RGB: which hands are there, and whether they hold something.

        A stream is meant: hands are followed from one call to the next. Raises ProfileError and ModelMissingError.
        """
        self.load()
        assert self._stages is not None
        return self._stages.watcher.look(image)

    def reconstruct(
        self,
        frame: Frame,
        *,
        prompt: ObjectPrompt | None = None,
        hand: Literal["auto", "left", "right"] = "auto",
        seed: int = 0,
        samples: int = 1,
        guidance: bool = True,
        config: GuidanceConfig | None = None,
        time_budget_s: float | None = None,
        previews: bool = False,
        progress: ProgressCallback | None = None,
        cancelled: CancelCheck | None = None,
    ) -> Reconstruction:
        """Reconstruct one hand and the object it holds.

        Args:
            frame: the image with its camera and optional depth.
            prompt: what the user pointed at.
            hand: which hand, or "auto" for the one that holds something.
            seed: of the flow's noise; the k-th of several samples uses seed + k.
            samples: how many shapes to draw; the one with the best quality score is returned.
            guidance: steer the flow; False samples it freely and only places the result.
            config: overrides the preset.
            time_budget_s: seconds in which a result is wanted. When they run short, guidance ends early and no
                further samples are drawn, and a warning in the result says so.
            previews: report a coarse mesh at the start of each guided flow step.
            progress: called with every report; cancelled: asked between iterations, True stops with CancelledError.

        Raises:
            FmhError: one of its typed children; nothing is left half done.
        """
        wanted = load_profile(self._wanted)
        if prompt is not None and not self._given:
            check_readable(wanted, prompt.text)
        preset = self.preset or wanted.preset
        config = config or guidance_preset(preset)
        if not guidance:
            config = replace(config, ablation=Ablation(guided=False))
        job = Job(progress, cancelled, time_budget_s)
        job.enter("load")
        self.load()
        assert self._stages is not None
        cues = self._look(job, frame, prompt or ObjectPrompt(), None if hand == "auto" else hand, seed)
        results = self._samples(job, cues, config, seed, samples, previews)
        best = max(results, key=lambda r: r.quality.score)
        best = mirror_reconstruction(best) if cues.chosen.mirrored else best
        job.enter("")
        job.report(Progress("finish", fraction=1.0))
        timings = {**job.timings, "total": job.elapsed()}
        return replace(best, profile=self.profile, preset=preset, timings_s=timings, versions=_versions(self._stages))

    def _look(self, job: Job, frame: Frame, prompt: ObjectPrompt, side: Side | None, seed: int) -> _Cues:
        """Cues and registration."""
        stages = self._stages
        assert stages is not None
        job.enter("detect")
        chosen = choose_hand(frame, stages.detector, stages.segmenter, prompt, side, job.check)
        frame, masks, observation = chosen.frame, chosen.masks, chosen.observation
        job.enter("points")
        points = _point_map(stages, frame, observation, masks)
        job.enter("fit")
        placed = place_hand(stages, chosen, points, side_known=side is not None, check=job.check)
        chosen, points, hand = placed.chosen, placed.points, placed.hand
        frame, masks = chosen.frame, chosen.masks
        if points is not None:
            points = anchor_on_hand(points, hand, frame.camera, masks.hand)
        job.enter("complete")
        if stages.amodal is not None:
            masks = stages.amodal.estimate(frame, masks, points, hand)
            chosen = replace(chosen, masks=masks)
        view = complete_view(frame, masks, points, hand)
        if stages.completer is not None:
            view, warnings = stages.completer.complete(frame, masks, view)
            chosen = replace(chosen, warnings=(*chosen.warnings, *warnings))
        job.enter("register")
        condition = stages.generator.encode_condition(view)
        T_camera_canonical = canonical_pose(stages.generator, condition, view, seed)
        field = mesh_field(hand.vertices, hand.faces)
        return _Cues(chosen, points, hand, placed.fitted, field, view, condition, T_camera_canonical)

    def _samples(
        self, job: Job, cues: _Cues, config: GuidanceConfig, seed: int, count: int, previews: bool
    ) -> list[Reconstruction]:
        """Draw samples while there is time; at least one, or an error."""
        results: list[Reconstruction] = []
        failure: FmhError | None = None
        for index in range(count):
            began = job.elapsed()
            try:
                results.append(self._with_unguided_fallback(job, cues, config, seed + index, (index, count), previews))
            except EmptyShapeError as error:
                failure = error
            except TimeBudgetError:
                if not results:
                    raise
            if job.remaining() < job.elapsed() - began:
                break
        if not results:
            assert failure is not None
            raise failure
        drawn = index + 1
        if drawn < count:
            results = [_warned(r, f"The time budget was enough for {drawn} of {count} samples.") for r in results]
        return results

    def _with_unguided_fallback(
        self, job: Job, cues: _Cues, config: GuidanceConfig, seed: int, which: tuple[int, int], previews: bool
    ) -> Reconstruction:
        """One finished sample. Where guidance lost the object, the same noise is sampled without it, and the shape that
        covers more of what is seen is kept. which : index of the sample and how many there will be."""
        result: Reconstruction | EmptyShapeError
        try:
            result = self._finished_sample(job, cues, config, seed, which, previews)
        except EmptyShapeError as error:
            result = error
        if config.ablation.guided and _covered(result) < LOST_IOU:
            free = replace(config, ablation=Ablation(guided=False))
            try:
                result = _better_covered(result, self._finished_sample(job, cues, free, seed, None, previews=False))
            except (EmptyShapeError, TimeBudgetError) as error:
                if isinstance(result, EmptyShapeError):
                    raise result from error
        if isinstance(result, EmptyShapeError):
            raise result
        return result

    def _finished_sample(
        self,
        job: Job,
        cues: _Cues,
        config: GuidanceConfig,
        seed: int,
        which: tuple[int, int] | None,
        previews: bool,
    ) -> Reconstruction:
        """One finished sample; reported when ``which`` is given."""
        index, count = which or (0, 0)
        job.enter("flow", announce=which is not None and index == 0)
        sample = self._sample(job, cues, config, seed, None if which is None else job.flow_reporter(*which), previews)
        job.enter("finish", announce=which is not None and index == count - 1)
        return self._finish(job, cues, sample, config, seed)

    def _sample(
        self,
        job: Job,
        cues: _Cues,
        config: GuidanceConfig,
        seed: int,
        report: ProgressCallback | None,
        previews: bool,
    ) -> GuidedSample:
        """One run of the flow."""
        stages = self._stages
        assert stages is not None
        chosen = cues.chosen

        def show(field: ImplicitField, T_camera_canonical: Similarity) -> None:
            mesh = preview_mesh(field, T_camera_canonical)
            if mesh is not None:
                job.show(mirror_preview(mesh) if chosen.mirrored else mesh)

        supervision = build_supervision(chosen.frame, chosen.masks, cues.points, chosen.observation, config.render_size)
        try:
            return guide(
                stages.generator,
                cues.condition,
                cues.T_camera_canonical,
                cues.hand,
                cues.hand_field,
                supervision,
                config,
                generator=torch.Generator().manual_seed(seed),
                progress=report,
                cancelled=job.must_end,
                hurry=job.must_hurry,
                on_estimate=show if previews else None,
            )
        except CancelledError:
            if job.cancelled():
                raise
            raise job.out_of_time() from None

    def _gripping(
        self, job: Job, cues: _Cues, sample: GuidedSample, mesh: ObjectMesh, config: GuidanceConfig
    ) -> HandMesh:
        """The hand of a sample, its fingers laid on the object where guidance is to do so and has the time."""
        chosen, points = cues.chosen, cues.points
        wanted = config.grip and config.ablation.guided and not job.hurried
        if not wanted or cues.fitted is None or points is None:
            return posed_hand(cues.hand, sample.T_camera_hand)
        assert self._stages is not None
        held = MeshQueries(mesh.T_camera_object.apply(mesh.vertices), mesh.faces)
        seen, rig = measured(chosen, points), self._stages.rig
        return grip_hand(cues.fitted, sample.T_camera_hand, held, seen, rig, check=job.check)

    def _finish(self, job: Job, cues: _Cues, sample: GuidedSample, config: GuidanceConfig, seed: int) -> Reconstruction:
        """Meshes, contacts and quality of a sample, still as a right hand."""
        chosen = cues.chosen
        sight = Sight(chosen.frame.camera, chosen.masks)
        mesh = field_to_mesh(sample.field, sample.T_camera_canonical, sight=sight)
        hand = self._gripping(job, cues, sample, mesh, config)
        contacts = find_contacts(mesh, hand)
        quality = measure_quality(chosen.frame, chosen.observation, chosen.masks, hand, mesh, contacts)
        warnings = [*chosen.frame.warnings, *chosen.warnings]
        if job.hurried:
            warnings.append("The time budget ended guidance early; with more time the result would be more exact.")
        if quality.score < WEAK_SCORE:
            warnings.append(f"The result is weak (score {quality.score:.2f}); look at overlay.png and views.png.")
        return Reconstruction(
            frame=chosen.frame,
            observation=chosen.observation,
            masks=chosen.masks,
            hand=hand,
            object=mesh,
            contacts=contacts,
            quality=quality,
            phases=sample.phases,
            profile=self.profile,
            preset=self.preset or "",
            seed=seed,
            warnings=tuple(dict.fromkeys(warnings)),
        )


def _covered(result: Reconstruction | EmptyShapeError) -> float:
    return 0.0 if isinstance(result, EmptyShapeError) else result.quality.object_silhouette_iou


def _better_covered(guided: Reconstruction | EmptyShapeError, free: Reconstruction) -> Reconstruction:
    """Return the guided result, or the one without guidance where that covers clearly more of the object."""
    covered, without = _covered(guided), _covered(free)
    if isinstance(guided, Reconstruction) and without < covered + LOST_IOU_MARGIN:
        return guided
    said = f"Guidance lost the object (silhouette IoU {covered:.2f}, {without:.2f} without it) and was left out."
    phases = () if isinstance(guided, EmptyShapeError) else guided.phases
    return _warned(replace(free, phases=tuple(replace(phase, rolled_back=True) for phase in phases)), said)


def _warned(result: Reconstruction, warning: str) -> Reconstruction:
    return replace(result, warnings=(*result.warnings, warning))


def posed_hand(hand: HandMesh, T_camera_hand: Similarity) -> HandMesh:
    """The hand at a corrected pose; a change of scale goes into its size, so that the pose stays rigid."""
    ratio = T_camera_hand.scale
    return replace(
        hand,
        T_camera_hand=T_camera_hand.rigid(),
        vertices=hand.vertices * ratio,
        keypoints=hand.keypoints * ratio,
        scale=hand.scale * ratio,
    )


def _point_map(stages: Stages, frame: Frame, hand: HandObservation, masks: SceneMasks) -> PointMap | None:
    """Aligned depth where there is some on the object, else the monocular estimate when the profile has one."""
    if frame.depth is not None:
        points = stages.sensor_points.map_points(frame, hand, masks)
        if points is not None and np.isfinite(points.depth[masks.object]).any():
            return points
    return None if stages.monocular_points is None else stages.monocular_points.map_points(frame, hand, masks)


def _versions(stages: Stages) -> dict[str, str]:
    """Versions of what made a result."""
    found = {"generator": stages.generator.name, "detector": stages.detector.name, "segmenter": stages.segmenter.name}
    extra = {
        "hand": stages.regressor,
        "amodal": stages.amodal,
        "completer": stages.completer,
        "points": stages.monocular_points,
    }
    found |= {stage: made.name for stage, made in extra.items() if made is not None}
    found["fmh_ros"] = __version__
    for package in ("torch", "numpy", "warp-lang"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed as a package"
    return found
