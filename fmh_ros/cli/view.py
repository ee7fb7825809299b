# SPDX-License-Identifier: Apache-2.0
"""``fmh view``: a result or a bag, in the browser or as a picture."""

from __future__ import annotations

import argparse
import threading
from pathlib import Path

from PIL import Image

from fmh_ros.core.errors import OutputError
from fmh_ros.viewing.content import Content, load


def run(arguments: argparse.Namespace) -> int:
    """Serve the view until Ctrl-C, or write a picture and return."""
    content = load(arguments.result, arguments.number, arguments.image)
    if arguments.save:
        save(content, Path(arguments.save))
        print(f"written   {Path(arguments.save).absolute()}")
        return 0
    from fmh_ros.viewing.scene import serve

    server = serve(content, arguments.host, arguments.port)
    try:  # from the first word on: whoever reads it may press Ctrl-C at once
        print(f"{content.title}: open http://{arguments.host}:{server.get_port()} (Ctrl-C ends it)", flush=True)
        threading.Event().wait()
    except KeyboardInterrupt:
        pass
    finally:
        server.stop()
    return 0


def save(content: Content, path: Path) -> None:
    """Write the picture; the name's ending says in which format. Raises OutputError."""
    try:
        Image.fromarray(content.picture()).save(path)
    except (OSError, ValueError) as error:
        raise OutputError(
            f"The picture {path} cannot be written ({error})",
            expected="a name that ends in .png or .jpg in a folder with write permission",
        ) from error
