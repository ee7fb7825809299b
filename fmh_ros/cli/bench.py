# SPDX-License-Identifier: Apache-2.0
"""The arguments of ``fmh bench``: make scenes with exact truth, run methods on them, tabulate what came out."""

from __future__ import annotations

import argparse
from pathlib import Path

from fmh_ros.cli.arguments import Commands, add_profile, add_verbosity


def add_bench_commands(commands: Commands[argparse.ArgumentParser]) -> None:
    """Add ``fmh bench`` and what it can do."""
    bench = commands.add_parser("bench", help="measure accuracy on scenes with exact truth")
    parts = bench.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_make(parts)
    _add_run(parts)
    _add_tables(parts)
    _add_truths(parts)


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
    add_verbosity(make)
    make.set_defaults(run=_make)


def _add_run(parts: Commands[argparse.ArgumentParser]) -> None:
    run = parts.add_parser(
        "run",
        help="reconstruct scenes with known truth, and measure the results",
        description=(
            "Of scenes that `fmh bench make` wrote, or of a data set: --dataset dexycb --root DIR. "
            "Each sample becomes a folder, whole or not at all. The same command goes on after an interrupt: what "
            "was made from the same scene with the same settings is left. Failures are kept with their code."
        ),
        epilog=(
            "Variants: default, paper, unguided, icp, two-stage, no-hand-phase, no-object-phase, swapped, "
            "joint-from-start, no-TERM, effort-0.25|0.5|2, samples-2|4, dense-mesh; groups of them: phases, losses, "
            "budgets, baselines, surfaces, all. A preset may stand before one: paper:swapped."
        ),
    )
    _add_data(run)
    run.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of results; others may add to it")
    run.add_argument("--variants", nargs="+", default=["default"], metavar="NAME", help="(default: default)")
    run.add_argument(
        "--cues",
        nargs="+",
        metavar="CUES",
        help="true, noisy, embedded, embedded-rgb, or pairs: hand=true,masks=embedded (default: embedded; of a data "
        "set embedded-rgb, since the paper's methods see one RGB image)",
    )
    run.add_argument("--depth", action=argparse.BooleanOptionalAction, default=True, help="use depth (default) or not")
    run.add_argument("--seeds", type=int, default=1, metavar="K", help="seeds 0 to K-1 (default: 1)")
    run.add_argument("--jobs", type=int, default=1, metavar="N", help="processes on this machine (default: 1)")
    run.add_argument("--shard", default="1/1", metavar="K/N", help="only the K-th of N parts of the scenes")
    run.add_argument(
        "--quick", action="store_true", help="only the 24 scenes of the quick test, of a data set the first 24"
    )
    run.add_argument("--retry", action="store_true", help="run again what failed before")
    add_profile(run)
    add_verbosity(run)
    run.set_defaults(run=_run)


def _add_tables(parts: Commands[argparse.ArgumentParser]) -> None:
    tables = parts.add_parser(
        "tables",
        help="write tables and plots of results: Markdown, CSV, PNG",
        description="Reads all results, merges them, and writes the page with every table. Needs the extra 'bench'.",
    )
    tables.add_argument("results", type=Path, nargs="+", help="folders that `fmh bench run` wrote; they are merged")
    tables.add_argument("--out", type=Path, required=True, metavar="DIR", help="such as docs/results")
    tables.add_argument("--cues", metavar="CUES", help="cues of the ablations (default: those with most variants)")
    _add_data(tables, "; with these the contact sheet is drawn too")
    tables.add_argument("--quick", action="store_true", help="draw only the scenes of the quick test")
    add_verbosity(tables)
    tables.set_defaults(run=_tables)


def _add_truths(parts: Commands[argparse.ArgumentParser]) -> None:
    truths = parts.add_parser(
        "truths",
        help="write the truth of scenes or of a data set for `fmh eval`, to measure other systems on it",
        description=(
            "Writes one folder per sample, OUT/NAME with truth.json, hand.ply and object.ply. What cannot be read is "
            "said and left out. Of a data set it stays under the data set's and MANO's terms."
        ),
    )
    truths.add_argument("out", type=Path, help="folder of the truths")
    _add_data(truths)
    truths.add_argument("--quick", action="store_true", help="only the 24 scenes of the quick test, or the first 24")
    add_verbosity(truths)
    truths.set_defaults(run=_truths)


def _add_data(command: argparse.ArgumentParser, why: str = "") -> None:
    """Add what names the scenes: rendered ones, or the user's copy of a data set."""
    data = command.add_argument_group("scenes" + why)
    data.add_argument("--scenes", type=Path, metavar="DIR", help="scenes that `fmh bench make` wrote")
    data.add_argument("--dataset", choices=("oakink", "arctic", "dexycb"), help="or images of this data set")
    data.add_argument("--root", type=Path, metavar="DIR", help="your copy of it (docs/datasets.md)")
    data.add_argument("--mano", type=Path, metavar="DIR", help="your copy of MANO (default: looked for below --root)")
    data.add_argument(
        "--split", type=Path, metavar="CSV", help="list of test images (default: ROOT/<dataset>_test.csv)"
    )


def _make(arguments: argparse.Namespace) -> int:
    from fmh_ros.benchmark.make import run

    return run(arguments)


def _run(arguments: argparse.Namespace) -> int:
    from fmh_ros.cli.bench_run import run

    return run(arguments)


def _tables(arguments: argparse.Namespace) -> int:
    from fmh_ros.cli.bench_run import tables

    return tables(arguments)


def _truths(arguments: argparse.Namespace) -> int:
    from fmh_ros.cli.bench_run import truths

    return truths(arguments)
