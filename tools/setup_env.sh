#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Creates .venv and installs this package into it: "tools/setup_env.sh" or, with test tools, "tools/setup_env.sh dev".
# Safe to run again: it does nothing when pyproject.toml, setup.cfg and the variables below have not changed.
#   PYTHON       interpreter, 3.10 to 3.12 (default: the newest found)
#   TORCH_SPEC   which torch (default torch==2.13.0)
#   TORCH_INDEX  package index to take torch from, for instance PyTorch's index of CPU-only builds; the default index
#                gives Linux machines the CUDA build, which is several gigabytes
#   HUNYUAN      "no" leaves the publisher's code of Hunyuan3D out of the test tools, where its licence does not apply
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

extras="${1:-}"
torch_spec="${TORCH_SPEC:-torch==2.13.0}"
torch_index="${TORCH_INDEX:-}"
hunyuan="${HUNYUAN:-yes}"

supported() {
    "$1" -c 'import sys, venv, ensurepip; sys.exit(not (3, 10) <= sys.version_info[:2] < (3, 13))' >/dev/null 2>&1
}

find_python() {
    local candidate
    for candidate in ${PYTHON:-python3.12 python3.11 python3.10 python3}; do
        if supported "$candidate"; then
            echo "$candidate"
            return
        fi
    done
    echo "No usable Python: ${PYTHON:-python3.10, 3.11 or 3.12} with venv is needed." >&2
    echo "On Debian and Ubuntu: sudo apt install python3-venv. Or name one: make PYTHON=/path/to/python3.12" >&2
    return 1
}

if [ ! -x .venv/bin/python ]; then
    python="$(find_python)"
    echo "Creating .venv with $($python --version)"
    "$python" -m venv .venv
fi

wanted="$({ cat pyproject.toml setup.cfg tools/setup_env.sh; echo "$torch_spec $torch_index $hunyuan $PWD"; } | cksum)"
stamp=".venv/.installed${extras:+-$extras}"
if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ]; then
    exit 0
fi

pip=(.venv/bin/python -m pip install --disable-pip-version-check --progress-bar off -qq)
if ! .venv/bin/python -c 'import torch' 2>/dev/null; then
    echo "Installing $torch_spec"
    "${pip[@]}" ${torch_index:+--index-url "$torch_index"} "$torch_spec"
fi
echo "Installing fmh_ros${extras:+ with its $extras tools}"
"${pip[@]}" --editable ".${extras:+[$extras]}"
if [ "$extras" = dev ] && [ "$hunyuan" = yes ]; then
    # Tests run the Hunyuan3D generator over its publisher's own classes. Their licence (Tencent Hunyuan Community
    # License) covers the code too, is not an open one and excludes some territories, so this is for development only
    # and never a dependency of the package. Those tests are skipped without it. Nothing it depends on is needed.
    "${pip[@]}" --no-deps hy3dgen==2.0.2 || echo "hy3dgen could not be installed: tests of Hunyuan3D will be skipped" >&2
fi
echo "$wanted" >"$stamp"
