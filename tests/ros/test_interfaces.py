# SPDX-License-Identifier: Apache-2.0
"""The messages, and the package they are in."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

import fmh_ros
from fmh_ros.cli.main import error_types

ROOT = Path(__file__).parents[2]
INTERFACES = sorted(path for folder in ("msg", "srv", "action") for path in (ROOT / folder).iterdir())
FIELD = re.compile(r"^[A-Za-z_/0-9]+(\[\d*\])? +[a-z][a-z0-9_]*( +\S+)? *(#.*)?$")
#: Fields of our own types are described there.
OWN = re.compile(r"^[A-Z][A-Za-z]+(\[\])? ")


@pytest.mark.parametrize("path", INTERFACES, ids=lambda path: path.name)
def test_every_field_says_what_it_is(path: Path) -> None:
    lines = path.read_text().splitlines()
    assert lines[0] == "# SPDX-License-Identifier: Apache-2.0"
    fields = [line for line in lines if FIELD.match(line)]
    assert [line for line in fields if "#" not in line and not OWN.match(line)] == []
    rest = [line for line in lines if line and not line.startswith("#") and line != "---" and line not in fields]
    assert all(re.match(r"^uint(8|16) [A-Z][A-Z0-9_]*=\d+( +#.*)?$", line) for line in rest), rest


def test_arrays_of_numbers_are_flat() -> None:
    arrays = [line for path in INTERFACES for line in path.read_text().splitlines() if re.match(r"^\S+\[\d*\] ", line)]
    kinds = {line.split("[")[0] for line in arrays}
    assert kinds <= {"float32", "float64", "uint32", "uint8", "bool", "string", "Contact"}


def test_the_action_names_every_error_by_its_code() -> None:
    text = (ROOT / "action" / "Reconstruct.action").read_text().split("---")[1]
    constants = {name: int(code) for name, code in re.findall(r"^uint16 ([A-Z_]+)=(\d+)", text, re.MULTILINE)}
    errors = {
        re.sub(r"(?<!^)(?=[A-Z])", "_", kind.__name__.removesuffix("Error")).upper(): kind.code
        for kind in error_types()
    }
    assert constants == {"NONE": 0, **errors}


def test_the_built_action_has_the_same_constants_and_defaults() -> None:
    action = pytest.importorskip("follow_my_hold.action", reason="messages are not built: make setup-ros")
    result, goal = action.Reconstruct.Result, action.Reconstruct.Goal()
    names = {
        re.sub(r"(?<!^)(?=[A-Z])", "_", kind.__name__.removesuffix("Error")).upper(): kind for kind in error_types()
    }
    assert all(getattr(result, name) == kind.code for name, kind in names.items())
    assert (goal.input, goal.side, goal.samples, goal.guidance, goal.time_budget) == (
        goal.NEXT_FRAME,
        goal.AUTO,
        1,
        True,
        0,
    )


def test_package_and_module_have_one_version() -> None:
    package = ET.parse(ROOT / "package.xml").getroot()
    assert package.findtext("version") == fmh_ros.__version__
    assert package.findtext("name") == "follow_my_hold"
    needed = {element.text for element in package if element.tag in ("depend", "exec_depend")}
    assert {"cv_bridge", "sensor_msgs_py", "tf2_ros", "tf_transformations", "launch_ros", "rclpy"} <= needed
    assert not {"moveit_msgs", "vision_msgs"} & needed
