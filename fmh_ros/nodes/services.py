# SPDX-License-Identifier: Apache-2.0
"""The node's services: get_latest, export and clear."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from follow_my_hold.srv import Clear, Export, GetLatest
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.lifecycle import LifecycleNode

from fmh_ros.core.errors import FmhError, OutputError, UnexpectedError
from fmh_ros.core.export.formats import write_formats
from fmh_ros.nodes.results import Results


class Services:
    """Serves for as long as the node lives.

    clear : forgets the latest result, returns whether there was one. export_root : folder below which files may be
    written, empty for anywhere.
    """

    def __init__(
        self, node: LifecycleNode, results: Results, clear: Callable[[], bool], export_root: Callable[[], str]
    ) -> None:
        self._node, self._results, self._clear, self._export_root = node, results, clear, export_root
        group = ReentrantCallbackGroup()
        for kind, name, serve in (
            (GetLatest, "~/get_latest", self._get_latest),
            (Export, "~/export", self._export),
            (Clear, "~/clear", self._clear_all),
        ):
            node.create_service(kind, name, self._guarded(serve), callback_group=group)

    def _guarded(self, serve: Callable[[Any, Any], None]) -> Callable[[Any, Any], Any]:
        """Answer with a code and a sentence where ``serve`` raises."""

        def call(request: Any, response: Any) -> Any:
            try:
                serve(request, response)
                response.success = True
            except FmhError as error:
                response.success, response.error_code, response.error_text = False, error.code, str(error)
            except Exception as error:  # noqa: BLE001 - the client gets a code, the log the traceback
                import traceback

                self._node.get_logger().error(f"A service failed unexpectedly:\n{traceback.format_exc()}")
                response.success, response.error_code = False, UnexpectedError.code
                response.error_text = f"A fault of this program: {type(error).__name__}: {error}"
            return response

        return call

    def _get_latest(self, request: Any, response: Any) -> None:
        response.reconstruction = self._results.get(request.id).message

    def _export(self, request: Any, response: Any) -> None:
        folder = export_folder(request.folder, self._export_root())
        response.files = [str(path) for path in write_formats(self._results.get("").result, folder, request.formats)]

    def _clear_all(self, _request: Any, response: Any) -> None:
        response.cleared = self._clear()


def export_folder(asked: str, root: str) -> Path:
    """Return the folder to write to. Raises OutputError for none, or one that is not below the root."""
    if not asked.strip():
        raise OutputError("No folder is named", expected="a folder to write to")
    folder = Path(asked).expanduser()
    if not root:
        if not folder.is_absolute():
            raise OutputError(
                f"The folder {asked} is relative",
                expected="an absolute path: where the node runs is not where you are",
                change="Give an absolute path, or set export_root",
            )
        return folder
    base = Path(root).expanduser().resolve()
    resolved = (base / folder).resolve()
    if not resolved.is_relative_to(base):
        raise OutputError(
            f"The folder {asked} is not below {base}", expected="a folder below the parameter export_root"
        )
    return resolved
