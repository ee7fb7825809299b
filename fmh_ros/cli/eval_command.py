# SPDX-License-Identifier: Apache-2.0
"""The arguments of ``fmh eval``."""

from __future__ import annotations

import argparse

from fmh_ros.cli.arguments import Commands, add_verbosity


def add_eval_command(commands: Commands[argparse.ArgumentParser]) -> None:
    """Add the command that compares predictions with truths."""
    command = commands.add_parser(
        "eval",
        help="measure predictions, of this or another system, against ground truth",
        description=(
            "Compares one prediction with one truth, or folders of them by name: Chamfer distance and F-scores after "
            "aligning the hands, intersection, contacts, pose, size, joints. Truths without a prediction lower the "
            "reconstruction rate. docs/evaluation.md defines every metric."
        ),
    )
    command.add_argument("predictions", metavar="PRED", help="result folder, or folder of the predictions' files")
    command.add_argument("truths", metavar="GT", help="folder with truth.json, or folder of such folders")
    command.add_argument(
        "--format", default="fmh", choices=("fmh", "hort", "easyhoi"), help="whose files they are (default: fmh)"
    )
    command.add_argument("--json", metavar="OUT", help="also write everything to this file")
    command.add_argument("--no-object-aligned", action="store_true", help="leave out object pose and alignment, faster")
    add_verbosity(command, quiet="print only the table")
    command.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    from fmh_ros.cli.evaluate import run

    return run(arguments)
