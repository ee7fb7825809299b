# SPDX-License-Identifier: Apache-2.0
"""What there is to see: read from a result folder or from a bag."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import trimesh
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from fmh_ros.core.errors import FileMissingError, UsageError
from fmh_ros.core.export.views import draw_views
from fmh_ros.core.frame.camera import CameraModel
from fmh_ros.core.frame.frame import Frame
from fmh_ros.core.hand.types import HandMesh
from fmh_ros.core.reconstruction.types import Contact, ObjectMesh, Quality

FloatArray = NDArray[np.float64]
Pixels = NDArray[np.uint8]
#: Colour of an image that is not there.
GREY = 128
#: How the topics end on which nodes draw their results.
OVERLAY = "/overlay"


@dataclass(frozen=True)
class Mesh:
    """vertices : (V, 3) metres, camera optical frame; faces : (F, 3), outward winding."""

    vertices: FloatArray
    faces: NDArray[np.int64]


@dataclass(frozen=True)
class Content:
    """A result to be shown; everything in the camera optical frame, metres.

    contacts : positions and outward unit normals, (C, 2, 3). image : (H, W, 3) uint8 RGB of the camera, or what was
    drawn on it. picture : draws the result from several sides, (H, W, 3) uint8 RGB.
    """

    title: str
    hand: Mesh
    object: Mesh
    contacts: FloatArray
    camera: CameraModel
    image: Pixels
    picture: Callable[[], Pixels]


@dataclass(frozen=True)
class _Seen:
    """A result of a bag, as ``draw_views`` wants it."""

    frame: Frame
    hand: HandMesh
    object: ObjectMesh
    contacts: tuple[Contact, ...]
    quality: Quality


def load(path: str | Path, number: int = -1, image_topic: str | None = None) -> Content:
    """Read a result folder of ``fmh reconstruct``, or the reconstruction of this number in a bag, -1 for the last.

    image_topic : of a bag; None looks for the image with the reconstruction's stamp on all.
    Raises FileMissingError or UsageError.
    """
    place = Path(path)
    if not place.exists():
        raise FileMissingError(f"There is nothing at {place}", expected="a result folder or a bag")
    if (place / "reconstruction.json").is_file():
        return _from_folder(place)
    return _from_bag(place, number, image_topic)


def _from_folder(folder: Path) -> Content:
    try:
        document = json.loads((folder / "reconstruction.json").read_text(encoding="utf-8"))
        hand, obj = _read_mesh(folder / document["hand"]["mesh"]), _read_mesh(folder / document["object"]["mesh"])
        camera = document["camera"]
        K = np.array(camera["K"], np.float64).reshape(3, 3)
        contacts = [(contact["position"], contact["normal"]) for contact in document["contacts"]]
        score = float(document["quality"]["score"])
        model = CameraModel(int(camera["width"]), int(camera["height"]), K, (), camera["source"])
    except (KeyError, TypeError, ValueError) as error:
        raise UsageError(f"{folder} is no result folder ({error})", expected="what fmh reconstruct writes") from error
    return Content(
        title=f"{folder.name}, score {score:.2f}",
        hand=hand,
        object=obj,
        contacts=np.array(contacts, np.float64).reshape(-1, 2, 3),
        camera=model,
        image=_read_picture(folder / "overlay.png"),
        picture=lambda: _read_picture(folder / "views.png"),
    )


def _from_bag(path: Path, number: int, image_topic: str | None) -> Content:
    from fmh_ros.bags.convert import decode
    from fmh_ros.bags.info import RESULT
    from fmh_ros.bags.reading import BagReader

    with BagReader(path) as bag:
        names = [topic.name for topic in bag.topics() if topic.msgtype == RESULT]
        found = [stored.raw for stored in bag.messages(names) if stored.topic.msgtype == RESULT] if names else []
        if not -len(found) <= number < len(found):
            raise UsageError(
                f"The bag {path} has {len(found)} reconstructions, and number {number} is wanted",
                expected="a number of one of them, the first is 0",
                change="fmh bag reconstruct adds them, fmh bag info shows what is in it",
            )
        message = decode(found[number], RESULT)
        from fmh_ros.messages.parse import from_hand_object

        received = from_hand_object(message)
        frame = _find_frame(bag, message, received.stamp_ns, image_topic)
    seen = _Seen(frame, received.hand, received.object, received.contacts, received.quality)
    hand, obj = received.hand, received.object
    contacts = [(contact.position, contact.normal) for contact in received.contacts]
    return Content(
        title=f"{path.name}, {received.stamp_ns / 1e9:.3f} s, score {received.quality.score:.2f}",
        hand=Mesh(hand.T_camera_hand.apply(hand.vertices), hand.faces),
        object=Mesh(obj.T_camera_object.apply(obj.vertices), obj.faces),
        contacts=np.array(contacts, np.float64).reshape(-1, 2, 3),
        camera=frame.camera,
        image=frame.image,
        picture=lambda: draw_views(seen),
    )


def _find_frame(bag: Any, message: Any, stamp_ns: int, image_topic: str | None) -> Frame:
    """Return the photo that a result was made from, undistorted, with its camera; where the bag has none, the picture
    that the node drew on it, or a grey one."""
    from fmh_ros.bags.convert import decode
    from fmh_ros.bags.info import camera_info_beside, named
    from fmh_ros.messages.inputs import MessageSet, Names, build_frame

    provenance = message.provenance
    camera = CameraModel(
        int(provenance.image_width), int(provenance.image_height), np.array(provenance.k, np.float64).reshape(3, 3)
    )
    found = _find_image(bag, message.header.frame_id, stamp_ns, image_topic)
    if found is None:
        return Frame(np.full((camera.height, camera.width, 3), GREY, np.uint8), camera)
    topic, image = found
    beside = named(bag.topics(), camera_info_beside(topic))
    calibration = None
    if beside is not None and not provenance.camera_estimated:
        first = next(iter(bag.messages([beside.name])), None)
        calibration = None if first is None else decode(first.raw, beside.msgtype)
    frame = build_frame(MessageSet(stamp_ns, image, calibration, None), Names(topic))
    return frame if calibration is not None else Frame(frame.image, _fitted(camera, frame))


def _find_image(bag: Any, frame_id: str, stamp_ns: int, image_topic: str | None) -> tuple[str, Any] | None:
    """Return topic and message of the image with a result's stamp and frame: a photo, else a drawing of the node.

    Other cameras of a rig often have images of the same stamp; their frame tells them apart.
    """
    from fmh_ros.bags.convert import decode, header_stamp
    from fmh_ros.bags.info import role

    names = [topic.name for topic in bag.topics() if role(topic) == "image"] if image_topic is None else [image_topic]
    drawing = None
    for stored in bag.messages(names) if names else ():
        if header_stamp(stored.raw) != stamp_ns:
            continue
        image = decode(stored.raw, stored.topic.msgtype)
        if image_topic is None and image.header.frame_id != frame_id:
            continue
        if image_topic is None and stored.topic.name.endswith(OVERLAY):
            drawing = drawing or (stored.topic.name, image)
            continue
        return stored.topic.name, image
    return drawing


def _fitted(camera: CameraModel, frame: Frame) -> CameraModel:
    """Return the camera of the full-size image for the size that the image has here."""
    return camera.crop((0, 0, camera.width, camera.height), frame.camera.width, frame.camera.height)


def _read_mesh(path: Path) -> Mesh:
    if not path.is_file():
        raise FileMissingError(f"There is no {path}", expected="the mesh that reconstruction.json names")
    mesh = trimesh.load_mesh(path, process=False)
    return Mesh(np.asarray(mesh.vertices, np.float64), np.asarray(mesh.faces, np.int64))


def _read_picture(path: Path) -> Pixels:
    try:
        return np.asarray(Image.open(path).convert("RGB"), np.uint8)
    except FileNotFoundError as error:
        raise FileMissingError(f"There is no {path}", expected="what fmh reconstruct writes") from error
    except (OSError, UnidentifiedImageError) as error:
        raise UsageError(f"{path} cannot be read ({error})", expected="a picture") from error
