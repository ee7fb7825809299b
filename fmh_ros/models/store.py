# SPDX-License-Identifier: Apache-2.0
"""Where weights lie on this machine: a folder for each model, in the publisher's layout, with a manifest beside it.

``<folder>/<id>/`` holds the files and ``<folder>/<id>.json`` the manifest, which is written last: a model without one
is not there. A model of the user's own files has a manifest that names their place, and no folder.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from fmh_ros.core.errors import ModelFileError, ModelMissingError, OutputError

#: Environment variable that names the folder.
VARIABLE = "FMH_MODELS"


@dataclass(frozen=True)
class StoredFile:
    """size : bytes; sha256 : of the content, hexadecimal."""

    size: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """What lies in the store for a model.

    root : folder of its files; entry : what back ends are given, relative to root ("" for the folder itself).
    source : where it came from; revision : of that source, "" when it has none.
    files : by path relative to root. damaged : those of them that ``verify`` found changed.
    """

    model: str
    root: Path
    entry: str
    source: str
    revision: str = ""
    files: Mapping[str, StoredFile] = field(default_factory=dict)
    damaged: tuple[str, ...] = ()

    @property
    def path(self) -> Path:
        """What back ends are given."""
        return self.root / self.entry if self.entry else self.root

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(each.size for each in self.files.values())

    def missing(self) -> tuple[str, ...]:
        """Files that are not there in their size, or are known to be damaged; hashes are not looked at."""
        return tuple(n for n, file in self.files.items() if n in self.damaged or _size(self.root / n) != file.size)

    def changed(self) -> tuple[str, ...]:
        """Files that are not there or whose content is not what it was: reads all of them."""
        return tuple(
            name
            for name, file in self.files.items()
            if _size(self.root / name) != file.size or sha256_of(self.root / name) != file.sha256
        )


def default_folder() -> Path:
    """The folder of $FMH_MODELS, else fmh_ros/models in the user's cache folder."""
    named = os.environ.get(VARIABLE)
    if named:
        return Path(named).expanduser()
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "fmh_ros" / "models"


class ModelStore:
    """The models of a folder, ``default_folder()`` when none is given; it need not exist."""

    def __init__(self, folder: Path | str | None = None) -> None:
        self.folder = default_folder() if folder is None else Path(folder).expanduser()

    def find(self, model: str) -> Path | None:
        """What back ends are given for a model, None when it is not there in full."""
        manifest = self.manifest(model)
        return None if manifest is None or manifest.missing() else manifest.path

    def path(self, model: str) -> Path:
        """The same. Raises ModelMissingError."""
        found = self.find(model)
        if found is None:
            raise self.missing(model)
        return found

    def missing(self, model: str) -> ModelMissingError:
        """The error that says that a model is not there, and how to get it."""
        return ModelMissingError(
            f"The model {model} is not in {self.folder}",
            expected="its files, complete",
            change=f"Run: fmh models pull {model}",
        )

    def size(self, model: str) -> int:
        """Bytes of a model's files, 0 when it is not there."""
        manifest = self.manifest(model)
        return 0 if manifest is None else manifest.size

    def root(self, model: str) -> Path:
        """The folder for a model's files."""
        return self.folder / model

    def manifest(self, model: str) -> Manifest | None:
        """What the store knows of a model, None when that is nothing. Raises ModelFileError."""
        path = self._manifest_path(model)
        if not path.is_file():
            return None
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            files = {str(name): StoredFile(int(f["size"]), str(f["sha256"])) for name, f in data["files"].items()}
            root = self.root(model) if data["root"] == "" else Path(data["root"])
            damaged = tuple(map(str, data["damaged"]))
            return Manifest(model, root, str(data["entry"]), str(data["source"]), str(data["revision"]), files, damaged)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ModelFileError(
                f"{path} cannot be read ({error})",
                expected="a manifest",
                change=f"Run: fmh models rm {model} && fmh models pull {model}",
            ) from error

    def record(self, manifest: Manifest) -> None:
        """Write a manifest, whole or not at all."""
        data = asdict(manifest)
        data["root"] = "" if manifest.root == self.root(manifest.model) else str(manifest.root)
        write_json(self._manifest_path(manifest.model), data)

    def has_any(self, model: str) -> bool:
        """Whether something of a model is there, be it incomplete or damaged."""
        return self._manifest_path(model).exists() or self.root(model).exists()

    def remove(self, model: str) -> int:
        """Remove a model and return how many bytes that freed; a user's own files stay where they are."""
        freed = sum(path.stat().st_size for path in self.root(model).rglob("*") if path.is_file())
        self._manifest_path(model).unlink(missing_ok=True)
        shutil.rmtree(self.root(model), ignore_errors=True)
        return freed

    def _manifest_path(self, model: str) -> Path:
        return self.folder / f"{model}.json"


def write_json(path: Path, data: Any) -> None:
    """Write a file, whole or not at all. Raises OutputError."""
    partial = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(json.dumps(data, indent=1), encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        raise OutputError(
            f"{path} cannot be written ({error})",
            expected="a folder for models that this user may write to",
            change=f"Name another one with --folder or ${VARIABLE}",
        ) from error


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1
