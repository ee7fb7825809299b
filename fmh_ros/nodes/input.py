# SPDX-License-Identifier: Apache-2.0
"""The node's eyes: subscriptions to image, camera_info and depth, and sets of messages that belong together."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from rclpy.event_handler import SubscriptionEventCallbacks
from rclpy.lifecycle import LifecycleNode
from rclpy.qos import (
    DurabilityPolicy,
    HistoryPolicy,
    QoSCompatibility,
    QoSPolicyKind,
    QoSProfile,
    ReliabilityPolicy,
    qos_check_compatible,
)
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.subscription import Subscription
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from fmh_ros.core.errors import (
    CameraInfoMissingError,
    FmhError,
    NoImageError,
    StampError,
    SynchronisationError,
)
from fmh_ros.messages.basics import from_time
from fmh_ros.messages.inputs import MessageSet
from fmh_ros.nodes.gate import Gate, drop_kept_message
from fmh_ros.nodes.sync import SAME_NS, StampMatcher

IMAGE, CAMERA_INFO, DEPTH = "image", "camera_info", "depth"
SHARED_MEMORY_HINT = (
    "Start the camera driver with the Fast DDS profile config/fastdds_shm.xml of this package (the publisher's profile "
    "decides), or set image_reliability to reliable, or image_transport to compressed"
)


@dataclass(frozen=True)
class InputSettings:
    """Which topics are read, and how; see the parameters of these names."""

    image_transport: str = "raw"
    depth_transport: str = "raw"
    reliability: str = "best_effort"
    camera_info: bool = True
    depth: bool = False
    slop_s: float = 0.04

    @property
    def kinds(self) -> tuple[str, ...]:
        """The topics that a set consists of."""
        return (IMAGE, *((CAMERA_INFO,) if self.camera_info else ()), *((DEPTH,) if self.depth else ()))


@dataclass
class TopicState:
    """What is known of one topic. ``heard`` : when its last message came, steady clock, None for never."""

    topic: str
    count: int = 0
    heard: float | None = None
    profile: QoSProfile | None = None

    def age(self) -> float | None:
        """Seconds since the last message that was looked at."""
        return None if self.heard is None else time.monotonic() - self.heard


@dataclass
class Request:
    """Somebody waits for a set: the next one, or the one of a stamp. ``poke`` is called when something has changed."""

    stamp_ns: int | None
    poke: Callable[[], None]
    result: MessageSet | None = None
    error: FmhError | None = None
    counts: dict[str, int] = field(default_factory=dict)

    @property
    def done(self) -> bool:
        """Whether the waiting is over."""
        return self.result is not None or self.error is not None


class FrameSource:
    """Reads the topics while somebody waits for a frame, and now and then to be able to say whether images come.

    Best effort and KEEP_LAST with depth 1 unless told otherwise: with the usual depth of 5 frames age in the queue.
    """

    def __init__(self, node: LifecycleNode) -> None:
        self._node = node
        self._gate = Gate(node)
        self._lock = threading.Lock()
        self._settings = InputSettings()
        self._matcher = StampMatcher((IMAGE,), 0)
        self._subscriptions: dict[str, Subscription[Any]] = {}
        self._requests: list[Request] = []
        self._newest: MessageSet | None = None
        self._probing: set[str] = set()
        self.topics: dict[str, TopicState] = {}
        self.started: float | None = None

    def start(self, settings: InputSettings) -> None:
        """Subscribe."""
        with self._lock:
            self._settings = settings
            self._matcher = StampMatcher(settings.kinds, round(settings.slop_s * 1e9))
            self.started = time.monotonic()
        types: dict[str, Any] = {IMAGE: Image, CAMERA_INFO: CameraInfo, DEPTH: Image}
        names = {kind: kind for kind in settings.kinds}
        transports = {IMAGE: settings.image_transport, DEPTH: settings.depth_transport}
        for kind, transport in transports.items():
            if transport != "raw":  # image_transport's names are below the resolved one, remapped or not
                types[kind], names[kind] = CompressedImage, f"{self._node.resolve_topic_name(kind)}/{transport}"
        for kind in settings.kinds:
            self._subscribe(kind, types[kind], names[kind])

    def stop(self, error: FmhError) -> None:
        """Unsubscribe; whoever waits gets the error."""
        self._gate.open = False
        with self._lock:
            requests, self._requests = self._requests, []
            subscriptions, self._subscriptions = self._subscriptions, {}
            self._newest, self.started, self._probing = None, None, set()
            self._matcher.clear()
        for request in requests:
            request.error = error
            request.poke()
        for subscription in subscriptions.values():
            self._node.destroy_subscription(subscription)

    def set_slop(self, slop_s: float) -> None:
        """Change how far stamps of one set may be apart."""
        with self._lock:
            self._matcher.slop_ns = round(slop_s * 1e9)

    def clear(self) -> None:
        """Forget every message: time has jumped."""
        with self._lock:
            self._matcher.clear()
            self._newest = None

    def ask(self, stamp_ns: int | None, poke: Callable[[], None]) -> Request:
        """Wait for the next set, whose image arrives after this call, or for the set of a stamp."""
        request = Request(stamp_ns, poke)
        with self._lock:
            request.counts = {kind: state.count for kind, state in self.topics.items()}
            if stamp_ns is not None and self._newest is not None:
                self._offer(request, self._newest)
            if not request.done:
                self._open(drop=stamp_ns is None)
                self._requests.append(request)
        return request

    def give_up(self, request: Request) -> None:
        """Stop waiting; does nothing when the request is done."""
        with self._lock:
            if request in self._requests:
                self._requests.remove(request)
            self._close_when_idle()

    def probe(self) -> None:
        """Look at one message of each topic, to know whether any come."""
        with self._lock:
            if self._subscriptions and not self._requests:
                self._probing = set(self._subscriptions)
                self._open(drop=True)

    def publishers(self, kind: str) -> int:
        """How many publish on a topic."""
        state = self.topics.get(kind)
        return 0 if state is None else self._node.count_publishers(state.topic)

    def incompatible(self, kind: str) -> str:
        """Say which publishers' QoS keeps their messages from us, an empty text when none does."""
        state = self.topics[kind]
        if state.profile is None:
            return ""
        for publisher in self._node.get_publishers_info_by_topic(state.topic):
            verdict, reason = qos_check_compatible(publisher.qos_profile, state.profile)
            if verdict == QoSCompatibility.ERROR:
                return f"{publisher.node_name}: {reason}"
        return ""

    def explain(self, request: Request, waited_s: float) -> FmhError:
        """Return why a request was not served in time."""
        with self._lock:
            came = {kind: state.count - request.counts.get(kind, 0) for kind, state in self.topics.items()}
            missed = self._matcher.missed()
        waited = f"within {waited_s:.1f} s"
        for kind, kind_of_error in ((IMAGE, NoImageError), (CAMERA_INFO, CameraInfoMissingError)):
            if kind in came and _is_silent(kind, came):
                return self._silent(kind, kind_of_error, waited)
        if DEPTH in came and _is_silent(DEPTH, came):
            return self._silent(DEPTH, SynchronisationError, waited)
        if request.stamp_ns is not None:
            return StampError(
                f"No image of the stamp {request.stamp_ns / 1e9:.6f} arrived {waited}",
                expected="the stamp of the newest image, or of one still to come",
                change="Use the stamp of an image's header as it is; older images are not kept",
            )
        apart = "" if missed is None else f", the nearest image and {missed[0]} were {missed[1] / 1e6:.1f} ms apart"
        return SynchronisationError(
            f"No image, camera_info and depth that belong together arrived {waited}{apart}",
            expected=f"stamps at most {self._matcher.slop_ns / 1e6:.0f} ms apart (sync_slop)",
            change="Have the camera driver synchronise its streams, or raise sync_slop",
        )

    def hint(self, kind: str) -> str:
        """Say why no message of a topic may be arriving."""
        publishers = self.publishers(kind)
        incompatible = self.incompatible(kind)
        if incompatible:
            return f"a publisher's QoS does not match: {incompatible}"
        if publishers == 0:
            return "nobody publishes it; start the camera, or remap the topic"
        if kind == IMAGE:
            return f"{publishers} publish it, but nothing gets through. {SHARED_MEMORY_HINT}"
        return f"{publishers} publish it, but nothing gets through"

    def _silent(self, kind: str, kind_of_error: type[FmhError], waited: str) -> FmhError:
        topic = self.topics[kind].topic
        return kind_of_error(
            f"No message on {topic} arrived {waited}: {self.hint(kind)}",
            expected=f"messages on {topic}",
            change="" if kind == IMAGE else f"Publish them, or set use_{kind} to false",
        )

    def _subscribe(self, kind: str, message_type: Any, name: str) -> None:
        topic = self._node.resolve_topic_name(name)
        state = TopicState(topic)

        profile = QoSProfile(
            history=HistoryPolicy.KEEP_LAST,
            depth=1,
            reliability=self._reliability(topic),
            durability=DurabilityPolicy.VOLATILE,
        )
        state.profile = profile
        self.topics[kind] = state
        subscription = self._node.create_subscription(
            message_type,
            name,
            lambda message: self._receive(kind, state, message),
            profile,
            callback_group=self._gate,
            # No event handlers: rclpy's executor fails when one is destroyed while it waits; see ``incompatible``.
            event_callbacks=SubscriptionEventCallbacks(use_default_callbacks=False),
            qos_overriding_options=QoSOverridingOptions((QoSPolicyKind.HISTORY, QoSPolicyKind.DEPTH)),
        )
        with self._lock:
            self._subscriptions[kind] = subscription

    def _reliability(self, topic: str) -> ReliabilityPolicy:
        """What qos_overrides say, else the parameter.

        rclpy's own override would keep the first value of the parameter for ever, as it declares its own once.
        """
        name = f"qos_overrides.{topic}.subscription.reliability"
        if not self._node.has_parameter(name):
            self._node.declare_parameter(name, "")
        text = self._node.get_parameter(name).value or self._settings.reliability
        return ReliabilityPolicy[str(text).upper()]

    def _receive(self, kind: str, state: TopicState, message: Any) -> None:
        pokes: list[Callable[[], None]] = []
        with self._lock:
            if kind not in self._subscriptions:
                return
            state.count += 1
            state.heard = time.monotonic()
            matched = self._matcher.add(kind, from_time(message.header.stamp), message)
            if matched is not None:
                stamp_ns, found = matched
                self._newest = MessageSet(stamp_ns, found[IMAGE], found.get(CAMERA_INFO), found.get(DEPTH))
                for request in list(self._requests):
                    self._offer(request, self._newest)
                    if request.done:
                        self._requests.remove(request)
                        pokes.append(request.poke)
            self._probing.discard(kind)
            self._close_when_idle()
        for poke in pokes:
            poke()

    @staticmethod
    def _offer(request: Request, found: MessageSet) -> None:
        """Serve a request with a set, when it is the right one; fail it when that can never come any more."""
        if request.stamp_ns is None or abs(found.stamp_ns - request.stamp_ns) <= SAME_NS:
            request.result = found
        elif found.stamp_ns > request.stamp_ns:
            request.error = StampError(
                f"The newest image has the stamp {found.stamp_ns / 1e9:.6f}, the goal asks for "
                f"{request.stamp_ns / 1e9:.6f}",
                expected="the stamp of the newest image, or of one still to come",
                change="Ask sooner, or send the images in the goal; older images are not kept",
            )

    def _open(self, *, drop: bool) -> None:
        """Let messages in; what the middleware kept from before is dropped when it must not count as new."""
        if self._gate.open:
            return
        if drop and IMAGE in self._subscriptions:
            drop_kept_message(self._subscriptions[IMAGE])
        self._gate.open = True

    def _close_when_idle(self) -> None:
        if not self._requests and not self._probing:
            self._gate.open = False


def _is_silent(kind: str, came: dict[str, int]) -> bool:
    """Whether nothing comes on a topic; one message may have been kept by the middleware from long before."""
    return came[kind] == 0 or (kind != IMAGE and came[kind] == 1 and came[IMAGE] > 2)
