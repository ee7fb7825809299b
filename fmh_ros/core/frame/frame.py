# SPDX-License-Identifier: Apache-2.0
"""One camera frame and what the user said about it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fmh_ros.core.frame.camera import CameraModel

Side = Literal["left", "right"]


@dataclass(frozen=True)
class Frame:
    """An undistorted image with its camera and optional aligned depth.

    image : (height, width, 3) uint8 RGB; camera : same size.
    depth : (height, width) float32 metres along z, NaN where unknown; None without a depth sensor.
    frame_id : name of the camera optical frame; stamp_ns : source stamp, nanoseconds, None for a file.
    source_camera : camera of the full-size undistorted image when ``image`` was reduced for processing, else None.
    warnings : sentences for the user about how the inputs were read.
    """

    image: NDArray[np.uint8]
    camera: CameraModel
    depth: NDArray[np.float32] | None = None
    frame_id: str = "camera_optical"
    stamp_ns: int | None = None
    source_camera: CameraModel | None = None
    warnings: tuple[str, ...] = ()

    @property
    def reported_camera(self) -> CameraModel:
        """Camera of the full-size image: the one whose pixels a result is written in."""
        return self.source_camera or self.camera

    def mirrored(self) -> Frame:
        """Flip horizontally: a left hand becomes a right one."""
        depth = None if self.depth is None else np.ascontiguousarray(self.depth[:, ::-1])
        return replace(
            self,
            image=np.ascontiguousarray(self.image[:, ::-1]),
            camera=self.camera.mirrored(),
            depth=depth,
            source_camera=None if self.source_camera is None else self.source_camera.mirrored(),
        )

    def to_reported(self, pixels: NDArray[np.floating]) -> NDArray[np.float64]:
        """Map pixels (..., 2) of ``image`` to pixels of the full-size image."""
        return (np.asarray(pixels, np.float64) + 0.5) * self._reduction() - 0.5

    def from_reported(self, pixels: NDArray[np.floating]) -> NDArray[np.float64]:
        """Map pixels (..., 2) of the full-size undistorted image to pixels of ``image``."""
        return (np.asarray(pixels, np.float64) + 0.5) / self._reduction() - 0.5

    def _reduction(self) -> NDArray[np.float64]:
        full = self.reported_camera
        return np.array([full.width / self.camera.width, full.height / self.camera.height])


@dataclass(frozen=True)
class ObjectPrompt:
    """What the user pointed at, in pixels of the frame.

    box : x0, y0, x1, y1; points : (x, y) pairs on the object; mask : (height, width) bool, True on the object.
    text : what the object is called, "" when the user did not say; only some profiles can read.
    """

    box: tuple[float, float, float, float] | None = None
    points: tuple[tuple[float, float], ...] = ()
    mask: NDArray[np.bool_] | None = None
    text: str = ""

    @property
    def given(self) -> bool:
        """Whether the user pointed at a place; a name alone says what, and not where."""
        return self.box is not None or bool(self.points) or self.mask is not None

    def mirrored(self, width: int) -> ObjectPrompt:
        """The same prompt in the horizontally flipped image of this width."""
        box = None
        if self.box is not None:
            x0, y0, x1, y1 = self.box
            box = (width - 1 - x1, y0, width - 1 - x0, y1)
        points = tuple((width - 1 - x, y) for x, y in self.points)
        mask = None if self.mask is None else np.ascontiguousarray(self.mask[:, ::-1])
        return ObjectPrompt(box, points, mask, self.text)
