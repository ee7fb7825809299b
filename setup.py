# SPDX-License-Identifier: Apache-2.0
"""Metadata is in pyproject.toml, entry points are in setup.cfg."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithInterfaces(build_py):
    """Puts the message definitions into the package: without ROS, bags are written and read with them."""

    def run(self) -> None:
        """Copy the modules, then msg/ beside them."""
        super().run()
        if not self.editable_mode:  # finds them in the sources
            target = Path(self.build_lib) / "fmh_ros" / "interfaces" / "msg"
            target.mkdir(parents=True, exist_ok=True)
            for path in Path(__file__).parent.glob("msg/*.msg"):
                shutil.copy(path, target)


setup(cmdclass={"build_py": BuildWithInterfaces})
