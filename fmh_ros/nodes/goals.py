# SPDX-License-Identifier: Apache-2.0
"""The action server: goals become jobs, progress becomes feedback, errors become codes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from follow_my_hold.action import Reconstruct
from rclpy.action import ActionServer, CancelResponse, GoalResponse
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.lifecycle import LifecycleNode

from fmh_ros.core.errors import CancelledError, FmhError, UnexpectedError
from fmh_ros.core.frame.frame import Frame
from fmh_ros.core.progress import Progress
from fmh_ros.messages.basics import flat, to_time
from fmh_ros.nodes.results import Entry
from fmh_ros.nodes.waiting import Waiter, cancelled

ACTION = "~/reconstruct"
#: Seconds between two feedback messages, unless the stage changes.
FEEDBACK_S = 0.1
#: A result can be asked for this long after its goal has ended, seconds.
RESULT_TIMEOUT_S = 60
#: rclpy calls back before it marks a goal as cancelling; after this it will not any more.
CANCEL_MARK_S = 1.0


class Feedback:
    """Sends a goal's feedback, at a rate that does no harm; see ``jobs.Listener``."""

    def __init__(self, handle: Any, waiter: Waiter) -> None:
        self._handle, self._waiter = handle, waiter
        self._lock = threading.Lock()
        self._stamp_ns: int | None = None
        self._frame_id = ""
        self._stage = ("", "")
        self._sent = 0.0
        self._fraction = 0.0

    def image(self, frame: Frame) -> None:
        """Learn which image is worked on."""
        self._stamp_ns, self._frame_id = frame.stamp_ns, frame.frame_id
        self.progress(Progress("queued", elapsed_s=self._waiter.elapsed()))

    def progress(self, progress: Progress) -> None:
        """Send a report, or leave it out when one was sent just before."""
        with self._lock:
            stage, now = (progress.stage, progress.phase), time.monotonic()
            if stage == self._stage and progress.preview is None and now - self._sent < FEEDBACK_S:
                return
            self._stage, self._sent = stage, now
            self._fraction = max(self._fraction, progress.fraction)
            self._handle.publish_feedback(self._message(progress))

    def _message(self, progress: Progress) -> Any:
        message = Reconstruct.Feedback(
            stage=progress.stage,
            phase=progress.phase,
            flow_step=int(progress.flow_step),
            iteration=int(progress.iteration),
            fraction=float(self._fraction),
            elapsed=float(progress.elapsed_s),
            loss=float("nan") if progress.loss is None else float(progress.loss),
            stamp=to_time(self._stamp_ns),
            frame_id=self._frame_id,
        )
        if progress.preview is not None:
            message.preview_vertices = flat(progress.preview.vertices, "f")
            message.preview_faces = flat(progress.preview.faces, "I")
        return message


class GoalServer:
    """Serves the action for as long as the node lives, so that a goal always learns why it was not served.

    A refusal of the action protocol carries no reason; a goal that cannot be served is therefore accepted and aborted
    at once, with its error code: BUSY, NOT_ACTIVE and so on.

    run : does a goal's job; called in a thread of the executor, which it occupies until the end.
    """

    def __init__(self, node: LifecycleNode, run: Callable[[Waiter, Any, Feedback], Entry]) -> None:
        self._node, self._run = node, run
        self._lock = threading.Lock()
        self._waiters: dict[bytes, Waiter] = {}
        self._server: ActionServer[Any, Any, Any] = ActionServer(
            node,
            Reconstruct,
            ACTION,
            execute_callback=self._execute,
            goal_callback=lambda _goal: GoalResponse.ACCEPT,
            handle_accepted_callback=self._accept,
            cancel_callback=self._cancel,
            callback_group=ReentrantCallbackGroup(),
            result_timeout=RESULT_TIMEOUT_S,
        )

    @property
    def running(self) -> int:
        """How many goals have not ended."""
        return len(self._waiters)

    def interrupt_all(self, make_error: Callable[[], FmhError]) -> None:
        """End every goal with an error."""
        with self._lock:
            waiters = list(self._waiters.values())
        for waiter in waiters:
            waiter.interrupt(make_error())

    def wait_until_idle(self, timeout_s: float) -> bool:
        """Wait until no goal is left; False when some are after this time."""
        deadline = time.monotonic() + timeout_s
        while self._waiters:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.01)
        return True

    def destroy(self) -> None:
        """Take the action off the graph."""
        self._server.destroy()

    def _accept(self, handle: Any) -> None:
        with self._lock:
            self._waiters[bytes(handle.goal_id.uuid)] = Waiter()
        handle.execute()

    def _cancel(self, handle: Any) -> CancelResponse:
        with self._lock:
            waiter = self._waiters.get(bytes(handle.goal_id.uuid))
        if waiter is None:
            return CancelResponse.REJECT
        waiter.interrupt(cancelled())
        return CancelResponse.ACCEPT

    def _execute(self, handle: Any) -> Any:
        """Do a goal's job from beginning to end."""
        key = bytes(handle.goal_id.uuid)
        waiter = self._waiters[key]
        result = Reconstruct.Result()
        feedback = Feedback(handle, waiter)
        try:
            feedback.progress(Progress("queued"))
            result.reconstruction = self._run(waiter, handle.request, feedback).message
            handle.succeed()
        except FmhError as error:
            self._fail(handle, result, error)
        except Exception as error:  # noqa: BLE001 - the client gets a code, the log the traceback
            import traceback

            self._node.get_logger().error(f"A goal failed unexpectedly:\n{traceback.format_exc()}")
            text = f"A fault of this program: {type(error).__name__}: {error}"
            self._fail(handle, result, UnexpectedError(text, change="Report it with the node's log"))
        finally:
            with self._lock:
                del self._waiters[key]
        return result

    def _fail(self, handle: Any, result: Any, error: FmhError) -> None:
        result.error_code, result.error_text = error.code, str(error)
        log = self._node.get_logger()
        if isinstance(error, CancelledError):
            log.info("A goal was cancelled")
            deadline = time.monotonic() + CANCEL_MARK_S
            while not handle.is_cancel_requested and time.monotonic() < deadline:
                time.sleep(0.005)
        else:
            log.warning(f"A goal failed with {type(error).__name__} ({error.code}): {error}")
        if handle.is_cancel_requested:
            handle.canceled()
        elif handle.is_active:
            handle.abort()
