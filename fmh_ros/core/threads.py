# SPDX-License-Identifier: Apache-2.0
"""How the numeric libraries' threads behave on a machine that has other work."""

from __future__ import annotations

from collections.abc import MutableMapping


def wait_without_spinning(environment: MutableMapping[str, str]) -> None:
    """Let OpenMP's threads sleep between loops, unless the user has chosen otherwise; before torch is imported.

    By default they spin: on processors that other programs use too, a robot's for instance, each loop then waits for
    a thread that has no processor, and a guided reconstruction takes ten times as long.
    """
    environment.setdefault("OMP_WAIT_POLICY", "PASSIVE")
