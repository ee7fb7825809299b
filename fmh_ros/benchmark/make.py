# SPDX-License-Identifier: Apache-2.0
"""Makes the scenes of a benchmark, one folder each; what is there already is kept, so an interrupted run goes on."""

from __future__ import annotations

import argparse
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from fmh_ros.benchmark.run import parse_shard
from fmh_ros.benchmark.scene_sheet import scene_sheet
from fmh_ros.benchmark.scenes.draw import draw_scene
from fmh_ros.benchmark.scenes.plan import COUNTS, QUICK_COUNT, plan_scene
from fmh_ros.benchmark.store import SCENE_FILE, save_scene
from fmh_ros.benchmark.types import Split
from fmh_ros.core.errors import OutputError, UsageError
from fmh_ros.core.hand.rig import load_generic_rig
from fmh_ros.training.scenes.textures import Image, load_photos


@dataclass(frozen=True)
class MakeOrder:
    """Which scenes to make: the k-th of n parts, k from 1, of ``count`` scenes of a split from index ``first``."""

    out: Path
    split: Split = "test"
    first: int = 0
    count: int = 200
    shard: tuple[int, int] = (1, 1)
    seed: int = 0


def make_scenes(order: MakeOrder, photos: list[Image], say: Callable[[str], None]) -> list[Path]:
    """Make what is not there yet, and return the folders of all the scenes of the order.

    A folder appears whole or not at all. Raises UsageError, ModelMissingError or OutputError.
    """
    rig = load_generic_rig()
    folders = []
    part, parts = order.shard
    for index in range(order.first, order.first + order.count)[part - 1 :: parts]:
        plan = plan_scene(order.split, index, order.seed)
        folder = order.out / plan.name
        folders.append(folder)
        if (folder / SCENE_FILE).is_file():
            continue
        began = time.perf_counter()
        scene = draw_scene(plan, rig, photos)
        save_scene(_staging(folder), scene)
        _put_in_place(folder)
        attributes = scene.attributes
        say(
            f"{plan.name}  {attributes.object_name:26s} {attributes.side:5s} {attributes.grasp:9s} "
            f"{attributes.occlusion:4.0%} hidden  {attributes.distance_m:.2f} m  {time.perf_counter() - began:.1f} s"
        )
    return folders


def run(arguments: argparse.Namespace) -> int:
    """``fmh bench make``."""
    torch.set_num_threads(1)
    count = arguments.count if arguments.count is not None else COUNTS[arguments.split]
    if arguments.quick:
        if arguments.split != "test" or arguments.first or arguments.count is not None:
            raise UsageError("--quick is given with another choice of scenes", expected="--quick alone, or without it")
        count = QUICK_COUNT
    if count < 1 or arguments.first < 0:
        raise UsageError(f"--count is {count} and --first {arguments.first}", expected="at least 1 and at least 0")
    if arguments.photos is not None and not arguments.photos.is_dir():
        raise UsageError(f"--photos {arguments.photos} is no folder", expected="a folder of pictures")
    order = MakeOrder(
        arguments.out, arguments.split, arguments.first, count, parse_shard(arguments.shard), arguments.seed
    )
    folders = make_scenes(order, load_photos(arguments.photos), lambda line: _say(line, arguments.quiet))
    if arguments.sheet is not None:
        try:
            arguments.sheet.write_bytes(scene_sheet(folders))
        except OSError as error:
            raise OutputError.unwritable(f"the picture {arguments.sheet}", error) from error
    _say(f"{len(folders)} scenes in {arguments.out}. Next: fmh bench run --scenes {arguments.out} --out RESULTS", False)
    return 0


def _staging(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.part")


def _put_in_place(folder: Path) -> None:
    try:
        shutil.rmtree(folder, ignore_errors=True)
        _staging(folder).rename(folder)
    except OSError as error:
        raise OutputError.unwritable(f"the folder {folder}", error) from error


def _say(line: str, quiet: bool) -> None:
    if not quiet:
        print(line, flush=True)  # noqa: T201 - this is the command's output
