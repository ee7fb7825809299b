# SPDX-License-Identifier: Apache-2.0
"""The arguments of ``fmh bag``, ``fmh record`` and ``fmh view``."""

from __future__ import annotations

import argparse

from fmh_ros.cli.arguments import Commands, add_profile, add_prompt, add_verbosity


def add_bag_commands(commands: Commands[argparse.ArgumentParser]) -> None:
    """Add the commands that deal with recordings, and the one that shows results."""
    _add_bag(commands)
    _add_record(commands)
    _add_view(commands)


def _add_bag(commands: Commands[argparse.ArgumentParser]) -> None:
    bag = commands.add_parser("bag", help="look into rosbag2 bags and reconstruct from their images; needs no ROS")
    parts = bag.add_subparsers(title="commands", required=True, metavar="COMMAND")
    info = parts.add_parser("info", help="say what is in a bag, and what of it can be reconstructed from")
    info.add_argument("bag", help="a bag's folder, .mcap or .db3 file; one that is cut off is read up to the cut")
    add_verbosity(info, quiet="")
    info.set_defaults(run=_info)
    _add_bag_reconstruct(parts)


def _add_bag_reconstruct(parts: Commands[argparse.ArgumentParser]) -> None:
    command = parts.add_parser(
        "reconstruct",
        help="copy a bag and add reconstructions of its images",
        description=(
            "Writes every message of the bag as it is, and for each chosen image a HandObject, markers and TF with the "
            "image's stamp. Images that fail are reported with their error and the rest is done. Ctrl-C keeps what "
            "was written. A box, points or a mask count for every image."
        ),
    )
    command.add_argument("bag", help="a bag's folder, .mcap or .db3 file")
    command.add_argument("--image", required=True, metavar="TOPIC", help="Image or CompressedImage")
    command.add_argument("--camera-info", metavar="TOPIC", help="calibration (default: camera_info beside the image)")
    depth = command.add_mutually_exclusive_group()
    depth.add_argument(
        "--depth", metavar="TOPIC", help="aligned depth: Image or compressedDepth (default: found by the usual names)"
    )
    depth.add_argument("--no-depth", action="store_true", help="use no depth even where there is some")
    command.add_argument("--out", required=True, metavar="BAG", help="new bag: a .mcap or .db3 file, or a folder")
    which = command.add_mutually_exclusive_group()
    which.add_argument("--every", type=int, default=1, metavar="N", help="each N-th image (default: 1)")
    which.add_argument("--stamps", metavar="S,S,...", help="the images with these header stamps, seconds")
    command.add_argument("--slop", type=float, default=0.04, metavar="S", help="image to depth at most (default: 0.04)")
    add_profile(command)
    command.add_argument("--preset", help="guidance preset: default or paper (default: the profile's)")
    add_prompt(command)
    command.add_argument("--seed", type=int, default=0, help="same seed, same result (default: 0)")
    command.add_argument("--samples", type=int, default=1, metavar="K", help="make K and keep the best (default: 1)")
    command.add_argument("--no-guidance", action="store_true", help="only generate and register, quick and less exact")
    command.add_argument("--frame-prefix", default="", metavar="TEXT", help="goes before the names of frames in TF")
    command.add_argument("--node", metavar="NAME", help="name the new topics after it (default: /reconstruction_node)")
    add_verbosity(command)
    command.set_defaults(run=_bag_reconstruct)


def _add_record(commands: Commands[argparse.ArgumentParser]) -> None:
    command = commands.add_parser(
        "record",
        help="record live topics to a bag, without ros2 bag",
        description="Records serialised messages as they come, with the QoS that their publishers offer. Needs rclpy.",
    )
    command.add_argument("out", help="new bag: a .mcap or .db3 file, or a folder")
    command.add_argument("--topics", nargs="+", default=[], metavar="TOPIC", help="which topics (default: all)")
    command.add_argument(
        "--duration",
        type=float,
        metavar="S",
        help="stop so many seconds after the first message (default: at Ctrl-C)",
    )
    command.add_argument(
        "--wait",
        type=float,
        default=30.0,
        metavar="S",
        help="with --duration: fail when no message has come after so many seconds (default: 30)",
    )
    add_verbosity(command)
    command.set_defaults(run=_record)


def _add_view(commands: Commands[argparse.ArgumentParser]) -> None:
    command = commands.add_parser(
        "view",
        help="look at a result or at the reconstructions in a bag, in the browser or as a picture",
        description="Shows hand, object, contacts and the camera with its image. Runs until Ctrl-C.",
    )
    command.add_argument("result", help="result folder of fmh reconstruct, or a bag with reconstructions")
    command.add_argument("--number", type=int, default=-1, metavar="N", help="which one of a bag (default: the last)")
    command.add_argument("--image", metavar="TOPIC", help="image topic of a bag (default: the one with the stamp)")
    command.add_argument("--save", metavar="FILE", help="write a picture instead; needs no display and no browser")
    command.add_argument("--host", default="127.0.0.1", help="address to serve at (default: 127.0.0.1, this machine)")
    command.add_argument("--port", type=int, default=8080, help="port to serve at, the next free one (default: 8080)")
    add_verbosity(command, quiet="")
    command.set_defaults(run=_view)


def _info(arguments: argparse.Namespace) -> int:
    from fmh_ros.cli.bags import info

    return info(arguments)


def _bag_reconstruct(arguments: argparse.Namespace) -> int:
    from fmh_ros.cli.bags import reconstruct

    return reconstruct(arguments)


def _record(arguments: argparse.Namespace) -> int:
    from fmh_ros.cli.bags import record

    return record(arguments)


def _view(arguments: argparse.Namespace) -> int:
    from fmh_ros.cli.view import run

    return run(arguments)
