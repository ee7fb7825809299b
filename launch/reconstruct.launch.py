# SPDX-License-Identifier: Apache-2.0
"""The reconstruction node beside a camera: ros2 launch follow_my_hold reconstruct.launch.py image:=/camera/...

Arguments that are left empty keep what the parameter file says.
"""

import os

from launch import LaunchContext, LaunchDescription
from launch.actions import (
    DeclareLaunchArgument,
    IncludeLaunchDescription,
    OpaqueFunction,
    SetEnvironmentVariable,
)
from launch.conditions import IfCondition
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare

from fmh_ros.ros_compat import profile_variable, share_directory

BOOLEANS = ["true", "false"]
#: Parameters of the node that arguments of the same name set, with their types.
OVERRIDES = {"use_depth": bool, "profile": str, "mode": str, "fixed_frame": str, "use_sim_time": bool}
#: Topics in the RViz view.
SHOWN = ("markers", "object_cloud", "hand_joints", "overlay")


def arguments() -> list[DeclareLaunchArgument]:
    """What can be given on the command line."""
    share = FindPackageShare("follow_my_hold")
    yaml = PathJoinSubstitution([share, "config", "embedded.yaml"])
    return [
        DeclareLaunchArgument("image", default_value="/camera/camera/color/image_raw", description="Colour image."),
        DeclareLaunchArgument(
            "camera_info", default_value="/camera/camera/color/camera_info", description="Calibration of the image."
        ),
        DeclareLaunchArgument(
            "depth",
            default_value="/camera/camera/aligned_depth_to_color/image_raw",
            description="Depth, aligned with the image; read when use_depth is true.",
        ),
        DeclareLaunchArgument("use_depth", default_value="", choices=["", *BOOLEANS], description="Read the depth."),
        DeclareLaunchArgument("params_file", default_value=yaml, description="Parameters of the node."),
        DeclareLaunchArgument("profile", default_value="", description="Which models."),
        DeclareLaunchArgument(
            "mode", default_value="", choices=["", "on_request", "continuous"], description="When to reconstruct."
        ),
        DeclareLaunchArgument("fixed_frame", default_value="", description="Parent of the published transforms."),
        DeclareLaunchArgument("namespace", default_value="", description="Namespace of the node."),
        DeclareLaunchArgument(
            "log_level",
            default_value="info",
            choices=["debug", "info", "warn", "error", "fatal"],
            description="Which messages of the node are shown.",
        ),
        DeclareLaunchArgument("use_sim_time", default_value="false", choices=BOOLEANS, description="Follow /clock."),
        DeclareLaunchArgument("rviz", default_value="false", choices=BOOLEANS, description="Start RViz."),
        DeclareLaunchArgument("record", default_value="", description="Bag to record to: a new folder; empty: none."),
    ]


def environment() -> list[SetEnvironmentVariable]:
    """Images through shared memory, unless the user chose a profile of the middleware."""
    if any(os.environ.get(name) for name in ("FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE")):
        return []
    return [SetEnvironmentVariable(profile_variable(), str(share_directory() / "config" / "fastdds_shm.xml"))]


def nodes(context: LaunchContext) -> list[Node]:
    """The nodes, now that the arguments are known."""
    given = {name: LaunchConfiguration(name).perform(context) for name in OVERRIDES}
    parameters = {name: ParameterValue(given[name], value_type=kind) for name, kind in OVERRIDES.items() if given[name]}
    reconstruction = Node(
        package="follow_my_hold",
        executable="reconstruction_node",
        name="reconstruction_node",
        namespace=LaunchConfiguration("namespace"),
        output="screen",
        parameters=[LaunchConfiguration("params_file"), parameters],
        remappings=[(name, LaunchConfiguration(name)) for name in ("image", "camera_info", "depth")],
        ros_arguments=["--log-level", LaunchConfiguration("log_level")],
    )
    prefix = LaunchConfiguration("namespace").perform(context).strip("/")
    moved = [(f"/reconstruction_node/{name}", f"/{prefix}/reconstruction_node/{name}") for name in SHOWN if prefix]
    config = PathJoinSubstitution([FindPackageShare("follow_my_hold"), "config", "reconstruction.rviz"])
    rviz = Node(
        package="rviz2",
        executable="rviz2",
        name="rviz2",
        namespace=LaunchConfiguration("namespace"),
        arguments=["-d", config, *(["-f", given["fixed_frame"]] if given["fixed_frame"] else [])],
        parameters=[{"use_sim_time": parameters["use_sim_time"]}],
        remappings=moved,
        condition=IfCondition(LaunchConfiguration("rviz")),
    )
    return [reconstruction, rviz]


def recorder(context: LaunchContext) -> list[IncludeLaunchDescription]:
    """The recorder, when a bag is named."""
    bag = LaunchConfiguration("record").perform(context)
    if not bag:
        return []
    source = PathJoinSubstitution([FindPackageShare("follow_my_hold"), "launch", "record.launch.py"])
    passed = ("image", "camera_info", "depth", "namespace")
    return [
        IncludeLaunchDescription(
            PythonLaunchDescriptionSource(source),
            launch_arguments=[("bag", bag), *((name, LaunchConfiguration(name)) for name in passed)],
        )
    ]


def generate_launch_description() -> LaunchDescription:
    """Return what ros2 launch runs."""
    return LaunchDescription(
        [*arguments(), *environment(), OpaqueFunction(function=nodes), OpaqueFunction(function=recorder)]
    )
