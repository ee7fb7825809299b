# SPDX-License-Identifier: Apache-2.0
"""Put MediaPipe's palm and hand landmark models into the package, from the official wheel (Apache-2.0).

python tools/fetch_mediapipe_models.py [--wheel mediapipe-0.10.21-...whl] [--out fmh_ros/assets/mediapipe]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

VERSION = "0.10.21"
PLATFORM = ("--platform", "manylinux_2_28_x86_64", "--python-version", "3.11", "--implementation", "cp")
MODELS = (
    "mediapipe/modules/palm_detection/palm_detection_full.tflite",
    "mediapipe/modules/hand_landmark/hand_landmark_full.tflite",
)


def download(folder: Path) -> Path:
    """Download the wheel with pip and return its path; the models do not depend on the platform."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", *PLATFORM]
    subprocess.run([*command, "--dest", str(folder), f"mediapipe=={VERSION}"], check=True)
    return next(folder.glob("mediapipe-*.whl"))


def main() -> None:
    """Extract the two models."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wheel", type=Path, help="use this wheel instead of downloading it")
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "fmh_ros" / "assets" / "mediapipe")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        wheel = arguments.wheel or download(Path(folder))
        with zipfile.ZipFile(wheel) as archive:
            for member in MODELS:
                (arguments.out / Path(member).name).write_bytes(archive.read(member))


if __name__ == "__main__":
    main()
