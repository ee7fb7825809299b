# SPDX-License-Identifier: Apache-2.0
"""Gets weights into the store: from the Hugging Face hub or a mirror of it, from its cache, or the user's own files."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from fmh_ros.core.errors import DownloadError, FileMissingError, LicenceError, ModelMissingError, OutputError
from fmh_ros.models.catalogue import Model
from fmh_ros.models.store import Manifest, ModelStore, StoredFile, sha256_of

INSTALL = "pip install 'fmh-ros[foundation]'"
#: Folder for files that are not there in full yet, among a model's.
PARTS = ".part"
#: Left free on the disk beyond what is downloaded, bytes.
SPARE = 1 << 28
Report = Callable[[str], None]


@dataclass(frozen=True)
class Source:
    """Where weights come from.

    endpoint : of the hub or a mirror, None for $HF_ENDPOINT or the hub itself. token : of the user, None for $HF_TOKEN
    or the one that was stored by logging in. offline : take only what is in the hub's cache on this machine.
    cache : that folder, None for the usual one. files : the user's own, by model.
    """

    endpoint: str | None = None
    token: str | None = field(default=None, repr=False)
    offline: bool = False
    cache: Path | None = None
    files: Mapping[str, Path] = field(default_factory=dict)


@dataclass(frozen=True)
class _Remote:
    """A file of the hub. sha256 : of its content, for files in large-file storage; blob : git's hash for others."""

    name: str
    size: int
    sha256: str = ""
    blob: str = ""


def pull(model: Model, store: ModelStore, source: Source, report: Report = lambda line: None) -> Manifest:
    """Get one model and return what lies in the store; what is there already is kept, what was cut off goes on.

    Raises DownloadError, LicenceError, ModelMissingError, FileMissingError and OutputError.
    """
    known = store.manifest(model.id)
    if model.id in source.files:
        return _link(model, store, source.files[model.id])
    if known is not None and not known.missing():
        report(f"{model.id}: is there")
        return known
    if not model.repo:
        raise ModelMissingError(
            f"The files of {model.id} can only be got by you",
            expected=model.supply,
            change=f"Then run: fmh models pull {model.id} --file {model.id}=PATH",
        )
    _writable(store)
    return _from_cache(model, store, source) if source.offline else _download(model, store, source, report)


def verify(model: Model, store: ModelStore) -> tuple[str, ...]:
    """Read all files of a model and return the names of those that changed; these no longer count as being there.

    Raises ModelMissingError for a model that is not in the store.
    """
    manifest = store.manifest(model.id)
    if manifest is None:
        raise store.missing(model.id)
    changed = manifest.changed()
    if changed != manifest.damaged:
        store.record(replace(manifest, damaged=changed))
    return changed


def _download(model: Model, store: ModelStore, source: Source, report: Report) -> Manifest:
    hub, root = _hub(), store.root(model.id)
    token = source.token or os.environ.get("HF_TOKEN") or None
    with _explained(hub, model, token):
        info = hub.HfApi(endpoint=source.endpoint, token=token).repo_info(
            model.repo, revision=model.revision, repo_type=model.kind, files_metadata=True
        )
        remote = _wanted(model, [_remote(sibling) for sibling in info.siblings])
        revision = str(info.sha)
        files = {each.name: found for each in remote if (found := _found(model, root, each)) is not None}
        wanted = [each for each in remote if each.name not in files]
        size = sum(each.size for each in wanted)
        _check_room(root, size)
        report(f"{model.id}: {len(wanted)} of {len(remote)} files, {size / 1e9:.2f} GB, from {model.repo}")
        for each in wanted:
            url = hub.hf_hub_url(
                model.repo, each.name, repo_type=model.kind, revision=revision, endpoint=source.endpoint
            )
            _fetch(hub, url, token, root / each.name, root / PARTS)
            files[each.name] = _checked(model, root, each)
    shutil.rmtree(root / PARTS, ignore_errors=True)
    manifest = Manifest(model.id, root, model.entry, model.repo, revision, files)
    store.record(manifest)
    return manifest


def _fetch(hub: Any, url: str, token: str | None, path: Path, parts: Path) -> None:
    """Download one file, on from where an earlier process was cut off.

    The hub's library downloads to a file of another name each time, so that only its own retries go on.
    """
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers

    about = hub.get_hf_file_metadata(url, token=token)
    # The token is for the hub alone, not for the storage that it sends us to.
    same = urlsplit(about.location).netloc == urlsplit(url).netloc
    headers = build_hf_headers(token=token if same else False)
    parts.mkdir(parents=True, exist_ok=True)
    part = parts / f"{about.etag[:20]}-{path.name}"
    part.touch()
    with part.open("r+b") as file:
        begun = file.seek(0, os.SEEK_END)
        http_get(about.location, file, resume_size=begun, headers=headers, expected_size=about.size)
    path.parent.mkdir(parents=True, exist_ok=True)
    part.replace(path)


def _wanted(model: Model, remote: list[_Remote]) -> list[_Remote]:
    """The files that the catalogue's patterns name. A pattern's * stays within a folder."""

    def fits(name: str, pattern: str) -> bool:
        return name.count("/") == pattern.count("/") and fnmatchcase(name, pattern)

    for pattern in model.files:
        if "*" not in pattern and not any(each.name == pattern for each in remote):
            raise DownloadError(
                f"{model.repo} has no file {pattern}",
                expected="the publisher's layout as the catalogue knows it",
                change="Update this package, or name a copy of the files with --file",
            )
    return [each for each in remote if any(fits(each.name, pattern) for pattern in model.files)]


def _remote(sibling: Any) -> _Remote:
    stored = sibling.lfs
    sha256 = str(stored["sha256"]) if stored else ""
    return _Remote(str(sibling.rfilename), int(sibling.size or 0), sha256, str(sibling.blob_id or ""))


def _found(model: Model, root: Path, remote: _Remote) -> StoredFile | None:
    """A file with the content that its publisher and the catalogue say; None when it is not there, or no more."""
    path = root / remote.name
    if not path.is_file():
        return None
    sha256, wanted = sha256_of(path), model.sha256.get(remote.name) or remote.sha256
    if sha256 == wanted if wanted else not remote.blob or _git_hash(path) == remote.blob:
        return StoredFile(path.stat().st_size, sha256)
    path.unlink()
    return None


def _checked(model: Model, root: Path, remote: _Remote) -> StoredFile:
    """A file that was just fetched. Raises DownloadError when it has the wrong content."""
    found = _found(model, root, remote)
    if found is None:
        raise DownloadError(
            f"{remote.name} of {model.id} came with the wrong content",
            expected="the hash that was published with it",
            change="Run the same command again, without a mirror if you named one",
        )
    return found


def _git_hash(path: Path) -> str:
    """Git's name of a file's content."""
    data = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def _from_cache(model: Model, store: ModelStore, source: Source) -> Manifest:
    """Take a model from the hub's cache on this machine, by hard links where the disk is the same."""
    hub, root = _hub(), store.root(model.id)
    try:
        folder = Path(
            hub.snapshot_download(
                model.repo,
                repo_type=model.kind,
                revision=model.revision,
                allow_patterns=list(model.files),
                local_files_only=True,
                cache_dir=source.cache,
            )
        )
        there = [path for path in folder.rglob("*") if path.is_file()]
        remote = _wanted(model, [_Remote(str(path.relative_to(folder)), path.stat().st_size) for path in there])
    except (OSError, ValueError, DownloadError) as error:
        raise DownloadError(
            f"{model.id} is not in the hub's cache on this machine ({str(error).splitlines()[0]})",
            expected=f"{model.repo} there, for --offline",
            change="Run it with a connection once, or copy the cache of a machine that has it",
        ) from error
    files: dict[str, StoredFile] = {}
    for each in remote:
        origin, path = (folder / each.name).resolve(), root / each.name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        try:
            os.link(origin, path)
        except OSError:
            shutil.copyfile(origin, path)
        # The cache names files of large-file storage by their hash.
        files[each.name] = _checked(model, root, replace(each, sha256=origin.name if len(origin.name) == 64 else ""))
    manifest = Manifest(model.id, root, model.entry, model.repo, folder.name, files)
    store.record(manifest)
    return manifest


def _link(model: Model, store: ModelStore, path: Path) -> Manifest:
    """Note where the user's own file or folder lies. Raises FileMissingError."""
    path = path.expanduser().resolve()
    if not path.exists():
        raise FileMissingError(f"There is no {path} for the model {model.id}", expected=model.supply or "its files")
    root, entry = (path, model.entry) if path.is_dir() else (path.parent, path.name)
    inside = [p for p in path.rglob("*") if p.is_file()] if path.is_dir() else [path]
    files = {str(p.relative_to(root)): StoredFile(p.stat().st_size, sha256_of(p)) for p in sorted(inside)}
    manifest = Manifest(model.id, root, entry, "the user's own", "", files)
    if not manifest.path.exists():
        raise FileMissingError(f"There is no {manifest.path}", expected=f"{entry} in the folder that you named")
    store.record(manifest)
    return manifest


def _writable(store: ModelStore) -> None:
    try:
        store.folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{store.folder} cannot be made ({error})", change="Name another with --folder") from error


def _check_room(root: Path, size: int) -> None:
    free = shutil.disk_usage(root.parent).free
    if size + SPARE > free:
        raise DownloadError(
            f"{root.parent} has {free / 1e9:.1f} GB free",
            expected=f"{(size + SPARE) / 1e9:.1f} GB",
            change="Make room, or name another folder with --folder or $FMH_MODELS",
        )


def _hub() -> Any:
    try:
        import huggingface_hub
        import huggingface_hub.errors
    except ImportError as error:
        raise ModelMissingError(
            f"The library huggingface_hub cannot be imported ({error})", change=f"Run: {INSTALL}"
        ) from error
    return huggingface_hub


@contextmanager
def _explained(hub: Any, model: Model, token: str | None) -> Iterator[None]:
    """Turn what the hub's library raises into typed errors."""
    errors = hub.errors
    try:
        yield
    except errors.GatedRepoError as error:
        change = f"Accept its terms at {model.page}, then set HF_TOKEN to a token of yours"
        if token:
            change = f"Ask for access at {model.page} with the account of this token"
        raise LicenceError(
            f"{model.repo} is gated, and {'this token has no access' if token else 'there is no token'}",
            expected="the publisher's consent",
            change=change,
        ) from error
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError, errors.EntryNotFoundError) as error:
        raise DownloadError(
            f"{model.repo} ({model.revision}) is not at the hub: {_first_line(error)}",
            expected="the publisher's repository",
            change="Update this package, or check the mirror and your token",
        ) from error
    except (OSError, ValueError, errors.HTTPError) as error:
        raise DownloadError(
            f"{model.id} could not be downloaded: {type(error).__name__}: {_first_line(error)}",
            expected="a connection to the hub",
            change="Run the same command again, it goes on where it stopped; --endpoint names a mirror",
        ) from error


def _first_line(error: Exception) -> str:
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)[:300]
