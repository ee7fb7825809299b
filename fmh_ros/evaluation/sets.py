# SPDX-License-Identifier: Apache-2.0
"""Folders of predictions against folders of truths, matched by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fmh_ros
from fmh_ros.core.errors import FileMissingError, FmhError, UsageError
from fmh_ros.evaluation.alpha_shape import ALPHAS_M
from fmh_ros.evaluation.contact import CONTACT_MATCH_M
from fmh_ros.evaluation.overlap import DEPTH_SAMPLES, LAST_CELL_M, VOXEL_PITCH_M
from fmh_ros.evaluation.points import PREDICTION_SEED, SAMPLES, TRUTH_SEED
from fmh_ros.evaluation.predictions import Format, prediction_names, read_prediction, unique
from fmh_ros.evaluation.sample import SampleMetrics, evaluate_sample
from fmh_ros.evaluation.summary import RESAMPLES, SEED, Failure, summarise
from fmh_ros.evaluation.truth_files import TRUTH_FILE, read_ground_truth

SCHEMA_NAME = "fmh.evaluation/1"
#: Told of each sample: its number from 1, how many there are, and what was measured or failed.
Tell = Callable[[int, int, SampleMetrics | Failure], None]


@dataclass(frozen=True)
class Pair:
    """A sample's name, the folder of its truth, and where its prediction is read from, None when there is none."""

    name: str
    truth: Path
    prediction: Path | None


@dataclass(frozen=True)
class Evaluation:
    """What was measured of a set. extra : predictions without a truth, which count for nothing."""

    samples: tuple[SampleMetrics, ...]
    failures: tuple[Failure, ...]
    extra: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the document ``fmh.evaluation/1``: settings, summary, and each sample."""
        return {
            "schema": SCHEMA_NAME,
            "version": fmh_ros.__version__,
            "settings": settings(),
            "summary": summarise(self.samples, self.failures).to_json(),
            "samples": [sample.to_json() for sample in self.samples],
            "without_truth": list(self.extra),
        }


def settings() -> dict[str, float | list[float]]:
    """Return the numbers that the metrics depend on."""
    return {
        "points_per_object": SAMPLES,
        "seed_prediction": PREDICTION_SEED,
        "seed_truth": TRUTH_SEED,
        "voxel_pitch_m": VOXEL_PITCH_M,
        "exact_cell_m": LAST_CELL_M,
        "depth_points": DEPTH_SAMPLES,
        "contact_match_m": CONTACT_MATCH_M,
        "alphas_m": list(ALPHAS_M),
        "bootstrap_resamples": RESAMPLES,
        "bootstrap_seed": SEED,
    }


def truth_folders(folder: str | Path) -> dict[str, Path]:
    """Return the truths in a folder, however deep, by their folder's name. Raises FileMissingError or UsageError."""
    place = Path(folder)
    found = [(path.parent.absolute().name, path.parent) for path in sorted(place.rglob(TRUTH_FILE))]
    if not found:
        raise FileMissingError(
            f"There is no {TRUTH_FILE} in {place}", expected="a truth, or a folder of folders of them"
        )
    return unique(found)


def find_pairs(predictions: str | Path, truths: str | Path, format: Format) -> tuple[list[Pair], tuple[str, ...]]:
    """Return a pair for every truth, and the names of predictions that have none.

    A single prediction and a single truth are a pair whatever their names are. Raises UsageError when no name is in
    both folders.
    """
    made, true = prediction_names(predictions, format), truth_folders(truths)
    if len(made) == 1 and len(true) == 1:
        (name, place), (folder,) = next(iter(made.items())), true.values()
        return [Pair(name, folder, place)], ()
    if not made.keys() & true.keys():
        raise UsageError(
            f"No prediction has the name of a truth ({next(iter(made))!r}, {next(iter(true))!r})",
            expected="equal names in both folders",
        )
    return [Pair(name, folder, made.get(name)) for name, folder in true.items()], tuple(
        sorted(made.keys() - true.keys())
    )


def evaluate_set(
    predictions: str | Path,
    truths: str | Path,
    format: Format = "fmh",
    *,
    object_aligned: bool = True,
    tell: Tell | None = None,
) -> Evaluation:
    """Measure every truth's prediction; one that is missing or cannot be read is a failure with its code."""
    pairs, extra = find_pairs(predictions, truths, format)
    samples: list[SampleMetrics] = []
    failures: list[Failure] = []
    for number, pair in enumerate(pairs, 1):
        outcome = _evaluated(pair, format, object_aligned)
        if isinstance(outcome, Failure):
            failures.append(outcome)
        else:
            samples.append(outcome)
        if tell is not None:
            tell(number, len(pairs), outcome)
    return Evaluation(tuple(samples), tuple(failures), extra)


def _evaluated(pair: Pair, format: Format, object_aligned: bool) -> SampleMetrics | Failure:
    truth = read_ground_truth(pair.truth)  # a truth that cannot be read is nobody's failure: it ends the evaluation
    if pair.prediction is None:
        return Failure(pair.name, FileMissingError.code, "There is no prediction for it")
    try:
        prediction = read_prediction(pair.prediction, format, name=pair.name, side=truth.side)
        return evaluate_sample(prediction, truth, object_aligned=object_aligned)
    except FmhError as error:
        return Failure(pair.name, error.code, str(error))
