# SPDX-License-Identifier: Apache-2.0
"""Which licences this user has accepted: shown once, asked once, recorded beside the models."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from fmh_ros.core.errors import LicenceError
from fmh_ros.models.catalogue import Licence, Model, licences_of
from fmh_ros.models.store import ModelStore, write_json

#: Asks a person about a licence; True when it is accepted.
Ask = Callable[[Licence], bool]


def record_path(store: ModelStore) -> Path:
    """The file that says what was accepted and when."""
    return store.folder / "licences.json"


def accepted(store: ModelStore) -> dict[str, dict[str, str]]:
    """Return what was accepted, by licence: its name, address, and when. A record that cannot be read is none."""
    try:
        data = json.loads(record_path(store).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return data if isinstance(data, dict) else {}


def consent(models: Iterable[Model], store: ModelStore, ask: Ask | None) -> None:
    """See that the licences of some models are accepted; what was accepted before is not asked again.

    ask : how to find out; None when there is nobody to ask. Raises LicenceError, and OutputError.
    """
    known = accepted(store)
    pending = [licence for licence in licences_of(models) if licence.id not in known]
    if pending and ask is None:
        raise LicenceError(
            "Licences have not been accepted: " + ", ".join(f"{licence.name} ({licence.url})" for licence in pending),
            expected="somebody at a terminal to ask, or your word that you have read and accept them",
            change="Add --accept",
        )
    for licence in pending:
        assert ask is not None
        if not ask(licence):
            raise LicenceError(f"The licence {licence.name} was refused", change="Choose a profile without it")
        when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        known[licence.id] = {"name": licence.name, "url": licence.url, "accepted": when}
        write_json(record_path(store), known)
