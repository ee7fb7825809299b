# SPDX-License-Identifier: Apache-2.0
"""The bundled example as a camera, the node in mode continuous, and a bag: ros2 launch follow_my_hold demo.launch.py"""

import time

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare

TOPICS = ("image", "camera_info", "depth")


def generate_launch_description() -> LaunchDescription:
    """Return what ros2 launch runs."""
    namespace = LaunchConfiguration("namespace")
    reconstruct = PathJoinSubstitution([FindPackageShare("follow_my_hold"), "launch", "reconstruct.launch.py"])
    passed = ("namespace", "params_file", "mode", "fixed_frame", "rviz", "record", "log_level")
    yaml = PathJoinSubstitution([FindPackageShare("follow_my_hold"), "config", "embedded.yaml"])
    return LaunchDescription(
        [
            DeclareLaunchArgument("namespace", default_value="", description="Namespace of all nodes."),
            DeclareLaunchArgument("params_file", default_value=yaml, description="Parameters of the node."),
            DeclareLaunchArgument(
                "mode",
                default_value="continuous",
                choices=["on_request", "continuous"],
                description="continuous: reconstruct at once; on_request: wait for a goal.",
            ),
            DeclareLaunchArgument(
                "fixed_frame", default_value="camera_link", description="Parent of the published transforms."
            ),
            DeclareLaunchArgument("rate", default_value="10.0", description="Images per second."),
            DeclareLaunchArgument("rviz", default_value="false", choices=["true", "false"], description="Start RViz."),
            DeclareLaunchArgument(
                "record",
                default_value=time.strftime("fmh_demo_%Y-%m-%d_%H-%M-%S"),
                description="Bag to record to: a new folder; empty: none.",
            ),
            DeclareLaunchArgument(
                "log_level",
                default_value="info",
                choices=["debug", "info", "warn", "error", "fatal"],
                description="Which messages of the node are shown.",
            ),
            # First, so that the camera has the environment that this sets: the publisher's shared memory decides.
            IncludeLaunchDescription(
                PythonLaunchDescriptionSource(reconstruct),
                launch_arguments=[
                    *((name, name) for name in TOPICS),
                    *((name, LaunchConfiguration(name)) for name in passed),
                    ("use_depth", "true"),
                ],
            ),
            Node(
                package="follow_my_hold",
                executable="example_camera",
                name="example_camera",
                namespace=namespace,
                output="screen",
                parameters=[{"rate": ParameterValue(LaunchConfiguration("rate"), value_type=float)}],
            ),
        ]
    )
