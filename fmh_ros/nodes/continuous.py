# SPDX-License-Identifier: Apache-2.0
"""Mode continuous: reconstruct when the picture has been still for some frames and is a new one.

Stillness is measured on small grey pictures; whether a hand holds something is found out by the job itself, which ends
within a second when none does. A picture that gave an error is tried again only after a pause, or when it changes.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from rclpy.lifecycle import LifecycleNode

from fmh_ros.core.errors import FmhError, NoImageError, NotActiveError
from fmh_ros.core.frame.frame import Frame
from fmh_ros.core.progress import Progress
from fmh_ros.messages.inputs import decode_color
from fmh_ros.nodes.jobs import JobRunner
from fmh_ros.nodes.orders import Order
from fmh_ros.nodes.waiting import Waiter

#: Size of the small grey picture; one of its pixels is a region of the image.
THUMBNAIL = (48, 36)
#: How long one look waits for an image, seconds.
LOOK_TIMEOUT_S = 2.0

Thumbnail = NDArray[np.float32]


@dataclass(frozen=True)
class ContinuousSettings:
    """See the parameters of the same names."""

    rate: float
    still_frames: int
    still_threshold: float
    guidance: bool
    pause_s: float
    retry_s: float


class Stillness:
    """Counts how many pictures in a row are alike, and whether they differ from the one that was worked on."""

    def __init__(self) -> None:
        self._previous: Thumbnail | None = None
        self._worked_on: Thumbnail | None = None
        self._failed: float | None = None
        self.still = 0

    def look(self, picture: Thumbnail, threshold: float) -> None:
        """Take the next picture."""
        alike = self._previous is not None and difference(picture, self._previous) <= threshold
        self.still = self.still + 1 if alike else 0
        self._previous = picture

    def is_new(self, threshold: float, retry_s: float, now: float) -> bool:
        """Whether the picture is not the one that was worked on; one that failed is new again after a while."""
        if self._previous is None or self._worked_on is None:
            return self._previous is not None
        if difference(self._previous, self._worked_on) > threshold:
            return True
        return self._failed is not None and now - self._failed >= retry_s

    def worked(self, *, failed: bool, now: float) -> None:
        """Remember that the picture was worked on."""
        self._worked_on, self._failed = self._previous, now if failed else None


class ContinuousMode:
    """A thread that looks and starts jobs, from activation to deactivation; it sleeps in mode on_request.

    settings : of now, None in mode on_request. do_job : runs a job and publishes its result.
    """

    def __init__(
        self,
        node: LifecycleNode,
        runner: JobRunner,
        settings: Callable[[], ContinuousSettings | None],
        order: Callable[[], Order],
        do_job: Callable[[Waiter, Order, Any], Any],
    ) -> None:
        self._node, self._runner = node, runner
        self._settings, self._order, self._do_job = settings, order, do_job
        self._ended = threading.Event()
        self._waiter = Waiter()
        self._thread: threading.Thread | None = None
        self.message = "Mode continuous begins"

    def start(self) -> None:
        """Begin."""
        self._ended.clear()
        self._thread = threading.Thread(target=self._loop, name="fmh-continuous", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End, and with it a job that it began; waits for that."""
        self._ended.set()
        self.interrupt(NotActiveError("The node was deactivated"))
        if self._thread is not None:
            self._thread.join()
        self._thread = None

    def interrupt(self, error: FmhError) -> None:
        """End the present look or job."""
        self._waiter.interrupt(error)

    def progress(self, progress: Progress) -> None:
        """Learn how the job goes on."""
        self.message = f"Reconstructs: {progress.stage} {100 * progress.fraction:.0f} %"

    def image(self, frame: Frame) -> None:
        """Learn which image is worked on."""

    def _loop(self) -> None:
        stillness, looked = Stillness(), 0.0
        while not self._ended.is_set():
            settings = self._settings()
            if settings is None:
                stillness, _ = Stillness(), self._ended.wait(0.2)
                continue
            if self._ended.wait(max(0.0, looked + 1 / settings.rate - time.monotonic())):
                return
            looked = time.monotonic()
            self._waiter = Waiter()
            if self._ended.is_set():
                return
            try:
                self._turn(stillness, settings)
            except FmhError as error:
                self.message = f"Looks for a still picture: {error}"
            except Exception:  # noqa: BLE001 - the mode goes on; the log has the traceback
                import traceback

                self._node.get_logger().error(f"Mode continuous failed:\n{traceback.format_exc()}")
                self._ended.wait(settings.retry_s)

    def _turn(self, stillness: Stillness, settings: ContinuousSettings) -> None:
        """Look once, and start a job when it is time."""
        if len(self._runner.line):
            self.message = "Waits for the end of other jobs"
            return
        try:
            messages = self._runner.next_frame(self._waiter, None, LOOK_TIMEOUT_S)
        except NoImageError:
            stillness.still = 0
            raise
        stillness.look(thumbnail(decode_color(messages.image, self._runner.names().image)), settings.still_threshold)
        if stillness.still < settings.still_frames:
            self.message = f"The picture moves (still for {stillness.still} of {settings.still_frames} looks)"
            return
        if not stillness.is_new(settings.still_threshold, settings.retry_s, time.monotonic()):
            if not self.message.startswith("Nothing"):
                self.message = "The picture is still and has been reconstructed; waits for a change"
            return
        failed = True
        try:
            self._do_job(self._waiter, self._order(), self)
            failed = False
        except FmhError as error:
            self.message = f"Nothing to reconstruct in this still picture: {error}"
        finally:
            stillness.worked(failed=failed, now=time.monotonic())
        self._ended.wait(settings.pause_s)


def thumbnail(pixels: NDArray[np.uint8]) -> Thumbnail:
    """Return a small grey picture (36, 48) float32 of an image (H, W, 3)."""
    small = cv2.resize(pixels, THUMBNAIL, interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.cvtColor(small, cv2.COLOR_RGB2GRAY), np.float32)


def difference(a: Thumbnail, b: Thumbnail) -> float:
    """Largest change of a region, grey levels; a change of the light as a whole does not count."""
    change = a - b
    return float(np.abs(change - np.median(change)).max())
