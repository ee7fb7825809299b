# SPDX-License-Identifier: Apache-2.0
"""How the node's process begins and ends."""

from __future__ import annotations

import contextlib
import logging
import signal
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import rclpy
from rclpy.exceptions import InvalidHandle
from rclpy.executors import Executor, ExternalShutdownException, MultiThreadedExecutor, ShutdownException
from rclpy.lifecycle import LifecycleNode
from rclpy.signals import SignalHandlerOptions

from fmh_ros.ros_compat import use_large_shared_memory

if TYPE_CHECKING:
    from fmh_ros.nodes.reconstruction_node import ReconstructionNode

#: Goals that may occupy a thread each (the longest queue and the running one), and threads for everything else.
THREADS = 9 + 5
#: Seconds between two looks for the end.
LOOK_S = 0.05
LOG = logging.getLogger(__name__)


def run(make_node: Callable[[], ReconstructionNode], args: Sequence[str] | None = None) -> int:
    """Spin a node until the process is told to end, and leave nothing behind."""
    use_large_shared_memory()
    # With rclpy's own handlers a signal ends all communication at once, and no client learns what became of its goal.
    rclpy.init(args=list(args) if args is not None else None, signal_handler_options=SignalHandlerOptions.NO)
    # No event: the handler interrupts the main thread, also while that holds the lock of an event it waits for.
    signals: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: signals.append(number))
    node = make_node()
    handler = _ToRos(node)
    log = logging.getLogger("fmh_ros")
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    executor = MultiThreadedExecutor(THREADS)
    executor.add_node(node)
    spinner = threading.Thread(target=_spin, args=(executor,), name="fmh-executor", daemon=True)
    spinner.start()
    try:
        if node.get_parameter("autostart").value:
            node.start()
        while not signals and spinner.is_alive():
            time.sleep(LOOK_S)
        node.end()
    finally:
        log.removeHandler(handler)
        executor.shutdown(timeout_sec=1.0)
        node.destroy_node()
        rclpy.try_shutdown()
        spinner.join(1.0)
    return 0


def _spin(executor: Executor) -> None:
    """Spin until the context or the executor is shut down. An entity that is destroyed while the executor collects
    them makes rclpy raise; it is then gone the next time."""
    try:
        while True:
            with contextlib.suppress(InvalidHandle):
                executor.spin()
                return
    except (ExternalShutdownException, ShutdownException):
        pass
    except Exception:
        LOG.exception("The executor failed")


class _ToRos(logging.Handler):
    """Passes the library's log records on to a node's logger."""

    def __init__(self, node: LifecycleNode) -> None:
        super().__init__()
        self._logger = node.get_logger()

    def emit(self, record: logging.LogRecord) -> None:
        text = self.format(record)
        if record.levelno >= logging.ERROR:
            self._logger.error(text)
        elif record.levelno >= logging.WARNING:
            self._logger.warning(text)
        elif record.levelno >= logging.INFO:
            self._logger.info(text)
        else:
            self._logger.debug(text)
