# SPDX-License-Identifier: Apache-2.0
"""``fmh reconstruct``: files in, a result folder out."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from fmh_ros.cli.profile import chosen_preset, chosen_profile
from fmh_ros.cli.progress_bar import ProgressBar
from fmh_ros.core.errors import UsageError
from fmh_ros.core.export.write import check_output, write_result
from fmh_ros.core.frame.load import load_frame
from fmh_ros.core.frame.prompts import load_prompt
from fmh_ros.core.reconstruction.types import WEAK_SCORE, Reconstruction


def run(arguments: argparse.Namespace) -> int:
    """Reconstruct one image; every input is checked before any model is loaded."""
    if arguments.samples < 1:
        raise UsageError(f"--samples is {arguments.samples}", expected="1 or more", change="Leave it out for 1")
    check_output(arguments.out)
    frame = load_frame(arguments.image, arguments.depth, arguments.camera, arguments.depth_scale)
    prompt = load_prompt(
        frame, arguments.object_box, arguments.object_point, arguments.object_mask, arguments.object_name
    )
    profile = chosen_profile(arguments, prompt.text)
    preset = chosen_preset(arguments, profile)
    # Imported only now: torch takes seconds to load, and a wrong path should be told at once.
    from fmh_ros.core.reconstruction.reconstructor import Reconstructor

    reconstructor = Reconstructor(profile=profile.text, preset=preset)
    shown = not arguments.quiet and (arguments.progress or sys.stderr.isatty())
    with ProgressBar(enabled=shown) as bar:
        bar.stage("load")
        reconstructor.load()
        result = reconstructor.reconstruct(
            frame,
            prompt=prompt,
            hand=arguments.hand,
            seed=arguments.seed,
            samples=arguments.samples,
            guidance=not arguments.no_guidance,
            progress=bar,
        )
        bar.stage("write")
        out = write_result(result, arguments.out)
    if not arguments.quiet:
        for warning in result.warnings:
            print(f"warning: {warning}", file=sys.stderr)
        print(summary(result, out))
    return 0


def summary(result: Reconstruction, out: Path) -> str:
    """Return what a person wants to know first, a few lines."""
    quality, camera = result.quality, result.frame.reported_camera
    x, y, z = result.object.extents_m * 100
    fingers = sorted({contact.finger for contact in result.contacts})
    advice = " (weak: look at the pictures before you use it)" if quality.score < WEAK_SCORE else ""
    depth = "" if quality.depth_error_m is None else f", depth error {quality.depth_error_m * 1000:.1f} mm"
    return "\n".join(
        [
            f"score     {quality.score:.2f}{advice}",
            f"hand      {result.hand.side}, keypoint error {quality.keypoint_error_px:.1f} px",
            f"object    {x:.1f} x {y:.1f} x {z:.1f} cm, {result.object.volume_m3 * 1e6:.0f} cm3, "
            f"silhouette IoU {quality.object_silhouette_iou:.2f}{depth}",
            f"contacts  {len(result.contacts)} ({', '.join(fingers) or 'none'}), "
            f"overlap {quality.penetration_cm3:.1f} cm3",
            f"camera    {camera.source}, {result.timings_s.get('total', 0.0):.1f} s in all",
            f"written   {out}, begin with {out / 'views.png'}",
        ]
    )
