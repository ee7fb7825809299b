# SPDX-License-Identifier: Apache-2.0
"""Train the embedded flow: ``python -m fmh_ros.training.flow DATA AUTOENCODER OUT --minutes 120``.

A clock-driven cosine schedule; ``--resume`` continues from the last checkpoint with a new schedule.
"""

from __future__ import annotations

import argparse
import logging
import math
import time
from copy import deepcopy
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fmh_ros.core.flow.embedded.autoencoder import GridAutoencoder, GridDecoder
from fmh_ros.core.flow.embedded.layout import LATENT_CHANNELS, LATENT_TOKENS
from fmh_ros.core.flow.embedded.model import GUIDANCE_SCALE, EmbeddedShapeModel, read_weights
from fmh_ros.core.flow.embedded.transformer import VelocityNetwork
from fmh_ros.core.flow.sampler import euler_step, sigmas
from fmh_ros.training.autoencoder import flip_grid, iou, to_grid
from fmh_ros.training.precision import fast_autocast
from fmh_ros.training.shapes.dataset import completed, open_arrays
from fmh_ros.training.shapes.degrade import clean_maps, degrade
from fmh_ros.training.shapes.views import FAMILY_NAMES

log = logging.getLogger(__name__)
DROP_CONDITION = 0.1
TIMES_PER_CONDITION = 2
#: Clean estimates per step that are decoded, and the weight of their shape loss beside the velocity error.
DECODED, SHAPE_WEIGHT = 8, 0.5


@dataclass(frozen=True)
class LatentScale:
    """Per-channel mean and standard deviation that make latents unit-normal; each (C, 1, 1, 1)."""

    mean: Tensor
    deviation: Tensor


def flip_maps(maps: NDArray[np.float32], code: int) -> NDArray[np.float32]:
    """The symmetry of ``flip_grid`` on maps (8, rows y, columns x), normals included."""
    maps = maps.copy()
    if code & 1:
        maps = maps[:, :, ::-1].copy()
        maps[4] *= -1
    if code & 2:
        maps = maps[:, ::-1].copy()
        maps[5] *= -1
    if code & 4:
        maps = maps.transpose(0, 2, 1).copy()
        maps[[4, 5]] = maps[[5, 4]]
    return maps


def blank(maps: Tensor) -> Tensor:
    """Maps of a view that shows nothing: everything unknown. This is the unconditional case of guidance."""
    empty = torch.zeros_like(maps)
    empty[:, 1] = 1
    return empty


class FlowData:
    """Latents and degraded maps, drawn at random; latents are encoded when first needed and kept."""

    def __init__(self, folder: Path, autoencoder: GridAutoencoder, limit: int | None = None) -> None:
        self.folder = folder
        self.autoencoder = autoencoder
        self.limit = limit
        self.arrays = open_arrays(folder)
        capacity = len(self.arrays["family"])
        self.codes = np.full(capacity, -1, np.int8)
        self.latents = torch.zeros(capacity, LATENT_CHANNELS, *(LATENT_TOKENS,) * 3, dtype=torch.float16)

    @torch.no_grad()
    def encode(self, indices: NDArray[np.int64], codes: NDArray[np.int8]) -> Tensor:
        """Latent means of views under symmetries."""
        grids = torch.stack([self._grid(int(i), int(c)) for i, c in zip(indices, codes, strict=True)])
        with fast_autocast():
            return self.autoencoder.encoder(grids)[0].float()

    def draw(self, rng: np.random.Generator, count: int, refresh: float = 0.1) -> Batch:
        """Draw views at random, most under the symmetry that they were last encoded with."""
        available = completed(self.folder) if self.limit is None else self.limit
        indices = rng.integers(0, available, count)
        stale = (self.codes[indices] < 0) | (rng.random(count) < refresh)
        stale_indices = np.unique(indices[stale])
        if len(stale_indices):
            self.codes[stale_indices] = rng.integers(0, 8, len(stale_indices))
            self.latents[stale_indices] = self.encode(stale_indices, self.codes[stale_indices]).half()
        some = indices[:DECODED]
        return Batch(
            self.latents[indices].float(),
            torch.from_numpy(np.stack([self.degraded_maps(rng, int(i), int(self.codes[i])) for i in indices])),
            torch.from_numpy(np.asarray(self.arrays["distance"])[indices].astype(np.float32)),
            torch.stack([self._grid(int(i), int(self.codes[i])) for i in some]),
        )

    def _grid(self, index: int, code: int) -> Tensor:
        return flip_grid(to_grid(self.arrays["tsdf"][index : index + 1])[0], code)

    def degraded_maps(self, rng: np.random.Generator, index: int, code: int = 0) -> NDArray[np.float32]:
        """Condition maps (8, S, S) of a view as a camera and a hand leave them, under a symmetry."""
        return flip_maps(degrade(rng, *self._view(index), bool(self.arrays["has_depth"][index])), code)

    def clean_maps(self, index: int) -> NDArray[np.float32]:
        """Condition maps (8, S, S) of a view that nothing hides or disturbs."""
        return clean_maps(*self._view(index))

    def _view(self, index: int) -> tuple[NDArray[np.bool_], NDArray[np.float32], NDArray[np.float32]]:
        depth, normals = (np.asarray(self.arrays[name][index], np.float32) for name in ("depth", "normals"))
        return np.asarray(self.arrays["mask"][index]), depth, normals


def draw_times(rng: torch.Generator, count: int) -> Tensor:
    """Flow times, logit-normal and shifted towards noise: there the condition alone decides what the shape is,
    and that is the slowest part to learn."""
    return torch.sigmoid(torch.randn(count, generator=rng) * 1.2 - 0.9)


@dataclass(frozen=True)
class Batch:
    """Latents (B, C, 4, 4, 4), maps (B, 8, S, S), distances (B,), and true grids (n, 1, 64, 64, 64) of the first n."""

    latents: Tensor
    maps: Tensor
    distance: Tensor
    grids: Tensor


def shape_loss(decoder: GridDecoder, scale: LatentScale, clean: Tensor, grids: Tensor) -> Tensor:
    """One minus the soft IoU of decoded clean estimates with the true shapes.

    Latent error says little about the shape: it spends as much on channels that hardly move the surface.
    """
    with fast_autocast():
        decoded = decoder(clean * scale.deviation + scale.mean)
    inside = torch.sigmoid(-8 * decoded.float()).flatten(1)
    truth = (grids < 0).float().flatten(1)
    both = (inside * truth).sum(1)
    return (1 - both / (inside.sum(1) + truth.sum(1) - both + 1)).mean()


def flow_loss(
    model: VelocityNetwork, batch: Batch, decoder: GridDecoder, scale: LatentScale, rng: torch.Generator
) -> Tensor:
    """Mean squared velocity error, and the shape error of some clean estimates; each condition is used for several
    times and noises."""
    maps, distance, latents = batch.maps, batch.distance, (batch.latents - scale.mean) / scale.deviation
    dropped = torch.rand(len(maps), generator=rng) < DROP_CONDITION
    maps = torch.where(dropped[:, None, None, None], blank(maps), maps)
    with fast_autocast():
        tokens = model.condition(maps, distance)
        latents = latents.repeat(TIMES_PER_CONDITION, 1, 1, 1, 1)
        noise = torch.randn(latents.shape, generator=rng)
        times = draw_times(rng, len(latents))
        mix = times.view(-1, 1, 1, 1, 1)
        state = (1 - mix) * noise + mix * latents
        predicted = model(state, times, tokens.repeat(TIMES_PER_CONDITION, 1, 1)).float()
    error = (predicted - (latents - noise)).square().mean()
    # Without a condition the mean shape is no shape at all.
    shown = torch.nonzero(~dropped[: len(batch.grids)])[:, 0]
    if not len(shown):
        return error
    clean = (state + (1 - mix) * predicted)[shown]
    return error + SHAPE_WEIGHT * shape_loss(decoder, scale, clean, batch.grids[shown])


@torch.no_grad()
def sample(model: VelocityNetwork, maps: Tensor, distance: Tensor, *, steps: int, scale: float, seed: int) -> Tensor:
    """Unguided latents (normalised) for a batch of conditions."""
    generator = torch.Generator().manual_seed(seed)
    x = EmbeddedShapeModel.temperature * torch.randn(
        len(maps), LATENT_CHANNELS, *(LATENT_TOKENS,) * 3, generator=generator
    )
    with fast_autocast():
        tokens = model.condition(maps, distance)
        empty = model.condition(blank(maps), distance)
    levels = sigmas(steps)
    for now, after in pairwise(levels):
        time_now = torch.full((len(maps),), now)
        with fast_autocast():
            velocity = model(x, time_now, tokens).float()
            if scale != 1:
                free = model(x, time_now, empty).float()
                velocity = free + scale * (velocity - free)
        x = euler_step(x, velocity, now, after)
    return x


@torch.no_grad()
def evaluate(
    model: VelocityNetwork,
    data: FlowData,
    latent_scale: LatentScale,
    *,
    count: int,
    scale: float = GUIDANCE_SCALE,
    batch: int = 23,
    clean: bool = False,
) -> dict[str, float]:
    """Single-view IoU on held-out views: mean, median, with and without depth, per family.

    ``clean`` shows all of the view with exact depth, which tells what the generator itself can do.
    """
    rng = np.random.default_rng(0)
    values, families, depths = [], [], []
    for start in range(0, count, batch):
        indices = np.arange(start, min(start + batch, count))
        drawn = [data.clean_maps(int(i)) if clean else data.degraded_maps(rng, int(i)) for i in indices]
        maps = torch.from_numpy(np.stack(drawn))
        distance = torch.from_numpy(np.asarray(data.arrays["distance"])[indices].astype(np.float32))
        latent = sample(model, maps, distance, steps=20, scale=scale, seed=start)
        with fast_autocast():
            grids = data.autoencoder.decoder(latent * latent_scale.deviation + latent_scale.mean).float()
        values.append(iou(grids, to_grid(data.arrays["tsdf"][indices])).numpy())
        families.append(np.asarray(data.arrays["family"])[indices])
        depths.append(np.asarray(data.arrays["has_depth"])[indices])
    scores, family, depth = np.concatenate(values), np.concatenate(families), np.concatenate(depths)
    result = {"mean": float(scores.mean()), "median": float(np.median(scores))}
    if not clean:
        result["with_depth"], result["without_depth"] = float(scores[depth].mean()), float(scores[~depth].mean())
    for code, name in enumerate(FAMILY_NAMES):
        if (family == code).any():
            result[name] = float(scores[family == code].mean())
    return result


def measure_scale(data: FlowData, count: int = 512) -> LatentScale:
    """Estimate the latents' per-channel mean and deviation."""
    rng = np.random.default_rng(1)
    indices = rng.integers(0, completed(data.folder), count)
    latents = torch.cat(
        [data.encode(indices[i : i + 16], rng.integers(0, 8, 16).astype(np.int8)) for i in range(0, count, 16)]
    )
    mean = latents.mean((0, 2, 3, 4)).view(-1, 1, 1, 1)
    deviation = latents.std((0, 2, 3, 4)).view(-1, 1, 1, 1)
    return LatentScale(mean, deviation)


class Trainer:
    """Network, its moving average, and the optimiser; ``start`` has weights to begin with, as they ship."""

    def __init__(self, peak: float, start: Path | None = None) -> None:
        self.peak = peak
        self.model = VelocityNetwork()
        if start is not None:
            self.model.load_state_dict(read_weights(start, "velocity."))
        self.average = deepcopy(self.model).requires_grad_(False)
        self.optimiser = torch.optim.AdamW(self.model.parameters(), lr=peak, betas=(0.9, 0.98), weight_decay=0.01)
        self.step = 0

    def update(self, loss: Tensor, progress: float) -> None:
        """One step at the schedule position ``progress`` in 0..1."""
        rate = self.peak * min(1.0, (self.step + 1) / 200) * (0.5 + 0.5 * math.cos(math.pi * progress)) + 1e-6
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimiser.step()
        self.step += 1
        keep = min(0.999, 1 - 1 / (self.step / 5 + 1))
        with torch.no_grad():
            for mine, theirs in zip(self.average.parameters(), self.model.parameters(), strict=True):
                mine.lerp_(theirs, 1 - keep)

    def state(self) -> dict[str, object]:
        """Everything a resumed training needs."""
        return {
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "step": self.step,
        }

    def load(self, state: dict[str, object]) -> None:
        """Continue from ``state()``."""
        self.model.load_state_dict(state["model"])  # type: ignore[arg-type]
        self.average.load_state_dict(state["average"])  # type: ignore[arg-type]
        self.optimiser.load_state_dict(state["optimiser"])  # type: ignore[arg-type]
        self.step = int(state["step"])  # type: ignore[call-overload]


def train(arguments: argparse.Namespace) -> None:
    """Train by the clock and write ``flow.pt`` (network average, latent scale, optimiser state)."""
    arguments.out.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    rng, noise = np.random.default_rng(arguments.seed), torch.Generator().manual_seed(arguments.seed)
    autoencoder = GridAutoencoder()
    autoencoder.load_state_dict(torch.load(arguments.autoencoder, weights_only=True))
    autoencoder.requires_grad_(False).eval()
    data, held_out = FlowData(arguments.data, autoencoder), FlowData(arguments.held_out, autoencoder)
    trainer = Trainer(arguments.peak, arguments.start)
    checkpoint = arguments.out / "flow.pt"
    scale = None
    if arguments.resume and checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True)
        trainer.load(saved)
        scale = LatentScale(saved["mean"], saved["deviation"])
    elif arguments.start is not None:
        # Its network knows latents in this scale, whatever another encoder's are.
        latent = read_weights(arguments.start, "latent.")
        scale = LatentScale(latent["mean"], latent["deviation"])
    if scale is None or arguments.new_autoencoder:
        scale = measure_scale(data)
    started, next_report, running = time.monotonic(), 4.0, 0.0
    while True:
        elapsed = (time.monotonic() - started) / 60
        done = elapsed >= arguments.minutes
        if elapsed > next_report or done:
            next_report = elapsed + arguments.report_minutes
            scores = evaluate(trainer.average, held_out, scale, count=690 if done else 46)
            log.info("%.1f min step %d loss %.4f iou %s", elapsed, trainer.step, running, _rounded(scores, done))
            torch.save({**trainer.state(), "mean": scale.mean, "deviation": scale.deviation}, checkpoint)
        if done:
            break
        loss = flow_loss(trainer.model, data.draw(rng, arguments.batch), autoencoder.decoder, scale, noise)
        trainer.update(loss, elapsed / arguments.minutes)
        value = float(loss.detach())
        running = 0.99 * running + 0.01 * value if running else value


def _rounded(scores: dict[str, float], everything: bool) -> dict[str, float]:
    names = list(scores) if everything else ["mean", "median", "with_depth", "without_depth"]
    return {n: round(scores[n], 3) for n in names}


def main() -> None:
    """Command line."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("autoencoder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--held-out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=120)
    parser.add_argument("--report-minutes", type=float, default=6)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--peak", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--start", type=Path, help="shipped weights to begin with, of whose latents the encoder is")
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--new-autoencoder", action="store_true", help="resume on the latents of another autoencoder")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    train(arguments)


if __name__ == "__main__":
    main()
