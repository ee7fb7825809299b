# SPDX-License-Identifier: Apache-2.0
"""Published figures that stand beside ours, and why they cannot be compared number by number.

Source of every row: "Follow My Hold" (its Tables 1 to 3 and supplementary loss ablation), which evaluated all of these
methods itself by one protocol, the one that our figures follow as far as it is published.
"""

from __future__ import annotations

from typing import NamedTuple


class Published(NamedTuple):
    """A row of the paper's Table 1 for one data set; chamfer in cm^2, intersection in cm^3, NaN where not given."""

    method: str
    dataset: str
    f5: float
    f10: float
    chamfer: float
    intersection: float
    rate: float


class Ablated(NamedTuple):
    """A row of the paper's ablations, on a subset of OakInk; rate None where it is not given."""

    chamfer: float
    intersection: float
    rate: float | None = None


TABLE_1 = (
    Published("IHOI", "OakInk", 0.132, 0.252, 3.97, 6.20, 0.82),
    Published("AlignSDF", "OakInk", 0.060, 0.119, 7.75, 12.5, 0.94),
    Published("gSDF", "OakInk", 0.047, 0.093, 8.17, 0.62, 0.87),
    Published("HORT", "OakInk", 0.319, 0.508, 2.22, 16.6, 0.99),
    Published("EasyHOI", "OakInk", 0.109, 0.210, 4.62, 21.31, 0.39),
    Published("Follow My Hold", "OakInk", 0.179, 0.322, 1.80, 5.96, 0.87),
    Published("IHOI", "ARCTIC", 0.079, 0.148, 11.9, 4.27, 0.63),
    Published("AlignSDF", "ARCTIC", 0.042, 0.083, 17.7, 15.6, 0.86),
    Published("gSDF", "ARCTIC", 0.036, 0.070, 18.9, 1.23, 0.79),
    Published("HORT", "ARCTIC", 0.101, 0.190, 11.0, 30.8, 0.88),
    Published("EasyHOI", "ARCTIC", 0.079, 0.145, 10.9, 18.3, 0.36),
    Published("Follow My Hold", "ARCTIC", 0.160, 0.288, 2.57, 5.08, 0.92),
    Published("IHOI", "DexYCB", 0.108, 0.211, 4.87, 6.41, 0.49),
    Published("EasyHOI", "DexYCB", 0.090, 0.176, 6.26, 19.13, 0.30),
    Published("Follow My Hold", "DexYCB", 0.158, 0.300, 2.04, 7.02, 0.58),
)

#: Ablation of phases and of loss terms, by the names of our variants.
PHASES = {
    "default": Ablated(1.70, 4.03),
    "unguided": Ablated(3.70, 5.83),
    "no-hand-phase": Ablated(5.67, 7.66),
    "no-object-phase": Ablated(3.53, 4.82),
    "swapped": Ablated(3.18, 5.19),
    "joint-from-start": Ablated(5.51, 11.7),
}
LOSSES = {
    "no-normal": Ablated(2.10, 6.00, 0.84),
    "no-depth": Ablated(2.13, 4.84, 0.87),
    "no-silhouette": Ablated(4.29, 7.79, 0.78),
    "no-intersection": Ablated(2.59, 9.33, 0.86),
    "no-proximity": Ablated(3.43, 3.56, 0.85),
}

#: Names of data sets as the rows above have them, by the names in commands.
DATASET_NAMES = {"oakink": "OakInk", "arctic": "ARCTIC", "dexycb": "DexYCB"}

DATASET_PROTOCOL = (
    "Rows of this project on OakInk, ARCTIC and DexYCB are of the published lists of test images, with the data set's "
    "own calibration (the paper's methods estimate a camera) and, where the cues say so, its depth. Of several hands "
    "that hold the object the one that was reconstructed counts. Where the hand models differ, as the open rig and "
    "MANO do, hands are aligned by ICP with scale, as the paper's are. Images that could not be read are left out."
)
PROTOCOL = (
    "The paper's figures are from photographs of OakInk, ARCTIC or DexYCB with MANO hands, estimated depth and a large "
    "generator; ours are from rendered scenes with the open hand rig, the stated cues and the embedded generator. "
    "Its hands are aligned by ICP with scale, ours by corresponding vertices; the number of its sample points and its "
    "voxel size are not published (ours: 30 000 points, 5 mm). Only the order of the rows can be compared."
)
