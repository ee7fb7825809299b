# SPDX-License-Identifier: Apache-2.0
"""``python -m fmh_ros`` is ``fmh``."""

import sys

from fmh_ros.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
