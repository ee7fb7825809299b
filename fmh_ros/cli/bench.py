# SPDX-License-Identifier: Apache-2.0
"""The arguments of ``fmh bench``: make scenes with exact truth, run methods on them, tabulate what came out."""

from __future__ import annotations

import argparse
from pathlib import Path

Commands = argparse._SubParsersAction  # the only name that argparse has for what add_subparsers returns


def add_bench_commands(commands: Commands[argparse.ArgumentParser]) -> None:
    """Add ``fmh bench`` and what it can do."""
    bench = commands.add_parser("bench", help="measure accuracy on scenes with exact truth")
    parts = bench.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_make(parts)


def _add_make(parts: Commands[argparse.ArgumentParser]) -> None:
    make = parts.add_parser(
        "make",
        help="make the synthetic benchmark: hands that hold scanned objects, with exact truth",
        description=(
            "Writes one folder per scene: image, depth and camera as `fmh reconstruct` reads them, and the truth. The "
            "same seed gives the same files; scenes that are there already are kept. Needs the extra 'bench'."
        ),
    )
    make.add_argument("out", type=Path, help="folder of the benchmark; each scene becomes a folder in it")
    make.add_argument("--split", default="test", choices=("train", "validation", "test"), help="(default: test)")
    make.add_argument("--quick", action="store_true", help="only the fixed 24 scenes of the quick test")
    make.add_argument("--count", type=int, metavar="N", help="how many scenes (default: 200 for test, 100 otherwise)")
    make.add_argument("--first", type=int, default=0, metavar="I", help="index of the first scene (default: 0)")
    make.add_argument("--shard", default="1/1", metavar="K/N", help="make the K-th of N equal parts (default: 1/1)")
    make.add_argument("--seed", type=int, default=0, help="of the whole benchmark; results compare at 0 (default: 0)")
    make.add_argument("--photos", type=Path, metavar="DIR", help="background pictures (default: procedural ones)")
    make.add_argument("--sheet", type=Path, metavar="FILE", help="draw all scenes with their masks on one picture")
    make.add_argument("--quiet", action="store_true", help="print nothing but errors")
    make.add_argument("--verbose", action="store_true", help="print the traceback of an error")
    make.set_defaults(run=_make)


def _make(arguments: argparse.Namespace) -> int:
    from fmh_ros.benchmark.make import run

    return run(arguments)
