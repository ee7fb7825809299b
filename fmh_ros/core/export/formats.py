# SPDX-License-Identifier: Apache-2.0
"""A result's meshes in the formats that other programs read."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import trimesh

from fmh_ros.core.errors import OutputError, UsageError
from fmh_ros.core.export.document import to_json
from fmh_ros.core.export.meshes import glb_files, hand_mesh, object_mesh
from fmh_ros.core.reconstruction.types import Reconstruction

FORMATS = ("glb", "obj", "ply", "stl", "json")


def write_formats(result: Reconstruction, folder: str | Path, formats: Sequence[str] = ()) -> list[Path]:
    """Write hand, object and, for glb, both together, in each format; "json" is the document. Return absolute paths.

    Metres, camera optical frame. Each file appears whole or not at all, and replaces one of its name; other files in
    the folder stay. formats : some of ``FORMATS``, none for all. Raises UsageError or OutputError.
    """
    wanted = tuple(dict.fromkeys(formats)) or FORMATS
    unknown = [name for name in wanted if name not in FORMATS]
    if unknown:
        raise UsageError(f"There is no format {unknown[0]!r}", expected=f"some of {', '.join(FORMATS)}")
    contents: dict[str, bytes] = {}
    for name in wanted:
        contents |= _files(result, name)
    out = Path(folder).absolute()
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, content in contents.items():
            _write_whole(out / name, content)
    except OSError as error:
        raise OutputError.unwritable(f"the folder {out}", error, "Choose another folder") from error
    return [out / name for name in contents]


def _files(result: Reconstruction, name: str) -> dict[str, bytes]:
    if name == "glb":
        return glb_files(result)
    if name == "json":
        return {"reconstruction.json": to_json(result).encode()}
    meshes = {"hand": hand_mesh(result), "object": object_mesh(result)}
    return {f"{part}.{name}": _exported(mesh, name) for part, mesh in meshes.items()}


def _exported(mesh: trimesh.Trimesh, name: str) -> bytes:
    """These formats are written without materials, which would be further files."""
    plain = trimesh.Trimesh(mesh.vertices, mesh.faces, process=False)
    content = plain.export(file_type=name)
    return content.encode() if isinstance(content, str) else bytes(content)


def _write_whole(path: Path, content: bytes) -> None:
    """Write beside the destination, and rename."""
    handle, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        temporary = Path(name)
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        Path(name).unlink(missing_ok=True)
