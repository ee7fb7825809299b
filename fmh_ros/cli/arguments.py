# SPDX-License-Identifier: Apache-2.0
"""Arguments that several commands have."""

from __future__ import annotations

import argparse

Commands = argparse._SubParsersAction  # the only name that argparse has for what add_subparsers returns


def add_verbosity(command: argparse.ArgumentParser, quiet: str = "print nothing but errors") -> None:
    """Add how much is said. quiet : what --quiet does, "" for a command without it."""
    if quiet:
        command.add_argument("--quiet", action="store_true", help=quiet)
    command.add_argument("--verbose", action="store_true", help="print the traceback of an error")


def add_profile(command: argparse.ArgumentParser) -> None:
    """Add which models to use."""
    command.add_argument(
        "--profile", default="embedded", metavar="NAME", help="which models: a name, or a YAML file (default: embedded)"
    )
    command.add_argument(
        "--stage",
        action="append",
        default=[],
        metavar="STAGE=BACKEND",
        help="another back end for a stage of the profile, or STAGE.OPTION=VALUE; may be repeated: docs/models.md",
    )


def add_prompt(command: argparse.ArgumentParser) -> None:
    """Add what a person points at: the hand's side, and box, points or mask of the object."""
    command.add_argument("--hand", default="auto", choices=("auto", "left", "right"), help="which hand")
    command.add_argument("--object-box", metavar="X0,Y0,X1,Y1", help="box round the object, pixels")
    command.add_argument(
        "--object-point", action="append", default=[], metavar="X,Y", help="a pixel on the object; may be repeated"
    )
    command.add_argument("--object-name", default="", metavar="TEXT", help="what it is, for profiles that can read")
    command.add_argument("--object-mask", metavar="FILE", help="mask of the visible object, white on black")
