# SPDX-License-Identifier: Apache-2.0
"""Subscriptions that cost nothing while nobody wants their messages."""

from __future__ import annotations

from typing import Any

from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.node import Node


class Gate(ReentrantCallbackGroup):
    """A callback group whose subscriptions are read only while it is open.

    While it is closed the executor does not look at them: the middleware keeps the newest message and drops the others
    without Python ever seeing one, so that a stream of large images costs a job nothing.
    """

    def __init__(self, node: Node) -> None:
        super().__init__()
        self._node = node
        self._open = False

    @property
    def open(self) -> bool:
        """Whether messages are delivered."""
        return self._open

    @open.setter
    def open(self, value: bool) -> None:
        changed, self._open = value != self._open, value
        executor = self._node.executor
        if changed and value and executor is not None:
            executor.wake()  # it may be waiting without these subscriptions

    def can_execute(self, entity: Any) -> bool:  # type: ignore[override]  # rclpy's annotation says always True
        """Say whether the executor may look at a subscription."""
        return self._open

    def beginning_execution(self, entity: Any) -> bool:  # type: ignore[override]
        """Say whether a message that was taken may be delivered: it always is."""
        return True


def drop_kept_message(subscription: Any) -> None:
    """Take and drop what the middleware kept of a subscription while its gate was closed."""
    with subscription.handle:
        while subscription.handle.take_message(subscription.msg_type, subscription.raw) is not None:
            pass
