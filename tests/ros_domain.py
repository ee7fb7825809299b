# SPDX-License-Identifier: Apache-2.0
"""A ROS domain of one's own, for tests that run beside others."""

from __future__ import annotations

import fcntl
import os
import tempfile
from pathlib import Path
from typing import IO

DOMAINS = 100


def claim_domain() -> tuple[int, IO[str]]:
    """Return a domain that no other world on this machine has, and the file that holds it until it is closed.

    Nodes of two tests must not see each other, not even when suites of two checkouts run at the same time.
    """
    first = int(os.environ.get("ROS_DOMAIN_ID") or os.getpid())
    for step in range(DOMAINS):
        domain = 1 + (first + step) % DOMAINS
        file = (Path(tempfile.gettempdir()) / f"fmh_ros_test_domain_{domain}.lock").open("w")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            continue
        return domain, file
    raise RuntimeError("every ROS domain is taken")
