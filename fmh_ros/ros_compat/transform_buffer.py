# SPDX-License-Identifier: Apache-2.0
"""What tf2_ros does for this package, for machines without it: the same names, arguments and meaning.

Transforms are kept per child frame for ten seconds, and interpolated between two stamps: linearly for the translation,
on the shorter arc for the rotation. Nothing is extrapolated.
"""

from __future__ import annotations

import bisect
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from time import monotonic, sleep

import numpy as np
from geometry_msgs.msg import TransformStamped
from numpy.typing import NDArray
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.time import Time
from tf2_msgs.msg import TFMessage

from fmh_ros.core.transforms import Similarity
from fmh_ros.ros_compat.rotations import interpolate_quat_xyzw, matrix_from_quat_xyzw, quat_xyzw_from_matrix

FloatArray = NDArray[np.float64]
CACHE_S = 10.0
_POLL_S = 0.005


class TransformException(Exception):  # noqa: N818 - tf2_ros's names
    """A transform cannot be given."""


class LookupException(TransformException):
    """A frame is not known at all."""


class ConnectivityException(TransformException):
    """Both frames are known, and nothing connects them."""


class ExtrapolationException(TransformException):
    """The stamp is outside what is kept."""


@dataclass(frozen=True)
class _Pose:
    """Pose of a child frame in ``parent``; quat_xyzw : (4,) unit."""

    parent: str
    translation: FloatArray
    quat_xyzw: FloatArray

    @property
    def similarity(self) -> Similarity:
        return Similarity(matrix_from_quat_xyzw(self.quat_xyzw, use_ros=False), self.translation)


@dataclass
class _Track:
    """What is known of one child frame: poses by stamp (nanoseconds, ascending), or one for all times."""

    static: bool
    stamps: list[int] = field(default_factory=list)
    poses: list[_Pose] = field(default_factory=list)

    def add(self, stamp: int, pose: _Pose, kept_ns: int) -> None:
        """Keep a pose; one that is older than everything that is kept is ignored."""
        if self.static:
            self.stamps, self.poses = [0], [pose]
            return
        if self.stamps and stamp < self.stamps[-1] - kept_ns:
            return
        place = bisect.bisect_left(self.stamps, stamp)
        if place < len(self.stamps) and self.stamps[place] == stamp:
            self.poses[place] = pose
        else:
            self.stamps.insert(place, stamp)
            self.poses.insert(place, pose)
        old = bisect.bisect_left(self.stamps, self.stamps[-1] - kept_ns)
        del self.stamps[:old], self.poses[:old]

    def at(self, child: str, stamp: int) -> _Pose:
        """Return the pose at a stamp. Raises ExtrapolationException."""
        if self.static:
            return self.poses[0]
        place = bisect.bisect_left(self.stamps, stamp)
        if place < len(self.stamps) and self.stamps[place] == stamp:
            return self.poses[place]
        if place in (0, len(self.stamps)):
            way = "past" if place == 0 else "future"
            raise ExtrapolationException(
                f"Lookup would require extrapolation into the {way}: {child} is asked for at {stamp / 1e9:.6f} s and "
                f"known from {self.stamps[0] / 1e9:.6f} to {self.stamps[-1] / 1e9:.6f} s"
            )
        first, second = self.poses[place - 1], self.poses[place]
        if first.parent != second.parent:
            return first
        share = (stamp - self.stamps[place - 1]) / (self.stamps[place] - self.stamps[place - 1])
        translation = first.translation + share * (second.translation - first.translation)
        return _Pose(first.parent, translation, interpolate_quat_xyzw(first.quat_xyzw, second.quat_xyzw, share))


class Buffer:
    """Keeps transforms and composes them. Safe to use from several threads."""

    def __init__(self, cache_time: Duration | None = None, node: Node | None = None) -> None:
        del node  # tf2_ros offers a service through it, which nobody here uses
        self._kept_ns = round(CACHE_S * 1e9) if cache_time is None else cache_time.nanoseconds
        self._tracks: dict[str, _Track] = {}
        self._lock = threading.Lock()

    def clear(self) -> None:
        """Forget every transform that is not static."""
        with self._lock:
            self._tracks = {child: track for child, track in self._tracks.items() if track.static}

    def set_transform(self, transform: TransformStamped, authority: str) -> None:
        """Add a transform; one that is no rotation, or connects a frame with itself, is left out."""
        self._add(transform, static=False)

    def set_transform_static(self, transform: TransformStamped, authority: str) -> None:
        """Add a transform that holds at all times."""
        self._add(transform, static=True)

    def can_transform(self, target_frame: str, source_frame: str, time: Time, timeout: Duration | None = None) -> bool:
        """Whether ``lookup_transform`` would give one, within the timeout."""
        try:
            self.lookup_transform(target_frame, source_frame, time, timeout)
        except TransformException:
            return False
        return True

    def lookup_transform(
        self, target_frame: str, source_frame: str, time: Time, timeout: Duration | None = None
    ) -> TransformStamped:
        """Return the pose of the source frame in the target frame at a time; time zero is the newest common one.

        ``timeout`` : how long to wait for it, on the steady clock; somebody else must spin the listener's node.
        Raises LookupException, ConnectivityException or ExtrapolationException.
        """
        deadline = monotonic() + (0.0 if timeout is None else timeout.nanoseconds / 1e9)
        while True:
            try:
                with self._lock:
                    return self._look_up(target_frame, source_frame, time.nanoseconds)
            except TransformException:
                if monotonic() >= deadline:
                    raise
            sleep(_POLL_S)

    def _add(self, transform: TransformStamped, *, static: bool) -> None:
        t, q = transform.transform.translation, transform.transform.rotation
        parent, child = transform.header.frame_id.lstrip("/"), transform.child_frame_id.lstrip("/")
        translation, quat_xyzw = np.array([t.x, t.y, t.z]), np.array([q.x, q.y, q.z, q.w])
        length = float(np.linalg.norm(quat_xyzw))
        finite = np.isfinite(translation).all() and np.isfinite(length)
        if not parent or not child or parent == child or not finite or abs(length - 1) > 1e-2:
            return
        stamp = transform.header.stamp.sec * 10**9 + transform.header.stamp.nanosec
        with self._lock:
            track = self._tracks.get(child)
            if track is None or track.static != static:
                track = self._tracks[child] = _Track(static)
            track.add(stamp, _Pose(parent, translation, quat_xyzw / length), self._kept_ns)

    def _look_up(self, target: str, source: str, stamp: int) -> TransformStamped:
        target, source = target.lstrip("/"), source.lstrip("/")
        known = set(self._tracks) | {pose.parent for track in self._tracks.values() for pose in track.poses[-1:]}
        for frame in (target, source):
            if frame not in known:
                raise LookupException(f'"{frame}" is not a known frame')
        if stamp == 0:
            stamp = self._newest_common(target, source)
        up_source, up_target = self._ancestors(source, stamp), self._ancestors(target, stamp)
        meeting = next((frame for frame in up_source if frame in up_target), None)
        if meeting is None:
            self._explain(stamp, up_source, up_target)
            raise ConnectivityException(f'"{target}" and "{source}" are not connected: they are in different trees')
        T_target_source = up_target[meeting].inverse() @ up_source[meeting]
        return _message(target, source, stamp, T_target_source)

    def _ancestors(self, frame: str, stamp: int) -> dict[str, Similarity]:
        """Return the pose of ``frame`` in each of its ancestors, itself first, as far as they are known."""
        found = {frame: Similarity()}
        pose = Similarity()
        while (track := self._tracks.get(frame)) is not None:
            try:
                step = track.at(frame, stamp)
            except ExtrapolationException:
                break
            pose, frame = step.similarity @ pose, step.parent
            if frame in found:  # a loop
                break
            found[frame] = pose
        return found

    def _explain(self, stamp: int, *ways: dict[str, Similarity]) -> None:
        """Raise ExtrapolationException when it was a stamp that ended the way up."""
        for way in ways:
            last = list(way)[-1]
            if last in self._tracks:
                self._tracks[last].at(last, stamp)

    def _newest_common(self, target: str, source: str) -> int:
        """Return the newest stamp at which every moving frame on the way is known, nanoseconds; 0 when none moves."""
        chains = [self._chain(target), self._chain(source)]
        shared = set(chains[0]) & set(chains[1])
        moving = [
            self._tracks[frame].stamps[-1]
            for chain in chains
            for frame in chain
            if frame not in shared and frame in self._tracks and not self._tracks[frame].static
        ]
        return min(moving, default=0)

    def _chain(self, frame: str) -> list[str]:
        """Return the frame and its newest ancestors."""
        chain = [frame]
        while (track := self._tracks.get(chain[-1])) is not None and track.poses[-1].parent not in chain:
            chain.append(track.poses[-1].parent)
        return chain


class TransformListener:
    """Fills a buffer from /tf and /tf_static; the node must be spun."""

    def __init__(self, buffer: Buffer, node: Node) -> None:
        self._node = node
        group = ReentrantCallbackGroup()

        def moving(message: TFMessage) -> None:
            for transform in message.transforms:
                buffer.set_transform(transform, "/tf")

        def static(message: TFMessage) -> None:
            for transform in message.transforms:
                buffer.set_transform_static(transform, "/tf_static")

        latched = QoSProfile(depth=100, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self._subscriptions = [
            node.create_subscription(TFMessage, "/tf", moving, QoSProfile(depth=100), callback_group=group),
            node.create_subscription(TFMessage, "/tf_static", static, latched, callback_group=group),
        ]

    def unregister(self) -> None:
        """Stop listening."""
        while self._subscriptions:
            self._node.destroy_subscription(self._subscriptions.pop())


class TransformBroadcaster:
    """Publishes transforms on /tf."""

    def __init__(self, node: Node) -> None:
        self._publisher = node.create_publisher(TFMessage, "/tf", QoSProfile(depth=100))

    def sendTransform(self, transform: TransformStamped | Sequence[TransformStamped]) -> None:  # noqa: N802 - tf2_ros
        """Publish one transform or several."""
        several = [transform] if isinstance(transform, TransformStamped) else list(transform)
        self._publisher.publish(TFMessage(transforms=several))


class StaticTransformBroadcaster:
    """Publishes transforms on /tf_static: latched, the newest of each child frame."""

    def __init__(self, node: Node) -> None:
        profile = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self._publisher = node.create_publisher(TFMessage, "/tf_static", profile)
        self._sent: dict[str, TransformStamped] = {}

    def sendTransform(self, transform: TransformStamped | Sequence[TransformStamped]) -> None:  # noqa: N802 - tf2_ros
        """Publish one transform or several, with all that were published before."""
        several = [transform] if isinstance(transform, TransformStamped) else list(transform)
        self._sent.update({one.child_frame_id: one for one in several})
        self._publisher.publish(TFMessage(transforms=list(self._sent.values())))


def _message(target: str, source: str, stamp: int, pose: Similarity) -> TransformStamped:
    message = TransformStamped(child_frame_id=source)
    message.header.frame_id = target
    message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp, 10**9)
    translation, rotation = message.transform.translation, message.transform.rotation
    translation.x, translation.y, translation.z = pose.translation.tolist()
    rotation.x, rotation.y, rotation.z, rotation.w = quat_xyzw_from_matrix(pose.rotation, use_ros=False).tolist()
    return message
