# SPDX-License-Identifier: Apache-2.0
"""Rules of the house that a machine can check."""

from __future__ import annotations

import ast
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from fmh_ros.cli.main import error_types
from fmh_ros.core.errors import FmhError

ROOT = Path(__file__).parents[1]
SOURCES = sorted(
    path
    for folder in ("fmh_ros", "tests", "benchmarks", "tools")
    for path in (ROOT / folder).rglob("*.py")
    if "__pycache__" not in path.parts
)

IMPORT_ALL = """
import importlib, pkgutil, sys
for name in {blocked!r}:
    sys.modules[name] = None
package = importlib.import_module({package!r})
names = [module.name for module in pkgutil.walk_packages(package.__path__, package.__name__ + ".")]
for name in names:
    if not name.endswith("__main__"):
        importlib.import_module(name)
print(len(names))
"""


def import_all(package: str, blocked: tuple[str, ...]) -> int:
    code = IMPORT_ALL.format(package=package, blocked=blocked)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def test_the_core_needs_no_ros_no_training_library_and_nothing_non_commercial() -> None:
    blocked = ("rclpy", "hy3dgen", "open3d", "jsonschema", "pytest", "smplx", "chumpy")
    assert import_all("fmh_ros.core", blocked) > 25


@pytest.mark.parametrize("package", ["benchmark", "cli", "core", "engines", "evaluation", "training"])
def test_what_is_not_for_ros_imports_without_ros(package: str) -> None:
    assert import_all(f"fmh_ros.{package}", ("rclpy", "sensor_msgs", "follow_my_hold")) > 0


def test_the_benchmark_builds_on_training_and_not_the_other_way_round() -> None:
    assert import_all("fmh_ros.training", ("fmh_ros.benchmark",)) > 15


def import_modules(names: tuple[str, ...], blocked: tuple[str, ...]) -> None:
    code = "import importlib, sys\n"
    code += f"for name in {blocked!r}: sys.modules[name] = None\n"
    code += f"for name in {names!r}: importlib.import_module(name)\n"
    code += "assert all(sys.modules.get(name) is None for name in ('torch', 'ai_edge_litert'))\n"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_results_cross_to_processes_without_torch() -> None:
    core = "fmh_ros.core."
    names = ("errors", "progress", "transforms", "frame.load", "frame.prompts", "cues.types", "hand.types")
    names += ("guidance.config", "reconstruction.types", "reconstruction.profile", "reconstruction.quality")
    names += ("export.write", "export.overlay", "export.views", "export.document", "export.meshes")
    import_modules(tuple(core + name for name in names), ("torch", "rclpy"))


@pytest.mark.parametrize("package", ["engines", "messages", "nodes"])
def test_the_side_of_the_node_needs_no_torch(package: str) -> None:
    if not (ROOT / "fmh_ros" / package).is_dir():
        pytest.skip(f"fmh_ros.{package} is not there")
    if package != "engines" and importlib.util.find_spec("rclpy") is None:
        pytest.skip("rclpy is not installed")
    assert import_all(f"fmh_ros.{package}", ("torch", "ai_edge_litert")) > 1


def test_engines_need_no_ros() -> None:
    assert import_all("fmh_ros.engines", ("rclpy", "follow_my_hold")) > 1


def test_the_core_imports_nothing_from_the_layers_above_it() -> None:
    above = (
        "fmh_ros.cli",
        "fmh_ros.engines",
        "fmh_ros.messages",
        "fmh_ros.nodes",
        "fmh_ros.training",
        "fmh_ros.evaluation",
        "rclpy",
    )
    for path in (ROOT / "fmh_ros" / "core").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not [name for name in names if name.startswith(above)], path


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_sources_are_short_and_licensed(path: Path) -> None:
    lines = path.read_text().splitlines()
    assert lines[0] == "# SPDX-License-Identifier: Apache-2.0"
    if "fmh_ros" in path.relative_to(ROOT).parts:
        assert len(lines) <= 400


def test_functions_of_the_package_are_short() -> None:
    for path in (ROOT / "fmh_ros").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                assert length <= 80, f"{path.relative_to(ROOT)}: {node.name} has {length} lines"


def test_error_codes_are_unique_and_valid_exit_codes() -> None:
    codes = [kind.code for kind in error_types()]
    assert len(set(codes)) == len(codes) and FmhError.code not in codes
    assert all(1 < code < 126 and code != 70 for code in codes)
    assert all(kind.__doc__ for kind in error_types())


def test_a_message_says_what_was_seen_expected_and_to_change() -> None:
    error = FmhError("A cat", expected="a hand.", change="Show a hand")
    assert str(error) == "A cat. Expected a hand. Show a hand."


@pytest.mark.parametrize("package", ["core", "engines", "messages", "bags", "viewing", "ros_compat"])
def test_only_nodes_and_the_command_line_know_nodes(package: str) -> None:
    files = sorted((ROOT / "fmh_ros" / package).rglob("*.py"))
    assert files
    assert [path.name for path in files if "fmh_ros.nodes" in path.read_text()] == []
