# SPDX-License-Identifier: Apache-2.0
"""package.xml declares every ROS package that the code imports, so that rosdep installs what runs."""

from __future__ import annotations

import ast
import xml.etree.ElementTree as ET
from pathlib import Path

ROOT = Path(__file__).parents[1]
#: Used where they are installed, and not needed.
OPTIONAL = {"moveit_msgs", "vision_msgs"}
OF_ROS = {"rclpy", "launch", "launch_ros", "cv_bridge", "sensor_msgs_py", "tf2_ros", "tf_transformations"}


def imported() -> set[str]:
    """ROS packages in import statements and in calls of import_module, anywhere in package and launch files."""
    found: set[str] = set()
    for path in [*(ROOT / "fmh_ros").rglob("*.py"), *(ROOT / "launch").glob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                found.add(node.module or "")
            elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
                found |= {arg.value for arg in node.args if isinstance(arg, ast.Constant)}
    tops = {name.partition(".")[0] for name in found}
    return {name for name in tops if name in OF_ROS or name.endswith(("_msgs", "_interfaces"))}


def test_every_imported_ros_package_is_declared() -> None:
    root = ET.parse(ROOT / "package.xml").getroot()
    declared = {element.text for element in root if element.tag in ("depend", "exec_depend")}
    assert {"rclpy", "sensor_msgs", "tf2_ros", "launch_ros", "vision_msgs"} <= imported()  # the search finds something
    assert imported() - OPTIONAL - declared == set()
    assert not OPTIONAL & declared
