# SPDX-License-Identifier: Apache-2.0
"""A result in three dimensions in the browser, served by viser."""

from __future__ import annotations

import contextlib
import importlib.util
import io
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fmh_ros.core.errors import ModelMissingError, UsageError
from fmh_ros.core.export.overlay import CONTACT_COLOR
from fmh_ros.core.export.shading import HAND_COLOR, OBJECT_COLOR
from fmh_ros.viewing.content import Content, Mesh

if TYPE_CHECKING:
    from viser import GuiInputHandle, SceneNodeHandle, ViserServer

#: Metres.
CONTACT_RADIUS, NORMAL_LENGTH = 0.0025, 0.02


def serve(content: Content, host: str, port: int) -> ViserServer:
    """Start a server that shows the content and return it; ``stop`` it. A port in use is replaced by the next free one.

    Raises ModelMissingError without viser, UsageError for an address that cannot be served at.
    """
    if importlib.util.find_spec("viser") is None:
        raise ModelMissingError(
            "The library viser is not installed", expected="it, or --save for a picture",
            change="pip install 'fmh-ros[view]'",
        )  # fmt: skip
    import viser

    try:
        with contextlib.redirect_stdout(io.StringIO()):  # its banner; who calls says where the page is
            server = viser.ViserServer(host=host, port=port, label="fmh view", verbose=False)
    except (OSError, OverflowError) as error:
        raise UsageError(
            f"{host}:{port} cannot be served at ({error})", expected="an address of this machine"
        ) from error
    show(server, content)
    return server


def show(server: ViserServer, content: Content) -> None:
    """Put hand, object, contacts and camera into the scene, with a switch for each."""
    scene = server.scene
    scene.set_up_direction("-y")  # optical frames: y points down
    parts: dict[str, list[SceneNodeHandle]] = {
        "hand": [scene.add_mesh_simple("/hand", *_mesh(content.hand), color=HAND_COLOR)],
        "object": [scene.add_mesh_simple("/object", *_mesh(content.object), color=OBJECT_COLOR, opacity=0.9)],
        "contacts": [
            scene.add_icosphere(f"/contacts/{number}", CONTACT_RADIUS, color=CONTACT_COLOR, position=position)
            for number, position in enumerate(content.contacts[:, 0])
        ],
        "camera": [_camera(server, content)],
    }
    if len(content.contacts):
        starts, normals = content.contacts[:, 0], content.contacts[:, 1]
        ends = starts + NORMAL_LENGTH * normals
        parts["contacts"].append(
            scene.add_line_segments(
                "/contacts/normals", np.stack([starts, ends], 1).astype(np.float32), CONTACT_COLOR, thickness=0.001
            )
        )
    server.gui.add_markdown(content.title)
    for name, nodes in parts.items():
        box = server.gui.add_checkbox(name, initial_value=True)

        box.on_update(_switch(box, nodes))
    middle = content.object.vertices.mean(axis=0)
    server.initial_camera.look_at = middle
    # From beside the camera and a little above, as far as the object is from the camera.
    server.initial_camera.position = middle + np.linalg.norm(middle) * np.array([0.45, -0.35, -0.7])


def _switch(box: GuiInputHandle[bool], nodes: list[SceneNodeHandle]) -> Callable[[object], None]:
    def switch(_event: object) -> None:
        for node in nodes:
            node.visible = box.value

    return switch


def _camera(server: ViserServer, content: Content) -> SceneNodeHandle:
    """Add the camera's pyramid: its apex is the camera, its base the image."""
    camera = content.camera
    return server.scene.add_camera_frustum(
        "/camera",
        fov=float(2 * np.arctan(0.5 * camera.height / camera.K[1, 1])),
        aspect=camera.width / camera.height,
        scale=0.25 * float(np.linalg.norm(content.object.vertices.mean(axis=0))),
        thickness=0.001,
        image=content.image,
    )


def _mesh(mesh: Mesh) -> tuple[NDArray[np.float32], NDArray[np.uint32]]:
    return mesh.vertices.astype(np.float32), mesh.faces.astype(np.uint32)
