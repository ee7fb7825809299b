# SPDX-License-Identifier: Apache-2.0
"""Make the embedded generator's weights from nothing: ``python -m fmh_ros.training.embedded --runs runs``.

Views, autoencoder, flow, export and report, one after the other; each step is skipped when its result is there. The
mask network has a program of its own, ``fmh_ros.training.masks``.
"""

from __future__ import annotations

import argparse
import logging
import subprocess
import sys
from pathlib import Path

from fmh_ros.core.flow.embedded.model import WEIGHTS
from fmh_ros.training.shapes.dataset import completed

log = logging.getLogger(__name__)
HELD_OUT_SEED, HELD_OUT_COUNT = 777, 690
#: Of the views to train on so many are wide (``shapes.views.draw_view``); and a held-out set of such views alone.
WIDE_SHARE, WIDE_SEED, WIDE_COUNT = 0.3, 778, 345


def _run(module: str, *arguments: object) -> None:
    command = [sys.executable, "-m", f"fmh_ros.training.{module}", *[str(a) for a in arguments]]
    log.info("%s", " ".join(command))
    subprocess.run(command, check=True)


def main() -> None:
    """Command line."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--views", type=int, default=40000)
    parser.add_argument("--autoencoder-minutes", type=float, default=90)
    parser.add_argument("--flow-minutes", type=float, default=180)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=WEIGHTS)
    a = parser.parse_args()
    train, held_out, wide = (a.runs / "shapes" / name for name in ("train", "val", "val_wide"))
    for folder, count, seed, share in (
        (held_out, HELD_OUT_COUNT, HELD_OUT_SEED, 0.0),
        (wide, WIDE_COUNT, WIDE_SEED, 1.0),
        (train, a.views, 1, WIDE_SHARE),
    ):
        if completed(folder) < count:
            _run("shapes.dataset", folder, "--count", count, "--seed", seed, "--wide", share)
    autoencoder, flow = a.runs / "ae" / "autoencoder.pt", a.runs / "flow" / "flow.pt"
    common = ("--held-out", held_out, "--threads", a.threads)
    if not autoencoder.exists():
        _run("autoencoder", train, autoencoder.parent, *common, "--minutes", a.autoencoder_minutes)
    if not flow.exists():
        _run("flow", train, autoencoder, flow.parent, *common, "--minutes", a.flow_minutes)
    _run("export", autoencoder, flow, a.out)
    _run("report", held_out, "--wide", wide, "--autoencoder", autoencoder, "--weights", a.out)


if __name__ == "__main__":
    main()
