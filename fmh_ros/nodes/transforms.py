# SPDX-License-Identifier: Apache-2.0
"""TF: where the camera was in the fixed frame, and where hand and object are."""

from __future__ import annotations

import threading

from geometry_msgs.msg import TransformStamped
from rclpy.duration import Duration
from rclpy.lifecycle import LifecycleNode
from rclpy.time import Time

from fmh_ros.core.errors import TransformError
from fmh_ros.core.frame.frame import Frame
from fmh_ros.messages.basics import from_transform, to_header, to_time
from fmh_ros.messages.frames import named_poses, to_transforms
from fmh_ros.nodes.results import Entry, Parent
from fmh_ros.nodes.waiting import Waiter
from fmh_ros.ros_compat import Buffer, TransformBroadcaster, TransformException, TransformListener

#: How often a transform that is not there yet is looked for, seconds.
LOOK_S = 0.02


class FrameTree:
    """Listens to TF while a fixed frame is asked for, and broadcasts the frames of the current result."""

    def __init__(self, node: LifecycleNode) -> None:
        self._node = node
        self._broadcaster = TransformBroadcaster(node)
        self._buffer: Buffer | None = None
        self._listener: TransformListener | None = None
        self._last_ns = 0
        self._lock = threading.Lock()
        self._made_for = ("", "")
        self._transforms: list[TransformStamped] = []

    def start(self) -> None:
        """Begin to listen, for as long as the node lives; what was said before is not known."""
        if self._buffer is None:
            self._buffer = Buffer()
            self._listener = TransformListener(self._buffer, self._node)

    def clear(self) -> None:
        """Forget every transform: time has jumped."""
        self._last_ns = 0
        if self._buffer is not None:
            self._buffer.clear()

    def find_parent(
        self, frame: Frame, waiter: Waiter, fixed_frame: str, *, required: bool, timeout_s: float
    ) -> tuple[Parent, str]:
        """Return what the result's frames will hang from, and a warning when that is not what was asked for.

        Looks up the camera in the fixed frame at the image's stamp. Raises TransformError when that is required and
        not known.
        """
        camera = Parent(frame.frame_id)
        if not fixed_frame or fixed_frame == frame.frame_id:
            return camera, ""
        buffer = self._buffer
        problem = "the node does not listen to TF"
        if buffer is not None:
            stamp = Time(nanoseconds=frame.stamp_ns or 0, clock_type=self._node.get_clock().clock_type)
            deadline = waiter.elapsed() + timeout_s
            while not self._known(buffer, fixed_frame, frame.frame_id, stamp) and waiter.elapsed() < deadline:
                waiter.wait_for(lambda: False, LOOK_S)
            try:
                found = buffer.lookup_transform(fixed_frame, frame.frame_id, stamp)
                return Parent(fixed_frame, from_transform(found.transform)), ""
            except TransformException as error:
                problem = str(error)
        seen = f"The frame {frame.frame_id!r} is not known in {fixed_frame!r} at the image's stamp ({problem})"
        if required:
            raise TransformError(
                seen,
                expected=f"TF from {fixed_frame} to {frame.frame_id} within {timeout_s:g} s of the image",
                change="Start what publishes it, or set require_fixed_frame to false",
            )
        warning = f"{seen}; transforms are published in the camera's frame instead"
        self._node.get_logger().warning(warning)
        return camera, warning

    def broadcast(self, entry: Entry, prefix: str, *, first: bool) -> None:
        """Publish the frames of a result: first with the image's stamp, later with the present time, since nobody
        accepts the same stamp twice and what is old is forgotten."""
        with self._lock:
            stamp_ns = entry.result.frame.stamp_ns or 0
            if not first:
                stamp_ns = self._node.get_clock().now().nanoseconds
            if first or stamp_ns > self._last_ns:
                self._last_ns = stamp_ns
                self._send(entry, prefix, stamp_ns)

    def _send(self, entry: Entry, prefix: str, stamp_ns: int) -> None:
        key = (entry.made.id, prefix)
        if self._made_for != key:  # several times a second: only the stamps change
            poses, header = named_poses(entry.result, prefix), to_header(entry.parent.frame_id, None)
            self._transforms = to_transforms(poses, header, entry.parent.T_parent_camera)
            self._made_for = key
        for transform in self._transforms:
            transform.header.stamp = to_time(stamp_ns)
        self._broadcaster.sendTransform(self._transforms)

    @staticmethod
    def _known(buffer: Buffer, target: str, source: str, stamp: Time) -> bool:
        return bool(buffer.can_transform(target, source, stamp, Duration(seconds=0)))
