# SPDX-License-Identifier: Apache-2.0
"""Every reconstruction of a set of scenes beside its truth, on one picture."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

from fmh_ros.benchmark.results import SampleRecord
from fmh_ros.benchmark.run import SceneSource
from fmh_ros.core.errors import FmhError
from fmh_ros.core.export.shading import HAND_COLOR, OBJECT_COLOR, Part, ShadedScene
from fmh_ros.core.export.text import write_text
from fmh_ros.core.export.views import cut_square, orbit, square_around
from fmh_ros.core.frame.camera import CameraModel
from fmh_ros.core.transforms import Similarity
from fmh_ros.evaluation.mesh_files import read_mesh

Image = NDArray[np.uint8]
FloatArray = NDArray[np.float64]

#: Side of a panel, height of the caption above a row of panels, gap between scenes, pixels; scenes side by side.
PANEL, CAPTION, GAP, ACROSS = 150, 20, 10, 2
#: Side of what is shown in sides of the true hand and object's box.
CONTEXT = 1.15
PANELS = ("photo", "truth", "result", "truth, side", "result, side")


def contact_sheet(source: SceneSource, records: Sequence[SampleRecord], folders: Sequence[Path]) -> bytes:
    """Return a JPEG with a row of panels per record: photo, truth and result from the camera, both from the side.

    Truth and result are drawn in the camera frame by the same cameras, so displacement shows too. folders : of
    results, where the records are from. A failed sample shows its error in the place of its result.
    """
    rows = [_row(source, record, folders) for record in sorted(records, key=lambda r: r.key.scene)]
    height, width = CAPTION + PANEL + GAP, len(PANELS) * PANEL + GAP
    lines = -(-len(rows) // ACROSS)
    sheet = np.full((CAPTION + lines * height, ACROSS * width, 3), 255, np.uint8)
    for index in range(ACROSS * len(PANELS)):
        column, panel = divmod(index, len(PANELS))
        write_text(sheet, PANELS[panel], (column * width + panel * PANEL + 4, 3), 13, (120, 124, 132))
    for index, row in enumerate(rows):
        line, column = divmod(index, ACROSS)
        top, left = CAPTION + line * height, column * width
        sheet[top : top + row.shape[0], left : left + row.shape[1]] = row
    stream = io.BytesIO()
    Pillow.fromarray(sheet).save(stream, "JPEG", quality=88)
    return stream.getvalue()


def _row(source: SceneSource, record: SampleRecord, folders: Sequence[Path]) -> Image:
    row = np.full((CAPTION + PANEL, len(PANELS) * PANEL, 3), 255, np.uint8)
    write_text(row, _caption(record), (4, 3), 13)
    try:
        scene = source.load(record.key.scene)
    except FmhError as error:
        write_text(row, f"scene: {error}"[:110], (4, CAPTION + 8), 12, (170, 40, 40))
        return row
    truth = scene.truth
    square = square_around(np.concatenate([truth.hand_vertices, truth.object_vertices]), scene.frame.camera, CONTEXT)
    crop = scene.frame.camera.crop(square, PANEL, PANEL)
    true = _shaded((truth.hand_vertices, truth.hand_faces), (truth.object_vertices, truth.object_faces))
    camera, pose = orbit(true, -90.0, 0.0, PANEL)
    panels: list[Image | None] = [cut_square(scene.frame.image, square, PANEL), _look(true, crop, Similarity()), None]
    panels += [_look(true, camera, pose), None]
    if record.done:
        place = next(p for p in (f / record.key.folder for f in folders) if (p / "object.glb").is_file())
        found = _shaded(read_mesh(place / "hand.glb"), read_mesh(place / "object.glb"))
        panels[2], panels[4] = _look(found, crop, Similarity()), _look(found, camera, pose)
    for index, panel in enumerate(panels):
        left = index * PANEL
        if panel is not None:
            row[CAPTION:, left : left + PANEL] = panel
        elif record.failure is not None:
            write_text(row, record.failure.kind, (left + 8, CAPTION + 8), 13, (170, 40, 40))
    return row


def _caption(record: SampleRecord) -> str:
    attributes = record.attributes
    name = f"{record.key.scene}  {attributes.get('object_name', '')}  {attributes.get('occlusion', 0):.0%} hidden"
    if record.failure is not None:
        return f"{name}   failed with code {record.failure.code}"
    values = [record.value(metric) for metric in ("chamfer_cm2", "f10", "score")]
    return f"{name}   CD {values[0]:.2f} cm2, F10 {values[1]:.2f}, score {values[2]:.2f}"


def _shaded(hand: tuple[FloatArray, NDArray[np.int64]], held: tuple[FloatArray, NDArray[np.int64]]) -> ShadedScene:
    return ShadedScene([Part(*hand, HAND_COLOR), Part(*held, OBJECT_COLOR)])


def _look(scene: ShadedScene, camera: CameraModel, T_world_view: Similarity) -> Image:
    return scene.render(camera, T_world_view).image
