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
#: In the names of topics whose depth is aligned with the colour image: RealSense and Orbbec, depth_image_proc and ZED,
#: Azure Kinect.
_ALIGNED = ("aligned_depth_to_color", "aligned_depth_to_rgb", "depth_registered", "depth_to_rgb", "depth_to_color")


def role(topic: Topic) -> str:
    """Return what a topic could be to a reconstruction: "image", "depth", "camera_info", "reconstruction" or ""."""
    if topic.msgtype in (IMAGE, COMPRESSED):
        return "depth" if "depth" in topic.name.lower() else "image"
    return {CAMERA_INFO: "camera_info", RESULT: "reconstruction"}.get(topic.msgtype, "")


def camera_info_beside(image: str) -> str:
    """Return the name that image_transport gives the calibration of an image topic: its neighbour camera_info."""
    return _raw(image).rsplit("/", 1)[0] + "/camera_info"


def depth_beside(image: str, topics: Iterable[Topic]) -> Topic | None:
    """Return the depth topic that drivers' names say is aligned with an image topic, None when no name does.

    It lies below the camera's name, the image's without the last two parts, and is raw rather than compressed.
    """
    raw = _raw(image)
    camera = raw.split("/")[:-2] or [""]
    found: list[Topic] = []
    for topic in topics:
        name = _raw(topic.name)
        parts = name.split("/")
        usable = topic.msgtype == IMAGE or (topic.msgtype == COMPRESSED and topic.name.endswith(_TRANSPORTS[0]))
        aligned = any(word in name for word in _ALIGNED) or name == raw.rsplit("/", 1)[0] + "/depth"
        same_camera = parts[: len(camera)] == camera and len(parts) <= len(camera) + 2
        if usable and aligned and same_camera and topic.count and name != raw:
            found.append(topic)
    return min(found, key=lambda topic: (topic.msgtype != IMAGE, topic.name), default=None)


def _raw(name: str) -> str:
    """Return the name of a topic without its transport."""
    for transport in _TRANSPORTS:
        name = name.removesuffix(transport)
    return name


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
