# SPDX-License-Identifier: Apache-2.0
"""A reconstruction in a few lines of a robot program::

from fmh_ros.client import Reconstructor

with Reconstructor() as reconstructor:
    reconstructor.reconstruct()
    while not reconstructor.is_done(timeout_s=0.5):
        print(reconstructor.feedback())
    hand_object = reconstructor.result()
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import rclpy
from action_msgs.msg import GoalStatus
from builtin_interfaces.msg import Time
from follow_my_hold.action import Reconstruct
from follow_my_hold.msg import HandObject
from rclpy.action import ActionClient
from rclpy.action.client import ClientGoalHandle
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.context import Context
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from fmh_ros.core.errors import (
    BusyError,
    CancelledError,
    FmhError,
    NotActiveError,
    UnexpectedError,
    UsageError,
)

ACTION = "/reconstruction_node/reconstruct"
SIDES = {"auto": Reconstruct.Goal.AUTO, "left": Reconstruct.Goal.LEFT, "right": Reconstruct.Goal.RIGHT}


class Reconstructor:
    """Asks ``reconstruction_node`` for one reconstruction at a time.

    node : an existing node, which the program spins in another thread than the one that waits here; without one this
    class makes its own, with a context of its own, and spins it in a thread. action : full name of the action.
    domain_id : ROS domain of a node of its own, the environment's when None.
    Every method returns at once unless it says that it waits. Thread-safe. ``close`` it, or use it with ``with``.
    """

    def __init__(self, node: Node | None = None, *, action: str = ACTION, domain_id: int | None = None) -> None:
        self._lock = threading.Lock()
        self._done = threading.Event()
        self._result: Any = None
        self._error: FmhError | None = None
        self._feedback: Any = None
        self._handle: ClientGoalHandle[Any, Any, Any] | None = None
        self._asked = self._cancelling = False
        self._number = 0
        self._action = action
        self._own = _OwnNode(domain_id) if node is None else None
        self._node = node if node is not None else self._own.node  # type: ignore[union-attr]
        self._client = _SpinningActionClient(self._node, Reconstruct, action, callback_group=ReentrantCallbackGroup())

    def __enter__(self) -> Reconstructor:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def reconstruct(
        self,
        *,
        stamp: Time | None = None,
        image: Image | CompressedImage | None = None,
        camera_info: CameraInfo | None = None,
        depth: Image | None = None,
        side: str = "auto",
        box: Sequence[float] = (),
        points: Sequence[float] = (),
        timeout_s: float = 10.0,
        **options: Any,
    ) -> None:
        """Begin a reconstruction: of the next frame, of the frame with this stamp, or of the given image.

        box : left, top, right, bottom; points : u v u v ... on the object, pixels. options : other fields of the goal
        (profile, preset, seed, samples, guidance, time_budget, preview, mask, text). Waits for the node at most
        ``timeout_s`` seconds. Raises BusyError while the last one runs, NotActiveError when there is no node, and
        UsageError for what the goal does not have.
        """
        goal = _goal(stamp, image, camera_info, depth, side, options)
        goal.box = [float(value) for value in box]
        goal.points = [float(value) for value in points]
        with self._lock:
            if self._asked and not self._done.is_set():
                raise BusyError("The last reconstruction still runs", change="Wait for its result, or cancel it")
            self._asked, self._cancelling, self._number = True, False, self._number + 1
            self._result = self._error = self._feedback = self._handle = None
            self._done.clear()
            number = self._number
        try:
            self._send(goal, number, timeout_s)
        except BaseException:
            self._asked = False
            self._done.set()
            raise

    def is_done(self, timeout_s: float = 0.0) -> bool:
        """Whether it has ended, well or not; waits for that at most ``timeout_s`` seconds."""
        return self._done.wait(timeout_s)

    def feedback(self) -> Any:
        """Return the latest ``Reconstruct.Feedback``, None before the first."""
        return self._feedback

    def result(self, timeout_s: float | None = None) -> HandObject:
        """Wait for the end, at most ``timeout_s`` seconds, and return the reconstruction.

        Raises the typed error of ``fmh_ros.core.errors`` that the node's error code stands for, such as NoHandError;
        CancelledError after ``cancel``; TimeoutError when it still runs; UsageError when nothing was asked for.
        """
        if not self._asked:
            raise UsageError("No reconstruction was asked for", change="Call reconstruct() first")
        if not self._done.wait(timeout_s):
            raise TimeoutError(f"The reconstruction still runs after {timeout_s} s")
        if self._error is not None:
            raise self._error
        return self._result

    def cancel(self) -> bool:
        """Ask for the end; ``result`` then raises CancelledError, unless the result came first. False when there is
        nothing to cancel."""
        with self._lock:
            if not self._asked or self._done.is_set():
                return False
            self._cancelling = True
            handle = self._handle
        if handle is not None:
            handle.cancel_goal_async()
        return True

    def close(self) -> None:
        """Cancel what runs, and end the node that this class made."""
        if self.cancel():
            self._done.wait(2.0)
        if self._own is not None:
            self._own.close(self._client)
        else:
            # Not destroyed: the node's executor may be waiting on it. It goes when nobody holds it any more.
            self._node.remove_waitable(self._client)

    def _send(self, goal: Any, number: int, timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        while not self._client.server_is_ready():
            if time.monotonic() > deadline:
                raise NotActiveError(
                    f"Nobody serves the action {self._action}", expected="a running reconstruction_node",
                    change="Start it, or give its name: Reconstructor(action='/<namespace>/reconstruction_node/...')",
                )  # fmt: skip
            time.sleep(0.02)
        sent = self._client.send_goal_async(goal, feedback_callback=lambda message: self._heard(number, message))
        sent.add_done_callback(lambda future: self._guard(number, lambda: self._answered(number, future.result())))

    def _heard(self, number: int, message: Any) -> None:
        if number == self._number:
            self._feedback = message.feedback

    def _answered(self, number: int, handle: Any) -> None:
        if handle is None or not handle.accepted:
            self._end(number, None, BusyError("The node refused the goal", change="Try again later"))
            return
        with self._lock:
            if number != self._number:
                return
            self._handle = handle
            cancelling = self._cancelling
        if cancelling:  # asked for before the node had answered
            handle.cancel_goal_async()
        ended = handle.get_result_async()
        ended.add_done_callback(lambda future: self._guard(number, lambda: self._ended(number, future.result())))

    def _ended(self, number: int, response: Any) -> None:
        result, status = response.result, response.status
        if status == GoalStatus.STATUS_SUCCEEDED and not result.error_code:
            self._end(number, result.reconstruction, None)
        elif result.error_code:
            self._end(number, None, error_from_code(result.error_code, result.error_text))
        elif status == GoalStatus.STATUS_CANCELED:
            self._end(number, None, CancelledError("The reconstruction was cancelled"))
        else:
            self._end(number, None, UnexpectedError(f"The goal ended with status {status} and no error code"))

    def _end(self, number: int, result: Any, error: FmhError | None) -> None:
        with self._lock:
            if number == self._number and not self._done.is_set():
                self._result, self._error = result, error
                self._done.set()

    def _guard(self, number: int, act: Callable[[], None]) -> None:
        """Turn what goes wrong in a callback into the job's error: nobody waits for ever."""
        try:
            act()
        except Exception as error:  # noqa: BLE001 - it is handed to who waits
            self._end(number, None, UnexpectedError(f"The answer could not be read: {type(error).__name__}: {error}"))


def error_from_code(code: int, text: str) -> FmhError:
    """Return the error class that a code of Reconstruct.action stands for, with the node's own words."""
    kinds = {kind.code: kind for kind in FmhError.__subclasses__()}
    if code not in kinds:
        return UnexpectedError(f"The node gave the unknown error code {code}: {text}")
    return kinds[code](text)


def _goal(
    stamp: Time | None,
    image: Image | CompressedImage | None,
    camera_info: CameraInfo | None,
    depth: Image | None,
    side: str,
    options: dict[str, Any],
) -> Any:
    if side not in SIDES:
        raise UsageError(f"side is {side!r}", expected=f"one of {', '.join(SIDES)}")
    if image is not None and stamp is not None:
        raise UsageError("Both a stamp and an image are given", expected="one of them, or none for the next frame")
    if image is None and (camera_info is not None or depth is not None):
        raise UsageError("camera_info or depth is given without an image", expected="the image that they belong to")
    # Checked here: the serialiser ends the program over a value of the wrong type.
    goal = Reconstruct.Goal(check_fields=True, side=SIDES[side])
    if stamp is not None:
        goal.input, goal.stamp = Reconstruct.Goal.STAMP, stamp
    if image is not None:
        goal.input = Reconstruct.Goal.IMAGES
        field = "compressed_image" if isinstance(image, CompressedImage) else "image"
        given = {field: image, "camera_info": camera_info, "depth": depth}
        options = {**options, **{name: value for name, value in given.items() if value is not None}}
    for name, value in options.items():
        if name not in goal.get_fields_and_field_types():
            raise UsageError(f"The goal has no field {name!r}", expected="a field of Reconstruct.action")
        try:
            setattr(goal, name, value)
        except AssertionError as error:
            raise UsageError(f"{name} cannot be {value!r}", expected=str(error)) from error
    return goal


class _SpinningActionClient(ActionClient):  # type: ignore[type-arg]  # no generic before Kilted
    """An action client that may be made while another thread spins its node.

    rclpy shows the client to the executor before it gives it the lock that the executor takes (ros2/rclpy#1589).
    """

    _lock = threading.Lock()  # until the constructor ends; then the client's own


class _OwnNode:
    """A node that a thread spins."""

    def __init__(self, domain_id: int | None) -> None:
        self._context = Context()
        rclpy.init(context=self._context, domain_id=domain_id)
        self.node = rclpy.create_node("fmh_client", context=self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)
        self._thread = threading.Thread(target=self._spin, name="fmh-client", daemon=True)
        self._thread.start()

    def _spin(self) -> None:
        with contextlib.suppress(ExternalShutdownException):
            self._executor.spin()

    def close(self, client: ActionClient[Any, Any, Any]) -> None:
        """End the thread first, then what it waited on."""
        self._executor.shutdown(timeout_sec=2.0)
        self._thread.join(2.0)
        client.destroy()
        self.node.destroy_node()
        rclpy.try_shutdown(context=self._context)
