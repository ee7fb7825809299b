# SPDX-License-Identifier: Apache-2.0
"""What the ROS node costs beside a camera of 1280x720 at 30 Hz: ``python benchmarks/node.py``.

Processor time of the idle node without and with the camera (goal: at most 5 % of a core), time from sending a goal
to its first feedback while the camera runs (goal: 0.2 s), and from a cancel request to the goal's end (goal: 1 s). The
worker process with the models is not counted while idle: it sleeps. Needs ROS 2: ``make setup-ros``.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from array import array
from pathlib import Path

import cv2
import numpy as np
import rclpy
from rclpy.qos import qos_profile_sensor_data
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import CameraInfo, Image

import fmh_ros
from fmh_ros.client import Reconstructor
from fmh_ros.core.errors import CancelledError
from fmh_ros.ros_compat import use_large_shared_memory

EXAMPLE = Path(fmh_ros.__file__).parent / "assets" / "example" / "rgb.png"
WIDTH, HEIGHT, RATE = 1280, 720, 30.0
DOMAIN = 77
GOALS, IDLE_S = 8, 10.0


def publish() -> None:
    """Publish the example, enlarged, until the process is ended."""
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)  # SIGTERM just ends it
    node = rclpy.create_node("flood")
    pixels = cv2.cvtColor(cv2.resize(cv2.imread(str(EXAMPLE)), (WIDTH, HEIGHT)), cv2.COLOR_BGR2RGB)
    image = Image(width=WIDTH, height=HEIGHT, encoding="rgb8", step=3 * WIDTH, data=array("B", pixels.tobytes()))
    k = np.array([900.0, 0, WIDTH / 2, 0, 900, HEIGHT / 2, 0, 0, 1])
    info = CameraInfo(width=WIDTH, height=HEIGHT, k=k, distortion_model="plumb_bob", d=[0.0] * 5)
    image.header.frame_id = info.header.frame_id = "camera_optical"
    images = node.create_publisher(Image, "/image", qos_profile_sensor_data)
    infos = node.create_publisher(CameraInfo, "/camera_info", qos_profile_sensor_data)
    while True:
        image.header.stamp = info.header.stamp = node.get_clock().now().to_msg()
        infos.publish(info)
        images.publish(image)
        time.sleep(1 / RATE)


def processor_share(pid: int) -> float:
    """Share of one core that a process takes over a while."""

    def ticks() -> int:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])

    before = ticks()
    time.sleep(IDLE_S)
    return (ticks() - before) / os.sysconf("SC_CLK_TCK") / IDLE_S


def first_feedback_and_cancel(client: Reconstructor) -> tuple[float, float]:
    """Seconds from a goal to its first feedback, and from cancelling it to its end."""
    begin = time.perf_counter()
    client.reconstruct()
    while client.feedback() is None:
        time.sleep(0.001)
    first = time.perf_counter() - begin
    time.sleep(1.5)  # well into the job
    begin = time.perf_counter()
    client.cancel()
    try:
        client.result(30)
    except CancelledError:
        return first, time.perf_counter() - begin
    raise RuntimeError("the job ended before it could be cancelled: a faster machine needs a longer job")


def main() -> None:
    """Run everything in processes of its own and print the figures."""
    os.environ.update(ROS_DOMAIN_ID=str(DOMAIN), ROS_AUTOMATIC_DISCOVERY_RANGE="LOCALHOST")
    use_large_shared_memory()
    node = subprocess.Popen([sys.executable, "-m", "fmh_ros.nodes.reconstruction_node"])
    camera = None
    try:
        time.sleep(20)  # the models are loaded
        print(f"idle, no camera          {100 * processor_share(node.pid):5.1f} % of a core")
        camera = subprocess.Popen([sys.executable, __file__, "--publish"])
        time.sleep(3)
        print(f"idle, {WIDTH}x{HEIGHT} at {RATE:.0f} Hz {100 * processor_share(node.pid):5.1f} % of a core   (goal 5)")
        with Reconstructor(domain_id=DOMAIN) as client:
            found = [first_feedback_and_cancel(client) for _ in range(GOALS)]
        for name, values, goal in zip(
            ("first feedback", "cancel to end"), zip(*found, strict=True), (200, 1000), strict=True
        ):
            middle, most = 1000 * statistics.median(values), 1000 * max(values)
            print(f"{name:24s} {middle:6.0f} ms median, {most:.0f} ms at most of {GOALS}   (goal {goal})")
    finally:
        for process in (camera, node):
            if process is not None:
                process.terminate()
                process.wait(20)


if __name__ == "__main__":
    publish() if "--publish" in sys.argv else main()
