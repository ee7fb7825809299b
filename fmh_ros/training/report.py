# SPDX-License-Identifier: Apache-2.0
"""Held-out accuracy of the embedded generator, per family: ``python -m fmh_ros.training.report DATA``.

Reconstruction IoU is that of a shape encoded and decoded (it needs the training checkpoint, since the encoder does not
ship); single-view IoU is that of an unguided sample, 20 steps, from one view as a camera and a hand leave it, or clean
(nothing hidden, exact depth and normals), or wide (deeper than broad, or partly beyond the hand). What is not there of
DATA and of the wide views is made, from seeds that training does not use.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

from fmh_ros.core.flow.embedded.autoencoder import GridAutoencoder
from fmh_ros.core.flow.embedded.model import GUIDANCE_SCALE, WEIGHTS, EmbeddedShapeModel
from fmh_ros.training import autoencoder as autoencoder_training
from fmh_ros.training.embedded import HELD_OUT_COUNT, HELD_OUT_SEED, WIDE_COUNT, WIDE_SEED
from fmh_ros.training.flow import FlowData, LatentScale, evaluate
from fmh_ros.training.shapes.dataset import completed, generate
from fmh_ros.training.shapes.views import FAMILY_NAMES


def table(columns: dict[str, dict[str, float]]) -> str:
    """Markdown rows of scores: what it is of, then one column for each measurement."""
    rows = ["| | " + " | ".join(columns) + " |", "|---" * (1 + len(columns)) + "|"]
    for name in ("mean", "median", "with_depth", "without_depth", *FAMILY_NAMES):
        cells = [f"{scores[name]:.3f}" if name in scores else "" for scores in columns.values()]
        if any(cells):
            rows.append(f"| {name.replace('_', ' ')} | " + " | ".join(cells) + " |")
    return "\n".join(rows)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--wide", type=Path, help="folder of wide views, scored in a column of their own")
    parser.add_argument("--autoencoder", type=Path)
    parser.add_argument("--weights", type=Path, default=WEIGHTS)
    parser.add_argument("--count", type=int, default=HELD_OUT_COUNT)
    parser.add_argument("--guidance-scale", type=float, default=GUIDANCE_SCALE)
    arguments = parser.parse_args()
    if not completed(arguments.data):
        generate(arguments.data, arguments.count, HELD_OUT_SEED)
    if arguments.wide is not None and not completed(arguments.wide):
        generate(arguments.wide, WIDE_COUNT, WIDE_SEED, wide=1.0)
    count = min(arguments.count, completed(arguments.data))
    columns = {}
    model = GridAutoencoder().requires_grad_(False).eval()
    if arguments.autoencoder is not None:
        model.load_state_dict(torch.load(arguments.autoencoder, weights_only=True))
        columns["reconstruction IoU"] = autoencoder_training.evaluate(model, arguments.data, count)
    shipped = EmbeddedShapeModel(arguments.weights)
    shipped.load()
    model.decoder = shipped.decoder
    latents = LatentScale(shipped.mean, shipped.deviation)
    wanted = [("single-view IoU", arguments.data, False), ("of clean views", arguments.data, True)]
    if arguments.wide is not None:
        wanted.append(("of wide views", arguments.wide, False))
    for title, folder, clean in wanted:
        columns[title] = evaluate(
            shipped.velocity_network,
            FlowData(folder, model),
            latents,
            count=min(count, completed(folder)),
            scale=arguments.guidance_scale,
            clean=clean,
        )
    print(f"{count} held-out views, seed {HELD_OUT_SEED}; {np.round(arguments.weights.stat().st_size / 1e6, 1)} MB\n")
    print(table(columns))


if __name__ == "__main__":
    main()
