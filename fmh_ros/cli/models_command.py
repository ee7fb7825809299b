# SPDX-License-Identifier: Apache-2.0
"""The arguments of ``fmh models``: what published models there are, and getting their weights."""

from __future__ import annotations

import argparse

from fmh_ros.cli.arguments import Commands, add_verbosity

WHAT = "profile, with changes after commas, or model"


def add_models_command(commands: Commands[argparse.ArgumentParser]) -> None:
    """Add ``fmh models`` and what it can do."""
    models = commands.add_parser(
        "models",
        help="list, fetch and check the weights of published models",
        description="Weights of published models, for profiles other than embedded. See docs/models.md.",
    )
    parts = models.add_subparsers(title="commands", required=True, metavar="COMMAND")
    listing = _add(
        parts, "list", "say per profile and stage: model, size, licence, where it may be used, whether there"
    )
    listing.add_argument("what", nargs="*", metavar="PROFILE", help="(default: every profile)")
    pull = _add(parts, "pull", "fetch what a profile needs; goes on where it was cut off, and checks hashes")
    pull.add_argument("what", nargs="+", metavar="PROFILE", help=WHAT)
    pull.add_argument("--accept", action="store_true", help="you have read the licences and accept them")
    pull.add_argument("--token", metavar="T", help="of the Hugging Face hub, for gated models (default: $HF_TOKEN)")
    pull.add_argument("--endpoint", metavar="URL", help="of a mirror of the hub (default: $HF_ENDPOINT)")
    pull.add_argument("--offline", action="store_true", help="take only what is in the hub's cache on this machine")
    pull.add_argument("--cache", metavar="DIR", help="that cache (default: $HF_HUB_CACHE)")
    pull.add_argument(
        "--file", action="append", default=[], metavar="MODEL=PATH", help="your own file or folder; it stays there"
    )
    verify = _add(parts, "verify", "read all files again and compare them with their hashes")
    verify.add_argument("what", nargs="*", metavar="PROFILE", help=WHAT + " (default: all that are there)")
    path = _add(parts, "path", "print where a model lies")
    path.add_argument("what", nargs="?", metavar="MODEL", help="(default: the folder of all models)")
    remove = _add(parts, "rm", "remove models; files that you named yourself stay")
    remove.add_argument("what", nargs="+", metavar="PROFILE", help=WHAT)


def _add(parts: Commands[argparse.ArgumentParser], name: str, text: str) -> argparse.ArgumentParser:
    part = parts.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
    part.add_argument("--folder", metavar="DIR", help="of the models (default: $FMH_MODELS, or the user's cache)")
    add_verbosity(part, quiet="")
    part.set_defaults(run=_run, act=name)
    return part


def _run(arguments: argparse.Namespace) -> int:
    from fmh_ros.cli import models

    return models.run(arguments)
