# SPDX-License-Identifier: Apache-2.0
"""OakInk-Image (Yang et al. 2022): photographs, 848x480, of right hands that use, hold, lift or hand over an object.

Layout, as published (facts: the data set's toolkit)::

    ROOT/image/stream_release_v2/<sequence>/<time>/<view>_color_<frame>.png
    ROOT/image/anno/{cam_intr,hand_j,hand_v,obj_transf}/<sequence>__<time>__<subject>__<frame>__<camera>.pkl
    ROOT/image/obj/<object>.obj or .ply                         metres; the pose is of the middle of its box

<sequence> is <object>_<intent>_<subject>, or <object>_0004_<giver>_<receiver> with two persons, whose hands are the
<subject> 0 and 1 of the annotations. These pickles are in the camera's optical frame already, in metres, so the
extrinsics of ``general_info`` are not needed.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fmh_ros.benchmark.datasets.files import (
    DatasetCopy,
    SplitRow,
    find_images,
    find_mano,
    find_root,
    mano_model,
    object_model,
    read_array,
)
from fmh_ros.benchmark.datasets.sample import AnnotatedHand, AnnotatedSample
from fmh_ros.core.errors import FileMissingError, UsageError
from fmh_ros.core.frame.camera import CameraModel
from fmh_ros.core.frame.image import read_photo
from fmh_ros.core.frame.load import frame_of
from fmh_ros.core.hand.mano_model import ManoModel
from fmh_ros.core.transforms import Similarity, nearest_rotation

NAME, LICENCE = "oakink", "non-commercial research, by the terms of the data set"
#: Views in the order of the cameras' numbers.
VIEWS = ("north_east", "south_east", "north_west", "south_west")
INTENTS = {"0001": "use", "0002": "hold", "0003": "lift up", "0004": "hand over"}
PARTS = ("cam_intr", "hand_v", "hand_j", "obj_transf")
_IMAGE = re.compile(r"(\w+)_color_(\d+)\.png")


class OakInk(DatasetCopy):
    """A copy of OakInk-Image, ``root`` the folder with ``anno``; all its hands are right ones."""

    def files(self, row: SplitRow) -> tuple[Path, ...]:
        """Return what a sample is made of."""
        stems = self._stems(row)
        annotations = (self.root / "anno" / part / f"{stem}.pkl" for stem in stems for part in PARTS)
        return (self._image(row), *annotations, self._object(row), *self.mano.values())

    def read(self, row: SplitRow) -> AnnotatedSample:
        """Read a sample. Raises FmhError."""
        image = read_photo(self._image(row)).pixels
        found = [
            {part: read_array(self.root / "anno" / part / f"{stem}.pkl") for part in PARTS} for stem in self._stems(row)
        ]
        model = mano_model(self.mano["right"], "right")
        pose = oakink_pose(found[0]["obj_transf"], row.name)
        held = object_model(self._object(row), 1.0, centred=True)
        name, intent = row.image[0].split("_")[:2]
        return AnnotatedSample(
            frame=frame_of(image, oakink_camera(found[0]["cam_intr"], image.shape[1], image.shape[0])),
            hands=tuple(oakink_hand(model, each["hand_v"], each["hand_j"], row.name) for each in found),
            object_vertices=pose.apply(held.vertices),
            object_faces=held.faces,
            T_camera_object=pose,
            object_name=name,
            source="OakInk",
            licence=LICENCE,
            grasp=INTENTS.get(intent, intent),
        )

    def _image(self, row: SplitRow) -> Path:
        return self.root.joinpath("stream_release_v2", *row.image)

    def _object(self, row: SplitRow) -> Path:
        name = row.image[0].split("_")[0]
        places = [self.root / "obj" / f"{name}.{suffix}" for suffix in ("obj", "ply")]
        return next((place for place in places if place.is_file()), places[0])

    def _stems(self, row: SplitRow) -> tuple[str, ...]:
        """Return the names of the annotations of each hand that has one. Raises FileMissingError or UsageError."""
        found = _IMAGE.fullmatch(row.image[2])
        if found is None or found.group(1) not in VIEWS:
            raise UsageError(
                f"{row.name} is {row.image[2]}", expected=f"an image named {VIEWS[0]}_color_16.png or of another view"
            )
        camera, frame = VIEWS.index(found.group(1)), int(found.group(2))
        stems = tuple(f"{row.image[0]}__{row.image[1]}__{hand}__{frame}__{camera}" for hand in (0, 1))
        there = tuple(stem for stem in stems if (self.root / "anno" / "hand_v" / f"{stem}.pkl").is_file())
        if not there:
            raise FileMissingError(
                f"There is no annotation of {'/'.join(row.image)}",
                expected=f"{self.root / 'anno' / 'hand_v' / stems[0]}.pkl, or ...__1__{frame}__{camera}.pkl",
                change="Download anno_v2_1.zip of OakInk-Image",
            )
        return there


def open_oakink(root: Path, mano: Path | None, split: Path | None) -> OakInk:
    """Find the parts of a copy of OakInk-Image. Raises FileMissingError or UsageError."""
    needed = tuple(f"anno/{part}" for part in PARTS)
    place = find_root(root, "OakInk-Image", ("image", "OakInk/image"), (*needed, "obj", "stream_release_v2"))
    columns = ("img_id", "obj_id", "intent_id", "subj_id", "img_path")
    rows = find_images(split, root, NAME, columns, 3)
    return OakInk(NAME, place, find_mano(mano, root, ("right",)), rows)


def oakink_camera(matrix: NDArray[np.floating], width: int, height: int) -> CameraModel:
    """Return the camera of a ``cam_intr`` (3, 3), pixels, of an image without distortion. Raises CameraError."""
    camera = CameraModel(width, height, np.array(matrix, np.float64))
    camera.validate()
    return camera


def oakink_pose(matrix: NDArray[np.floating], name: str) -> Similarity:
    """Return T_camera_object of ``obj_transf`` (4, 4), metres; the object frame has its origin in the middle of the
    model's box, not where the model's file has it. Raises UsageError."""
    values = np.asarray(matrix, np.float64)
    if values.shape != (4, 4) or not np.allclose(values[:3, :3] @ values[:3, :3].T, np.eye(3), atol=1e-3):
        raise UsageError(f"The object of {name} has no pose", expected="a rigid 4x4 matrix in obj_transf")
    return Similarity(nearest_rotation(values[:3, :3]), values[:3, 3])


def oakink_hand(
    model: ManoModel, vertices: NDArray[np.floating], joints: NDArray[np.floating], name: str
) -> AnnotatedHand:
    """Return the right hand of ``hand_v`` (V, 3) and ``hand_j`` (21, 3, in the order of KEYPOINT_NAMES), both in the
    camera's frame in metres, with MANO's faces. Raises UsageError."""
    if vertices.shape != model.template.shape or joints.shape != (21, 3):
        raise UsageError(
            f"The hand of {name} has vertices {vertices.shape} and joints {joints.shape}",
            expected=f"vertices {model.template.shape} as in MANO_RIGHT.pkl, and joints (21, 3)",
            change="Check that --mano is the MANO release, and download the annotations again",
        )
    return AnnotatedHand("right", np.array(vertices, np.float64), model.faces, np.array(joints, np.float64))
