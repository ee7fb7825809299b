# SPDX-License-Identifier: Apache-2.0
"""The example from camera process to result, with the real models, and the worker's death on the way."""

from __future__ import annotations

import os
import pickle
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import trimesh

pytest.importorskip("rclpy", reason="ROS 2 is not installed here")
pytest.importorskip("follow_my_hold.msg", reason="the interfaces are not built here")

from follow_my_hold.action import Reconstruct
from geometry_msgs.msg import TransformStamped
from lifecycle_msgs.msg import Transition
from rcl_interfaces.msg import ParameterType, ParameterValue
from ros_world import ROOT, World, children, stop_process, to_ns, wait_for_status
from sensor_msgs.msg import Image
from tf2_msgs.msg import TFMessage

from fmh_ros.messages.basics import from_pose, from_transform, from_xyz, rows

pytestmark = pytest.mark.slow
Result = Reconstruct.Result
LOADED_S = 300.0
#: In a process of its own: beside the threads of ROS, Python would hardly get to it.
LIBRARY = """
import pickle, sys
from fmh_ros.core.frame.load import load_frame
from fmh_ros.core.reconstruction.reconstructor import Reconstructor
folder = "fmh_ros/assets/example/"
frame = load_frame(folder + "rgb.png", folder + "depth.png", folder + "camera.yaml")
sys.stdout.buffer.write(pickle.dumps(Reconstructor().reconstruct(frame, seed=1, guidance=False)))
"""
CAMERA = "from fmh_ros.nodes.example_camera import main; main()"


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with World() as made:
        environment = {**os.environ, "ROS_DOMAIN_ID": str(made.domain)}
        camera = subprocess.Popen([sys.executable, "-c", CAMERA], cwd=ROOT, env=environment)
        made.processes.append(camera)
        made.start(scripted=False, use_depth=True, tf_rate=10.0)
        made.wait_until_active()
        made.wait_for(lambda: made.node.count_publishers("/depth") > 0)
        yield made
        assert stop_process(made.processes[1]) == 0


def unguided(world: World) -> Result:
    sent = world.send(guidance=False, seed=1)
    return sent.ending(LOADED_S).result


def test_the_result_is_metric_closed_and_touches_with_the_header_of_the_image(world: World) -> None:
    frames, images = world.listen(TFMessage, "/tf", 100), world.listen(Image, "/image", 100)
    world.wait_for(lambda: bool(images))
    for _ in range(3):  # a busy machine may keep from this listener the very image that the node got
        result = unguided(world)
        assert result.error_code == 0, result.error_text
        message = result.reconstruction
        if any(image.header == message.header for image in images):
            break
    assert any(image.header == message.header for image in images)

    obj = message.object
    mesh = trimesh.Trimesh(rows(obj.vertices, 3), rows(obj.faces, 3).astype(int), process=False)
    assert obj.watertight and mesh.is_watertight and mesh.is_winding_consistent and mesh.volume > 0
    assert 0.005 < max(obj.extents.x, obj.extents.y, obj.extents.z) < 1.0
    assert 0.1 < message.hand.wrist_pose.position.z < 2.0

    mesh.apply_transform(from_pose(obj.pose).matrix())
    assert message.contacts
    points = np.array([from_xyz(contact.position) for contact in message.contacts])
    _, distances, _ = trimesh.proximity.closest_point(mesh, points)
    assert distances.max() < 1e-4

    def sent(name: str) -> list[TransformStamped]:
        stamp_ns = to_ns(message.header.stamp)
        return [
            t for f in frames for t in f.transforms if t.child_frame_id == name and to_ns(t.header.stamp) == stamp_ns
        ]

    world.wait_for(lambda: bool(sent("object")))
    assert sent("object")[0].header == message.header
    moved = from_transform(sent("object")[0].transform).matrix()
    np.testing.assert_allclose(moved, from_pose(obj.pose).matrix(), atol=1e-9)


def test_the_same_image_and_seed_give_the_library_result(world: World) -> None:
    """The node adds nothing and loses nothing: what float32 leaves of the numbers is equal."""
    expected = pickle.loads(subprocess.check_output([sys.executable, "-c", LIBRARY], cwd=ROOT))
    message = unguided(world).reconstruction
    np.testing.assert_allclose(rows(message.object.vertices, 3), expected.object.vertices, atol=1e-5)
    np.testing.assert_array_equal(rows(message.object.faces, 3), expected.object.faces)
    pose = from_pose(message.object.pose).matrix()
    np.testing.assert_allclose(pose, expected.object.T_camera_object.matrix(), atol=1e-6)
    assert message.quality.score == pytest.approx(expected.quality.score, rel=1e-4)


def test_a_killed_worker_fails_its_goal_and_the_next_goal_works(world: World) -> None:
    node = world.processes[1]
    (worker,) = children(node.pid)
    sent = world.send(guidance=False)
    world.wait_for(lambda: sent.done or any(feedback.stage == "detect" for feedback in sent.feedback), LOADED_S)
    os.kill(worker, signal.SIGKILL)
    ending = sent.ending()
    assert ending.result.error_code == Result.WORKER_DIED, ending.result.error_text
    assert "SIGKILL" in ending.result.error_text
    world.wait_for(lambda: len(children(node.pid)) == 1)
    assert unguided(world).error_code == 0
    assert world.state() == "active"


def test_a_worker_that_hangs_fails_its_goal_and_the_next_goal_works(world: World) -> None:
    node = world.processes[1]
    (worker,) = children(node.pid)
    sent = world.send()
    world.wait_for(lambda: any(feedback.stage == "detect" for feedback in sent.feedback), LOADED_S)
    os.kill(worker, signal.SIGSTOP)
    ending = sent.ending(LOADED_S)
    assert ending.result.error_code == Result.WORKER_HUNG, ending.result.error_text
    assert "said nothing" in ending.result.error_text
    world.wait_for(lambda: [pid for pid in children(node.pid) if pid != worker] != [])
    assert unguided(world).error_code == 0


def test_memory_that_runs_out_fails_its_goal_and_the_next_goal_works(world: World) -> None:
    """The limit of the worker's address space is put at what an idle worker has; a guided job needs more."""
    node = world.processes[1]
    (before,) = children(node.pid)
    os.kill(before, signal.SIGKILL)  # memory that earlier jobs have left could be enough
    world.wait_for(lambda: children(node.pid) not in ([], [before]))
    wait_for_status(world, "worker", lambda status: "Ready" in status.message)
    (worker,) = children(node.pid)
    pages = int(Path(f"/proc/{worker}/statm").read_text().split()[0])
    unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    resource.prlimit(worker, resource.RLIMIT_AS, (pages * resource.getpagesize(), resource.RLIM_INFINITY))
    result = world.send().ending(LOADED_S).result
    assert result.error_code == Result.OUT_OF_MEMORY, result.error_text
    if children(node.pid) == [worker]:
        resource.prlimit(worker, resource.RLIMIT_AS, unlimited)
    assert unguided(world).error_code == 0


def test_a_memory_limit_that_is_too_small_is_said_and_can_be_raised(world: World) -> None:
    def configure_with(megabytes: int) -> None:
        for step in (Transition.TRANSITION_DEACTIVATE, Transition.TRANSITION_CLEANUP):
            assert world.change_state(step)
        value = ParameterValue(type=ParameterType.PARAMETER_INTEGER, integer_value=megabytes)
        assert world.set_parameter("worker.memory_limit", value).successful
        for step in (Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_ACTIVATE):
            assert world.change_state(step)

    configure_with(700)
    result = unguided(world)
    assert result.error_code == Result.OUT_OF_MEMORY, result.error_text
    configure_with(0)
    assert unguided(world).error_code == 0
