# SPDX-License-Identifier: Apache-2.0
"""Bags for tests: how they are made, what answers their jobs, and how another library reads them."""
# ruff: noqa: E402 - what imports messages comes after what supplies them where there is no ROS

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from synthetic_result import CAMERA

from fmh_ros.bags.classes import message_class, provide_message_classes
from fmh_ros.bags.convert import encode
from fmh_ros.bags.plan import Plan, Selection
from fmh_ros.bags.reading import BagReader
from fmh_ros.bags.reconstruct import BagReport, JobSettings, reconstruct_bag
from fmh_ros.bags.types import Stored
from fmh_ros.bags.writing import BagWriter, known_topic
from fmh_ros.core.errors import FmhError
from fmh_ros.core.reconstruction.types import Reconstruction
from fmh_ros.engines.types import JobOutcome, JobRequest

provide_message_classes()

from fmh_ros.messages.basics import to_header
from fmh_ros.ros_compat import array_to_image

IMAGE, COMPRESSED = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"
INFO, RESULT = "sensor_msgs/msg/CameraInfo", "follow_my_hold/msg/HandObject"
SECOND = 1_000_000_000
START = 1_700_000_000 * SECOND


class PreparedEngine:
    """Not an engine: answers each job with a result made beforehand, on the job's own frame, or with what is scripted.

    What it was asked is kept in ``requests``.
    """

    def __init__(self, result: Reconstruction, script: dict[int, BaseException] | None = None) -> None:
        self.result, self.script = result, script or {}
        self.requests: list[JobRequest] = []

    def submit(self, request: JobRequest, _feedback: object, ended: Callable[[JobOutcome], None]) -> int:
        number = len(self.requests)
        self.requests.append(request)
        scripted = self.script.get(number)
        if isinstance(scripted, FmhError):
            ended(JobOutcome(number, None, scripted, 0.0))
        elif scripted is not None:
            raise scripted
        else:
            ended(JobOutcome(number, replace(self.result, frame=request.frame), None, 0.0))
        return number

    def cancel(self, _number: int) -> bool:
        return False


def stamp_of(number: int) -> int:
    return START + number * SECOND // 10 + 7


def camera_info(number: int) -> Any:
    return message_class(INFO)(
        header=to_header("cam", stamp_of(number)),
        width=CAMERA.width,
        height=CAMERA.height,
        k=np.asarray(CAMERA.K, np.float64).ravel(),
        distortion_model="plumb_bob",
        d=[0.0] * 5,
    )


def write_bag(
    path: Path, result: Reconstruction, count: int = 5, *, compressed: bool = False, depth: bool = True
) -> Path:
    """Images and depth at 10 Hz, one calibration, and a topic of another kind."""
    kind, name = (COMPRESSED, "/cam/image_raw/compressed") if compressed else (IMAGE, "/cam/image_raw")
    with BagWriter(path) as writer:
        topics = [
            known_topic(name, kind),
            known_topic("/cam/camera_info", INFO),
            known_topic("/chatter", "std_msgs/msg/String"),
        ]
        topics += [known_topic("/cam/depth", IMAGE)] if depth else []
        for topic in topics:
            writer.add_topic(topic)
        for number in range(count):
            time_ns, header = START + number * SECOND // 10, to_header("cam", stamp_of(number))
            if compressed:
                ok, data = cv2.imencode(".png", result.frame.image[..., ::-1])
                assert ok
                image = message_class(COMPRESSED)(
                    header=header, format="rgb8; png compressed bgr8", data=data.tobytes()
                )
            else:
                image = array_to_image(result.frame.image, "rgb8", header)
            writer.write((name, kind), time_ns, encode(image, kind))
            writer.write(("/cam/camera_info", INFO), time_ns + 5, encode(camera_info(number), INFO))
            if depth:
                metres = np.nan_to_num(result.frame.depth, nan=0.0, posinf=0.0)
                pixels = array_to_image(np.asarray(metres * 1000, np.uint16), "16UC1", header)
                writer.write(("/cam/depth", IMAGE), time_ns + 9, encode(pixels, IMAGE))
            text = message_class("std_msgs/msg/String")(data=f"number {number}")
            writer.write(("/chatter", "std_msgs/msg/String"), time_ns + 11, encode(text, "std_msgs/msg/String"))
    return path


def read_elsewhere(path: Path) -> list[tuple[str, int, Any]]:
    """Every message as mcap-ros2-support reads it: topic, time of recording, decoded message."""
    from mcap_ros2.reader import read_ros2_messages

    return [(item.channel.topic, item.log_time_ns, item.ros_msg) for item in read_ros2_messages(str(path))]


def stamp_ns(header: Any) -> int:
    return int(header.stamp.sec) * SECOND + int(header.stamp.nanosec)


def stored(path: Path) -> list[Stored]:
    with BagReader(path) as bag:
        return list(bag.messages())


def run(
    source: Path,
    out: Path,
    engine: PreparedEngine,
    *,
    settings: JobSettings | None = None,
    on_plan: Callable[[Plan], None] | None = None,
    **chosen: Any,
) -> BagReport:
    selection = Selection("/cam/image_raw", **chosen)
    return reconstruct_bag(source, out, engine, selection, settings, on_plan=on_plan)  # type: ignore[arg-type]
