# SPDX-License-Identifier: Apache-2.0
"""``fmh bag info``, ``fmh bag reconstruct`` and ``fmh record``."""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
from collections.abc import Iterator
from decimal import Decimal, InvalidOperation
from pathlib import Path
from types import FrameType
from typing import NoReturn

from fmh_ros.bags.info import table
from fmh_ros.bags.plan import Plan, Selection
from fmh_ros.bags.reading import BagReader
from fmh_ros.bags.reconstruct import NODE, BagReport, ImageReport, JobSettings, reconstruct_bag, with_node
from fmh_ros.bags.writing import BagWriter
from fmh_ros.cli.profile import chosen_preset, chosen_profile
from fmh_ros.cli.progress_bar import ProgressBar
from fmh_ros.core.errors import PromptError, UsageError
from fmh_ros.core.frame.image import read_mask
from fmh_ros.core.frame.prompts import parse_box, parse_point

EXIT_INTERRUPTED = 130


def info(arguments: argparse.Namespace) -> int:
    """Print what is in a bag."""
    with BagReader(arguments.bag) as bag:
        print(table(bag.summary()))
    return 0


def reconstruct(arguments: argparse.Namespace) -> int:
    """Reconstruct the images of a bag; 0 when one succeeded, else the code of the last failure."""
    selection = Selection(
        arguments.image,
        arguments.camera_info,
        "" if arguments.no_depth else arguments.depth,
        arguments.every,
        parse_stamps(arguments.stamps or ""),
        arguments.slop,
    )
    settings = _settings(arguments)
    BagWriter(arguments.out).check()
    from fmh_ros.engines.local import LocalEngine

    engine = LocalEngine()
    shown = not arguments.quiet and sys.stderr.isatty()
    engine.start()
    try:
        with _stop_when_terminated(), ProgressBar(enabled=shown) as bar:

            def tell(image: ImageReport, report: BagReport) -> None:
                if not arguments.quiet:
                    print(_line(image, report), file=sys.stderr, flush=True)
                bar.fraction = 0.0

            report = reconstruct_bag(
                arguments.bag,
                arguments.out,
                engine,
                selection,
                settings,
                tell,
                on_feedback=(lambda feedback: bar(feedback.progress)) if shown else None,
                on_plan=_say_plan if not arguments.quiet else None,
            )
    finally:
        engine.stop()
    if not arguments.quiet:
        print(_summary(report, arguments.out))
    return _exit_code(report)


def record(arguments: argparse.Namespace) -> int:
    """Record until the time is over, Ctrl-C or SIGTERM."""
    from fmh_ros.bags.record import record_topics

    with _stop_when_terminated():
        report = record_topics(arguments.out, arguments.topics, arguments.duration, arguments.wait)
    for topic, reason in report.left_out.items():
        print(f"warning: {topic} was not recorded: {reason}", file=sys.stderr)
    if not arguments.quiet:
        total = sum(report.counts.values())
        print(f"{total} messages of {len(report.counts)} topics in {arguments.out}")
    return 0


def parse_stamps(text: str) -> tuple[int, ...]:
    """Return header stamps in nanoseconds of seconds with commas between them. Raises UsageError."""
    try:
        return tuple(int(Decimal(part) * 1_000_000_000) for part in text.split(",") if part.strip())
    except (InvalidOperation, ValueError, OverflowError) as error:
        raise UsageError(f"--stamps is {text!r}", expected="seconds with commas between them: 12.5,13") from error


def _settings(arguments: argparse.Namespace) -> JobSettings:
    """Check what can be checked before anything is read."""
    if arguments.samples < 1:
        raise UsageError(f"--samples is {arguments.samples}", expected="1 or more", change="Leave it out for 1")
    profile = chosen_profile(arguments, arguments.object_name)
    settings = JobSettings(
        side=arguments.hand,
        profile=profile.text,
        preset=chosen_preset(arguments, profile),
        seed=arguments.seed,
        samples=arguments.samples,
        guidance=not arguments.no_guidance,
        frame_prefix=arguments.frame_prefix,
        box=None if arguments.object_box is None else parse_box(arguments.object_box),
        points=tuple(parse_point(point) for point in arguments.object_point),
        mask=None if arguments.object_mask is None else read_mask(Path(arguments.object_mask), PromptError),
        text=arguments.object_name,
    )
    return with_node(settings, arguments.node or NODE)


def _say_plan(plan: Plan) -> None:
    """Say which topics are used: some of them were not named by anybody."""
    for what, topic, none, how in (
        ("image", plan.image, "", ""),
        ("camera_info", plan.camera_info, "none: the field of view is estimated, and distances with it", ""),
        ("depth", plan.depth, "none", "; --no-depth leaves it out"),
    ):
        text = none if topic is None else f"{topic.name} ({topic.count} messages)"
        found = f", found by its name{how}" if topic is not None and what in plan.found else ""
        print(f"{what:<12} {text}{found}", file=sys.stderr)


def _line(image: ImageReport, report: BagReport) -> str:
    number = f"[{len(report.images)}/{report.planned}] {image.stamp_ns / 1e9:.6f} s"
    if image.error is None:
        return f"{number}  score {image.score:.2f}"
    return f"{number}  {type(image.error).__name__} ({image.error.code}): {image.error}"


def _summary(report: BagReport, out: str) -> str:
    lines = [f"{report.succeeded} of {report.planned} images reconstructed, {report.copied} messages copied, in {out}"]
    if report.interrupted:
        lines.append("interrupted: the rest of the bag was neither copied nor reconstructed")
    lines += [f"warning: no image has the stamp {stamp / 1e9:.9f} s" for stamp in report.not_found]
    lines += [f"warning: {topic} was not copied: {reason}" for topic, reason in report.left_out.items()]
    if report.cut:
        lines.append(f"warning: the bag is not whole: {report.cut}; what is before was used")
    return "\n".join(lines)


def _exit_code(report: BagReport) -> int:
    if report.interrupted:
        return EXIT_INTERRUPTED
    errors = [image.error for image in report.images if image.error is not None]
    return errors[-1].code if errors and not report.succeeded else 0


@contextlib.contextmanager
def _stop_when_terminated() -> Iterator[None]:
    """Take SIGTERM for Ctrl-C: what was written is kept."""

    def stop(_signal: int, _frame: FrameType | None) -> NoReturn:
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
