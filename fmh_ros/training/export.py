# SPDX-License-Identifier: Apache-2.0
"""Put trained checkpoints into the shipped file: ``python -m fmh_ros.training.export AUTOENCODER FLOW [OUT]``."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from fmh_ros.core.flow.embedded.model import WEIGHTS
from fmh_ros.training.weights import write_half


def export(autoencoder: Path, flow: Path, out: Path) -> None:
    """Write decoder, averaged velocity network and latent statistics as float16 safetensors."""
    decoder = torch.load(autoencoder, weights_only=True)
    saved = torch.load(flow, weights_only=True)
    tensors = {k: v for k, v in decoder.items() if k.startswith("decoder.")}
    tensors |= {f"velocity.{k}": v for k, v in saved["average"].items()}
    tensors |= {"latent.mean": saved["mean"], "latent.deviation": saved["deviation"]}
    out.parent.mkdir(parents=True, exist_ok=True)
    write_half(tensors, out)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("autoencoder", type=Path)
    parser.add_argument("flow", type=Path)
    parser.add_argument("out", type=Path, nargs="?", default=WEIGHTS)
    arguments = parser.parse_args()
    export(arguments.autoencoder, arguments.flow, arguments.out)


if __name__ == "__main__":
    main()
