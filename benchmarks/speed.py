# SPDX-License-Identifier: Apache-2.0
"""Time and memory of a whole reconstruction: ``python benchmarks/speed.py``.

The bundled example at 1280x720, without depth, guided and unguided in one process each; prints seconds per stage, the
peak memory and the ratio of guided to unguided.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
from pathlib import Path

import fmh_ros

EXAMPLE = Path(fmh_ros.__file__).parent / "assets" / "example"


def measure(guided: bool) -> None:
    """Run once in this process and print the figures."""
    import cv2

    from fmh_ros.core.frame.load import make_frame
    from fmh_ros.core.reconstruction.reconstructor import Reconstructor

    picture = cv2.cvtColor(cv2.imread(str(EXAMPLE / "rgb.png")), cv2.COLOR_BGR2RGB)
    scale = max(1280 / picture.shape[1], 720 / picture.shape[0])
    picture = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)[:720, :1280]
    reconstructor = Reconstructor()
    result = reconstructor.reconstruct(make_frame(picture), guidance=guided)
    for stage, seconds in result.timings_s.items():
        print(f"  {stage:10s} {seconds:7.2f} s")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
    print(f"  peak memory {peak:.2f} GiB; iterations {sum(p.iterations for p in result.phases)}")
    print(f"TOTAL {result.timings_s['total']}")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--one", choices=("guided", "unguided"), help="measure only this, in this process")
    arguments = parser.parse_args()
    if arguments.one:
        measure(arguments.one == "guided")
        return
    totals = {}
    for kind in ("unguided", "guided"):
        command = [sys.executable, __file__, "--one", kind]
        printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        lines = printed.splitlines()
        print(kind, *[line for line in lines if line.startswith("  ")], sep="\n")
        totals[kind] = next(float(line.split()[1]) for line in lines if line.startswith("TOTAL"))
    print(f"guided / unguided: {totals['guided'] / totals['unguided']:.1f}")


if __name__ == "__main__":
    main()
