# SPDX-License-Identifier: Apache-2.0
"""Training loop and scores of the mask network."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from fmh_ros.core.cues.mask_network import ImageEncoder, MaskNetwork, MaskOutput
from fmh_ros.core.hand.rig import HandRig, load_generic_rig
from fmh_ros.training.masks_data import IGNORED, Batch, ExampleSource
from fmh_ros.training.precision import fast_autocast
from fmh_ros.training.scenes.compose import Bank
from fmh_ros.training.scenes.textures import Image, load_photos
from fmh_ros.training.weights import recent_average, scheduled_rate, write_half

log = logging.getLogger(__name__)

#: Blocks of the image encoder that keep their pretrained weights (and cost no backward pass). In the later ones the
#: depthwise filters are kept too: their weight gradient is the slowest part of a step on a CPU.
FROZEN_BLOCKS = 5


@dataclass(frozen=True)
class TrainConfig:
    """What to train on and for how long. ``hours`` is the schedule: the learning rate reaches zero at its end.

    keep : share of the weights of ``start`` in what is written. Tuned on composed pictures alone a network forgets what
    photographs need; the average with the one it began as has most of the gain and forgets little (Wortsman et al.,
    Robust fine-tuning of zero-shot models, CVPR 2022).
    """

    bank: Path
    photos: Path | None
    output: Path
    encoder: Path | None = None
    start: Path | None = None
    keep: float = 0.0
    hours: float = 1.0
    batch: int = 12
    learning_rate: float = 1.5e-3
    seed: int = 1


def loss_terms(output: MaskOutput, batch: Batch) -> dict[str, Tensor]:
    """Weighted loss terms; their sum is minimised."""
    known = batch.classes != IGNORED
    weight = output.classes.new_tensor([1.0, 1.0, 1.6])
    cross = functional.cross_entropy(output.classes, batch.classes, weight, ignore_index=IGNORED)
    probability = output.classes.softmax(1)[:, 2] * known
    truth = ((batch.classes == 2) & known).float()
    overlap = 2 * (probability * truth).sum((1, 2)) + 20.0
    dice = 1 - overlap / (probability.sum((1, 2)) + truth.sum((1, 2)) + 20.0)
    has = batch.holds[:, None, None]
    amodal = functional.binary_cross_entropy_with_logits(output.amodal, batch.amodal, reduction="none")
    solid = ((batch.classes == 1) | (batch.classes == 2)).float()
    total = solid.sum() + 1.0
    angle = (1 - (output.normals * batch.normals).sum(1)) * solid
    distance = functional.smooth_l1_loss(output.depth, batch.depth.clamp(-4, 4), reduction="none", beta=0.1) * solid
    return {
        "cross": cross,
        "dice": dice.mean(),
        "amodal": (amodal * has * known).sum() / (has * known).sum().clamp(min=1),
        "normals": 0.25 * angle.sum() / total,
        "depth": 0.25 * distance.sum() / total,
        "holds": 0.2 * functional.binary_cross_entropy_with_logits(output.holds, batch.holds),
    }


class _Stream(torch.utils.data.IterableDataset[Batch]):
    """Endless batches, made in a worker process."""

    def __init__(self, config: TrainConfig, rig: HandRig, bank: Bank, photos: Sequence[Image], seed: int) -> None:
        self.config, self.rig, self.bank, self.photos, self.seed = config, rig, bank, photos, seed

    def __iter__(self) -> Iterator[Batch]:
        torch.set_num_threads(1)
        rng = np.random.default_rng(self.seed)
        source = ExampleSource(self.rig, self.bank, self.photos)
        while True:
            yield source.batch(rng, self.config.batch)


def freeze_pretrained(network: nn.Module) -> None:
    """Keep the pretrained batch statistics (small batches would spoil them) and depthwise filters."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval().requires_grad_(False)
        if isinstance(module, ImageEncoder):
            for part in module.modules():
                if isinstance(part, nn.Conv2d) and part.groups > 1:
                    part.requires_grad_(False)


def new_network(config: TrainConfig) -> MaskNetwork:
    """A network from ``config.start``, or a fresh one with the pretrained encoder of ``config.encoder``."""
    torch.manual_seed(config.seed)
    network = MaskNetwork()
    if config.start is not None:
        network.load_state_dict({k: v.float() for k, v in load_file(config.start).items()}, strict=False)
    elif config.encoder is not None:
        network.encoder.load_state_dict(load_file(config.encoder), strict=False)
    return network


def save_network(network: nn.Module, config: TrainConfig) -> None:
    """Write the weights, averaged with those of ``config.start``, as fp16 safetensors, atomically."""
    state = {k: v.detach() for k, v in network.state_dict().items() if "num_batches" not in k}
    if config.start is not None and config.keep > 0:
        before = load_file(config.start)
        state = {k: v.lerp(before[k].to(v), config.keep) for k, v in state.items()}
    write_half(state, config.output)


def train(config: TrainConfig) -> MaskNetwork:
    """Train for ``config.hours`` and write ``config.output`` every two minutes (an average of recent weights)."""
    rig, bank = load_generic_rig(), Bank(config.bank)
    views = bank.refresh()
    photos = load_photos(config.photos)
    log.info("%d views, %d background pictures", views, len(photos))
    network = new_network(config).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    average = recent_average(network)
    freeze_pretrained(network)
    pretrained = [p for p in network.encoder.blocks[FROZEN_BLOCKS:].parameters() if p.requires_grad]
    fresh = [p for n, p in network.named_parameters() if not n.startswith("encoder.")]
    groups = [{"params": fresh, "factor": 1.0}, {"params": pretrained, "factor": 0.2}]
    optimiser = torch.optim.AdamW(groups, lr=config.learning_rate, weight_decay=1e-4)
    stream = _Stream(config, rig, bank, photos, config.seed * 1000 + int(time.time()) % 1000)
    batches = iter(torch.utils.data.DataLoader(stream, batch_size=None, num_workers=1, prefetch_factor=3))
    begin = saved = time.time()
    sums: dict[str, float] = {}
    step = 0
    while (progress := (time.time() - begin) / (3600 * config.hours)) < 1:
        network.train()
        freeze_pretrained(network)
        now = scheduled_rate(config.learning_rate, step, progress)
        for group in optimiser.param_groups:
            group["lr"] = now * group["factor"]
        batch = next(batches)
        with fast_autocast():
            output = network(batch.image.to(memory_format=torch.channels_last), batch.maps, FROZEN_BLOCKS)
        terms = loss_terms(output, batch)
        optimiser.zero_grad()
        sum(terms.values(), torch.zeros(())).backward()
        nn.utils.clip_grad_norm_(network.parameters(), 2.0)
        optimiser.step()
        average.update_parameters(network)
        step += 1
        for key, value in terms.items():
            sums[key] = sums.get(key, 0.0) + float(value.detach())
        if step % 50 == 0:
            report = " ".join(f"{k} {v / 50:.3f}" for k, v in sums.items())
            log.info("step %d, %.0f s: %s", step, time.time() - begin, report)
            sums = {}
        if time.time() - saved > 120:
            save_network(average.module, config)
            saved = time.time()
            # New files of a growing bank are seen by the next worker; restarting it is cheap.
            if bank.refresh() > views:
                views = len(bank)
                stream = _Stream(config, rig, bank, photos, config.seed * 1000 + step)
                batches = iter(torch.utils.data.DataLoader(stream, batch_size=None, num_workers=1, prefetch_factor=3))
    save_network(average.module, config)
    return average.module  # type: ignore[return-value]
