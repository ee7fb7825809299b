# SPDX-License-Identifier: Apache-2.0
"""Trains the network that completes the object behind the hand, on rendered views of grasps.

``python -m fmh_ros.training.amodal --help``.
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor

from fmh_ros.core.cues.amodal import crop_square
from fmh_ros.core.cues.amodal_network import HAND, MAP_SIZE, OBJECT, AmodalInput, AmodalNetwork, amodal_maps
from fmh_ros.core.cues.completion import GRASP_JOINTS
from fmh_ros.core.cues.squares import Square, apply, invert
from fmh_ros.training.amodal_views import Views, load_views
from fmh_ros.training.masks_data import sensor_depth
from fmh_ros.training.scenes import render
from fmh_ros.training.weights import recent_average, scheduled_rate, write_half

Rng = np.random.Generator
FloatArray = NDArray[np.float64]
log = logging.getLogger(__name__)

#: Share of the examples with measured depth.
DEPTH_SHARE = 0.6
#: Weight of pixels that are not the hand's: what is seen there needs no guess.
ELSEWHERE = 0.1
#: Seconds between two writes of the weights.
SAVE_S = 120


def noisy_joints(rng: Rng, joints: FloatArray) -> FloatArray:
    """Disturb joints (21, 3), metres, as a fit does: as a whole, fingers towards their tips, and along the ray."""
    strength = float(np.exp(rng.normal(0, 0.5)))
    noise = rng.normal(0, 0.002, (21, 3)) + rng.normal(0, [0.003, 0.003, 0.006])
    for finger in range(5):
        growth = np.array([0.3, 0.6, 0.85, 1.0])[:, None]
        noise[1 + 4 * finger : 5 + 4 * finger] += growth * rng.normal(0, [0.005, 0.005, 0.008])
    return joints + strength * noise


def noisy_label(rng: Rng, label: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Disturb masks as a segmenter does: outlines in and out by a pixel or two, and a bite off the object."""
    result = label.copy()
    if rng.random() < 0.6:
        size = int(rng.integers(2, 4))
        kernel = np.ones((size, size), np.uint8)
        held = (label == OBJECT).astype(np.uint8)
        change = cv2.erode(held, kernel) if rng.random() < 0.6 else cv2.dilate(held, kernel)
        result[(held > 0) & (change == 0)] = HAND if rng.random() < 0.5 else 0
        result[(held == 0) & (change > 0)] = OBJECT
    if rng.random() < 0.25:
        rows, columns = np.nonzero(result == OBJECT)
        if len(rows) > 30:
            pick = int(rng.integers(len(rows)))
            bite = np.zeros_like(result)
            cv2.circle(bite, (int(columns[pick]), int(rows[pick])), int(rng.integers(2, 8)), 1, -1)
            smaller = (result == OBJECT) & (bite == 0)
            if smaller.sum() > 0.5 * len(rows):
                result[(result == OBJECT) & (bite > 0)] = 0 if rng.random() < 0.5 else HAND
    return result


def draw_crop(rng: Rng, pixels: FloatArray, held: NDArray[np.bool_]) -> Square:
    """Draw a turned crop round the joints (21, 2) and the object (S, S) in pixels of a view."""
    plain = crop_square(pixels, held)
    centre = plain.centre + rng.normal(0, 0.05, 2) * plain.side
    return Square(centre, plain.side * float(np.exp(rng.normal(0, 0.12))), float(rng.uniform(-np.pi, np.pi)))


def draw_example(rng: Rng, views: Views, index: int) -> tuple[NDArray[np.float32], NDArray[np.float32]] | None:
    """Return maps (MAP_COUNT, S, S) and the whole object (S, S) of one view, or None where too little is seen."""
    kinds, K = views.label[index], views.K[index]
    joints = noisy_joints(rng, views.keypoints[index])
    grasp = float(joints[list(GRASP_JOINTS), 2].mean())
    pixels = (joints @ K.T)[:, :2] / joints[:, 2:]
    if (kinds == render.OBJECT).sum() < 60:
        return None
    crop = draw_crop(rng, pixels, kinds == render.OBJECT)
    matrix = invert(crop.to_frame(MAP_SIZE))
    size, flags = (MAP_SIZE, MAP_SIZE), cv2.INTER_NEAREST
    solid = kinds != render.BACKGROUND
    classes = np.where(kinds == render.OBJECT, OBJECT, np.where(solid, HAND, 0)).astype(np.uint8)
    label = cv2.warpAffine(classes, matrix, size, flags=flags).astype(np.uint8)
    if (label == OBJECT).sum() < 15:
        return None
    inside = cv2.warpAffine(np.ones_like(classes), matrix, size, flags=flags) > 0
    whole = cv2.warpAffine(views.amodal[index].astype(np.float32), matrix, size, flags=cv2.INTER_AREA)
    depth = None
    if rng.random() < DEPTH_SHARE:
        plain = cv2.warpAffine(views.depth[index].astype(np.float32), matrix, size, flags=flags)
        depth = sensor_depth(rng, plain.astype(np.float32)) - np.float32(grasp)
    placed = np.concatenate([apply(matrix, pixels), joints[:, 2:] - grasp], 1)
    scale = grasp / K[0, 0] * crop.side / MAP_SIZE
    seen = AmodalInput(noisy_label(rng, label), inside, depth, placed, scale)
    return amodal_maps(seen), np.where(inside, whole, np.nan).astype(np.float32)


class _Stream(torch.utils.data.IterableDataset[tuple[Tensor, Tensor]]):
    """Endless batches, made in a worker process."""

    def __init__(self, views: Views, batch: int, seed: int) -> None:
        self.views, self.batch, self.seed = views, batch, seed

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        torch.set_num_threads(1)
        cv2.setNumThreads(1)
        rng = np.random.default_rng(self.seed)
        while True:
            rows: list[tuple[NDArray[np.float32], NDArray[np.float32]]] = []
            while len(rows) < self.batch:
                example = draw_example(rng, self.views, int(rng.integers(len(self.views))))
                if example is not None:
                    rows.append(example)
            maps, whole = (torch.from_numpy(np.stack(column)) for column in zip(*rows, strict=True))
            yield maps, whole


def loss(logits: Tensor, maps: Tensor, whole: Tensor) -> Tensor:
    """Cross entropy over the pixels in the picture, the hand's in full."""
    known = torch.isfinite(whole)
    weight = known * (ELSEWHERE + (1 - ELSEWHERE) * maps[:, 1])
    each = torch.nn.functional.binary_cross_entropy_with_logits(logits, whole.nan_to_num(0), reduction="none")
    return (weight * each).sum() / weight.sum().clamp(min=1)


def train(
    views: Views,
    output: Path,
    *,
    hours: float,
    batch: int = 16,
    rate: float = 2e-3,
    seed: int = 1,
    start: Path | None = None,
    workers: int = 1,
) -> AmodalNetwork:
    """Train for ``hours`` and write ``output`` every two minutes (an average of recent weights).

    workers : processes that make the batches; 0 makes them here, for a process that must not fork.
    """
    torch.manual_seed(seed)
    network = AmodalNetwork()
    if start is not None:
        network.load_state_dict({k: v.float() for k, v in load_file(start).items()})
    average = recent_average(network)
    optimiser = torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=1e-3)
    stream = _Stream(views, batch, seed)
    ahead = 4 if workers else None
    loader = torch.utils.data.DataLoader(stream, batch_size=None, num_workers=workers, prefetch_factor=ahead)
    begin = saved = time.time()
    total, step = 0.0, 0
    for maps, whole in loader:
        progress = (time.time() - begin) / (3600 * hours)
        if progress >= 1:
            break
        for group in optimiser.param_groups:
            group["lr"] = scheduled_rate(rate, step, progress)
        value = loss(network(maps), maps, whole)
        optimiser.zero_grad()
        value.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(network.parameters(), 2.0)
        optimiser.step()
        average.update_parameters(network)
        step, total = step + 1, total + float(value.detach())
        if step % 100 == 0:
            log.info("step %d, %.0f s: %.4f", step, time.time() - begin, total / 100)
            total = 0.0
        if time.time() - saved > SAVE_S:
            write_half(average.module.state_dict(), output)
            saved = time.time()
    write_half(average.module.state_dict(), output)
    return average.module  # type: ignore[return-value]


@torch.no_grad()
def evaluate(network: AmodalNetwork, views: Views, count: int, seed: int = 0) -> dict[str, float]:
    """Intersection over union and cross entropy (nats) at the hand's pixels of ``count`` examples."""
    rng = np.random.default_rng(seed)
    shared = united = pixels = 0
    entropy = 0.0
    for _ in range(count):
        example = draw_example(rng, views, int(rng.integers(len(views))))
        if example is None:
            continue
        maps, whole = (torch.from_numpy(values)[None] for values in example)
        logits = network.eval()(maps)
        behind = (maps[:, 1] > 0.5) & torch.isfinite(whole)
        said, true = logits[behind] > 0, whole[behind] > 0.5
        shared, united = shared + int((said & true).sum()), united + int((said | true).sum())
        pixels += int(behind.sum())
        each = torch.nn.functional.binary_cross_entropy_with_logits(logits[behind], whole[behind], reduction="sum")
        entropy += float(each)
    return {"iou": shared / max(united, 1), "cross_entropy": entropy / max(pixels, 1)}


def main(arguments: Sequence[str] | None = None) -> int:
    """Train or evaluate; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m fmh_ros.training.amodal", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    learn = commands.add_parser("train", help="train the network; writes its weights every two minutes")
    learn.add_argument("bank", type=Path, nargs="+", help="folders of views, also of fmh_ros.training.masks")
    learn.add_argument("--rate", type=float, default=2e-3, help="learning rate to begin with (default 2e-3)")
    learn.add_argument("--output", type=Path, required=True)
    learn.add_argument("--start", type=Path, help="go on from these weights")
    learn.add_argument("--hours", type=float, default=1.0)
    learn.add_argument("--seed", type=int, default=1)
    score = commands.add_parser("evaluate", help="scores on a bank of held-out views")
    score.add_argument("bank", type=Path, nargs="+")
    score.add_argument("weights", type=Path)
    score.add_argument("--count", type=int, default=400)
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    torch.set_num_threads(1)
    views = load_views(options.bank)
    log.info("%d views", len(views))
    if options.command == "train":
        train(views, options.output, hours=options.hours, rate=options.rate, seed=options.seed, start=options.start)
    else:
        found = evaluate(AmodalNetwork.from_file(options.weights), views, options.count)
        log.info(" ".join(f"{key} {value:.4f}" for key, value in found.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
