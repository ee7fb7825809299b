# SPDX-License-Identifier: Apache-2.0
"""The table of the node's parameters: the one source of types, bounds, descriptions, YAML files and documentation.

``python -m fmh_ros.nodes.parameters`` writes ``config/embedded.yaml``, ``config/h100.yaml`` and
``docs/parameters.md``; a test holds that what is committed is what it writes. The table imports without ROS.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fmh_ros.core.errors import ProfileError
from fmh_ros.core.guidance.config import PRESETS
from fmh_ros.core.reconstruction.profile import PROFILES, load_profile

if TYPE_CHECKING:
    from rcl_interfaces.msg import ParameterDescriptor
    from rclpy.node import Node

Value = bool | int | float | str | tuple[str, ...]


class Change(Enum):
    """When a parameter may be changed."""

    START = "at start only"
    INACTIVE = "while the node is not active"
    ANY = "at any time"


@dataclass(frozen=True)
class Parameter:
    """One row. The type is that of ``default``.

    bounds : smallest and largest number, both allowed; choices : the only texts allowed, empty for any text.
    unit : of a number, empty for none. check : says why a value of the right type cannot be, empty when it can.
    """

    name: str
    default: Value
    description: str
    change: Change = Change.ANY
    bounds: tuple[float, float] | None = None
    choices: tuple[str, ...] = ()
    unit: str = ""
    check: Callable[[Any], str] | None = None

    @property
    def type_name(self) -> str:
        """Name of the type as ROS documentation writes it."""
        names = {bool: "bool", int: "integer", float: "double", str: "string", tuple: "string array"}
        return names[type(self.default)]

    def problem(self, value: object) -> str:
        """Return why ``value`` cannot be this parameter's, an empty text when it can."""
        if isinstance(self.default, tuple):
            fits = isinstance(value, (list, tuple)) and all(isinstance(text, str) for text in value)
            return "" if fits else f"{self.name} is {value!r}; expected a {self.type_name}"
        if type(value) is not type(self.default):
            return f"{self.name} is {value!r}; expected a {self.type_name}"
        if isinstance(value, float) and not math.isfinite(value):
            return f"{self.name} is {value}; expected a finite number"
        if self.bounds is not None and isinstance(value, (int, float)):
            low, high = self.bounds
            if not low <= value <= high:
                return f"{self.name} is {_number(value)}; expected {self.range_text}{self.unit and ' '}{self.unit}"
        if self.choices and value not in self.choices:
            return f"{self.name} is {value!r}; expected one of {', '.join(self.choices)}"
        return "" if self.check is None else self.check(value)

    @property
    def range_text(self) -> str:
        """What values are allowed, for people."""
        if self.choices:
            return ", ".join(self.choices)
        if self.bounds is not None:
            return f"{_number(self.bounds[0])} to {_number(self.bounds[1])}"
        return ""


def _profile_problem(text: str) -> str:
    try:
        load_profile(text)
    except ProfileError as error:
        return f"profile is {text!r}: {error}"
    return ""


_START, _INACTIVE = Change.START, Change.INACTIVE

TABLE: tuple[Parameter, ...] = (
    Parameter("autostart", True, "Configure and activate by itself; false leaves that to a lifecycle manager.", _START),
    Parameter(
        "mode",
        "on_request",
        "When to reconstruct: on_request waits for goals; continuous also starts by itself when a hand holds something "
        "and has been still for a while, once until it moves or lets go.",
        choices=("on_request", "continuous"),
    ),
    Parameter(
        "profile",
        "embedded",
        f"Which models: {', '.join(PROFILES)}, or the path of a YAML file; a goal may name others.",
        check=_profile_problem,
    ),
    Parameter(
        "stages",
        ("",),
        "Changes of that profile: STAGE=BACKEND or STAGE.OPTION=VALUE, for instance generator=triposg; "
        "empty texts are none.",
    ),
    Parameter("preset", "default", "Guidance settings; a goal may name others.", choices=tuple(PRESETS)),
    Parameter(
        "time_budget",
        0.0,
        "For goals that name none: wanted time to a result; 0 is no limit.",
        bounds=(0, 86400),
        unit="s",
    ),
    Parameter(
        "queue_size", 2, "How many goals may wait behind the running one; more are refused (BUSY).", bounds=(0, 8)
    ),
    Parameter("kept_results", 3, "How many reconstructions get_latest can return by id.", bounds=(1, 50)),
    Parameter(
        "image_transport",
        "raw",
        "Type on the image topic: raw is sensor_msgs/Image, compressed is CompressedImage on <image>/compressed.",
        _INACTIVE,
        choices=("raw", "compressed"),
    ),
    Parameter(
        "image_reliability",
        "best_effort",
        "Reliability of the image, camera_info and depth subscriptions. best_effort takes what any publisher offers; "
        "reliable gets large images through when the publisher has no large shared-memory segment, at some delay.",
        _INACTIVE,
        choices=("best_effort", "reliable"),
    ),
    Parameter(
        "image_rectified",
        False,
        "The images are rectified already (image_rect): use P of the camera_info and no distortion.",
        _INACTIVE,
    ),
    Parameter(
        "use_camera_info",
        True,
        "Wait for the camera_info of each image; false estimates the field of view, and distances with it.",
        _INACTIVE,
    ),
    Parameter("use_depth", False, "Wait for the aligned depth image of each image.", _INACTIVE),
    Parameter(
        "depth_transport",
        "raw",
        "Type on the depth topic: raw is sensor_msgs/Image, compressedDepth is CompressedImage on "
        "<depth>/compressedDepth, as PNG or RVL.",
        _INACTIVE,
        choices=("raw", "compressedDepth"),
    ),
    Parameter(
        "sync_slop",
        0.04,
        "Largest difference between the stamps of image, camera_info and depth that belong together.",
        bounds=(0, 1),
        unit="s",
    ),
    Parameter("frame_timeout", 5.0, "How long a goal waits for its image.", bounds=(0.1, 600), unit="s"),
    Parameter(
        "fixed_frame",
        "",
        "Parent of the published transforms, looked up at the image's stamp when the goal is accepted; empty: the "
        "camera's optical frame.",
    ),
    Parameter(
        "require_fixed_frame",
        False,
        "Fail the goal when fixed_frame is unknown at the image's stamp; false: warn, and use the camera's frame.",
    ),
    Parameter("tf_timeout", 0.5, "How long to wait for the transform of fixed_frame.", bounds=(0, 10), unit="s"),
    Parameter("publish_tf", True, "Publish transforms of hand, fingertips and object."),
    Parameter("tf_rate", 5.0, "How often they are published again.", bounds=(0.1, 50), unit="Hz"),
    Parameter("frame_prefix", "", "Put before the names of published frames, for instance 'cam1/'."),
    Parameter(
        "result_lifetime",
        60.0,
        "How long a result is current: its transforms are published that long; 0 is until the next or clear.",
        bounds=(0, 86400),
        unit="s",
    ),
    Parameter("marker_faces", 4000, "Most triangles of each mesh in the markers.", bounds=(100, 100000)),
    Parameter("collision_faces", 2000, "Most triangles of the mesh in the collision object.", bounds=(100, 100000)),
    Parameter(
        "export_root",
        "",
        "The export service writes only below this folder, and relative to it; empty: to any absolute path.",
    ),
    Parameter(
        "continuous.rate",
        5.0,
        "How often mode continuous looks for hands; never during a job.",
        bounds=(0.2, 30),
        unit="Hz",
    ),
    Parameter("continuous.still_frames", 5, "In so many looks in a row the hand must be still.", bounds=(1, 100)),
    Parameter(
        "continuous.motion",
        0.05,
        "A hand is still while its landmarks are on average no further than this part of its box from where it was.",
        bounds=(0.001, 1),
    ),
    Parameter(
        "continuous.holds",
        0.35,
        "A hand holds something from this probability on; one that did lets go below half of it.",
        bounds=(0, 1),
    ),
    Parameter("continuous.guidance", True, "Whether mode continuous guides the flow; false is quicker and less exact."),
    Parameter(
        "continuous.min_period",
        1.0,
        "Shortest time between the beginnings of two reconstructions.",
        bounds=(0, 3600),
        unit="s",
    ),
    Parameter(
        "continuous.retry",
        10.0,
        "A hand that stays still after a job that failed gets another one after this time.",
        bounds=(0.5, 3600),
        unit="s",
    ),
    Parameter(
        "worker.python",
        "",
        "Interpreter of the worker process, which needs torch; empty: the node's own.",
        _INACTIVE,
    ),
    Parameter(
        "worker.memory_limit",
        0,
        "Limit of the worker's address space; 0 is none. For processors only: CUDA reserves far more than it uses.",
        _INACTIVE,
        bounds=(0, 1048576),
        unit="MiB",
    ),
    Parameter("worker.load_timeout", 300.0, "Models must be loaded within this.", _INACTIVE, (1, 3600), unit="s"),
    Parameter(
        "worker.stall_timeout",
        180.0,
        "A job that reports nothing for this long is ended, and its worker with it.",
        _INACTIVE,
        (5, 3600),
        unit="s",
    ),
)

BY_NAME: Mapping[str, Parameter] = {row.name: row for row in TABLE}

#: What the files in config/ change; everything else in them is the default.
CONFIGURATIONS: Mapping[str, tuple[str, Mapping[str, Value]]] = {
    "embedded": ("For robots and laptops: the embedded models on one processor core.", {}),
    "h100": (
        "For a machine with a data centre's graphics card and a camera with depth: the paper's models, which "
        "`fmh models pull h100` fetches, and its guidance schedule, a longer queue, finer markers.",
        {
            "profile": "h100",
            "preset": "paper",
            "worker.load_timeout": 1200.0,
            "queue_size": 4,
            "use_depth": True,
            "marker_faces": 20000,
            "kept_results": 20,
        },
    ),
}


def descriptor(row: Parameter) -> ParameterDescriptor:
    """Return the ROS descriptor of a row: description, range, read-only or not."""
    from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor

    result = ParameterDescriptor(name=row.name, description=_described(row), read_only=row.change is Change.START)
    if row.choices:
        result.additional_constraints = "one of " + ", ".join(row.choices)
    if row.bounds is not None and isinstance(row.default, float):
        low, high = (float(bound) for bound in row.bounds)
        result.floating_point_range = [FloatingPointRange(from_value=low, to_value=high, step=0.0)]
    elif row.bounds is not None:
        result.integer_range = [IntegerRange(from_value=int(row.bounds[0]), to_value=int(row.bounds[1]), step=1)]
    return result


def declare(node: Node) -> None:
    """Declare every row on a node. Raises rclpy's InvalidParameterValueException, which names the value."""
    for row in TABLE:
        default = list(row.default) if isinstance(row.default, tuple) else row.default
        node.declare_parameter(row.name, default, descriptor(row))


def read(node: Node) -> dict[str, Any]:
    """Return the values of all rows by name."""
    return {row.name: node.get_parameter(row.name).value for row in TABLE}


def problems(values: Mapping[str, object], *, active: bool) -> list[str]:
    """Return why these values cannot be set, empty when they can; names that are not in the table are not judged.

    active : the node is active, so that only what may change at any time may change.
    """
    found = []
    for name, value in values.items():
        row = BY_NAME.get(name)
        if row is None:
            continue
        problem = row.problem(value)
        if not problem and active and row.change is Change.INACTIVE:
            problem = f"{name} can only be changed {row.change.value}; deactivate the node first"
        if problem:
            found.append(problem)
    return found


def to_yaml(configuration: str) -> str:
    """Return a parameter file: every row with what it means, in the order of the table."""
    summary, changed = CONFIGURATIONS[configuration]
    lines = ["# SPDX-License-Identifier: Apache-2.0", f"# {summary}"]
    lines += ["# Written by: python -m fmh_ros.nodes.parameters", "/**:", "  ros__parameters:"]
    group = ""
    for row in TABLE:
        head, _, name = row.name.rpartition(".")
        if head != group:
            group = head
            lines.append(f"    {group}:")
        indent = "      " if head else "    "
        lines += [f"{indent}# {text}" for text in _wrapped(_described(row), 118 - len(indent))]
        lines.append(f"{indent}{name}: {_yaml(changed.get(row.name, row.default))}")
    return "\n".join(lines) + "\n"


def to_markdown() -> str:
    """Return the table for the documentation."""
    lines = ["<!-- SPDX-License-Identifier: Apache-2.0 -->", "# Parameters of reconstruction_node", ""]
    lines += ["Written by `python -m fmh_ros.nodes.parameters` from its one table.", ""]
    lines += ["| Parameter | Type | Default | Allowed | Unit | Changes | Meaning |", "|---|---|---|---|---|---|---|"]
    for row in TABLE:
        default = f"`{_yaml(row.default)}`"
        cells = (f"`{row.name}`", row.type_name, default, row.range_text, row.unit, row.change.value, row.description)
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def generated_files() -> dict[str, str]:
    """Return what is generated from the table, by path in the repository."""
    files = {f"config/{name}.yaml": to_yaml(name) for name in CONFIGURATIONS}
    return {**files, "docs/parameters.md": to_markdown()}


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else repr(float(value))


def _described(row: Parameter) -> str:
    allowed = f" Allowed: {row.range_text}{row.unit and ' '}{row.unit}." if row.range_text else ""
    return f"{row.description}{allowed} Changes: {row.change.value}."


def _yaml(value: Value) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return f"[{', '.join(map(_yaml, value))}]"
    if isinstance(value, str):
        return value if value.isidentifier() else f'"{value}"'
    return repr(value)


def _wrapped(text: str, width: int) -> list[str]:
    import textwrap

    return textwrap.wrap(text, width - 2)


def main() -> None:
    """Write the generated files into the repository that this module belongs to."""
    root = Path(__file__).resolve().parents[2]
    for name, text in generated_files().items():
        (root / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
