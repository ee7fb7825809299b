# SPDX-License-Identifier: Apache-2.0
"""``fmh bench run``, ``tables`` and ``sheet``."""

from __future__ import annotations

import argparse
import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from fmh_ros.benchmark.types import CueChoice, parse_cues
from fmh_ros.core.errors import UsageError

if TYPE_CHECKING:
    from fmh_ros.benchmark.run import SceneSource

#: Variants that are compared when none are named.
DEFAULT_VARIANTS = ("default",)


def run(arguments: argparse.Namespace) -> int:
    """Run variants on scenes; everything is checked before any model is loaded."""
    from fmh_ros.benchmark.run import Plan, parse_shard
    from fmh_ros.benchmark.variants import variants
    from fmh_ros.benchmark.workers import run_jobs

    if arguments.seeds < 1 or arguments.jobs < 1:
        raise UsageError(f"--seeds is {arguments.seeds} and --jobs is {arguments.jobs}", expected="1 or more of each")
    plan = Plan(
        out=arguments.out,
        variants=variants(arguments.variants),
        cues=_cues(arguments.cues, depth=arguments.depth),
        seeds=arguments.seeds,
        shard=parse_shard(arguments.shard),
        retry=arguments.retry,
        profile=arguments.profile,
    )
    source = _source(arguments.scenes, quick=arguments.quick)
    count = len(source.names()) * len(plan.variants) * len(plan.cues) * plan.seeds
    _say(f"{len(source.names())} scenes, {count} samples in all shards, into {plan.out}", arguments.quiet)
    run_jobs(source, plan, arguments.jobs, lambda line: _say(line, arguments.quiet))
    _say(f"Done. Next: fmh bench tables {plan.out} --out docs/results", arguments.quiet)
    return 0


def tables(arguments: argparse.Namespace) -> int:
    """Write the tables, and the contact sheet when the scenes are named."""
    from fmh_ros.benchmark.report import write_tables

    command = "fmh " + shlex.join(sys.argv[1:])
    sheet = None if arguments.scenes is None else _source(arguments.scenes, quick=arguments.quick)
    for path in write_tables(arguments.results, arguments.out, arguments.cues, command, sheet):
        _say(str(path), arguments.quiet)
    return 0


def _cues(texts: list[str], *, depth: bool) -> tuple[CueChoice, ...]:
    chosen = [parse_cues(text) for text in texts]
    chosen = chosen if depth else [replace(choice, depth="none") for choice in chosen]
    return tuple(dict.fromkeys(chosen))


def _source(folder: Path, *, quick: bool) -> SceneSource:
    from fmh_ros.benchmark.sources import FolderScenes

    scenes = FolderScenes(folder)
    return scenes.quick() if quick else scenes


def _say(line: str, quiet: bool) -> None:
    if not quiet:
        print(line, flush=True)
