# SPDX-License-Identifier: Apache-2.0
"""Mode continuous: reconstruct when a hand holds something and has been still for some looks, once until it moves.

The engine looks, quickly and only while it has no job; see ``nodes.watching`` for what counts as still.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from rclpy.lifecycle import LifecycleNode

from fmh_ros.core.cues.types import SeenHand
from fmh_ros.core.errors import BusyError, ClockJumpError, EngineStoppedError, FmhError, NotActiveError
from fmh_ros.core.frame.frame import Frame
from fmh_ros.core.progress import Progress
from fmh_ros.messages.inputs import decode_color
from fmh_ros.nodes.jobs import JobRunner
from fmh_ros.nodes.orders import Order
from fmh_ros.nodes.waiting import Waiter
from fmh_ros.nodes.watching import Watch, WatchedHand, WatchSettings

#: How long one look waits for an image, seconds.
LOOK_TIMEOUT_S = 2.0
#: After a fault of this program the mode rests, seconds.
FAULT_S = 10.0


@dataclass(frozen=True)
class ContinuousSettings:
    """See the parameters of the same names."""

    rate: float
    min_period_s: float
    watch: WatchSettings


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
        self._watch = Watch()
        self._began = float("-inf")
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
        self._watch, looked = Watch(), 0.0
        while not self._ended.is_set():
            settings = self._settings()
            if settings is None:
                self._watch = Watch()
                self._ended.wait(0.2)
                continue
            if self._ended.wait(max(0.0, looked + 1 / settings.rate - time.monotonic())):
                return
            looked = time.monotonic()
            self._waiter = Waiter()
            if self._ended.is_set():
                return
            try:
                self._turn(settings)
            except ClockJumpError:
                self._watch = Watch()  # a recording began again: what was seen in it is seen for the first time
            except FmhError as error:
                self.message = f"Watches for hands: {error}"
            except Exception:  # noqa: BLE001 - the mode goes on; the log has the traceback
                import traceback

                self._node.get_logger().error(f"Mode continuous failed:\n{traceback.format_exc()}")
                self._ended.wait(FAULT_S)

    def _turn(self, settings: ContinuousSettings) -> None:
        """Look once, and do a job when it is time."""
        if len(self._runner.line):
            self.message = "Waits for the end of other jobs"
            return
        hands = self._look()
        if hands is None:
            return
        self._watch.see(hands, settings.watch)
        hand = self._watch.ready(settings.watch, time.monotonic())
        wait_s = self._began + settings.min_period_s - time.monotonic()
        if hand is None:
            self.message = f"Watches: {self._watch.describe(settings.watch)}"
        elif wait_s > 0:
            self.message = f"Watches: {hand.side} hand still; the next reconstruction may begin in {wait_s:.0f} s"
        else:
            self._work(hand)

    def _look(self) -> tuple[SeenHand, ...] | None:
        """Have the engine look at the newest image; None when it has no time for that."""
        engine, waiter = self._runner.engine, self._waiter
        if engine is None:
            raise EngineStoppedError("There is no engine", change="Configure the node")
        messages = self._runner.next_frame(waiter, None, LOOK_TIMEOUT_S)
        image = decode_color(messages.image, self._runner.names().image)
        try:
            future = engine.look(image, self._order().profile)
            future.add_done_callback(lambda _future: waiter.poke())
            waiter.wait_for(future.done)
            return future.result()
        except BusyError as error:
            self.message = f"Waits: {error.seen}"
            return None

    def _work(self, hand: WatchedHand) -> None:
        """Reconstruct, and remember that the hand has had its job."""
        order = self._order()
        if {other.side for other in self._watch.hands} == {"left", "right"}:
            order = replace(order, side=hand.side)
        self._began, failed = time.monotonic(), True
        try:
            self._do_job(self._waiter, order, self)
            failed = False
        except ClockJumpError:
            raise
        except FmhError as error:
            self.message = f"The last reconstruction failed: {error}"
        finally:
            hand.worked_on(failed=failed, now=time.monotonic())
