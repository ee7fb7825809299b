# SPDX-License-Identifier: Apache-2.0
"""``fmh models``: list, pull, verify, path, rm."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path

from fmh_ros.core.errors import DownloadError, LicenceError, ModelFileError, ModelMissingError, UsageError
from fmh_ros.core.reconstruction.profile import PROFILES, load_profile
from fmh_ros.models.catalogue import Licence, Model, catalogue, find_model, licences_of
from fmh_ros.models.consent import Ask, accepted, consent
from fmh_ros.models.pull import Source, pull, verify
from fmh_ros.models.store import ModelStore

YES = ("y", "yes")


def run(arguments: argparse.Namespace) -> int:
    """Do what was asked; the code of the first error that kept something from being done."""
    store = ModelStore(arguments.folder)
    acts = {"list": _list, "pull": _pull, "verify": _verify, "path": _path, "rm": _remove}
    return acts[arguments.act](arguments, store)


def models_of(what: Iterable[str]) -> tuple[Model, ...]:
    """Return the models that are named, themselves or by profiles, each once. Raises UsageError and ProfileError."""
    found: dict[str, Model] = {}
    for name in what:
        for model in (name,) if name in catalogue() else load_profile(name).models:
            found[model] = find_model(model)
    return tuple(found.values())


def table(profile_text: str, store: ModelStore) -> str:
    """Return a profile's models as lines of text."""
    profile = load_profile(profile_text)
    rows = [("stage", "back end", "model", "GB", "licence", "products", "where", "there")]
    for stage, choice in profile.stages.items():
        for model in map(find_model, choice.models):
            rows.append((stage, choice.backend.name, *described(model, store)))
    lines = [f"{profile.text}: {profile.summary}"]
    if len(rows) == 1:
        return lines[0] + "\n  nothing to fetch: all of it ships with the package"
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines += ["  " + "  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]
    total = sum(find_model(model).size_gb for model in profile.models)
    return "\n".join([*lines, f"  together {total:.1f} GB"])


def described(model: Model, store: ModelStore) -> tuple[str, str, str, str, str, str]:
    """Id, size, licences, whether products may use it, where, and whether it is there."""
    manifest = store.manifest(model.id)
    there = "no"
    if manifest is not None:
        there = "incomplete" if manifest.missing() else "yes"
    elif not model.repo:
        there = "no, yours to get"
    size = model.size_gb if manifest is None else manifest.size / 1e9
    licences = " and ".join(licence.name for licence in model.licences)
    return model.id, f"{size:.1f}", licences, "yes" if model.commercial else "no", model.where, there


def _list(arguments: argparse.Namespace, store: ModelStore) -> int:
    print("\n\n".join(table(text, store) for text in arguments.what or PROFILES))
    print(f"\nFolder: {store.folder}. Fetch with: fmh models pull PROFILE")
    return 0


def _pull(arguments: argparse.Namespace, store: ModelStore) -> int:
    models = models_of(arguments.what)
    source = Source(
        endpoint=arguments.endpoint,
        token=arguments.token,
        offline=arguments.offline,
        cache=None if arguments.cache is None else Path(arguments.cache),
        files=_files(arguments.file),
    )
    if not models:
        print("Nothing to fetch: all of it ships with the package.")
        return 0
    known = accepted(store)
    for licence in licences_of(models):
        if licence.id not in known:
            print(licence.described(), file=sys.stderr)
    consent(models, store, _ask(accept=arguments.accept))
    failures: list[ModelMissingError | LicenceError | DownloadError] = []
    for model in models:
        try:
            manifest = pull(model, store, source, lambda line: print(line, file=sys.stderr))
        except (ModelMissingError, LicenceError, DownloadError) as error:
            failures.append(error)  # the others may go well, and take long
            print(f"{model.id}: {error}", file=sys.stderr)
        else:
            print(f"{model.id}  {manifest.size / 1e9:.2f} GB  {manifest.path}")
    if failures:
        raise failures[0]
    return 0


def _verify(arguments: argparse.Namespace, store: ModelStore) -> int:
    models = models_of(arguments.what) or [m for m in catalogue().values() if store.manifest(m.id) is not None]
    broken: list[str] = []
    for model in models:
        changed = verify(model, store)
        print(f"{model.id}  {'damaged: ' + ', '.join(changed) if changed else 'as published'}")
        broken += [model.id] if changed else []
    if broken:
        raise ModelFileError(
            f"Files of {', '.join(broken)} are damaged or gone",
            expected="the content that was fetched",
            change=f"Run: fmh models pull {' '.join(broken)}",
        )
    return 0


def _path(arguments: argparse.Namespace, store: ModelStore) -> int:
    print(store.folder if arguments.what is None else store.path(find_model(arguments.what).id))
    return 0


def _remove(arguments: argparse.Namespace, store: ModelStore) -> int:
    for model in models_of(arguments.what):
        if not store.has_any(model.id):
            print(f"{model.id}  is not there")
            continue
        print(f"{model.id}  removed, {store.remove(model.id) / 1e9:.2f} GB freed")
    return 0


def _files(texts: list[str]) -> dict[str, Path]:
    """Read --file MODEL=PATH. Raises UsageError."""
    files: dict[str, Path] = {}
    for text in texts:
        name, separator, path = text.partition("=")
        if not separator or not path:
            raise UsageError(f"--file is {text!r}", expected="MODEL=PATH, such as mano=MANO_RIGHT.pkl")
        files[find_model(name).id] = Path(path)
    return files


def _ask(*, accept: bool) -> Ask | None:
    """How to find out whether a licence is accepted: by --accept, else from whoever sits at the terminal."""
    if accept:
        return lambda licence: True
    if not sys.stdin.isatty():
        return None

    def ask(licence: Licence) -> bool:
        print(f"Do you accept the {licence.name}? [y/N] ", end="", file=sys.stderr, flush=True)
        return sys.stdin.readline().strip().lower() in YES

    return ask
