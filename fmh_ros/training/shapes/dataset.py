# SPDX-License-Identifier: Apache-2.0
"""Shape views on disk: ``python -m fmh_ros.training.shapes.dataset OUT --count N --seed S``.

Arrays are memory mapped and written front to back, so that training can start on what is already there; ``count.txt``
holds how many are complete. The view with index i depends only on (seed, i).
"""

from __future__ import annotations

import argparse
import logging
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fmh_ros.core.flow.embedded.layout import GRID, MAP_SIZE
from fmh_ros.training.shapes.views import ShapeView, draw_view

log = logging.getLogger(__name__)

_LAYOUT: dict[str, tuple[type, tuple[int, ...]]] = {
    "tsdf": (np.int8, (GRID,) * 3),
    "mask": (np.bool_, (MAP_SIZE,) * 2),
    "depth": (np.float16, (MAP_SIZE,) * 2),
    "normals": (np.float16, (3, MAP_SIZE, MAP_SIZE)),
    "distance": (np.float32, ()),
    "has_depth": (np.bool_, ()),
    "family": (np.uint8, ()),
}


def open_arrays(folder: Path, capacity: int | None = None) -> dict[str, NDArray[np.generic]]:
    """Map the arrays of a data set; create them when ``capacity`` is given."""
    folder.mkdir(parents=True, exist_ok=True)
    arrays: dict[str, NDArray[np.generic]] = {}
    for name, (dtype, shape) in _LAYOUT.items():
        path = folder / f"{name}.npy"
        if capacity is None:
            arrays[name] = np.load(path, mmap_mode="r")
        else:
            arrays[name] = np.lib.format.open_memmap(path, "w+", dtype, (capacity, *shape))
    return arrays


def completed(folder: Path) -> int:
    """How many views are complete."""
    path = folder / "count.txt"
    return int(path.read_text()) if path.exists() else 0


def _note_completed(folder: Path, count: int) -> None:
    """Write ``count.txt`` whole: a training that reads it while it is written must not see an empty file."""
    new = folder / "count.txt.new"
    new.write_text(str(count))
    new.replace(folder / "count.txt")


def _draw(index: int, seed: int, families: tuple[str, ...] | None, wide: float) -> ShapeView:
    rng = np.random.default_rng([seed, index])
    family = None if families is None else families[index % len(families)]
    return draw_view(rng, family, wide=(index + 1) * wide % 1 < wide)


def generate(
    folder: Path,
    count: int,
    seed: int,
    families: tuple[str, ...] | None = None,
    *,
    processes: int = 1,
    wide: float = 0.0,
) -> None:
    """Write ``count`` views; ``families`` restricts them, in turn. The views do not depend on ``processes``.

    ``wide`` is the share of wide views (``draw_view``), evenly spread.
    """
    arrays = open_arrays(folder, count)
    draw = partial(_draw, seed=seed, families=families, wide=wide)
    with get_context("spawn").Pool(processes) as pool:
        for index, view in enumerate(pool.imap(draw, range(count), chunksize=16)):
            for name in _LAYOUT:
                arrays[name][index] = getattr(view, name)
            if (index + 1) % 50 == 0 or index + 1 == count:
                _note_completed(folder, index + 1)
            if (index + 1) % 1000 == 0:
                log.info("%d of %d views", index + 1, count)


def main() -> None:
    """Command line."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--count", type=int, default=30000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--wide", type=float, default=0.0, help="share of wide views (default 0)")
    arguments = parser.parse_args()
    generate(arguments.out, arguments.count, arguments.seed, processes=arguments.processes, wide=arguments.wide)


if __name__ == "__main__":
    main()
