# SPDX-License-Identifier: Apache-2.0
"""ARCTIC (Fan et al. 2023): two hands and an object of two parts about a hinge; eight cameras and one on the head.

Layout, as published (facts: the data set's documentation)::

    ROOT/cropped_images/<subject>/<sequence>/<view>/00147.jpg    or images/..., in full size
    ROOT/raw_seqs/<subject>/<sequence>.mano.npy                  {right, left}: rot, pose, trans, shape
    ROOT/raw_seqs/<subject>/<sequence>.object.npy                (frames, 7): hinge, rotation, translation in mm
    ROOT/raw_seqs/<subject>/<sequence>.egocam.dist.npy           pose, intrinsics, distortion of the camera on the head
    ROOT/meta/misc.json                                          by subject: cameras, offset of the frame numbers
    ROOT/meta/object_vtemplates/<object>/{mesh.obj,parts.json,top_keypoints_300.json}    mm

Annotations are in the world of the motion capture, in metres (objects in millimetres). View 0 is the camera on the
head, whose images are distorted; 1 to 8 stand still and are taken as free of distortion.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from fmh_ros.benchmark.datasets.files import (
    DatasetCopy,
    ObjectModel,
    SplitRow,
    find_images,
    find_mano,
    find_root,
    mano_model,
    object_model,
    read_json,
    read_npy,
)
from fmh_ros.benchmark.datasets.sample import AnnotatedHand, AnnotatedSample
from fmh_ros.core.errors import FileMissingError, UsageError
from fmh_ros.core.frame.camera import CameraModel
from fmh_ros.core.frame.image import read_photo
from fmh_ros.core.frame.load import frame_of
from fmh_ros.core.hand.mano_model import ManoModel
from fmh_ros.core.transforms import Similarity, nearest_rotation

FloatArray = NDArray[np.float64]

NAME, LICENCE = "arctic", "ARCTIC licence: non-commercial scientific research"
MM = 1e-3
EGO_VIEW = 0
#: The published crops: the square round the object's outline, by so much larger, of at least so many pixels, and that
#: by so much larger again.
CROP_SHARE, CROP_LEAST_PX, CROP_LOOSE = 1.7, 600.0, 1.5
#: Value in parts.json of the part that turns about the hinge, when the key points of the part are not there.
TURNING_LABEL = 0
_IMAGE = re.compile(r"(\d+)\.(?:jpg|png)")


class Arctic(DatasetCopy):
    """A copy of ARCTIC, ``root`` the folder with ``raw_seqs``."""

    def files(self, row: SplitRow) -> tuple[Path, ...]:
        """Return what a sample is made of."""
        model = self._model(row)
        shared = (self.root / "meta" / "misc.json", model / "mesh.obj", model / "parts.json", *self.mano.values())
        return (self._image(row)[0], *self._annotations(row), *shared)

    def read(self, row: SplitRow) -> AnnotatedSample:
        """Read a sample. Raises FmhError."""
        subject, view = row.image[0], int(row.image[2])
        path, cropped = self._image(row)
        image = read_photo(path).pixels
        setup = _read_setup(self.root / "meta" / "misc.json")[subject]
        hands, parameters, head = (_read_sequence(part) for part in self._annotations(row))
        frame = arctic_frame(row.image[3], int(setup["ioi_offset"]), len(parameters), row.name)
        model, turning = _read_model(self._model(row))
        world, pose = arctic_object(model.vertices, turning, parameters[frame])
        T_camera_world = arctic_camera_pose(setup, head, view, frame)
        seen = T_camera_world.apply(world)
        camera = arctic_camera(setup, head, view, (image.shape[1], image.shape[0]), seen if cropped else None)
        return AnnotatedSample(
            frame=frame_of(image, camera),
            hands=tuple(
                arctic_hand(mano_model(self.mano[side], side), hands[side], frame, T_camera_world)
                for side in ("right", "left")
            ),
            object_vertices=seen,
            object_faces=model.faces,
            T_camera_object=T_camera_world @ pose,
            object_name=row.image[1].split("_")[0],
            source="ARCTIC",
            licence=LICENCE,
            grasp=row.image[1].split("_")[1] if "_" in row.image[1] else "",
        )

    def _image(self, row: SplitRow) -> tuple[Path, bool]:
        """Return the image and whether it is one of the published crops, which go before."""
        crop, full = (self.root.joinpath(kind, *row.image) for kind in ("cropped_images", "images"))
        return (full, False) if full.is_file() and not crop.is_file() else (crop, True)

    def _annotations(self, row: SplitRow) -> tuple[Path, Path, Path]:
        folder, sequence = self.root / "raw_seqs" / row.image[0], row.image[1]
        hands, held, head = (folder / f"{sequence}.{part}.npy" for part in ("mano", "object", "egocam.dist"))
        return hands, held, head

    def _model(self, row: SplitRow) -> Path:
        return self.root / "meta" / "object_vtemplates" / row.image[1].split("_")[0]


def open_arctic(root: Path, mano: Path | None, split: Path | None) -> Arctic:
    """Find the parts of a copy of ARCTIC. Raises FileMissingError or UsageError."""
    below = ("arctic_data/data", "data/arctic_data/data", "unpack/arctic_data/data", "arctic/data/arctic_data/data")
    place = find_root(root, "ARCTIC", below, ("meta/misc.json", "meta/object_vtemplates", "raw_seqs"))
    columns = ("img_id", "img_path", "sid_seq_name", "frame")
    rows = find_images(split, root, NAME, columns, 4)
    bodies = [root / part for part in ("data/body_models", "body_models", "unpack/body_models")]
    found = next((body for body in bodies if (body / "mano").is_dir()), root)
    return Arctic(NAME, place, find_mano(mano, found, ("right", "left")), rows)


def arctic_frame(image: str, offset: int, count: int, name: str) -> int:
    """Return the row of the annotations of an image: its number minus the subject's offset. Raises FileMissingError."""
    found = _IMAGE.fullmatch(image)
    if found is None:
        raise UsageError(f"{name} is {image}", expected="an image named 00147.jpg or alike")
    frame = int(found.group(1)) - offset
    if not 0 <= frame < count:
        raise FileMissingError(
            f"There is no annotation of {name}: image {image} would be frame {frame} of {count}",
            expected=f"an image from {offset} to {offset + count - 1}",
            change="Leave it out of the list of test images, or download raw_seqs again",
        )
    return frame


def arctic_turning_part(
    labels: NDArray[np.integer], vertices: FloatArray, top_keypoints: FloatArray | None
) -> NDArray[np.bool_]:
    """Return which vertices (V,) belong to the part that turns about the hinge, "top".

    Documentation and tools of the data set disagree on which label that is, so it is the one that most of the vertices
    nearest to the part's key points (K, 3) have; without these the one of the tools.
    """
    turning = TURNING_LABEL
    if top_keypoints is not None:
        nearest = labels[cKDTree(vertices).query(top_keypoints)[1]]
        turning = int(np.bincount(nearest.astype(np.int64), minlength=2).argmax())
    return np.asarray(labels == turning)


def arctic_object(
    vertices: FloatArray, turning: NDArray[np.bool_], parameters: NDArray[np.floating]
) -> tuple[FloatArray, Similarity]:
    """Return vertices (V, 3) in the world and T_world_object of the part that does not turn, metres.

    vertices : of the model, metres; parameters : (7,) angle about the object's -z axis (the hinge), by which the
    turning part goes before all else, axis-angle of the whole, its translation in millimetres.
    """
    values = np.asarray(parameters, np.float64)
    hinge = Rotation.from_rotvec([0.0, 0.0, -values[0]]).as_matrix()
    pose = Similarity(Rotation.from_rotvec(values[1:4]).as_matrix(), values[4:7] * MM)
    return pose.apply(np.where(turning[:, None], vertices @ hinge.T, vertices)), pose


def arctic_hand(model: ManoModel, values: Mapping[str, Any], frame: int, T_camera_world: Similarity) -> AnnotatedHand:
    """Return a hand in the camera's frame.

    values : rot (frames, 3) and pose (frames, 45) axis-angle, the mean pose not included ("flat hand mean" false),
    trans (frames, 3) metres, shape (10,) or (frames, 10).
    """
    rotation, fingers, moved = (np.asarray(values[key], np.float64)[frame] for key in ("rot", "pose", "trans"))
    betas = np.asarray(values["shape"], np.float64)
    hand = model.pose(
        rotation, model.pose_mean + fingers, betas.reshape(-1, 10)[0 if betas.ndim == 1 else frame], moved
    )
    return AnnotatedHand(
        model.side, T_camera_world.apply(hand.vertices), model.faces, T_camera_world.apply(hand.keypoints)
    )


def arctic_camera_pose(setup: Mapping[str, Any], head: Mapping[str, Any], view: int, frame: int) -> Similarity:
    """Return T_camera_world of a view: fixed for 1 to 8, by frame for the camera on the head."""
    if view == EGO_VIEW:
        R, t = np.asarray(head["R_k_cam_np"], np.float64)[frame], np.asarray(head["T_k_cam_np"], np.float64)[frame]
    else:
        matrix = np.asarray(setup["world2cam"], np.float64)[view - 1]
        R, t = matrix[:3, :3], matrix[:3, 3]
    return Similarity(nearest_rotation(R), t.reshape(3))


def arctic_camera(
    setup: Mapping[str, Any],
    head: Mapping[str, Any],
    view: int,
    size: tuple[int, int],
    cropped_to: FloatArray | None,
) -> CameraModel:
    """Return the camera of an image of ``size`` (width, height) pixels.

    cropped_to : the object's vertices (V, 3) in the camera's frame when it is one of the published crops, which were
    cut round them; None for an image of full size. The camera on the head is distorted, and its images are never cut,
    only made smaller.
    """
    full = (int(setup["image_size"][view][0]), int(setup["image_size"][view][1]))
    if view == EGO_VIEW:
        distortion = tuple(float(value) for value in np.asarray(head["dist8"]).ravel())
        camera = CameraModel(*full, np.array(head["intrinsics"], np.float64), distortion)
        return camera.crop((0, 0, *full), *size)
    camera = CameraModel(*full, np.array(setup["intris_mat"], np.float64)[view - 1])
    return camera if cropped_to is None else camera.crop(arctic_crop(camera.project(cropped_to)), *size)


def arctic_crop(pixels: FloatArray) -> tuple[float, float, float, float]:
    """Return the box x0, y0, x1, y1 of a published crop, in pixels' edges of the full image, that was cut round the
    object's projected vertices (V, 2)."""
    low, high = pixels.min(0), pixels.max(0)
    side = max(CROP_SHARE * float((high - low).max()), CROP_LEAST_PX) * CROP_LOOSE
    middle = (low + high) / 2
    corners = np.round([*(middle - side / 2), *(middle + side / 2)])  # the crops were cut at whole pixels
    return float(corners[0]), float(corners[1]), float(corners[2]), float(corners[3])


@lru_cache(maxsize=6)
def _read_sequence(path: Path) -> Any:
    return read_npy(path)


@lru_cache(maxsize=1)
def _read_setup(path: Path) -> dict[str, Any]:
    return dict(read_json(path))


@lru_cache(maxsize=16)
def _read_model(folder: Path) -> tuple[ObjectModel, NDArray[np.bool_]]:
    """Return a model, and which of its vertices turn. Raises FileMissingError or UsageError."""
    # Vertices stay as they are: parts.json has one label for each.
    model = object_model(folder / "mesh.obj", MM, merged=False)
    labels = np.asarray(read_json(folder / "parts.json")).astype(np.int64).ravel()
    if len(labels) != len(model.vertices):
        raise UsageError(
            f"{folder / 'parts.json'} has {len(labels)} labels, mesh.obj {len(model.vertices)} vertices",
            expected="one label for each vertex",
            change="Download the folder meta again",
        )
    path = folder / "top_keypoints_300.json"
    keypoints = np.asarray(read_json(path)["keypoints"], np.float64).reshape(-1, 3) * MM if path.is_file() else None
    return model, arctic_turning_part(labels, model.vertices, keypoints)
