# SPDX-License-Identifier: Apache-2.0
"""A data set as a source of scenes for ``fmh bench run``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from fmh_ros.benchmark.datasets.arctic import open_arctic
from fmh_ros.benchmark.datasets.dexycb import open_dexycb
from fmh_ros.benchmark.datasets.files import GUIDE, SplitRow, digest_of
from fmh_ros.benchmark.datasets.oakink import open_oakink
from fmh_ros.benchmark.datasets.sample import AnnotatedSample, to_scene
from fmh_ros.benchmark.scenes.plan import QUICK_COUNT
from fmh_ros.benchmark.types import BenchmarkScene
from fmh_ros.core.errors import UsageError


class DatasetReader(Protocol):
    """The layout of one data set."""

    @property
    def name(self) -> str:
        """Name in commands."""
        ...

    @property
    def rows(self) -> tuple[SplitRow, ...]:
        """Images to test."""
        ...

    def files(self, row: SplitRow) -> tuple[Path, ...]:
        """Return what a sample is made of. Raises FmhError."""
        ...

    def read(self, row: SplitRow) -> AnnotatedSample:
        """Read a sample. Raises FmhError."""
        ...


#: Data sets by the name in commands; each takes its folder, MANO's folder or None, the list of images or None.
DATASETS: dict[str, Callable[[Path, Path | None, Path | None], DatasetReader]] = {
    "oakink": open_oakink,
    "arctic": open_arctic,
    "dexycb": open_dexycb,
}


@dataclass(frozen=True)
class DatasetScenes:
    """A ``SceneSource`` of a data set's images. only : names to take, all by default."""

    reader: DatasetReader
    only: tuple[str, ...] = ()

    def quick(self) -> DatasetScenes:
        """Return as many images as the quick test has, the first ones."""
        return replace(self, only=self.names()[:QUICK_COUNT])

    def names(self) -> tuple[str, ...]:
        """Return the names of the samples, in the order of the list."""
        return tuple(row.name for row in self.reader.rows if not self.only or row.name in self.only)

    def load(self, name: str) -> BenchmarkScene:
        """Read a sample. Raises FmhError."""
        row = self._row(name)
        try:
            return to_scene(self.reader.read(row), row.name, row.index)
        except (KeyError, IndexError, ValueError, TypeError) as error:
            raise UsageError(
                f"The annotation of {name} ({'/'.join(row.image)}) cannot be used: {error!r}",
                expected=f"the files of {self.reader.name} as released",
                change=f"Download this part again; {GUIDE}",
            ) from error

    def digest(self, name: str) -> str:
        """Return a digest of the files of a sample, those that it shares with others included. Raises FmhError."""
        row = self._row(name)
        return digest_of(self.reader.files(row), "/".join(row.image))

    def _row(self, name: str) -> SplitRow:
        found = next((row for row in self.reader.rows if row.name == name), None)
        if found is None:
            raise UsageError(f"There is no sample {name}", expected=f"one of {len(self.reader.rows)} of the list")
        return found


def open_dataset(name: str, root: Path, mano: Path | None = None, split: Path | None = None) -> DatasetScenes:
    """Find the user's copy of a data set.

    name : one of DATASETS; root : its folder; mano : folder of MANO_RIGHT.pkl (and MANO_LEFT.pkl), looked for below
    ``root`` by default; split : the list of images, ``ROOT/<name>_test.csv`` by default. Raises FileMissingError or
    UsageError.
    """
    if name not in DATASETS:
        raise UsageError(f"There is no data set {name!r}", expected="one of " + ", ".join(DATASETS))
    return DatasetScenes(DATASETS[name](root, mano, split))
