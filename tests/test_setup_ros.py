# SPDX-License-Identifier: Apache-2.0
"""tools/setup_ros.sh on machines where ROS cannot be set up: a clear message, and no harm."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """As much of a checkout as the script looks at, with an interpreter where .venv would be."""
    for folder in ("msg", "srv", "action", "tests/ci", "tools"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    for name in ("setup.cfg", "package.xml", "CMakeLists.txt"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "python").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    (tmp_path / ".venv" / "bin" / "python").chmod(0o755)
    return tmp_path


def run(repository: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environ = {name: value for name, value in os.environ.items() if name not in ("ROS_DISTRO", "FMH_ROS")}
    script = [str(repository / "tools" / "setup_ros.sh"), *arguments]
    return subprocess.run(script, env={**environ, **variables}, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(("arguments", "code"), [(("optional",), 0), ((), 1)])
def test_ros_can_be_left_out(repository: Path, arguments: tuple[str, ...], code: int) -> None:
    done = run(repository, *arguments, FMH_ROS="off")
    assert done.returncode == code and "ROS 2 is left out: FMH_ROS=off" in done.stderr


def test_a_missing_environment_is_named(repository: Path) -> None:
    shutil.rmtree(repository / ".venv")
    done = run(repository)
    assert done.returncode == 1 and "tools/setup_env.sh" in done.stderr


@pytest.mark.parametrize("tool", ["cmake", "g++"])
def test_a_missing_build_tool_is_named_with_how_to_install_it(repository: Path, tmp_path: Path, tool: str) -> None:
    others = tmp_path / "bin"
    others.mkdir()
    for name in {"bash", "sh", "dirname", "uname", "env", "cmake", "g++"} - {tool}:
        found = shutil.which(name)
        (others / name).symlink_to(found or "/bin/true")
    done = run(repository, "optional", PATH=str(others))
    assert done.returncode == 0 and f"{tool} is missing" in done.stderr and "apt install" in done.stderr


@pytest.mark.skipif(shutil.which("cmake") is None or shutil.which("g++") is None, reason="no cmake or g++")
def test_a_sourced_distribution_that_cannot_be_imported_is_not_mixed_with_wheels(repository: Path) -> None:
    done = run(repository, ROS_DISTRO="jazzy")
    assert done.returncode == 1
    assert "ROS jazzy is sourced" in done.stderr and "make PYTHON=" in done.stderr
    assert not (repository / "build").exists() and not (repository / ".venv" / "share").exists()


def test_every_wheel_is_pinned_by_version_and_content() -> None:
    text = (ROOT / "tools" / "ros_wheels.txt").read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    assert len(lines) > 80
    assert all(re.fullmatch(r"ros-[a-z0-9-]+==[0-9.]+( +--hash=sha256:[0-9a-f]{64})+ *", line) for line in lines)


def test_the_stand_in_for_a_package_of_ros_is_hidden_from_colcon() -> None:
    assert (ROOT / "tests" / "ci" / "tf2_msgs" / "COLCON_IGNORE").is_file()
    assert "tf2_msgs" not in (ROOT / "CMakeLists.txt").read_text()
