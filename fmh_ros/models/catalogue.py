# SPDX-License-Identifier: Apache-2.0
"""The catalogue of published models: where they come from, how large they are, on what terms they may be used."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import yaml

from fmh_ros.core.errors import UsageError

PATH = Path(__file__).with_name("catalogue.yaml")


@dataclass(frozen=True)
class Licence:
    """Terms of use. where : territories, "" for everywhere; commercial : whether products may use it at all."""

    id: str
    name: str
    url: str
    commercial: bool
    where: str = ""
    terms: str = ""

    def described(self) -> str:
        """What a person must know before accepting, some lines."""
        lines = [self.name, f"  text: {self.url}", f"  products: {'allowed' if self.commercial else 'NOT allowed'}"]
        lines += [f"  territory: {self.where}"] if self.where else []
        lines += [f"  also: {self.terms}"] if self.terms else []
        return "\n".join(lines)


@dataclass(frozen=True)
class Model:
    """One row of the catalogue.

    size_gb : rounded, 10^9 bytes. repo : of the hub, "" when the user supplies the files, as ``supply`` says.
    kind : of that repository; revision : branch, tag or commit; files : patterns of what is needed.
    entry : what back ends are given, below the folder of files. gated : needs consent and a token.
    sha256 : by file, what is known beforehand; the hub gives the others.
    """

    id: str
    licences: tuple[Licence, ...]
    size_gb: float
    repo: str = ""
    kind: Literal["model", "space"] = "model"
    revision: str = "main"
    files: tuple[str, ...] = ()
    entry: str = ""
    gated: bool = False
    supply: str = ""
    sha256: Mapping[str, str] = field(default_factory=dict)

    @property
    def commercial(self) -> bool:
        """Whether products may use it."""
        return all(licence.commercial for licence in self.licences)

    @property
    def where(self) -> str:
        """Where it may be used."""
        return "; ".join(licence.where for licence in self.licences if licence.where) or "everywhere"

    @property
    def page(self) -> str:
        """Address of its page, "" when it has none on the hub."""
        folder = "spaces/" if self.kind == "space" else ""
        return f"https://huggingface.co/{folder}{self.repo}" if self.repo else ""


@lru_cache(maxsize=1)
def catalogue() -> Mapping[str, Model]:
    """Return every model by its id, as the file beside this module says."""
    data = yaml.safe_load(PATH.read_text(encoding="utf-8"))
    licences = {name: Licence(id=name, **entry) for name, entry in data["licences"].items()}
    return {name: _model(name, entry, licences) for name, entry in data["models"].items()}


def find_model(name: str) -> Model:
    """Return a model. Raises UsageError for an unknown id."""
    found = catalogue().get(name)
    if found is None:
        raise UsageError(
            f"There is no model {name!r}", expected="one of " + ", ".join(catalogue()), change="See fmh models list"
        )
    return found


def licences_of(models: Iterable[Model]) -> tuple[Licence, ...]:
    """Every licence of some models, each once."""
    return tuple({licence.id: licence for model in models for licence in model.licences}.values())


def _model(name: str, entry: dict[str, Any], licences: Mapping[str, Licence]) -> Model:
    values = {**entry, "files": tuple(entry.get("files", ()))}
    values["licences"] = tuple(licences[each] for each in entry["licences"])
    return Model(id=name, **values)
