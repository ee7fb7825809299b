# SPDX-License-Identifier: Apache-2.0
"""Meshes from files, with their vertices in the order of the file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import trimesh

from fmh_ros.core.errors import FileMissingError, UsageError
from fmh_ros.evaluation.types import FloatArray, IntArray


def read_mesh(path: str | Path) -> tuple[FloatArray, IntArray]:
    """Return vertices (V, 3) float64 and faces (F, 3) int64, (0, 3) for a cloud of points, of any mesh file.

    Nothing is merged, reordered or scaled, so that vertex n is vertex n of the program that wrote the file. Raises
    FileMissingError or UsageError.
    """
    place = Path(path)
    if not place.is_file():
        raise FileMissingError(f"There is no {place}", expected="a mesh: .glb, .obj, .ply or .stl")
    try:
        loaded: Any = trimesh.load(place, process=False, maintain_order=True)
        if isinstance(loaded, trimesh.Scene):
            loaded = loaded.to_geometry()
        vertices = np.array(loaded.vertices, np.float64)
        faces = np.array(getattr(loaded, "faces", np.zeros((0, 3))), np.int64)
    except (ValueError, OSError, KeyError, IndexError, AttributeError, TypeError, NotImplementedError) as error:
        raise UsageError(f"{place} cannot be read ({error})", expected="a mesh: .glb, .obj, .ply or .stl") from error
    if not len(vertices) or not np.isfinite(vertices).all():
        raise UsageError(f"{place} has no vertices, or some that are not finite", expected="a mesh")
    return vertices, faces
