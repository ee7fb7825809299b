# SPDX-License-Identifier: Apache-2.0
"""Scenes from a folder that ``fmh bench make`` wrote."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from fmh_ros.benchmark.store import load_scene, scene_folders
from fmh_ros.benchmark.types import BenchmarkScene

#: Scenes of the quick test.
QUICK_COUNT = 24


@dataclass(frozen=True)
class FolderScenes:
    """A ``SceneSource``. only : names to take, all by default; names that are not there are left out."""

    folder: Path
    only: tuple[str, ...] = ()

    def quick(self) -> FolderScenes:
        """Return the scenes of the quick test: QUICK_COUNT, spread evenly over the names, or all of fewer."""
        names = self.names()
        count = min(len(names), QUICK_COUNT)
        return FolderScenes(self.folder, tuple(names[k * len(names) // count] for k in range(count)))

    def names(self) -> tuple[str, ...]:
        """Return the names of the scenes, sorted. Raises FileMissingError when there is none."""
        found = (place.name for place in scene_folders(self.folder))
        return tuple(name for name in found if not self.only or name in self.only)

    def load(self, name: str) -> BenchmarkScene:
        """Read a scene. Raises FmhError."""
        return load_scene(self.folder / name)

    def digest(self, name: str) -> str:
        """Return a digest of the names and contents of a scene's files."""
        found = hashlib.sha256()
        for path in sorted((self.folder / name).iterdir()):
            if path.is_file():
                found.update(path.name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
        return found.hexdigest()[:16]
