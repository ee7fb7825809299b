# SPDX-License-Identifier: Apache-2.0
"""NVIDIA Warp as this package uses it: compiled once, silent, also where nothing but a temporary folder is writable."""

from __future__ import annotations

import ctypes
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import warp as wp


def _has_cuda_driver() -> bool:
    """Whether the CUDA driver library can be loaded."""
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True


@contextmanager
def _without_driver_warning() -> Iterator[None]:
    """Keep Warp's native code from writing to the process's stderr that there is no CUDA driver: that is normal."""
    if _has_cuda_driver():
        yield
        return
    sys.stderr.flush()
    kept, sink = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(sink, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(sink)


@lru_cache(maxsize=1)
def start_warp() -> None:
    """Initialise Warp without its banner and notices, with a kernel cache that can be written.

    Call it before the first Warp array or launch; more calls do nothing.
    """
    if hasattr(wp.config, "log_level"):
        wp.config.log_level = wp.LOG_ERROR
    else:
        wp.config.quiet = True
    if wp.config.kernel_cache_dir is None and "WARP_CACHE_PATH" not in os.environ:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        while not base.exists():
            base = base.parent
        if not os.access(base, os.W_OK):
            wp.config.kernel_cache_dir = tempfile.mkdtemp(prefix="fmh-warp-")
    with _without_driver_warning():
        wp.init()
