# SPDX-License-Identifier: Apache-2.0
"""A world for a node under test: its process, a camera, and a client, all with real ROS."""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from follow_my_hold.action import Reconstruct
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rcl_interfaces.msg import Parameter, ParameterValue
from rcl_interfaces.srv import GetParameters, SetParameters
from rclpy.action import ActionClient
from rclpy.exceptions import InvalidHandle
from rclpy.executors import ExternalShutdownException, MultiThreadedExecutor
from rclpy.parameter import parameter_value_to_python
from rclpy.qos import QoSProfile, ReliabilityPolicy
from ros_domain import claim_domain
from sensor_msgs.msg import CameraInfo, Image

ROOT = Path(__file__).parents[1]
# Read by rclpy.init, here and in the processes of the tests.
os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
os.environ.setdefault("FASTDDS_DEFAULT_PROFILES_FILE", str(ROOT / "config" / "fastdds_shm.xml"))

FRAME = "camera_optical"
K = [330.0, 0.0, 159.5, 0.0, 330.0, 119.5, 0.0, 0.0, 1.0]
#: The machines that run tests may be busy with much else.
PATIENCE_S = 60.0


@dataclass
class Ending:
    """How a goal ended, and what was heard before. ``first_s`` : seconds from sending to the first feedback."""

    status: int
    result: Any
    feedback: list[Any] = field(default_factory=list)
    first_s: float | None = None


class World:
    """Everything round one node process. Use as a context manager."""

    def __init__(self, name: str = "reconstruction_node") -> None:
        self.name = name
        self.domain, self._claim = claim_domain()
        self.context = rclpy.Context()
        rclpy.init(context=self.context, domain_id=self.domain)
        self.node = rclpy.create_node("world", context=self.context)
        # Made before anything spins: rclpy shows a client to the executor before it is whole (ros2/rclpy#1589).
        self._action = ActionClient(self.node, Reconstruct, f"/{name}/reconstruct")
        self.executor = MultiThreadedExecutor(4, context=self.context)
        self.executor.add_node(self.node)
        self._fault = ""
        self._spinner = threading.Thread(target=self._spin, daemon=True)
        self._spinner.start()
        self._clients: dict[str, Any] = {}
        self.processes: list[subprocess.Popen[bytes]] = []
        self._log = tempfile.NamedTemporaryFile(suffix=".log")  # noqa: SIM115 - closed in __exit__

    def __enter__(self) -> World:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes:
            stop_process(process)
        self.executor.shutdown(timeout_sec=2)
        self.node.destroy_node()
        self.context.try_shutdown()
        self._spinner.join(5)
        self._log.close()
        self._claim.close()

    def _spin(self) -> None:
        try:
            while True:
                with contextlib.suppress(InvalidHandle):  # an entity was destroyed while rclpy collected them
                    self.executor.spin()
                    return
        except ExternalShutdownException:
            pass
        except Exception as error:  # noqa: BLE001 - shown by whoever waits
            self._fault = "".join(traceback.format_exception(error))

    # The node's process

    def start(
        self, *, scripted: bool = True, job_s: float = 0.3, environment: dict[str, str] | None = None, **parameters: Any
    ) -> subprocess.Popen[bytes]:
        """Start the node under test; parameters with a dot in their name are written with two underscores."""
        script = str(ROOT / "tests" / "ros" / "scripted_node.py")
        command = [sys.executable, script] if scripted else [sys.executable, "-m", "fmh_ros.nodes.reconstruction_node"]
        command += ["--ros-args"]
        for name, value in parameters.items():
            text = str(value).lower() if isinstance(value, bool) else value
            command += ["-p", f"{name.replace('__', '.')}:={text}"]
        variables = {
            **os.environ,
            "FMH_TEST_JOB_S": str(job_s),
            "OMP_NUM_THREADS": "1",
            "ROS_DOMAIN_ID": str(self.domain),
            "FMH_TEST_RESULT": known_result() if scripted else "",
            **(environment or {}),
        }
        process = subprocess.Popen(command, cwd=ROOT, env=variables, stdout=self._log, stderr=subprocess.STDOUT)
        self.processes.append(process)
        return process

    def log(self) -> str:
        """What the node has printed so far."""
        return Path(self._log.name).read_text(errors="replace")

    # Services

    def call(self, kind: Any, service: str, request: Any, timeout_s: float = PATIENCE_S) -> Any:
        """Call a service of the node under test."""
        name = service if service.startswith("/") else f"/{self.name}/{service}"
        client = self._clients.get(name)
        if client is None:
            client = self._clients[name] = self.node.create_client(kind, name)
        assert client.wait_for_service(timeout_s), f"{name} is not there. The node's log:\n{self.log()}"
        return self.result_of(client.call_async(request), timeout_s)

    def result_of(self, future: Any, timeout_s: float = PATIENCE_S) -> Any:
        """Wait for a future."""
        self.wait_for(future.done, timeout_s)
        return future.result()

    def wait_for(self, condition: Callable[[], bool], timeout_s: float = PATIENCE_S) -> None:
        """Wait until something holds."""
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert not self._fault, self._fault
            assert time.monotonic() < deadline, f"Did not happen in {timeout_s} s. The node's log:\n{self.log()}"
            time.sleep(0.005)

    def change_state(self, transition: int) -> bool:
        request = ChangeState.Request(transition=Transition(id=transition))
        return bool(self.call(ChangeState, "change_state", request).success)

    def state(self) -> str:
        return str(self.call(GetState, "get_state", GetState.Request()).current_state.label)

    def wait_until_active(self) -> None:
        self.wait_for(lambda: self.state() == "active")

    def set_parameter(self, name: str, value: ParameterValue) -> Any:
        request = SetParameters.Request(parameters=[Parameter(name=name, value=value)])
        return self.call(SetParameters, "set_parameters", request).results[0]

    def get_parameter(self, name: str) -> Any:
        answer = self.call(GetParameters, "get_parameters", GetParameters.Request(names=[name]))
        return parameter_value_to_python(answer.values[0])

    # The action

    def send(self, **fields: Any) -> Sent:
        """Send a goal."""
        assert self._action.wait_for_server(PATIENCE_S), f"There is no action. The node's log:\n{self.log()}"
        return Sent(self, self._action, Reconstruct.Goal(**fields))

    def goal(self, **fields: Any) -> Ending:
        """Send a goal and wait for its end."""
        return self.send(**fields).ending()

    # Topics

    def listen(self, kind: Any, topic: str, qos: QoSProfile | int = 10) -> list[Any]:
        """Subscribe; the list fills with messages."""
        heard: list[Any] = []
        name = topic.replace("~", f"/{self.name}")
        self.node.create_subscription(kind, name, heard.append, qos)
        return heard


class Sent:
    """A goal on its way."""

    def __init__(self, world: World, client: Any, goal: Any) -> None:
        self._world = world
        self.feedback: list[Any] = []
        self.first_s: float | None = None
        self.began = time.monotonic()
        self.handle = world.result_of(client.send_goal_async(goal, self._hear))
        assert self.handle.accepted
        self._result = self.handle.get_result_async()

    def _hear(self, message: Any) -> None:
        if self.first_s is None:
            self.first_s = time.monotonic() - self.began
        self.feedback.append(message.feedback)

    @property
    def done(self) -> bool:
        return bool(self._result.done())

    def cancel(self) -> Any:
        return self._world.result_of(self.handle.cancel_goal_async())

    def ending(self, timeout_s: float = 2 * PATIENCE_S) -> Ending:
        answer = self._world.result_of(self._result, timeout_s)
        return Ending(answer.status, answer.result, self.feedback, self.first_s)


class Camera:
    """Publishes image, camera_info and depth from a thread of its own, and can be told to do it wrongly."""

    def __init__(
        self,
        world: World,
        rate: float = 20.0,
        size: tuple[int, int] = (320, 240),
        depth: bool = False,
        image_reliability: ReliabilityPolicy = ReliabilityPolicy.BEST_EFFORT,
    ) -> None:
        self.world, self.rate = world, rate
        self.node = world.node
        self.image = make_image(np.full((size[1], size[0], 3), 90, np.uint8), "rgb8")
        self.info: CameraInfo | None = camera_info(*size)
        self.depth = make_image(np.full((size[1], size[0]), 500, np.uint16), "16UC1") if depth else None
        self.depth_shift_ns = 0
        self.stamp_ns: Callable[[], int] = time.time_ns
        qos = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
        self._publishers = {
            "image": self.node.create_publisher(Image, "/image", QoSProfile(depth=1, reliability=image_reliability)),
            "info": self.node.create_publisher(CameraInfo, "/camera_info", qos),
        }
        if depth:
            self._publishers["depth"] = self.node.create_publisher(Image, "/depth", qos)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.sent = 0

    def __enter__(self) -> Camera:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        for publisher in self._publishers.values():
            self.node.destroy_publisher(publisher)

    def _run(self) -> None:
        while not self._ended.wait(1 / self.rate):
            self.publish_once()

    def publish_once(self) -> int:
        stamp_ns = self.stamp_ns()
        if self.info is not None:
            self.info.header.stamp = to_time(stamp_ns)
            self._publishers["info"].publish(self.info)
        if self.depth is not None:
            self.depth.header.stamp = to_time(stamp_ns + self.depth_shift_ns)
            self._publishers["depth"].publish(self.depth)
        self.image.header.stamp = to_time(stamp_ns)
        self._publishers["image"].publish(self.image)
        self.sent += 1
        return stamp_ns


def to_time(stamp_ns: int) -> Time:
    return Time(sec=stamp_ns // 10**9, nanosec=stamp_ns % 10**9)


def to_ns(stamp: Time) -> int:
    return int(stamp.sec) * 10**9 + int(stamp.nanosec)


def make_image(pixels: np.ndarray, encoding: str, frame: str = FRAME) -> Image:
    data = array("B")
    data.frombytes(np.ascontiguousarray(pixels).tobytes())
    message = Image(height=pixels.shape[0], width=pixels.shape[1], encoding=encoding, data=data)
    message.step = len(data) // pixels.shape[0]
    message.header.frame_id = frame
    return message


def camera_info(width: int = 320, height: int = 240, frame: str = FRAME) -> CameraInfo:
    message = CameraInfo(width=width, height=height, k=np.array(K), distortion_model="plumb_bob", d=[0.0] * 5)
    message.header.frame_id = frame
    return message


def wait_for_status(world: World, part: str, condition: Callable[[DiagnosticStatus], bool]) -> DiagnosticStatus:
    """Wait for a diagnostic status of a part of the node that fulfils a condition."""
    heard: list[DiagnosticArray] = []
    found: list[DiagnosticStatus] = []
    subscription = world.node.create_subscription(DiagnosticArray, "/diagnostics", heard.append, 10)

    def look() -> bool:
        while heard:
            found.extend(s for s in heard.pop(0).status if s.name.endswith(f": {part}") and condition(s))
        return bool(found)

    try:
        world.wait_for(look, 30)
    finally:
        world.node.destroy_subscription(subscription)
    return found[-1]


def stop_process(process: subprocess.Popen[bytes], timeout_s: float = 20.0) -> int:
    """End a process as Ctrl-C does; kill it when that does not help."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    return process.returncode


def children(pid: int) -> list[int]:
    """Processes whose parent is ``pid``."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
                if int(fields[1]) == pid:
                    found.append(int(folder.name))
    return found


@functools.cache
def known_result() -> str:
    """A file with a pickled result whose geometry is known: the nodes under test need not import torch for it."""
    from synthetic_result import synthetic_reconstruction

    with tempfile.NamedTemporaryFile(suffix=".pickle", delete=False) as file:
        pickle.dump(synthetic_reconstruction(), file)
    atexit.register(Path(file.name).unlink)
    return file.name


@contextlib.contextmanager
def world_with_node(**arguments: Any) -> Iterator[World]:
    """A world whose node is up and active."""
    with World() as world:
        world.start(**arguments)
        world.wait_until_active()
        yield world
