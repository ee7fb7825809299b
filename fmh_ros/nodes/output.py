# SPDX-License-Identifier: Apache-2.0
"""What the node publishes of a result. Derived messages are made only when somebody listens, beside the executor."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from follow_my_hold.msg import ContactArray, HandObject
from geometry_msgs.msg import PoseArray
from rclpy.event_handler import PublisherEventCallbacks
from rclpy.lifecycle import LifecycleNode
from rclpy.qos import QoSDurabilityPolicy, QoSProfile, QoSReliabilityPolicy
from sensor_msgs.msg import Image, PointCloud2
from visualization_msgs.msg import MarkerArray

from fmh_ros.messages.cloud import to_object_cloud
from fmh_ros.messages.frames import to_hand_joints
from fmh_ros.messages.markers import no_markers, to_markers
from fmh_ros.messages.pictures import to_overlay
from fmh_ros.messages.planning import optional_messages, to_collision_object, to_detections
from fmh_ros.messages.result import to_contact_array
from fmh_ros.nodes.results import Entry

LATCHED = QoSProfile(depth=1, reliability=QoSReliabilityPolicy.RELIABLE, durability=QoSDurabilityPolicy.TRANSIENT_LOCAL)
RESULT_TOPIC = "~/reconstruction"
#: rclpy's executor fails when an event handler is destroyed while it waits.
_NO_EVENTS = PublisherEventCallbacks(use_default_callbacks=False)


@dataclass
class _Topic:
    """A derived topic. ``listeners`` : how many had the latest message."""

    name: str
    message_type: Any
    make: Callable[[Entry], Any]
    publisher: Any = None
    sent_id: str = ""
    listeners: int = 0


class Output:
    """The publishers of results; they exist from configure to cleanup, and publish while the node is active.

    parameter : returns the value of a parameter.
    """

    def __init__(self, node: LifecycleNode, parameter: Callable[[str], Any]) -> None:
        self._node, self._parameter = node, parameter
        self._lock = threading.Lock()
        self._result: Any = None
        self._worker: ThreadPoolExecutor | None = None
        self._active = False
        self._topics = [
            _Topic("~/markers", MarkerArray, lambda e: to_markers(e.result, parameter("marker_faces"))),
            _Topic("~/object_cloud", PointCloud2, lambda e: to_object_cloud(e.result)),
            _Topic("~/contacts", ContactArray, lambda e: to_contact_array(e.result, e.made.id)),
            _Topic("~/hand_joints", PoseArray, lambda e: to_hand_joints(e.result)),
            _Topic("~/overlay", Image, lambda e: to_overlay(e.result)),
            *self._optional_topics(),
        ]

    def _optional_topics(self) -> list[_Topic]:
        topics = []
        moveit, vision = optional_messages("moveit_msgs"), optional_messages("vision_msgs")
        if moveit is not None:
            topics.append(_Topic("~/collision_object", moveit.CollisionObject, self._collision_object))
        if vision is not None:
            detections = vision.Detection3DArray
            topics.append(_Topic("~/detections", detections, lambda e: to_detections(e.result, e.made.id)))
        return topics

    def _collision_object(self, entry: Entry) -> Any:
        parameter = self._parameter
        return to_collision_object(entry.result, parameter("collision_faces"), parameter("frame_prefix"))

    def create(self) -> None:
        """Create the publishers."""
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="fmh-output")
        self._result = self._node.create_lifecycle_publisher(
            HandObject, RESULT_TOPIC, LATCHED, event_callbacks=_NO_EVENTS
        )
        for topic in self._topics:
            topic.publisher = self._node.create_lifecycle_publisher(
                topic.message_type, topic.name, LATCHED, event_callbacks=_NO_EVENTS
            )
            topic.sent_id, topic.listeners = "", 0

    def destroy(self) -> None:
        """Destroy the publishers, and with them what they keep for late listeners."""
        with self._lock:
            worker, self._worker = self._worker, None
        if worker is not None:
            worker.shutdown(wait=True, cancel_futures=True)
        with self._lock:
            publishers = [self._result, *(topic.publisher for topic in self._topics)]
            self._result = None
            for topic in self._topics:
                topic.publisher = None
        for publisher in publishers:
            if publisher is not None:
                self._node.destroy_lifecycle_publisher(publisher)

    def publish(self, entry: Entry) -> None:
        """Publish a new result; derived messages follow from a thread of their own."""
        with self._lock:
            if self._result is None:
                return
            self._result.publish(entry.message)
        self.serve(entry)

    def serve(self, entry: Entry) -> None:
        """Publish derived messages of a result to whoever listens and has not had them."""
        with self._lock:
            if self._worker is None:
                return
            for topic in self._topics:
                listeners = topic.publisher.get_subscription_count()
                is_new = topic.sent_id != entry.made.id or listeners > topic.listeners
                topic.listeners = listeners
                if listeners and is_new:
                    topic.sent_id = entry.made.id
                    self._worker.submit(self._send, topic, entry)

    def clear(self, entry: Entry | None) -> None:
        """Forget what late listeners would get, and delete the markers of a result."""
        with self._lock:
            if self._result is None:
                return
            self._node.destroy_lifecycle_publisher(self._result)
            self._result = self._node.create_lifecycle_publisher(
                HandObject, RESULT_TOPIC, LATCHED, event_callbacks=_NO_EVENTS
            )
            self._result.on_activate(None)
            markers = self._topics[0].publisher
        if entry is not None and markers is not None:
            markers.publish(no_markers(entry.message.header))

    def _send(self, topic: _Topic, entry: Entry) -> None:
        try:
            message = topic.make(entry)
            with self._lock:
                if topic.publisher is not None:
                    topic.publisher.publish(message)
        except Exception:  # noqa: BLE001 - a message nobody gets must not cost the others
            import traceback

            self._node.get_logger().error(f"{topic.name} could not be made:\n{traceback.format_exc()}")
