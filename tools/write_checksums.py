# SPDX-License-Identifier: Apache-2.0
"""Write assets/SHA256SUMS, which ``fmh doctor`` and a test compare the shipped weights with."""

from fmh_ros.cli.doctor import ASSETS, CHECKSUMS, weight_files
from fmh_ros.models.store import sha256_of


def main() -> None:
    """Write one line per weight file, in the form that ``sha256sum --check`` reads."""
    lines = [f"{sha256_of(path)}  {path.relative_to(ASSETS)}" for path in weight_files()]
    CHECKSUMS.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
