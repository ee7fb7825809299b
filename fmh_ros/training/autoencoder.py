# SPDX-License-Identifier: Apache-2.0
"""Train the grid autoencoder: ``python -m fmh_ros.training.autoencoder DATA OUT --minutes 30``."""

from __future__ import annotations

import argparse
import logging
import math
import time
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from fmh_ros.core.flow.embedded.autoencoder import GridAutoencoder
from fmh_ros.core.flow.embedded.model import read_weights
from fmh_ros.training.precision import fast_autocast
from fmh_ros.training.shapes.dataset import completed, open_arrays
from fmh_ros.training.shapes.views import FAMILY_NAMES

log = logging.getLogger(__name__)
KL_WEIGHT = 2e-4


def to_grid(batch: NDArray[np.generic]) -> Tensor:
    """(B, 64, 64, 64) int8 to (B, 1, 64, 64, 64) float32 in -1..1."""
    return torch.from_numpy(batch.astype(np.float32) / 127).unsqueeze(1)


def flip_grid(grid: Tensor, code: int) -> Tensor:
    """Apply one of the eight symmetries of the viewing axis to (..., X, Y, Z): bit 0 x flip, 1 y flip, 2 transpose."""
    if code & 1:
        grid = grid.flip(-3)
    if code & 2:
        grid = grid.flip(-2)
    if code & 4:
        grid = grid.transpose(-3, -2)
    return grid


def reconstruction_loss(predicted: Tensor, target: Tensor) -> Tensor:
    """Distance error, heavier near the surface, plus the error of finite differences there (normals)."""
    near = (target.abs() < 0.98).float()
    weight = 0.25 + 2 * near
    # Beyond the truncation only the sign side matters: overshooting is right.
    error = torch.where(near > 0, (predicted - target).abs(), F.relu(1 - predicted * target.sign()))
    loss = (weight * error).mean()
    for axis in (2, 3, 4):
        slope = predicted.diff(dim=axis) - target.diff(dim=axis)
        inside = near.narrow(axis, 0, near.shape[axis] - 1) * near.narrow(axis, 1, near.shape[axis] - 1)
        loss = loss + (slope.abs() * inside).mean()
    occupancy = F.binary_cross_entropy_with_logits(-predicted * 8, (target < 0).float(), reduction="none")
    return loss + 0.5 * (occupancy * near).mean()


def iou(predicted: Tensor, target: Tensor) -> Tensor:
    """Intersection over union of the negative parts, per batch entry."""
    a, b = predicted.flatten(1) < 0, target.flatten(1) < 0
    return (a & b).sum(1) / (a | b).sum(1).clamp(min=1)


@torch.no_grad()
def evaluate(model: GridAutoencoder, data: Path, limit: int = 230) -> dict[str, float]:
    """Held-out IoU of the mean latent's reconstruction: mean, median, and per family."""
    arrays = open_arrays(data)
    count = min(limit, completed(data))
    values = []
    for start in range(0, count, 10):
        grid = to_grid(arrays["tsdf"][start : min(start + 10, count)])
        with fast_autocast():
            out = model.decoder(model.encoder(grid)[0])
        values.append(iou(out.float(), grid))
    all_iou = torch.cat(values).numpy()
    families = np.asarray(arrays["family"][:count])
    result = {"mean": float(all_iou.mean()), "median": float(np.median(all_iou))}
    for code, name in enumerate(FAMILY_NAMES):
        if (families == code).any():
            result[name] = float(all_iou[families == code].mean())
    return result


def train(
    data: Path,
    held_out: Path,
    out: Path,
    minutes: float,
    *,
    batch: int = 8,
    peak: float = 1.5e-3,
    seed: int = 0,
    start: Path | None = None,
    only: str | None = None,
) -> None:
    """Train for this long by the clock and write ``autoencoder.pt`` every few minutes.

    ``start`` is a checkpoint whose weights are taken over, for a new schedule with a fresh optimiser, or the shipped
    file, which has a decoder alone. ``only`` "decoder" leaves the encoder as it is, and with it the latents of a flow
    that is being trained; ``only`` "encoder" finds an encoder for a decoder whose own is lost.
    """
    out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    model = GridAutoencoder()
    if start is not None and start.suffix == ".safetensors":
        model.decoder.load_state_dict(read_weights(start, "decoder."))
    elif start is not None:
        model.load_state_dict(torch.load(start, weights_only=True))
    model.encoder.requires_grad_(only != "decoder")
    model.decoder.requires_grad_(only != "encoder")
    optimiser = torch.optim.AdamW(
        [p for p in model.parameters() if p.requires_grad], lr=peak, betas=(0.9, 0.98), weight_decay=1e-3
    )
    arrays = open_arrays(data)
    started = time.monotonic()
    step, running, next_report = 0, 0.0, 2.0
    while True:
        elapsed = (time.monotonic() - started) / 60
        if elapsed >= minutes:
            break
        rate = peak * min(1, (step + 1) / 100) * (0.5 + 0.5 * math.cos(math.pi * elapsed / minutes)) + 1e-6
        for group in optimiser.param_groups:
            group["lr"] = rate
        chosen = np.sort(rng.choice(completed(data), batch, replace=False))
        grid = flip_grid(to_grid(arrays["tsdf"][chosen]), int(rng.integers(8)))
        with fast_autocast():
            predicted, mean, log_variance = model(grid)
        mean, log_variance = mean.float(), log_variance.float()
        kl = 0.5 * (mean**2 + log_variance.exp() - 1 - log_variance).mean()
        loss = reconstruction_loss(predicted.float(), grid) + KL_WEIGHT * kl * 8
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        running = 0.98 * running + 0.02 * float(loss.detach()) if step else float(loss.detach())
        step += 1
        if elapsed > next_report:
            next_report = elapsed + 3
            scores = evaluate(model, held_out, 60)
            log.info(
                "%.1f min step %d loss %.4f kl %.2f iou %.3f",
                elapsed,
                step,
                running,
                float(kl.detach()),
                scores["mean"],
            )
            torch.save(model.state_dict(), out / "autoencoder.pt")
    torch.save(model.state_dict(), out / "autoencoder.pt")
    log.info("held out after %d steps of %d: %s", step, batch, evaluate(model, held_out, 690))


def main() -> None:
    """Command line."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--held-out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--peak", type=float, default=1.5e-3, help="learning rate at the schedule's peak")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--start", type=Path, help="a checkpoint, or the shipped decoder, to go on from")
    parser.add_argument("--only", choices=("encoder", "decoder"), help="the half to train; the other stays as it is")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    train(
        arguments.data,
        arguments.held_out,
        arguments.out,
        arguments.minutes,
        peak=arguments.peak,
        seed=arguments.seed,
        start=arguments.start,
        only=arguments.only,
    )


if __name__ == "__main__":
    main()
