# SPDX-License-Identifier: Apache-2.0
"""Where the test photographs are; their rights are not ours, so they do not come with the project."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PHOTOS = Path(os.environ.get("FMH_TEST_DATA", ROOT.parent / "shared" / "data")) / "photos"
needs_photos = pytest.mark.skipif(not PHOTOS.is_dir(), reason=f"the test photos are not at {PHOTOS}; set FMH_TEST_DATA")
