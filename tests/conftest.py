# SPDX-License-Identifier: Apache-2.0
"""What all tests need."""

from __future__ import annotations

import signal

# Shells start background jobs with SIGINT ignored, and the programs that tests start and interrupt would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
