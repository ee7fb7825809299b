# SPDX-License-Identifier: Apache-2.0
"""A hub on this machine: the few requests of the Hugging Face hub that downloads consist of, over real HTTP."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

COMMIT = "0123456789abcdef0123456789abcdef01234567"
LARGE = (".safetensors", ".ckpt", ".pt")


def git_hash(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


@dataclass
class Repository:
    """files : content by name; those that end like weights are in large-file storage. token : gated, and this opens it.
    wrong : what is sent in place of a file's content. stall : a file goes no further after so many bytes, once."""

    files: dict[str, bytes]
    token: str = ""
    wrong: dict[str, bytes] = field(default_factory=dict)
    stall: dict[str, int] = field(default_factory=dict)


@dataclass
class Hub:
    """requests : method, path and Range of everything that was asked."""

    repositories: dict[str, Repository] = field(default_factory=dict)
    requests: list[tuple[str, str, str]] = field(default_factory=list)
    tokens: list[str] = field(default_factory=list)
    stalled: threading.Event = field(default_factory=threading.Event)
    ended: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Hub:
        hub = self

        class Handler(_Handler):
            served = hub

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        self._server.shutdown()
        self._server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def bytes_sent(self, name: str) -> list[str]:
        """Ranges with which a file was fetched, "" for the whole of it."""
        return [asked for method, path, asked in self.requests if method == "GET" and path.endswith("/" + name)]


class _Handler(BaseHTTPRequestHandler):
    served: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *arguments: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        path, asked = self.path.partition("?")[0], self.headers.get("Range", "")
        self.served.requests.append((self.command, path, asked))
        info = re.fullmatch(r"/api/(models|spaces)/([^/]+/[^/]+)/revision/(.+)", path)
        resolve = re.fullmatch(r"/(?:spaces/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path)
        name = info[2] if info else resolve[1] if resolve else ""
        repository = self.served.repositories.get(name)
        if repository is None:
            self._send(404, b"{}", {"X-Error-Code": "RepoNotFound"})
            return
        said = self.headers.get("Authorization", "")
        self.served.tokens.append(said)
        if info:  # what a gated repository holds may be seen by everybody
            self._send(200, json.dumps(_info(name, repository)).encode(), {"Content-Type": "application/json"})
        elif repository.token and said != f"Bearer {repository.token}":
            self._send(403 if said else 401, b"{}", {"X-Error-Code": "GatedRepo", "X-Error-Message": "gated"})
        elif resolve is None or resolve[3] not in repository.files:
            self._send(404, b"{}", {"X-Error-Code": "EntryNotFound"})
        else:
            self._file(repository, resolve[3], asked)

    def _file(self, repository: Repository, name: str, asked: str) -> None:
        data = repository.wrong.get(name, repository.files[name])
        headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{_etag(name, repository.files[name])}"'}
        start = re.fullmatch(r"bytes=(\d+)-", asked)
        if start is not None and self.command == "GET":
            begin = int(start[1])
            headers["Content-Range"] = f"bytes {begin}-{len(data) - 1}/{len(data)}"
            self._send(206, data[begin:], headers)
        elif self.command == "GET" and name in repository.stall:
            self._send(200, data, headers, stall=repository.stall.pop(name))
        else:
            self._send(200, data, headers)

    def _send(self, status: int, body: bytes, headers: dict[str, str], stall: int | None = None) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body if stall is None else body[:stall])
        if stall is not None:
            self.wfile.flush()
            self.served.stalled.set()
            self.served.ended.wait()
            self.close_connection = True


def _etag(name: str, data: bytes) -> str:
    return hashlib.sha256(data).hexdigest() if name.endswith(LARGE) else git_hash(data)


def _info(name: str, repository: Repository) -> dict[str, Any]:
    siblings: list[dict[str, Any]] = []
    for file, data in repository.files.items():
        entry: dict[str, Any] = {"rfilename": file, "size": len(data), "blobId": git_hash(data)}
        if file.endswith(LARGE):
            entry["lfs"] = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 130}
        siblings.append(entry)
    return {"id": name, "sha": COMMIT, "siblings": siblings, "private": False, "tags": [], "downloads": 0}
