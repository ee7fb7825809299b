# SPDX-License-Identifier: Apache-2.0
"""What is in a bag, and what of it can be reconstructed from."""

from __future__ import annotations

from collections.abc import Iterable

from fmh_ros.bags.reading import Summary
from fmh_ros.bags.types import Topic

IMAGE, COMPRESSED, CAMERA_INFO = (
    "sensor_msgs/msg/Image",
    "sensor_msgs/msg/CompressedImage",
    "sensor_msgs/msg/CameraInfo",
)
RESULT = "follow_my_hold/msg/HandObject"
_TRANSPORTS = ("/compressedDepth", "/compressed")


def role(topic: Topic) -> str:
    """Return what a topic could be to a reconstruction: "image", "depth", "camera_info", "reconstruction" or ""."""
    if topic.msgtype in (IMAGE, COMPRESSED):
        return "depth" if "depth" in topic.name.lower() else "image"
    return {CAMERA_INFO: "camera_info", RESULT: "reconstruction"}.get(topic.msgtype, "")


def camera_info_beside(image: str) -> str:
    """Return the name that image_transport gives the calibration of an image topic: its neighbour camera_info."""
    for transport in _TRANSPORTS:
        image = image.removesuffix(transport)
    return image.rsplit("/", 1)[0] + "/camera_info"


def table(summary: Summary) -> str:
    """Return the summary as lines of text."""
    names = [topic.name for topic in summary.topics]
    width = max(map(len, names), default=0)
    kinds = max((len(topic.msgtype) for topic in summary.topics), default=0)
    lines = [f"{summary.count} messages in {summary.duration_s:.2f} s, {len(names)} topics"]
    lines += [
        f"  {topic.name:<{width}}  {topic.msgtype:<{kinds}}  {topic.count:>7}  {role(topic)}".rstrip()
        for topic in summary.topics
    ]
    if summary.cut:
        lines.append(f"warning: the bag is not whole: {summary.cut}; what is before is read")
    return "\n".join(lines)


def named(topics: Iterable[Topic], name: str) -> Topic | None:
    """Return the topic of this name."""
    return next((topic for topic in topics if topic.name == name), None)
