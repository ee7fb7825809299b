# SPDX-License-Identifier: Apache-2.0
"""Records a camera and what the reconstruction node makes of it to an MCAP bag, from before or while they run."""

import time

from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, ExecuteProcess, OpaqueFunction
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.substitutions import FindPackagePrefix

RESULTS = ("reconstruction", "markers", "object_cloud", "contacts", "hand_joints", "overlay")


def arguments() -> list[DeclareLaunchArgument]:
    """What can be given on the command line."""
    return [
        DeclareLaunchArgument(
            "bag", default_value=time.strftime("fmh_%Y-%m-%d_%H-%M-%S"), description="Where to: a new folder."
        ),
        DeclareLaunchArgument("image", default_value="/camera/camera/color/image_raw", description="Colour image."),
        DeclareLaunchArgument(
            "camera_info", default_value="/camera/camera/color/camera_info", description="Calibration of the image."
        ),
        DeclareLaunchArgument(
            "depth", default_value="/camera/camera/aligned_depth_to_color/image_raw", description="Aligned depth."
        ),
        DeclareLaunchArgument("namespace", default_value="", description="Namespace of the reconstruction node."),
    ]


def recorder(context: LaunchContext) -> list[ExecuteProcess]:
    """The recorder, now that the arguments are known."""
    values = {name: LaunchConfiguration(name).perform(context) for name in ("bag", "namespace")}
    inputs = [LaunchConfiguration(name).perform(context) for name in ("image", "camera_info", "depth")]
    # Relative names live in the node's namespace.
    namespace = "/" + values["namespace"].strip("/") if values["namespace"].strip("/") else ""
    topics = [name if name.startswith("/") else f"{namespace}/{name}" for name in inputs]
    topics += [f"{namespace}/reconstruction_node/{name}" for name in RESULTS]
    topics += ["/tf", "/tf_static", "/diagnostics"]
    program = PathJoinSubstitution([FindPackagePrefix("follow_my_hold"), "lib", "follow_my_hold", "fmh"])
    return [ExecuteProcess(cmd=[program, "record", values["bag"], "--topics", *topics], output="screen")]


def generate_launch_description() -> LaunchDescription:
    """Return what ros2 launch runs."""
    return LaunchDescription([*arguments(), OpaqueFunction(function=recorder)])
