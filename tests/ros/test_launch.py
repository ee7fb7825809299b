# SPDX-License-Identifier: Apache-2.0
"""Launch files: with ROS's launch library where it is installed, else with the stand-in of launch_stand_in.py."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("rclpy", reason="ROS is not installed: make setup-ros")
pytest.importorskip("follow_my_hold.msg", reason="the messages are not built: make setup-ros")

import launch_stand_in as stand_in
import rclpy
from rcl_interfaces.srv import GetParameters
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import parameter_value_to_python
from rclpy.qos import QoSProfile
from ros_domain import claim_domain
from sensor_msgs.msg import CameraInfo, Image
from tf2_msgs.msg import TFMessage

from fmh_ros.cli.main import build_parser

ROOT = Path(__file__).parents[2]
LAUNCH = ROOT / "launch"
REAL = importlib.util.find_spec("launch_ros") is not None
only_stand_in = pytest.mark.skipif(REAL, reason="the real launch library is here: it has no plan to look at")
PATIENCE_S = 60.0
REAL_RUNNER = """
import sys
from launch import LaunchDescription, LaunchService
from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
arguments = [tuple(text.split(":=", 1)) for text in sys.argv[2:]]
source = PythonLaunchDescriptionSource(sys.argv[1])
service = LaunchService()
service.include_launch_description(LaunchDescription([IncludeLaunchDescription(source, launch_arguments=arguments)]))
sys.exit(service.run())
"""


@pytest.fixture(autouse=True)
def surroundings(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    if not REAL:
        monkeypatch.setenv("AMENT_PREFIX_PATH", os.environ.get("AMENT_PREFIX_PATH") or sys.prefix)
    for name in ("FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    domain, claim = claim_domain()
    monkeypatch.setenv("ROS_DOMAIN_ID", str(domain))
    yield
    claim.close()


def plan(name: str, folder: Path, **arguments: str) -> list[stand_in.Process]:
    return stand_in.plan(LAUNCH / name, arguments, folder)


def options(process: stand_in.Process, flag: str) -> list[str]:
    return [after for before, after in zip(process.cmd, process.cmd[1:], strict=False) if before == flag]


def parameters(process: stand_in.Process) -> dict[str, Any]:
    """What the last of a node's parameter files says."""
    content = yaml.safe_load(Path(options(process, "--params-file")[-1]).read_text())
    values: dict[str, Any] = content["/**"]["ros__parameters"]
    return values


@only_stand_in
def test_the_node_is_started_with_the_parameter_file_and_remapped_topics(tmp_path: Path) -> None:
    (node,) = plan("reconstruct.launch.py", tmp_path, image="/cam/image", namespace="robot", log_level="warn")
    assert Path(node.cmd[0]).parts[-3:] == ("lib", "follow_my_hold", "reconstruction_node")
    assert node.cmd[1:8] == (
        "--ros-args",
        "--log-level",
        "warn",
        "-r",
        "__node:=reconstruction_node",
        "-r",
        "__ns:=/robot",
    )
    first, second = options(node, "--params-file")
    assert Path(first).name == "embedded.yaml" and Path(first).is_file()
    assert yaml.safe_load(Path(second).read_text()) == {"/**": {"ros__parameters": {"use_sim_time": False}}}
    assert node.cmd[-6:] == (
        "-r", "image:=/cam/image",
        "-r", "camera_info:=/camera/camera/color/camera_info",
        "-r", "depth:=/camera/camera/aligned_depth_to_color/image_raw",
    )  # fmt: skip


@only_stand_in
def test_only_arguments_that_are_given_override_the_parameter_file(tmp_path: Path) -> None:
    given = {
        "mode": "continuous",
        "profile": "embedded",
        "fixed_frame": "12",
        "use_depth": "false",
        "use_sim_time": "true",
    }
    (node,) = plan("reconstruct.launch.py", tmp_path, **given)
    assert parameters(node) == {
        "mode": "continuous",
        "profile": "embedded",
        "fixed_frame": "12",  # a text, whatever it looks like
        "use_depth": False,
        "use_sim_time": True,
    }


@only_stand_in
@pytest.mark.parametrize("config", ["embedded.yaml", "h100.yaml"])
def test_every_shipped_parameter_file_is_accepted(tmp_path: Path, config: str) -> None:
    (node,) = plan("reconstruct.launch.py", tmp_path, params_file=str(ROOT / "config" / config))
    assert options(node, "--params-file")[0].endswith(config)


@only_stand_in
@pytest.mark.parametrize("name", ["reconstruct.launch.py", "demo.launch.py"])
def test_every_process_gets_the_large_shared_memory(tmp_path: Path, name: str) -> None:
    for process in plan(name, tmp_path, record="bag"):
        chosen = process.environment.get("FASTDDS_DEFAULT_PROFILES_FILE") or process.environment.get(
            "FASTRTPS_DEFAULT_PROFILES_FILE"
        )
        assert chosen is not None and Path(chosen).samefile(ROOT / "config" / "fastdds_shm.xml")


@only_stand_in
def test_a_profile_that_the_user_chose_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTRTPS_DEFAULT_PROFILES_FILE", "/mine.xml")
    (node,) = plan("reconstruct.launch.py", tmp_path)
    assert node.environment["FASTRTPS_DEFAULT_PROFILES_FILE"] == "/mine.xml"
    assert "FASTDDS_DEFAULT_PROFILES_FILE" not in node.environment


@only_stand_in
def test_the_demo_is_a_node_a_recorder_and_a_camera_on_the_same_topics(tmp_path: Path) -> None:
    node, recorder, camera = plan("demo.launch.py", tmp_path, namespace="demo", record="bag", rate="5")
    assert parameters(node)["mode"] == "continuous" and parameters(node)["use_depth"] is True
    assert Path(camera.cmd[0]).name == "example_camera"
    assert parameters(camera) == {"rate": 5.0} and isinstance(parameters(camera)["rate"], float)
    assert "__ns:=/demo" in camera.cmd and "__ns:=/demo" in node.cmd
    assert "image:=image" in node.cmd  # relative: in the namespace that the camera publishes in
    asked = build_parser().parse_args(recorder.cmd[1:])
    recorded = set(asked.topics)
    assert asked.out == "bag"
    assert {"/demo/image", "/demo/camera_info", "/demo/depth", "/tf", "/tf_static", "/diagnostics"} <= recorded
    assert {"/demo/reconstruction_node/reconstruction", "/demo/reconstruction_node/markers"} <= recorded


@only_stand_in
def test_rviz_shows_the_node_in_its_namespace_and_frame(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prefix = tmp_path / "prefix"
    program = prefix / "lib" / "rviz2" / "rviz2"
    marker = prefix / "share" / "ament_index" / "resource_index" / "packages" / "rviz2"
    for path in (program, marker):
        path.parent.mkdir(parents=True)
        path.touch(mode=0o755)
    monkeypatch.setenv("AMENT_PREFIX_PATH", f"{prefix}{os.pathsep}{os.environ['AMENT_PREFIX_PATH']}")
    folder = tmp_path / "parameters"
    folder.mkdir()
    _, rviz = plan("reconstruct.launch.py", folder, rviz="true", namespace="robot", fixed_frame="map")
    assert rviz.cmd[0] == str(program) and options(rviz, "-f") == ["map"]
    view = yaml.safe_load(Path(options(rviz, "-d")[0]).read_text())["Visualization Manager"]
    shown = [display["Topic"]["Value"] for display in view["Displays"] if "Topic" in display]
    assert {f"{topic}:=/robot{topic}" for topic in shown} <= set(options(rviz, "-r"))
    with pytest.raises(LookupError, match="rviz2"):
        monkeypatch.setenv("AMENT_PREFIX_PATH", os.environ["AMENT_PREFIX_PATH"].partition(os.pathsep)[2])
        plan("reconstruct.launch.py", folder, rviz="true")


@only_stand_in
def test_a_recorder_alone_takes_the_topics_it_is_told(tmp_path: Path) -> None:
    (recorder,) = plan("record.launch.py", tmp_path, bag="x", image="/eye/rgb")
    asked = build_parser().parse_args(recorder.cmd[1:])
    assert asked.out == "x"
    assert {"/eye/rgb", "/reconstruction_node/reconstruction"} <= set(asked.topics)


@only_stand_in
@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        ({"mode": "sometimes"}, "mode"),
        ({"use_depth": "yes"}, "use_depth"),
        ({"log_level": "loud"}, "log_level"),
        ({"imagee": "/x"}, "imagee"),
        ({"params_file": "/nowhere.yaml"}, "nowhere"),
        ({"profile": "magic"}, "profile"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(tmp_path: Path, arguments: dict[str, str], what: str) -> None:
    with pytest.raises(stand_in.StandInError, match=what):
        plan("reconstruct.launch.py", tmp_path, **arguments)


@only_stand_in
@pytest.mark.parametrize(
    "content",
    [
        "{}",
        "node: {}",
        "/**: {ros__parameters: {}}",
        "/**: {ros__parameters: {mood: good}}",
        "/**: {ros__parameters: {queue_size: 1000}}",
    ],
)
def test_parameter_files_that_the_node_would_refuse_are_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text(content)
    with pytest.raises(stand_in.StandInError, match="wrong"):
        plan("reconstruct.launch.py", tmp_path, params_file=str(path))


@only_stand_in
@pytest.mark.parametrize(
    ("body", "error"),
    [
        ("from launch.actions import TimerAction", ImportError),
        ("from launch.events import Shutdown", ImportError),
        ("import launch_xml", ImportError),
        ("Node(package='follow_my_hold', executable='fmh', name='x', remapping=[])", TypeError),
        ("DeclareLaunchArgument('x', default='1', description='x')", TypeError),
        ("DeclareLaunchArgument('x')", TypeError),
        ("Node(package='follow_my_hold', executable='nothing', name='x')", stand_in.StandInError),
        ("Node(package='no_such_package', executable='x', name='x')", LookupError),
        ("Node(package='follow_my_hold', executable='fmh', name='x', parameters=[{'a': 'b'}])", stand_in.StandInError),
        ("Node(package='follow_my_hold', executable='fmh', name=LaunchConfiguration('x'))", stand_in.StandInError),
        ("Node(package='follow_my_hold', executable='fmh', name='x', output='loud')", stand_in.StandInError),
        ("IfCondition('maybe').evaluate(None)", stand_in.StandInError),
    ],
)  # fmt: skip
def test_the_stand_in_refuses_what_it_does_not_know(tmp_path: Path, body: str, error: type[Exception]) -> None:
    path = tmp_path / "some.launch.py"
    is_import = "import " in body
    path.write_text(
        "from launch import LaunchDescription\nfrom launch.actions import DeclareLaunchArgument\n"
        "from launch.conditions import IfCondition\nfrom launch.substitutions import LaunchConfiguration\n"
        "from launch_ros.actions import Node\n"
        f"{body if is_import else ''}\n"
        f"def generate_launch_description():\n    return LaunchDescription([{'' if is_import else body}])\n"
    )
    with pytest.raises(error):
        stand_in.plan(path, {}, tmp_path)
    assert "launch_ros.actions" not in sys.modules


@contextmanager
def launched(name: str, arguments: Sequence[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a launch file in a process of its own; ends it with SIGINT, as Ctrl-C would, unless it has ended."""
    runner = ["-c", REAL_RUNNER] if REAL else [stand_in.__file__]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, *runner, str(LAUNCH / name), *arguments], stdout=output, stderr=output, cwd=log.parent
        )
        try:
            yield process
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
            try:
                process.wait(PATIENCE_S)
            except subprocess.TimeoutExpired:
                process.kill()
                raise


@pytest.fixture
def listener() -> Iterator[tuple[Node, SingleThreadedExecutor]]:
    context = Context()
    rclpy.init(context=context, domain_id=int(os.environ["ROS_DOMAIN_ID"]))
    node = rclpy.create_node("launch_test", context=context)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    yield node, executor
    executor.shutdown()
    node.destroy_node()
    rclpy.shutdown(context=context)


def test_the_demo_runs_a_camera_and_a_node_until_it_is_interrupted(
    tmp_path: Path, listener: tuple[Node, SingleThreadedExecutor]
) -> None:
    node, executor = listener
    params = tmp_path / "params.yaml"
    params.write_text("/**: {ros__parameters: {autostart: false, kept_results: 7}}")
    given = ["namespace:=demo", "record:=", "mode:=on_request", f"params_file:={params}", "rate:=20"]
    heard: dict[str, Any] = {}
    for topic, kind in (("image", Image), ("camera_info", CameraInfo), ("depth", Image)):
        node.create_subscription(kind, f"/demo/{topic}", lambda m, t=topic: heard.__setitem__(t, m), 1)
    latched = QoSProfile(depth=1, durability=rclpy.qos.DurabilityPolicy.TRANSIENT_LOCAL)
    node.create_subscription(TFMessage, "/tf_static", lambda m: heard.__setitem__("tf", m), latched)
    client = node.create_client(GetParameters, "/demo/reconstruction_node/get_parameters")
    names = ["autostart", "kept_results", "mode", "fixed_frame", "use_depth", "profile"]
    log = tmp_path / "log.txt"
    with launched("demo.launch.py", given, log) as process:
        answer = None
        end = time.monotonic() + PATIENCE_S
        while (len(heard) < 4 or answer is None or not answer.done()) and time.monotonic() < end:
            if answer is None and client.service_is_ready():
                answer = client.call_async(GetParameters.Request(names=names))
            executor.spin_once(timeout_sec=0.1)
            assert process.poll() is None, log.read_text()
        assert answer is not None and answer.done(), log.read_text()
    assert process.returncode == 0, log.read_text()
    found = dict(zip(names, map(parameter_value_to_python, answer.result().values), strict=True))
    assert found == {
        "autostart": False,
        "kept_results": 7,
        "mode": "on_request",
        "fixed_frame": "camera_link",
        "use_depth": True,
        "profile": "embedded",
    }
    image, depth, camera_info = heard["image"], heard["depth"], heard["camera_info"]
    assert (image.width, image.height, image.encoding, depth.encoding) == (640, 480, "rgb8", "16UC1")
    assert (camera_info.width, camera_info.height) == (640, 480) and camera_info.k[0] == 615
    (transform,) = heard["tf"].transforms
    assert (transform.header.frame_id, transform.child_frame_id) == ("camera_link", image.header.frame_id)


def test_a_wrong_argument_ends_the_launch_and_names_itself(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    with launched("reconstruct.launch.py", ["mode:=sometimes"], log) as process:
        process.wait(PATIENCE_S)
    assert process.returncode != 0
    assert "mode" in log.read_text() and "continuous" in log.read_text()
