# SPDX-License-Identifier: Apache-2.0
"""What a run leaves behind: one folder per sample, written whole or not at all, and read back for tables.

``RESULTS/<variant>/<cues>/<scene>/seed<k>/`` holds ``sample.json`` (``SampleRecord``) and, unless it failed, the
reconstruction as ``hand.glb``, ``object.glb`` and ``reconstruction.json``, which ``fmh eval`` reads.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from fmh_ros.core.errors import FileMissingError, UsageError
from fmh_ros.core.export.write import write_folder

SCHEMA_NAME = "fmh.sample/1"
RECORD_FILE = "sample.json"
#: What ``SampleRecord.dataset`` is for scenes that ``fmh bench make`` rendered.
SYNTHETIC = "synthetic"


@dataclass(frozen=True)
class SampleKey:
    """Which sample: a scene, reconstructed by a variant from cues (``CueChoice.name``), with a seed."""

    scene: str
    variant: str
    cues: str
    seed: int

    @property
    def folder(self) -> Path:
        """Where it is below the folder of results."""
        # Colons and equal signs mean something to shells and to some file systems.
        parts = [part.replace(":", "--").replace("=", "-") for part in (self.variant, self.cues, self.scene)]
        return Path(*parts, f"seed{self.seed}")


@dataclass(frozen=True)
class Failure:
    """code : of the error class, the exit code that ``fmh reconstruct`` would end with; kind : its name."""

    code: int
    kind: str
    message: str


@dataclass(frozen=True)
class SampleRecord:
    """One reconstruction of one scene, measured.

    scene_digest : of the scene's files; split : of the scene. code : version that made it; settings : digest of the
        guidance settings, so that a change of them is seen.
    attributes : of the scene (``SceneAttributes``); metrics : of ``evaluate_sample``, None where one is not defined,
        empty for a failure; quality : what the program says of its own result, with "score".
    seconds : by stage, and "total"; started : UTC, ISO 8601.
    dataset : SYNTHETIC, or the name of the data set that the image is of.
    """

    key: SampleKey
    scene_digest: str
    split: str
    code: str
    settings: str
    attributes: Mapping[str, Any]
    metrics: Mapping[str, float | None] = field(default_factory=dict)
    quality: Mapping[str, float | None] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    failure: Failure | None = None
    started: str = ""
    dataset: str = SYNTHETIC

    @property
    def done(self) -> bool:
        """Whether there is a reconstruction."""
        return self.failure is None

    def value(self, name: str) -> float:
        """Return a metric, a quality or the total time by name, NaN where there is none."""
        if name == "seconds":
            return float(self.seconds.get("total", math.nan))
        found = self.metrics.get(name, self.quality.get(name))
        return math.nan if found is None else float(found)

    def to_json(self) -> str:
        """Return the document that ``read_record`` reads."""
        return json.dumps({"schema": SCHEMA_NAME, **asdict(self)}, indent=1, allow_nan=False) + "\n"


def read_record(path: Path) -> SampleRecord:
    """Read a ``sample.json``. Raises UsageError."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if data.pop("schema") != SCHEMA_NAME:
            raise ValueError("another schema")
        known = {each.name for each in fields(SampleRecord)}
        data = {name: value for name, value in data.items() if name in known}
        failure = data.pop("failure")
        return SampleRecord(
            **{
                **data,
                "key": SampleKey(**data["key"]),
                "warnings": tuple(data["warnings"]),
                "failure": None if failure is None else Failure(**failure),
            }
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path} cannot be used ({error!r})", expected=f"a document {SCHEMA_NAME}") from error


def read_records(folders: Iterable[Path]) -> list[SampleRecord]:
    """Return all records below the folders, merged and sorted; of two of the same key the later one counts.

    Raises FileMissingError when there is none, UsageError when one cannot be read.
    """
    found: dict[SampleKey, SampleRecord] = {}
    places = [Path(folder) for folder in folders]
    for place in places:
        for path in place.rglob(RECORD_FILE):
            if any(part.startswith(".") for part in path.relative_to(place).parts):
                continue  # under construction
            record = read_record(path)
            before = found.get(record.key)
            if before is None or before.started <= record.started:
                found[record.key] = record
    if not found:
        raise FileMissingError(
            f"There are no results in {', '.join(str(place) for place in places)}",
            expected="a folder that `fmh bench run` wrote",
        )
    return [found[key] for key in sorted(found, key=lambda k: (k.variant, k.cues, k.scene, k.seed))]


def store(out: Path, record: SampleRecord, files: Mapping[str, bytes]) -> Path:
    """Write a sample's folder, whole or not at all; an earlier one of the same key is replaced. Raises OutputError."""
    place = out / record.key.folder
    write_folder(place, {**files, RECORD_FILE: record.to_json().encode()})
    return place
