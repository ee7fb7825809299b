# SPDX-License-Identifier: Apache-2.0
"""DexYCB (Chao et al. 2021): RGB-D of one hand that takes one of several YCB objects from a table, 640x480.

Layout, as published (facts: the data set's toolkit)::

    ROOT/<subject>/<sequence>/meta.yml                                   ycb_ids, ycb_grasp_ind, mano_sides, mano_calib
    ROOT/<subject>/<sequence>/<camera>/color_000060.jpg
    ROOT/<subject>/<sequence>/<camera>/aligned_depth_to_color_000060.png  16 bits, millimetres, 0 unknown
    ROOT/<subject>/<sequence>/<camera>/labels_000060.npz                  seg, pose_y, pose_m, joint_3d
    ROOT/calibration/intrinsics/<camera>_640x480.yml                      color: fx, fy, ppx, ppy
    ROOT/calibration/mano_<calibration>/mano.yml                          betas
    ROOT/models/<object>/textured_simple.obj                              metres

Poses are in the frame of the camera that took the image, an optical one (x right, y down, z forward), in metres.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

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
    read_npz,
    read_yaml,
)
from fmh_ros.benchmark.datasets.sample import AnnotatedHand, AnnotatedSample
from fmh_ros.core.errors import UsageError
from fmh_ros.core.frame.camera import CameraModel
from fmh_ros.core.frame.depth import read_depth
from fmh_ros.core.frame.frame import Side
from fmh_ros.core.frame.image import read_photo
from fmh_ros.core.frame.load import frame_of
from fmh_ros.core.hand.mano_model import ManoModel
from fmh_ros.core.transforms import Similarity, nearest_rotation

NAME, LICENCE = "dexycb", "CC BY-NC 4.0"
SIZE = (640, 480)
#: Value of a hand's pixels in ``seg``; those of an object have its number.
HAND_LABEL = 255
#: Objects by their number, from 1: the YCB objects of the BOP challenge's YCB-V.
OBJECTS = (
    *("002_master_chef_can", "003_cracker_box", "004_sugar_box", "005_tomato_soup_can", "006_mustard_bottle"),
    *("007_tuna_fish_can", "008_pudding_box", "009_gelatin_box", "010_potted_meat_can", "011_banana"),
    *("019_pitcher_base", "021_bleach_cleanser", "024_bowl", "025_mug", "035_power_drill", "036_wood_block"),
    *("037_scissors", "040_large_marker", "051_large_clamp", "052_extra_large_clamp", "061_foam_brick"),
)
_IMAGE = re.compile(r"color_(\d{6})\.(?:jpg|png)")


class DexYcb(DatasetCopy):
    """A copy of DexYCB."""

    def files(self, row: SplitRow) -> tuple[Path, ...]:
        """Return what a sample is made of, the models that all share left out."""
        folder, frame = self._place(row)
        found = (folder / row.image[3], folder / f"labels_{frame}.npz", folder.parent / "meta.yml")
        depth = folder / f"aligned_depth_to_color_{frame}.png"
        return (*found, *((depth,) if depth.is_file() else ()), *self.mano.values())

    def read(self, row: SplitRow) -> AnnotatedSample:
        """Read a sample. Raises FmhError."""
        folder, frame = self._place(row)
        image = read_photo(folder / row.image[3]).pixels
        meta = read_yaml(folder.parent / "meta.yml")
        label = read_npz(folder / f"labels_{frame}.npz", ("seg", "pose_y", "pose_m", "joint_3d"))
        camera = dexycb_camera(read_yaml(self.root / "calibration" / "intrinsics" / f"{folder.name}_640x480.yml"))
        if image.shape[1::-1] != SIZE or label["seg"].shape != image.shape[:2]:
            raise UsageError(
                f"{folder / row.image[3]} has {image.shape[1]}x{image.shape[0]} pixels, its segmentation "
                f"{'x'.join(map(str, label['seg'].shape[::-1]))}",
                expected="640x480, as released",
                change="Do not resize the images",
            )
        grasped = int(meta["ycb_grasp_ind"])
        number = int(meta["ycb_ids"][grasped])
        pose = dexycb_pose(label["pose_y"][grasped], row.name)
        name = dexycb_object(number)
        model = object_model(self.root / "models" / name / "textured_simple.obj", 1.0)
        betas = read_yaml(self.root / "calibration" / f"mano_{meta['mano_calib'][0]}" / "mano.yml")["betas"]
        side: Side = "left" if meta["mano_sides"][0] == "left" else "right"
        hand = dexycb_hand(mano_model(self.mano[side], side), label, np.asarray(betas, np.float64), row.name)
        return AnnotatedSample(
            frame=frame_of(image, camera, dexycb_depth(folder / f"aligned_depth_to_color_{frame}.png")),
            hands=(hand,),
            object_vertices=pose.apply(model.vertices),
            object_faces=model.faces,
            T_camera_object=pose,
            object_name=name,
            source="DexYCB",
            licence=LICENCE,
            grasp="pick up",
            hand_mask=label["seg"] == HAND_LABEL,
            object_mask=label["seg"] == number,
        )

    def _place(self, row: SplitRow) -> tuple[Path, str]:
        found = _IMAGE.fullmatch(row.image[3])
        if found is None:
            raise UsageError(f"{row.name} is {row.image[3]}", expected="an image named color_000060.jpg or alike")
        return self.root.joinpath(*row.image[:3]), found.group(1)


def open_dexycb(root: Path, mano: Path | None, split: Path | None) -> DexYcb:
    """Find the parts of a copy of DexYCB. Raises FileMissingError or UsageError."""
    place = find_root(root, "DexYCB", ("DexYCB", "dex-ycb"), ("calibration/intrinsics", "models"))
    rows = find_images(split, root, NAME, ("img_id", "img_path"), 4)
    return DexYcb(NAME, place, find_mano(mano, root, ("right", "left")), rows)


def dexycb_object(number: int) -> str:
    """Return the YCB name of an object by its number, 1 to 21. Raises UsageError."""
    if not 1 <= number <= len(OBJECTS):
        raise UsageError(f"There is no object {number}", expected=f"ycb_ids from 1 to {len(OBJECTS)}")
    return OBJECTS[number - 1]


def dexycb_camera(intrinsics: Mapping[str, Any]) -> CameraModel:
    """Return the colour camera of an intrinsics file: pixels, rectified, pixel centres at integers."""
    colour = intrinsics["color"]
    fx, fy, cx, cy = (float(colour[key]) for key in ("fx", "fy", "ppx", "ppy"))
    camera = CameraModel(*SIZE, np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1.0]]))
    camera.validate()
    return camera


def dexycb_pose(matrix: NDArray[np.floating], name: str) -> Similarity:
    """Return T_camera_object of a row of ``pose_y``, (3, 4) [R | t] in metres; all zeros mean that there is none.

    Raises UsageError.
    """
    values = np.asarray(matrix, np.float64)
    if values.shape != (3, 4) or not np.allclose(values[:, :3] @ values[:, :3].T, np.eye(3), atol=1e-3):
        raise UsageError(
            f"The object of {name} has no pose",
            expected="a rotation and a translation in pose_y",
            change="Leave this image out of the list of test images",
        )
    return Similarity(nearest_rotation(values[:, :3]), values[:, 3])


def dexycb_hand(
    model: ManoModel, label: Mapping[str, NDArray[Any]], betas: NDArray[np.float64], name: str
) -> AnnotatedHand:
    """Return the hand of a label file.

    ``pose_m`` (1, 51): axis-angle of the whole hand, 45 PCA coefficients (added to the mean pose, "flat hand mean"
    false), translation in metres. ``joint_3d`` (1, 21, 3) has the order of KEYPOINT_NAMES. All zeros (minus ones) mean
    that no hand is seen. Raises UsageError.
    """
    pose, joints = np.asarray(label["pose_m"], np.float64).reshape(-1), np.asarray(label["joint_3d"], np.float64)
    if pose.shape != (51,) or not pose.any() or joints.reshape(-1, 3).shape != (21, 3) or (joints == -1).all():
        raise UsageError(
            f"No hand is annotated in {name}",
            expected="a pose in pose_m and joints in joint_3d",
            change="Leave this image out of the list of test images",
        )
    hand = model.pose(pose[:3], model.fingers(pose[3:48]), betas, pose[48:51])
    return AnnotatedHand(model.side, hand.vertices, model.faces, joints.reshape(21, 3))


def dexycb_depth(path: Path) -> NDArray[np.float32] | None:
    """Return depth (480, 640), metres, NaN unknown, of 16 bits of millimetres; None where there is no such file.

    Raises DepthError.
    """
    return read_depth(path) if path.is_file() else None
