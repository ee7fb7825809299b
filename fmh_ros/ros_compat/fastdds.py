# SPDX-License-Identifier: Apache-2.0
"""The Fast DDS profile that lets images through shared memory, and where this package's shared files are."""

from __future__ import annotations

import os
import sys
from collections.abc import MutableMapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGE = "follow_my_hold"
#: Distributions that read the old name of the variable and not the new one.
_OLD_NAME = ("foxy", "galactic", "humble", "iron", "jazzy")


def share_directory() -> Path:
    """Return the folder that holds ``config`` and ``launch``: installed, linked by tools/setup_ros.sh, or source.

    Raises FileNotFoundError.
    """
    prefixes = os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep) + [sys.prefix]
    shares = [Path(prefix) / "share" / PACKAGE for prefix in prefixes if prefix]
    for folder in (*shares, Path(__file__).parents[2]):
        if (folder / "config").is_dir():
            return folder
    raise FileNotFoundError(f"The shared files of {PACKAGE} are in none of {', '.join(map(str, shares))}")


def profile_variable(environ: MutableMapping[str, str] | None = None) -> str:
    """Return the variable that this machine's Fast DDS reads its profiles from, by ROS_DISTRO or rclpy's version."""
    environ = os.environ if environ is None else environ
    distribution = environ.get("ROS_DISTRO", "")
    if not distribution:
        distribution = "kilted" if _rclpy_major() > 7 else "jazzy"
    return "FASTRTPS_DEFAULT_PROFILES_FILE" if distribution in _OLD_NAME else "FASTDDS_DEFAULT_PROFILES_FILE"


def use_large_shared_memory(environ: MutableMapping[str, str] | None = None) -> str:
    """Have Fast DDS use a shared-memory segment of 64 MB, and return the variable's value. Call before rclpy.init().

    A profile that the user chose, under either name of the variable, is left alone. Other middlewares ignore it.
    """
    environ = os.environ if environ is None else environ
    for name in ("FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE"):
        if environ.get(name):
            return environ[name]
    profile = str(share_directory() / "config" / "fastdds_shm.xml")
    environ[profile_variable(environ)] = profile
    return profile


def _rclpy_major() -> int:
    """Major version of the installed rclpy (Jazzy has 7, Kilted 9); taken as new when it does not say."""
    try:
        return int(version("rclpy").split(".")[0])
    except (PackageNotFoundError, ValueError):
        return 9
