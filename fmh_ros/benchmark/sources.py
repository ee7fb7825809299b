# SPDX-License-Identifier: Apache-2.0
"""Scenes from a folder that ``fmh bench make`` wrote."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from fmh_ros.benchmark.scenes.plan import QUICK_COUNT
from fmh_ros.benchmark.store import load_scene, scene_folders
from fmh_ros.benchmark.types import BenchmarkScene
from fmh_ros.core.errors import FileMissingError


@dataclass(frozen=True)
class FolderScenes:
    """A ``SceneSource``. only : names to take, all by default; names that are not there are left out."""

    folder: Path
    only: tuple[str, ...] = ()

    def quick(self) -> FolderScenes:
        """Return the scenes of the quick test, the first ones."""
        return FolderScenes(self.folder, self.names()[:QUICK_COUNT])

    def names(self) -> tuple[str, ...]:
        """Return the names of the scenes, sorted. Raises FileMissingError when there is none."""
        found = (place.name for place in scene_folders(self.folder))
        return tuple(n for n in found if not n.startswith(".") and (not self.only or n in self.only))

    def load(self, name: str) -> BenchmarkScene:
        """Read a scene. Raises FmhError."""
        return load_scene(self.folder / name)

    def digest(self, name: str) -> str:
        """Return a digest of the names and contents of a scene's files. Raises FileMissingError."""
        found = hashlib.sha256()
        try:
            for path in sorted(path for path in (self.folder / name).iterdir() if path.is_file()):
                found.update(path.name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
        except OSError as error:
            raise FileMissingError(
                f"Scene {self.folder / name} cannot be read ({error.strerror or error})",
                change="Make it again with `fmh bench make`",
            ) from error
        return found.hexdigest()[:16]
