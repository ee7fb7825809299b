# SPDX-License-Identifier: Apache-2.0
"""What a result costs on its way out of the node: ``python benchmarks/messages.py``.

Time to build the message HandObject of a result whose object has 20 000 vertices, to publish it to a subscriber in
another process, and both together (goal: 10 ms), as the node does it with a latched publisher. Needs ROS 2:
``make setup-ros``.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import rclpy
import trimesh
from follow_my_hold.msg import HandObject
from rclpy.qos import DurabilityPolicy, QoSProfile

import fmh_ros
from fmh_ros.core.frame.load import load_frame
from fmh_ros.core.reconstruction.mesh import place_in_object_frame
from fmh_ros.core.reconstruction.reconstructor import Reconstructor
from fmh_ros.core.reconstruction.types import Reconstruction
from fmh_ros.messages.result import Made, to_hand_object

EXAMPLE = Path(fmh_ros.__file__).parent / "assets" / "example"
DOMAIN, ROUNDS, SECTIONS = 78, 30, (101, 102)
LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)


def large_result() -> Reconstruction:
    """The example, unguided, with its object replaced by a ball of 20 402 vertices."""
    frame = load_frame(EXAMPLE / "rgb.png", EXAMPLE / "depth.png", EXAMPLE / "camera.yaml")
    result = Reconstructor().reconstruct(frame, guidance=False)
    ball = trimesh.creation.uv_sphere(radius=0.05, count=SECTIONS)
    vertices = np.asarray(ball.vertices) + result.object.T_camera_object.translation
    return replace(result, object=place_in_object_frame(vertices, np.asarray(ball.faces, np.int64)))


def listen() -> None:
    """Take messages until the process is ended, and say of how many vertices each was."""
    rclpy.init()
    node = rclpy.create_node("listener")

    def told(message: HandObject) -> None:
        print(len(message.object.vertices) // 3, flush=True)

    node.create_subscription(HandObject, "/result", told, LATCHED)
    rclpy.spin(node)


def main() -> None:
    """Measure and print."""
    os.environ["ROS_DOMAIN_ID"] = str(DOMAIN)
    result = large_result()
    rclpy.init()
    node = rclpy.create_node("sender")
    publisher = node.create_publisher(HandObject, "/result", LATCHED)
    listener = subprocess.Popen([sys.executable, __file__, "listen"], stdout=subprocess.PIPE, text=True)
    assert listener.stdout is not None
    try:
        while not publisher.get_subscription_count():
            time.sleep(0.05)
        rows = []
        for number in range(ROUNDS):
            began = time.perf_counter()
            message = to_hand_object(result, Made(str(number)))
            built = time.perf_counter()
            publisher.publish(message)
            rows.append((built - began, time.perf_counter() - built, time.perf_counter() - began))
            arrived = int(listener.stdout.readline())
            assert arrived == len(result.object.vertices)
    finally:
        listener.kill()
        listener.wait()
    print(f"an object of {arrived} vertices, {ROUNDS} times, ms: median, largest")
    for name, column in zip(("build", "publish", "both (goal 10)"), zip(*rows, strict=True), strict=True):
        print(f"{name:15s} {1e3 * statistics.median(column):7.1f} {1e3 * max(column):7.1f}")
    rclpy.shutdown()


if __name__ == "__main__":
    if sys.argv[1:] == ["listen"]:
        listen()
    else:
        main()
