# SPDX-License-Identifier: Apache-2.0
"""The ``fmh`` command: arguments, exit codes, and what is said when something goes wrong."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from types import FrameType
from typing import NoReturn

import fmh_ros
from fmh_ros.cli.arguments import Commands, add_profile, add_prompt, add_verbosity
from fmh_ros.cli.bag_commands import add_bag_commands
from fmh_ros.cli.bench import add_bench_commands
from fmh_ros.cli.eval_command import add_eval_command
from fmh_ros.cli.models_command import add_models_command
from fmh_ros.core.errors import FmhError, OutOfMemoryError
from fmh_ros.core.threads import wait_without_spinning

EXIT_UNEXPECTED = 70
EXIT_INTERRUPTED = 130
EXIT_TERMINATED = 143


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code; ``argv`` without the program's name, the process's by default."""
    wait_without_spinning(os.environ)
    try:
        arguments = build_parser().parse_args(argv)
    except SystemExit as stop:  # argparse has already printed help or what is wrong
        return stop.code if isinstance(stop.code, int) else 2
    previous = signal.signal(signal.SIGTERM, _terminate)
    try:
        return int(arguments.run(arguments))
    except (KeyboardInterrupt, _TerminatedError, Exception) as error:  # noqa: BLE001 - the last line of defence
        if arguments.verbose:
            traceback.print_exc()
        code, message = _explained(error, arguments.verbose)
        print(f"fmh: {message}", file=sys.stderr)
        return code
    finally:
        signal.signal(signal.SIGTERM, previous)


def _explained(error: BaseException, verbose: bool) -> tuple[int, str]:
    """Return the exit code and what to tell a person, who gets a sentence and not a traceback."""
    if isinstance(error, FmhError):
        return error.code, f"{type(error).__name__} (exit code {error.code}): {error}"
    if isinstance(error, KeyboardInterrupt):
        return EXIT_INTERRUPTED, "interrupted, nothing was written"
    if isinstance(error, _TerminatedError):
        return EXIT_TERMINATED, "terminated, nothing was written"
    if isinstance(error, MemoryError):
        return OutOfMemoryError.code, "the machine ran out of memory. Close other programs or use a smaller image."
    hint = "" if verbose else " Run it again with --verbose to see where, and please report it."
    return EXIT_UNEXPECTED, f"unexpected {type(error).__name__}: {error}.{hint}"


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of all subcommands."""
    parser = argparse.ArgumentParser(
        prog="fmh",
        description="Reconstructs a hand and the object it holds from one image.",
        epilog=_exit_codes(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"fmh {fmh_ros.__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_reconstruct(commands)
    add_bag_commands(commands)
    add_bench_commands(commands)
    add_eval_command(commands)
    add_models_command(commands)
    _add_doctor(commands)
    return parser


def _add_reconstruct(commands: Commands[argparse.ArgumentParser]) -> None:
    command = commands.add_parser(
        "reconstruct",
        help="turn one image into meshes, poses and contacts",
        description=(
            "Reads one image and writes hand.glb, object.glb, scene.glb (metres, camera optical frame), "
            "reconstruction.json, overlay.png and views.png to a folder."
        ),
        epilog=_exit_codes(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument("image", help="photo: JPEG, PNG, WebP, BMP or TIFF")
    command.add_argument("--out", required=True, metavar="DIR", help="result folder; an earlier result is replaced")
    command.add_argument("--depth", metavar="FILE", help="aligned depth: 16-bit PNG in millimetres or .npy in metres")
    command.add_argument("--depth-scale", type=float, metavar="M", help="metres per unit of the depth file")
    command.add_argument("--camera", metavar="FILE", help="ROS camera_info YAML; else the field of view is estimated")
    add_profile(command)
    command.add_argument("--preset", help="guidance preset: default or paper (default: the profile's)")
    add_prompt(command)
    command.add_argument("--seed", type=int, default=0, help="same seed, same result (default: 0)")
    command.add_argument("--samples", type=int, default=1, metavar="K", help="make K and keep the best (default: 1)")
    command.add_argument("--no-guidance", action="store_true", help="only generate and register, quick and less exact")
    talk = command.add_mutually_exclusive_group()
    talk.add_argument("--progress", action="store_true", help="show the progress bar even without a terminal")
    talk.add_argument("--quiet", action="store_true", help="print nothing but errors")
    add_verbosity(command, quiet="")
    command.set_defaults(run=_reconstruct)


def _add_doctor(commands: Commands[argparse.ArgumentParser]) -> None:
    command = commands.add_parser(
        "doctor",
        help="say what is installed, what is missing and what to do about it",
        description="Checks libraries, weights, processor and graphics card, and ends with one command to run next.",
    )
    add_profile(command)
    add_verbosity(command, quiet="")
    command.set_defaults(run=_doctor)


def _reconstruct(arguments: argparse.Namespace) -> int:
    from fmh_ros.cli.reconstruct import run

    return run(arguments)


def _doctor(arguments: argparse.Namespace) -> int:
    from fmh_ros.cli.doctor import run
    from fmh_ros.core.reconstruction.profile import profile_text

    return run(profile_text(arguments.profile, arguments.stage))


class _TerminatedError(BaseException):
    """SIGTERM, raised so that what is under way cleans up behind itself."""


def _terminate(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise _TerminatedError


def _exit_codes() -> str:
    """Return the table of exit codes, made from the error classes themselves."""
    rows = [(0, "success; a weak result has a low score and warnings")]
    rows += [(kind.code, (kind.__doc__ or "").split("\n")[0]) for kind in error_types()]
    rows += [
        (EXIT_UNEXPECTED, "Unexpected error, a fault of this program."),
        (EXIT_INTERRUPTED, "Interrupted with Ctrl-C; nothing was written."),
        (EXIT_TERMINATED, "Terminated; nothing was written."),
    ]
    return "exit codes:\n" + "\n".join(f"  {code:>3}  {text}" for code, text in sorted(rows))


def error_types() -> list[type[FmhError]]:
    """Return every typed error, by code."""
    return sorted(FmhError.__subclasses__(), key=lambda kind: kind.code)


if __name__ == "__main__":
    sys.exit(main())
