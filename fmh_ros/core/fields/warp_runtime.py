# SPDX-License-Identifier: Apache-2.0
"""NVIDIA Warp as this package uses it: compiled once, silent."""

from __future__ import annotations

import warp as wp


def start_warp() -> None:
    """Initialise Warp without its banner and without the notice that a machine has no CUDA driver.

    Call it before the first Warp array or launch; more calls do nothing.
    """
    wp.config.log_level = wp.LOG_ERROR
    wp.init()
