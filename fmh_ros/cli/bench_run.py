# SPDX-License-Identifier: Apache-2.0
"""``fmh bench run``, ``tables`` and ``truths``."""

from __future__ import annotations

import argparse
import shlex
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

from fmh_ros.benchmark.types import CueChoice, parse_cues
from fmh_ros.cli.profile import chosen_profile
from fmh_ros.core.errors import FmhError, OutputError, UsageError

if TYPE_CHECKING:
    from fmh_ros.benchmark.run import SceneSource

#: Variants that are compared when none are named.
DEFAULT_VARIANTS = ("default",)
#: Cues when none are named: what a user with an RGB-D camera has; of a data set what the paper's methods see.
DEFAULT_CUES, DATASET_CUES = "embedded", "embedded-rgb"


def run(arguments: argparse.Namespace) -> int:
    """Run variants on scenes; everything is checked before any model is loaded."""
    from fmh_ros.benchmark.results import SYNTHETIC
    from fmh_ros.benchmark.run import Plan, parse_shard
    from fmh_ros.benchmark.variants import variants
    from fmh_ros.benchmark.workers import gpus, run_jobs

    if arguments.seeds < 1 or arguments.jobs < 1:
        raise UsageError(f"--seeds is {arguments.seeds} and --jobs is {arguments.jobs}", expected="1 or more of each")
    profile = chosen_profile(arguments)
    plan = Plan(
        out=arguments.out,
        variants=variants(arguments.variants),
        cues=_cues(arguments.cues or [DEFAULT_CUES if arguments.scenes else DATASET_CUES], depth=arguments.depth),
        seeds=arguments.seeds,
        shard=parse_shard(arguments.shard),
        retry=arguments.retry,
        profile=profile.text,
        dataset=arguments.dataset or SYNTHETIC,
    )
    source = _source(arguments)
    count = len(source.names()) * len(plan.variants) * len(plan.cues) * plan.seeds
    _say(f"{len(source.names())} scenes, {count} samples in all shards, into {plan.out}", arguments.quiet)
    run_jobs(source, plan, arguments.jobs, lambda line: _say(line, arguments.quiet), gpus(plan.profile))
    _say(f"Done. Next: fmh bench tables {plan.out} --out docs/results", arguments.quiet)
    return 0


def tables(arguments: argparse.Namespace) -> int:
    """Write the tables, and the contact sheet when the scenes are named."""
    from fmh_ros.benchmark.report import write_tables

    command = "fmh " + shlex.join(sys.argv[1:])
    sheet = _source(arguments) if arguments.scenes or arguments.dataset else None
    for path in write_tables(arguments.results, arguments.out, arguments.cues, command, sheet):
        _say(str(path), arguments.quiet)
    return 0


def truths(arguments: argparse.Namespace) -> int:
    """Write truths for ``fmh eval``; the code of the first error when none could be read."""
    from fmh_ros.evaluation.truth_files import write_ground_truth

    source = _source(arguments)
    failures: list[FmhError] = []
    for name in source.names():
        try:
            write_ground_truth(source.load(name).truth, arguments.out / name)
        except OutputError:
            raise
        except FmhError as error:
            failures.append(error)
            print(f"{name}  not read: {error}", file=sys.stderr)
    written = len(source.names()) - len(failures)
    if not written and failures:
        raise failures[0]
    _say(
        f"{written} of {len(source.names())} truths in {arguments.out}. Next: fmh eval PRED {arguments.out}",
        arguments.quiet,
    )
    return 0


def _cues(texts: list[str], *, depth: bool) -> tuple[CueChoice, ...]:
    chosen = [parse_cues(text) for text in texts]
    chosen = chosen if depth else [replace(choice, depth="none") for choice in chosen]
    return tuple(dict.fromkeys(chosen))


def _source(arguments: argparse.Namespace) -> SceneSource:
    """Return the scenes that were named. Raises FmhError."""
    if (arguments.scenes is None) == (arguments.dataset is None):
        raise UsageError(
            "Both scenes and a data set are named" if arguments.scenes else "Neither scenes nor a data set are named",
            expected="--scenes DIR, or --dataset NAME --root DIR",
        )
    if arguments.dataset is None:
        from fmh_ros.benchmark.sources import FolderScenes

        scenes = FolderScenes(arguments.scenes)
        return scenes.quick() if arguments.quick else scenes
    if arguments.root is None:
        raise UsageError(
            f"It is not said where {arguments.dataset} is",
            expected="--root DIR, your copy of the data set",
            change="docs/datasets.md says what to download",
        )
    from fmh_ros.benchmark.datasets.scenes import open_dataset

    images = open_dataset(arguments.dataset, arguments.root, arguments.mano, arguments.split)
    return images.quick() if arguments.quick else images


def _say(line: str, quiet: bool) -> None:
    if not quiet:
        print(line, flush=True)
