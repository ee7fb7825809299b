# SPDX-License-Identifier: Apache-2.0
"""Writing a result folder, whole or not at all."""

from __future__ import annotations

import io
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fmh_ros.core.errors import OutputError
from fmh_ros.core.export.document import to_json
from fmh_ros.core.export.meshes import glb_files
from fmh_ros.core.export.overlay import draw_overlay
from fmh_ros.core.export.views import draw_views
from fmh_ros.core.reconstruction.types import Reconstruction

#: A result folder holds exactly these.
RESULT_FILES = ("hand.glb", "object.glb", "scene.glb", "reconstruction.json", "overlay.png", "views.png")


def check_output(out_dir: str | Path) -> None:
    """Raise OutputError unless ``write_result`` could write to ``out_dir``; call it before a long job.

    The folder may be missing, empty, or hold an earlier result, which is then replaced.
    """
    out = Path(out_dir).absolute()
    if out.exists() and not out.is_dir():
        raise OutputError(f"The output {out} is a file", expected="a folder", change="Choose another --out")
    others = sorted(set(_names(out)) - set(RESULT_FILES)) if out.exists() else []
    if others:
        shown = ", ".join(others[:3]) + (", ..." if len(others) > 3 else "")
        raise OutputError(
            f"The output folder {out} holds other files ({shown})",
            expected="an empty folder or an earlier result",
            change="Choose another --out, nothing of yours is overwritten",
        )
    staging = _staging(out)
    staging.rmdir()


def write_result(result: Reconstruction, out_dir: str | Path) -> Path:
    """Write the six files of a result to ``out_dir`` and return its absolute path.

    hand.glb, object.glb, scene.glb : metres, camera optical frame; reconstruction.json : schema
    fmh.reconstruction/1; overlay.png and views.png : for people.

    They appear together or not at all (``write_folder``). Raises OutputError.
    """
    out = Path(out_dir).absolute()
    check_output(out)
    contents = {
        **glb_files(result),
        "reconstruction.json": to_json(result).encode(),
        "overlay.png": _png(draw_overlay(result)),
        "views.png": _png(draw_views(result)),
    }
    write_folder(out, contents)
    return out


def write_folder(out: Path, contents: Mapping[str, bytes]) -> None:
    """Write files to a hidden folder beside ``out`` and rename it, replacing a folder that is there.

    A reader never sees a half-written folder, and an interrupt leaves what was there before. Raises OutputError.
    """
    staging = _staging(out)
    try:
        for name, content in contents.items():
            (staging / name).write_bytes(content)
        staging.chmod(0o777 & ~_umask())
        _swap_in(staging, out)
    except OSError as error:
        raise _unwritable(out, error) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _unwritable(out: Path, error: OSError) -> OutputError:
    return OutputError.unwritable(f"the output folder {out}", error, "Choose another --out")


def _names(folder: Path) -> list[str]:
    try:
        return [entry.name for entry in folder.iterdir()]
    except OSError as error:
        raise _unwritable(folder, error) from error


def _staging(out: Path) -> Path:
    """Make the missing parents and a hidden folder beside ``out``."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    except OSError as error:
        raise _unwritable(out, error) from error


def _swap_in(staging: Path, out: Path) -> None:
    """Put ``staging`` in the place of ``out``; an earlier result comes back when that fails."""
    if not out.exists():
        staging.rename(out)
        return
    old = Path(tempfile.mkdtemp(prefix=f".{out.name}-old-", dir=out.parent))
    out.rename(old / "result")
    try:
        staging.rename(out)
    except BaseException:  # an interrupt between the two renames must not cost the earlier result either
        if not out.exists():
            (old / "result").rename(out)
        raise
    finally:
        shutil.rmtree(old, ignore_errors=True)


def _png(image: NDArray[np.uint8]) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "PNG", compress_level=4)
    return stream.getvalue()


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
