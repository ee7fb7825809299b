# SPDX-License-Identifier: Apache-2.0
"""``fmh eval``: measures predictions and prints a table."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from fmh_ros.core.errors import FmhError, OutputError
from fmh_ros.evaluation.sample import SampleMetrics
from fmh_ros.evaluation.sets import Evaluation, evaluate_set
from fmh_ros.evaluation.summary import Failure, Interval, Summary, summarise

#: Headings of the table, and the metrics below each with their digits.
GROUPS: tuple[tuple[str, tuple[tuple[str, int], ...]], ...] = (
    ("object, hands aligned", (("chamfer_cm2", 2), ("chamfer_cm", 2), ("f5", 3), ("f10", 3))),
    ("object as it stands in the camera frame", (("camera_chamfer_cm2", 2), ("camera_f5", 3), ("camera_f10", 3))),
    (
        "hand and object together",
        (
            ("intersection_voxel_cm3", 2),
            ("intersection_exact_cm3", 2),
            ("penetration_depth_mm", 1),
            ("contact_precision", 3),
            ("contact_recall", 3),
        ),
    ),
    (
        "pose and size of the object",
        (
            ("object_rotation_deg", 1),
            ("object_translation_mm", 1),
            ("object_rotation_camera_deg", 1),
            ("object_translation_camera_mm", 1),
            ("scale_volume_ratio", 3),
            ("scale_extents_ratio", 3),
            ("scale_registration_ratio", 3),
            ("scale_camera_ratio", 3),
            ("scale_error", 3),
        ),
    ),
    (
        "hand",
        (
            ("mpjpe_camera_mm", 1),
            ("mpjpe_mm", 1),
            ("pa_mpjpe_mm", 1),
            ("hand_scale_ratio", 3),
            ("hand_alignment_rms_mm", 2),
        ),
    ),
    (
        "object aligned by translation and scale: its shape alone, not comparable with the above",
        (("object_ts_chamfer_cm2", 2), ("object_ts_f5", 3), ("object_ts_f10", 3)),
    ),
    (
        "object aligned by a similarity: its shape alone, not comparable with the above",
        (("object_sim_chamfer_cm2", 2), ("object_sim_f5", 3), ("object_sim_f10", 3)),
    ),
)


def run(arguments: argparse.Namespace) -> int:
    """Measure, print, write; 0 when anything was measured, else the code of the last failure."""
    tell = None if arguments.quiet else _tell
    result = evaluate_set(
        arguments.predictions,
        arguments.truths,
        arguments.format,
        object_aligned=not arguments.no_object_aligned,
        tell=tell,
    )
    if arguments.json:
        write_json(result, Path(arguments.json))
    if result.extra and not arguments.quiet:
        print(f"warning: {len(result.extra)} predictions have no truth, {result.extra[0]} first", file=sys.stderr)
    print(table(summarise(result.samples, result.failures)))
    return 0 if result.samples else result.failures[-1].code


def write_json(result: Evaluation, path: Path) -> None:
    """Write the document of an evaluation. Raises OutputError."""
    text = json.dumps(result.to_json(), indent=1, allow_nan=False) + "\n"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise OutputError.unwritable(f"the file {path}", error) from error


def table(summary: Summary) -> str:
    """Return the metrics as text; with several samples the means and medians with their 95 % intervals."""
    several = summary.succeeded > 1
    lines = [
        f"{summary.succeeded} of {summary.attempted} reconstructed, rate {_interval(summary.reconstruction_rate, 3)}"
    ]
    if several:
        lines.append(f"metrics over those that were; [ , ]: 95 % interval\n{'':32}{'mean':28}{'median':28}n")
    for heading, rows in GROUPS:
        known = [(name, digits) for name, digits in rows if name in summary.metrics]
        lines += ["", heading] if known else []
        for name, digits in known:
            metric = summary.metrics[name]
            mean, median = _interval(metric.mean, digits), _interval(metric.median, digits)
            lines.append(
                f"  {name:30}{mean:28}{median:28}{metric.count}"
                if several
                else f"  {name:30}{metric.mean.value:.{digits}f}"
            )
    return "\n".join(lines + _calibration(summary))


def _calibration(summary: Summary) -> list[str]:
    calibration = summary.calibration
    if calibration is None:
        return []
    correlation = _interval(Interval(calibration.spearman, calibration.low, calibration.high), 2)
    lines = ["", f"score against {calibration.error}: rank correlation {correlation} (1: orders them rightly)"]
    lines.append(f"  {'score':16}{'n':6}{'mean error':12}{'F10 >= 0.7'}")
    for row in calibration.bins:
        scores = f"{row.score_low:.2f} to {row.score_high:.2f}"
        lines.append(f"  {scores:16}{row.count:<6}{row.error_mean:<12.2f}{row.good:.2f}")
    return lines


def _interval(interval: Interval, digits: int) -> str:
    return f"{interval.value:.{digits}f} [{interval.low:.{digits}f}, {interval.high:.{digits}f}]"


def _tell(number: int, count: int, outcome: SampleMetrics | Failure) -> None:
    if isinstance(outcome, Failure):
        kind = next((k.__name__ for k in FmhError.__subclasses__() if k.code == outcome.code), "failure")
        said = f"{kind} ({outcome.code}): {outcome.message}"
    else:
        said = f"Chamfer {outcome.chamfer_cm2:.2f} cm2, F10 {outcome.f10:.3f}"
    print(f"[{number}/{count}] {outcome.name}  {said}", file=sys.stderr, flush=True)
