# SPDX-License-Identifier: Apache-2.0
"""Recording live topics: serialised messages go to the bag as they come."""

from __future__ import annotations

import importlib
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fmh_ros.bags.definitions import UNKNOWN_HASH, definition
from fmh_ros.bags.types import Topic
from fmh_ros.bags.writing import BagWriter
from fmh_ros.core.errors import FmhError, ModelMissingError, UsageError

if TYPE_CHECKING:
    from rclpy.node import Node
    from rclpy.qos import QoSProfile

#: Seconds between two looks at the graph, and messages that may wait while one is written.
LOOK_S, QUEUE = 0.25, 100


@dataclass
class RecordReport:
    """counts : messages of each topic; left_out : topics that could not be recorded, with the reason."""

    counts: Counter[str] = field(default_factory=Counter)
    left_out: dict[str, str] = field(default_factory=dict)


def record_topics(
    out: str | Path, topics: Sequence[str] = (), duration_s: float | None = None, wait_s: float = 30.0
) -> RecordReport:
    """Record topics, all that are not hidden when none are named, until the time is over or KeyboardInterrupt.

    duration_s : from the first message on; wait_s : with it, how long to wait for that.
    Topics that appear later are recorded from then on. The time of a message is when it arrived.
    Raises UsageError when no message comes, and then leaves no bag; OutputError, or ModelMissingError without rclpy or
    rosbags.
    """
    try:
        import rclpy
        from rclpy.executors import SingleThreadedExecutor
        from rclpy.signals import SignalHandlerOptions
    except ImportError as error:
        raise ModelMissingError(
            "rclpy is not installed", expected="ROS 2", change="Source it, or install it with tools/setup_ros.sh"
        ) from error
    for name, value in (("duration", duration_s), ("wait", wait_s)):
        if value is not None and not value > 0:
            raise UsageError(f"The {name} is {value}", expected="seconds, more than 0")
    from fmh_ros.ros_compat import use_large_shared_memory

    use_large_shared_memory()
    report = RecordReport()
    context = rclpy.Context()
    with BagWriter(out) as writer:
        rclpy.init(context=context, signal_handler_options=SignalHandlerOptions.NO)
        node = rclpy.create_node("fmh_record", context=context)
        executor = SingleThreadedExecutor(context=context)
        executor.add_node(node)
        try:
            recorder = Recorder(node, writer, topics, report)
            clock = _Stopwatch(duration_s, wait_s)
            while not clock.is_over(begun=bool(report.counts)):
                recorder.look()
                executor.spin_once(timeout_sec=0.05)
            if not report.counts:
                writer.discard()
                raise recorder.nothing_came(wait_s)
            recorder.note_silent()
        except KeyboardInterrupt:
            pass
        finally:
            executor.shutdown(timeout_sec=1.0)
            node.destroy_node()
            rclpy.try_shutdown(context=context)
    return report


class _Stopwatch:
    """Runs for a time that begins with the first message, for which it waits another time; for ever without one."""

    def __init__(self, duration_s: float | None, wait_s: float) -> None:
        self._duration_s = duration_s
        self._end = None if duration_s is None else time.monotonic() + wait_s
        self._begun = False

    def is_over(self, *, begun: bool) -> bool:
        """Whether the time is over; begun : the first message has come."""
        now = time.monotonic()
        if begun and not self._begun and self._duration_s is not None:
            self._begun, self._end = True, now + self._duration_s
        return self._end is not None and now >= self._end


class Recorder:
    """Subscribes a node to topics and writes what comes."""

    def __init__(self, node: Node, writer: BagWriter, topics: Sequence[str], report: RecordReport) -> None:
        self._node, self._writer, self._report = node, writer, report
        self._wanted = {node.resolve_topic_name(topic) for topic in topics}
        self._subscriptions: dict[str, Any] = {}
        self._looked = float("-inf")

    def look(self) -> None:
        """Subscribe to topics that are new since the last look, which may be a moment ago."""
        now = time.monotonic()
        if now - self._looked < LOOK_S:
            return
        self._looked = now
        for name, types in self._node.get_topic_names_and_types():
            if name in self._subscriptions or name in self._report.left_out or not self._is_wanted(name):
                continue
            publishers = self._node.get_publishers_info_by_topic(name)
            if not publishers:  # its QoS is not known before somebody publishes
                continue
            try:
                self._subscribe(name, types, publishers)
            except FmhError as error:
                self._report.left_out[name] = str(error)

    def nothing_came(self, wait_s: float) -> FmhError:
        """Return the error for a recording without a message."""
        names = {name for name, _ in self._node.get_topic_names_and_types()}
        silent = [f"{name}: {self._silence(name)}" for name in sorted(self._wanted)]
        return UsageError(
            f"No message came within {wait_s:g} s" + (f" ({'; '.join(silent)})" if silent else ""),
            expected="somebody to publish; there are " + (", ".join(sorted(names)) or "no topics"),
            change="Start the publishers, check the names and ROS_DOMAIN_ID, or allow more with --wait",
        )

    def note_silent(self) -> None:
        """Put the wanted topics of which nothing came into the report."""
        for name in sorted(self._wanted):
            if not self._report.counts[name]:
                self._report.left_out.setdefault(name, self._silence(name))

    def _silence(self, name: str) -> str:
        count = len(self._node.get_publishers_info_by_topic(name))
        return f"{count} publisher(s), but no message" if count else "nobody publishes it"

    def _is_wanted(self, name: str) -> bool:
        if self._wanted:
            return name in self._wanted
        return not any(part.startswith("_") for part in name.split("/"))

    def _subscribe(self, name: str, types: list[str], publishers: list[Any]) -> None:
        if len(types) != 1:
            raise UsageError(f"The topic {name} has several types ({', '.join(types)})", expected="one")
        (msgtype,) = types
        package, kind, short = msgtype.split("/")
        if kind != "msg":
            raise UsageError(f"{name} has the type {msgtype}", expected="a message")
        text, digest = definition(msgtype)
        announced = str(getattr(publishers[0], "topic_type_hash", ""))
        if announced.startswith("RIHS01_") and announced not in (digest, UNKNOWN_HASH):
            raise UsageError(
                f"The publisher's {msgtype} is another one ({announced}) than is installed here ({digest})",
                expected="the same definition on both sides",
            )
        try:
            message_class = getattr(importlib.import_module(f"{package}.msg"), short)
        except (ImportError, AttributeError) as error:
            raise UsageError(f"The Python class of {msgtype} cannot be imported ({error})") from error
        offered = tuple(_stored_qos(publisher.qos_profile) for publisher in publishers)
        topic = Topic(name, msgtype, text, digest, tuple(dict.fromkeys(offered)))
        self._writer.add_topic(topic)
        self._subscriptions[name] = self._node.create_subscription(
            message_class, name, lambda raw: self._write(topic, raw), adopted_qos(publishers), raw=True
        )

    def _write(self, topic: Topic, raw: bytes) -> None:
        self._writer.write(topic.key, self._node.get_clock().now().nanoseconds, raw)
        self._report.counts[topic.name] += 1


def adopted_qos(publishers: Sequence[Any]) -> QoSProfile:
    """Return a profile that fits every publisher: as reliable and as latched as all of them are."""
    from rclpy.qos import QoSDurabilityPolicy, QoSProfile, QoSReliabilityPolicy

    profiles = [publisher.qos_profile for publisher in publishers]
    reliable = all(profile.reliability == QoSReliabilityPolicy.RELIABLE for profile in profiles)
    latched = all(profile.durability == QoSDurabilityPolicy.TRANSIENT_LOCAL for profile in profiles)
    return QoSProfile(
        depth=max(QUEUE, *(profile.depth for profile in profiles)),
        reliability=QoSReliabilityPolicy.RELIABLE if reliable else QoSReliabilityPolicy.BEST_EFFORT,
        durability=QoSDurabilityPolicy.TRANSIENT_LOCAL if latched else QoSDurabilityPolicy.VOLATILE,
    )


def _stored_qos(profile: QoSProfile) -> Any:
    """Return what a publisher offers as rosbags writes it."""
    from rosbags.interfaces import Qos, QosDurability, QosHistory, QosLiveliness, QosReliability, QosTime

    def seconds(duration: Any) -> Any:
        return QosTime(*divmod(duration.nanoseconds, 1_000_000_000))

    return Qos(
        _member(QosHistory, profile.history),
        profile.depth,
        _member(QosReliability, profile.reliability),
        _member(QosDurability, profile.durability),
        seconds(profile.deadline),
        seconds(profile.lifespan),
        _member(QosLiveliness, profile.liveliness),
        seconds(profile.liveliness_lease_duration),
        bool(profile.avoid_ros_namespace_conventions),
    )


def _member(kind: Any, policy: Any) -> Any:
    """Return rosbags's member of the same name as a policy of rclpy."""
    return kind.__members__.get(policy.name, kind.UNKNOWN)
