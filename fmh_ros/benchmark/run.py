# SPDX-License-Identifier: Apache-2.0
"""Runs variants on scenes: resumable, divided over processes and machines, every failure kept with its code."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Protocol

import numpy as np

import fmh_ros
from fmh_ros.benchmark.baselines import registered
from fmh_ros.benchmark.cues import choose_cues
from fmh_ros.benchmark.given import Cues, with_cues
from fmh_ros.benchmark.results import RECORD_FILE, SYNTHETIC, Failure, SampleKey, SampleRecord, read_record, store
from fmh_ros.benchmark.types import BenchmarkScene, CueChoice
from fmh_ros.benchmark.variants import Variant
from fmh_ros.core.cues.types import keypoint_distance
from fmh_ros.core.errors import FmhError, OutOfMemoryError, UnexpectedError, UsageError
from fmh_ros.core.export.document import to_json
from fmh_ros.core.export.meshes import glb_files
from fmh_ros.core.reconstruction.profile import Stages, load_stages
from fmh_ros.core.reconstruction.reconstructor import Reconstructor
from fmh_ros.core.reconstruction.types import Reconstruction
from fmh_ros.evaluation.sample import evaluate_sample
from fmh_ros.evaluation.types import GroundTruth, Prediction

#: Seeds of the benchmark are this far apart, so that the samples of one seed are not those of the next.
SEED_STRIDE = 1000


class SceneSource(Protocol):
    """Scenes by name, read when they are needed; it crosses to other processes."""

    def names(self) -> tuple[str, ...]:
        """Return the names of all scenes, in a fixed order."""
        ...

    def load(self, name: str) -> BenchmarkScene:
        """Read one scene. Raises FmhError."""
        ...

    def digest(self, name: str) -> str:
        """Return a digest of what the scene is made of. Raises FmhError."""
        ...


@dataclass(frozen=True)
class Plan:
    """What to run.

    seeds : each variant runs with seeds 0 to seeds - 1. shard : (k, n), the k-th of n equal parts of the scenes, k
    from 1. retry : run again what failed before. object_aligned : measure with the object itself aligned too, several
    seconds a sample. dataset : what the scenes are of, for the record.
    """

    out: Path
    variants: tuple[Variant, ...]
    cues: tuple[CueChoice, ...]
    seeds: int = 1
    shard: tuple[int, int] = (1, 1)
    retry: bool = False
    profile: str = "embedded"
    object_aligned: bool = True
    dataset: str = SYNTHETIC

    def samples(self) -> Iterator[tuple[CueChoice, Variant, int]]:
        """Yield what is done with each scene. First seeds come first, so that an early end leaves whole tables."""
        for seed in range(self.seeds):
            for cues in self.cues:
                for variant in self.variants:
                    yield cues, variant, seed


def parse_shard(text: str) -> tuple[int, int]:
    """Read ``K/N``. Raises UsageError."""
    k, slash, n = text.partition("/")
    if not (slash and k.isdecimal() and n.isdecimal() and 1 <= int(k) <= int(n)):
        raise UsageError(f"The shard {text!r} cannot be read", expected="K/N with K from 1 to N, such as 2/4")
    return int(k), int(n)


def shard_of(names: tuple[str, ...], shard: tuple[int, int]) -> tuple[str, ...]:
    """Return every n-th of the names, beginning with the k-th: the parts of all k are disjoint and complete."""
    return names[shard[0] - 1 :: shard[1]]


def run_plan(
    source: SceneSource,
    plan: Plan,
    report: Callable[[str], None],
    stages: Stages | None = None,
    going_on: Callable[[], bool] = lambda: True,
) -> tuple[int, int]:
    """Run a shard of the plan and return how many samples were made and how many of them failed.

    What is there already, from the same scene and settings, is left. stages : loaded back ends, the profile's by
    default. going_on : asked before each sample; False ends the run.
    """
    made = failed = 0
    code = code_version()
    for name in shard_of(source.names(), plan.shard):
        try:
            digest = source.digest(name)
        except FmhError:
            digest = ""  # reading the scene will say why
        todo = [(c, v, s) for c, v, s in plan.samples() if not _is_done(plan, name, digest, c, v, s)]
        if not todo:
            continue
        stages = stages or load_stages(plan.profile)
        try:
            scene: BenchmarkScene | FmhError = source.load(name)
        except FmhError as error:
            scene = error
        for cues, variant, seed in todo:
            if not going_on():
                return made, failed
            blank = SampleRecord(
                key=SampleKey(name, variant.name, cues.name, seed),
                scene_digest=digest,
                split="" if isinstance(scene, FmhError) else scene.split,
                code=code,
                settings=settings_digest(variant),
                attributes={} if isinstance(scene, FmhError) else scene.attributes.to_json(),
                started=datetime.now(timezone.utc).isoformat(timespec="seconds"),
                dataset=plan.dataset,
            )
            record, files = _run_sample(scene, blank, cues, variant, stages, plan)
            store(plan.out, record, files)
            made, failed = made + 1, failed + (not record.done)
            report(_line(record))
    return made, failed


def run_sample(
    scene: BenchmarkScene, cues: Cues, variant: Variant, seed: int, stages: Stages, profile: str = "embedded"
) -> Reconstruction:
    """Reconstruct a scene from given cues with the pipeline itself. Raises FmhError."""
    reconstructor = Reconstructor(profile, variant.preset, stages=with_cues(stages, cues))
    result = reconstructor.reconstruct(
        cues.frame, config=variant.config, seed=SEED_STRIDE * seed, samples=variant.samples
    )
    return registered(result) if variant.finish == "icp" else result


def to_prediction(result: Reconstruction, name: str) -> Prediction:
    """Return a reconstruction as the evaluation reads it: metres, camera optical frame."""
    hand, obj = result.hand, result.object
    contacts = np.array([contact.position for contact in result.contacts], np.float64).reshape(-1, 3)
    return Prediction(
        name=name,
        side=hand.side,
        hand_vertices=hand.T_camera_hand.apply(hand.vertices),
        hand_faces=hand.faces,
        object_vertices=obj.T_camera_object.apply(obj.vertices),
        object_faces=obj.faces,
        keypoints=hand.T_camera_hand.apply(hand.keypoints),
        T_camera_object=obj.T_camera_object,
        contacts=contacts,
        score=result.quality.score,
    )


def settings_digest(variant: Variant) -> str:
    """Return a short digest of everything that a variant sets."""
    text = repr((variant.preset, variant.config, variant.samples, variant.finish))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def code_version() -> str:
    """Return the package's version and, in a git checkout, its commit."""
    root = Path(fmh_ros.__file__).resolve().parents[1]
    if not (root / ".git").exists():
        return fmh_ros.__version__
    command = ["git", "-C", str(root), "describe", "--always", "--abbrev=10", "--exclude=*", "--dirty"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return fmh_ros.__version__
    return f"{fmh_ros.__version__}+{found}"


def _is_done(plan: Plan, name: str, digest: str, cues: CueChoice, variant: Variant, seed: int) -> bool:
    path = plan.out / SampleKey(name, variant.name, cues.name, seed).folder / RECORD_FILE
    if not path.is_file():
        return False
    record = read_record(path)
    same = record.scene_digest == digest and record.settings == settings_digest(variant)
    return same and (record.done or not plan.retry)


def _run_sample(
    scene: BenchmarkScene | FmhError,
    blank: SampleRecord,
    choice: CueChoice,
    variant: Variant,
    stages: Stages,
    plan: Plan,
) -> tuple[SampleRecord, dict[str, bytes]]:
    """Return a filled record and the files that go with it."""
    try:
        if isinstance(scene, FmhError):
            raise scene
        result = run_sample(scene, choose_cues(scene, choice), variant, blank.key.seed, stages, plan.profile)
        prediction = to_prediction(result, scene.name)
        truth = truth_of(result, scene)
        measured = evaluate_sample(prediction, truth, object_aligned=plan.object_aligned)
        metrics = asdict(measured) | _cue_errors(result, scene, truth)
        quality = asdict(result.quality)
        files = {name: content for name, content in glb_files(result).items() if name != "scene.glb"}
        files["reconstruction.json"] = to_json(result).encode()
    except FmhError as error:
        return replace(blank, failure=Failure(error.code, type(error).__name__, str(error))), {}
    except MemoryError as error:
        return replace(blank, failure=Failure(OutOfMemoryError.code, "OutOfMemoryError", str(error))), {}
    except Exception as error:  # noqa: BLE001 - one scene's fault must not cost the others; it is on record
        message = f"{type(error).__name__}: {error}"
        return replace(blank, failure=Failure(UnexpectedError.code, "UnexpectedError", message)), {}
    return replace(
        blank,
        metrics={name: _plain(value) for name, value in metrics.items() if _is_number(value)},
        quality={name: _plain(value) for name, value in quality.items()},
        seconds={name: round(spent, 3) for name, spent in result.timings_s.items()},
        warnings=result.warnings,
    ), files


def truth_of(result: Reconstruction, scene: BenchmarkScene) -> GroundTruth:
    """Return the truth with the hand that was reconstructed: of several that with the nearest joints in the image."""
    found = result.observation.keypoints_2d

    def distance(truth: GroundTruth) -> float:
        if truth.keypoints is None:
            return float("inf")
        return float(np.linalg.norm(scene.frame.camera.project(truth.keypoints) - found, axis=-1).mean())

    return min((scene.truth, *scene.rivals), key=distance) if scene.rivals else scene.truth


def _cue_errors(result: Reconstruction, scene: BenchmarkScene, truth: GroundTruth) -> dict[str, float | None]:
    """How far the cues that were used are from the truth: masks (IoU), landmarks (share of the hand's box)."""
    main = truth is scene.truth  # the scene's mask is of this hand only
    joints = scene.keypoints_2d if main or truth.keypoints is None else scene.frame.camera.project(truth.keypoints)

    def iou(found: np.ndarray, true: np.ndarray) -> float:
        return float((found & true).sum() / max((found | true).sum(), 1))

    return {
        "cue_object_mask_iou": iou(result.masks.object, scene.object_mask),
        "cue_hand_mask_iou": iou(result.masks.hand, scene.hand_mask) if main else None,
        "cue_landmark_error": keypoint_distance(result.observation.keypoints_2d, joints),
        "cue_side_right": float(result.hand.side == truth.side),
    }


def _is_number(value: object) -> bool:
    return value is None or isinstance(value, (bool, int, float, np.floating, np.integer))


def _plain(value: object) -> float | None:
    number = None if value is None else float(value)  # type: ignore[arg-type]
    return number if number is not None and np.isfinite(number) else None


def _line(record: SampleRecord) -> str:
    key = record.key
    name = f"{key.scene}  {key.variant}  {key.cues}  seed {key.seed}"
    if record.failure is not None:
        return f"{name}  failed: {record.failure.kind} (code {record.failure.code})"
    chamfer, score = record.value("chamfer_cm2"), record.value("score")
    return f"{name}  Chamfer {chamfer:.2f} cm2, score {score:.2f}, {record.value('seconds'):.1f} s"
