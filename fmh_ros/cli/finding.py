# SPDX-License-Identifier: Apache-2.0
"""A line of what ``fmh doctor`` says."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """One line of the report; ``advice`` is a command that repairs what is not ``ok``."""

    name: str
    text: str
    ok: bool = True
    advice: str = ""
