# SPDX-License-Identifier: Apache-2.0
"""Metadata is in pyproject.toml, entry points are in setup.cfg."""

from setuptools import setup

setup()
