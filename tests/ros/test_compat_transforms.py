# SPDX-License-Identifier: Apache-2.0
"""Transforms: the same tests for tf2_ros, where it is installed, and for what stands in for it."""

from __future__ import annotations

import importlib
import importlib.util
import os
import time
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="ROS is not installed: make setup-ros")
pytest.importorskip("tf2_msgs.msg", reason="the messages are not built: make setup-ros")

import rclpy
from geometry_msgs.msg import TransformStamped
from rclpy.context import Context
from rclpy.duration import Duration
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.time import Time
from ros_domain import claim_domain
from scipy.spatial.transform import Rotation

from fmh_ros.core.transforms import Similarity
from fmh_ros.ros_compat import matrix_from_quat_xyzw, quat_xyzw_from_matrix
from fmh_ros.ros_compat.rotations import TF_TRANSFORMATIONS

#: The type hash of tf2_msgs/msg/TFMessage in every distribution since Iron.
TF_MESSAGE_HASH = "RIHS01_e369d0f05a23ae52508854b66f6aa0437f3449d652e8cbf22d5abe85d020f087"
S = 1_000_000_000
PATIENCE_S = 30.0


def needs(module: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(importlib.util.find_spec(module) is None, reason=f"{module} is not installed")


@pytest.fixture(params=["fmh_ros.ros_compat.transform_buffer", pytest.param("tf2_ros", marks=needs("tf2_ros"))])
def tf(request: pytest.FixtureRequest) -> ModuleType:
    return importlib.import_module(request.param)


def pose_of(seed: int) -> Similarity:
    generator = np.random.default_rng(seed)
    return Similarity(Rotation.random(random_state=seed).as_matrix(), generator.uniform(-2, 2, 3))


def stamped(parent: str, child: str, pose: Similarity, stamp: int) -> TransformStamped:
    message = TransformStamped(child_frame_id=child)
    message.header.frame_id = parent
    message.header.stamp = Time(nanoseconds=stamp).to_msg()
    t, q = message.transform.translation, message.transform.rotation
    t.x, t.y, t.z = pose.translation.tolist()
    q.x, q.y, q.z, q.w = Rotation.from_matrix(pose.rotation).as_quat().tolist()
    return message


def similarity(message: TransformStamped) -> Similarity:
    t, q = message.transform.translation, message.transform.rotation
    return Similarity(Rotation.from_quat([q.x, q.y, q.z, q.w]).as_matrix(), np.array([t.x, t.y, t.z]))


def look_up(buffer: Any, target: str, source: str, stamp: int) -> Similarity:
    return similarity(buffer.lookup_transform(target, source, Time(nanoseconds=stamp)))


def assert_same(a: Similarity, b: Similarity) -> None:
    np.testing.assert_allclose(a.matrix(), b.matrix(), atol=1e-9)


def test_ways_up_and_down_the_tree_are_composed(tf: ModuleType) -> None:
    buffer = tf.Buffer()
    world_robot, robot_arm, world_desk, desk_cup = (pose_of(seed) for seed in range(4))
    buffer.set_transform(stamped("world", "robot", world_robot, 5 * S), "test")
    buffer.set_transform(stamped("robot", "arm", robot_arm, 5 * S), "test")
    buffer.set_transform_static(stamped("world", "desk", world_desk, 0), "test")
    buffer.set_transform(stamped("desk", "cup", desk_cup, 5 * S), "test")
    T_arm_cup = (world_robot @ robot_arm).inverse() @ world_desk @ desk_cup
    assert_same(look_up(buffer, "arm", "cup", 5 * S), T_arm_cup)
    assert_same(look_up(buffer, "cup", "arm", 5 * S), T_arm_cup.inverse())
    assert_same(look_up(buffer, "world", "arm", 5 * S), world_robot @ robot_arm)
    assert_same(look_up(buffer, "robot", "robot", 5 * S), Similarity())
    found = buffer.lookup_transform("arm", "cup", Time(nanoseconds=5 * S))
    assert (found.header.frame_id, found.child_frame_id) == ("arm", "cup")
    assert Time.from_msg(found.header.stamp).nanoseconds == 5 * S


def test_between_two_stamps_poses_are_interpolated(tf: ModuleType) -> None:
    buffer = tf.Buffer()
    start = Similarity(Rotation.from_rotvec([0, 0, 0.2]).as_matrix(), np.array([1.0, 0, 0]))
    end = Similarity(Rotation.from_rotvec([0, 0, 1.4]).as_matrix(), np.array([3.0, 4, 0]))
    buffer.set_transform(stamped("a", "b", end, 12 * S), "test")
    buffer.set_transform(stamped("a", "b", start, 10 * S), "test")
    found = look_up(buffer, "a", "b", 10 * S + S // 2)
    np.testing.assert_allclose(found.translation, [1.5, 1, 0], atol=1e-9)
    np.testing.assert_allclose(Rotation.from_matrix(found.rotation).as_rotvec(), [0, 0, 0.5], atol=1e-6)


def test_the_shorter_way_round_is_taken(tf: ModuleType) -> None:
    buffer = tf.Buffer()
    first, second = stamped("a", "b", Similarity(), 1 * S), stamped("a", "b", pose_of(0), 2 * S)
    quat_xyzw = -Rotation.from_rotvec([0.4, 0, 0]).as_quat()
    rotation = second.transform.rotation
    rotation.x, rotation.y, rotation.z, rotation.w = quat_xyzw.tolist()
    buffer.set_transform(first, "test")
    buffer.set_transform(second, "test")
    found = look_up(buffer, "a", "b", S + S // 4)
    np.testing.assert_allclose(Rotation.from_matrix(found.rotation).as_rotvec(), [0.1, 0, 0], atol=1e-6)


def test_nothing_is_extrapolated(tf: ModuleType) -> None:
    buffer = tf.Buffer()
    for second in (10, 11):
        buffer.set_transform(stamped("a", "b", pose_of(second), second * S), "test")
    for stamp in (10 * S - 1, 11 * S + 1):
        with pytest.raises(tf.ExtrapolationException, match="extrapolation"):
            look_up(buffer, "a", "b", stamp)
        assert not buffer.can_transform("a", "b", Time(nanoseconds=stamp))
    assert buffer.can_transform("a", "b", Time(nanoseconds=11 * S))


def test_unknown_frames_and_separate_trees_are_told_apart(tf: ModuleType) -> None:
    buffer = tf.Buffer()
    buffer.set_transform_static(stamped("a", "b", pose_of(1), 0), "test")
    buffer.set_transform_static(stamped("x", "y", pose_of(2), 0), "test")
    with pytest.raises(tf.LookupException, match="nowhere"):
        look_up(buffer, "a", "nowhere", 3 * S)
    with pytest.raises(tf.ConnectivityException, match=r"not connected|not part of the same tree"):
        look_up(buffer, "b", "y", 3 * S)
    assert all(
        issubclass(kind, tf.TransformException)
        for kind in (tf.LookupException, tf.ConnectivityException, tf.ExtrapolationException)
    )


def test_time_zero_is_the_newest_that_all_have(tf: ModuleType) -> None:
    buffer = tf.Buffer()
    for second in (1, 2, 3):
        buffer.set_transform(stamped("a", "b", pose_of(second), second * S), "test")
    buffer.set_transform(stamped("b", "c", pose_of(9), 1 * S), "test")
    buffer.set_transform(stamped("b", "c", pose_of(9), 2 * S), "test")
    found = buffer.lookup_transform("a", "c", Time())
    assert Time.from_msg(found.header.stamp).nanoseconds == 2 * S
    assert_same(similarity(found), pose_of(2) @ pose_of(9))


def test_what_is_older_than_ten_seconds_is_forgotten_but_static_is_not(tf: ModuleType) -> None:
    buffer = tf.Buffer()
    buffer.set_transform_static(stamped("world", "a", pose_of(7), 0), "test")
    for second in (100, 105, 111):
        buffer.set_transform(stamped("a", "b", pose_of(second), second * S), "test")
    with pytest.raises(tf.ExtrapolationException):
        look_up(buffer, "a", "b", 100 * S)
    assert_same(look_up(buffer, "world", "b", 105 * S), pose_of(7) @ pose_of(105))
    assert_same(look_up(buffer, "world", "a", 1 * S), pose_of(7))


def test_clearing_forgets_all_that_moves(tf: ModuleType) -> None:
    buffer = tf.Buffer()
    buffer.set_transform_static(stamped("world", "a", pose_of(7), 0), "test")
    buffer.set_transform(stamped("a", "b", pose_of(1), 500 * S), "test")
    buffer.clear()
    assert not buffer.can_transform("a", "b", Time(nanoseconds=500 * S))
    assert_same(look_up(buffer, "world", "a", 3 * S), pose_of(7))
    # After a jump back the old times are the new ones.
    buffer.set_transform(stamped("a", "b", pose_of(2), 3 * S), "test")
    assert_same(look_up(buffer, "a", "b", 3 * S), pose_of(2))


def test_transforms_that_are_none_are_left_out(tf: ModuleType) -> None:
    buffer = tf.Buffer()
    wrong = stamped("a", "b", pose_of(1), S)
    wrong.transform.rotation.x = float("nan")
    buffer.set_transform(wrong, "test")
    buffer.set_transform(stamped("a", "a", pose_of(1), S), "test")
    far = stamped("a", "b", pose_of(1), S)
    far.transform.rotation.w += 3.0
    buffer.set_transform(far, "test")
    assert not buffer.can_transform("a", "b", Time(nanoseconds=S))


@pytest.fixture
def nodes() -> Iterator[tuple[Node, Node, SingleThreadedExecutor]]:
    """Two nodes, of two contexts so that they really talk over the network layer, and the executor of the second."""
    os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
    domain, claim = claim_domain()
    contexts = Context(), Context()
    for context in contexts:
        rclpy.init(context=context, domain_id=domain)
    speaker, hearer = (rclpy.create_node(f"tf_test_{i}", context=context) for i, context in enumerate(contexts))
    executor = SingleThreadedExecutor(context=contexts[1])
    executor.add_node(hearer)
    yield speaker, hearer, executor
    executor.shutdown()
    for node, context in zip((speaker, hearer), contexts, strict=True):
        node.destroy_node()
        rclpy.shutdown(context=context)
    claim.close()


def test_transforms_travel_and_static_ones_reach_late_listeners(
    tf: ModuleType, nodes: tuple[Node, Node, SingleThreadedExecutor]
) -> None:
    speaker, hearer, executor = nodes
    static = tf.StaticTransformBroadcaster(speaker)
    static.sendTransform(stamped("world", "a", pose_of(1), 0))
    static.sendTransform([stamped("world", "c", pose_of(3), 0)])
    moving = tf.TransformBroadcaster(speaker)
    buffer = tf.Buffer()
    listener = tf.TransformListener(buffer, hearer)
    end, stamp = time.monotonic() + PATIENCE_S, 50 * S
    while not buffer.can_transform("world", "b", Time(nanoseconds=stamp)) and time.monotonic() < end:
        moving.sendTransform([stamped("a", "b", pose_of(2), stamp)])
        executor.spin_once(timeout_sec=0.05)
    assert_same(look_up(buffer, "world", "b", stamp), pose_of(1) @ pose_of(2))
    assert_same(look_up(buffer, "world", "c", stamp), pose_of(3))
    for topic in ("/tf", "/tf_static"):
        (publisher,) = hearer.get_publishers_info_by_topic(topic)
        assert publisher.topic_type == "tf2_msgs/msg/TFMessage"
        assert str(publisher.topic_type_hash) == TF_MESSAGE_HASH
    listener.unregister()
    assert hearer.count_subscribers("/tf") == 0 or tf.__name__ == "tf2_ros"


def test_a_lookup_waits_no_longer_than_it_was_told(tf: ModuleType) -> None:
    buffer = tf.Buffer()
    begin = time.monotonic()
    assert not buffer.can_transform("a", "b", Time(nanoseconds=S), Duration(seconds=0.2))
    assert 0.15 < time.monotonic() - begin < 5.0


@pytest.mark.parametrize(
    "ros",
    [False, pytest.param(True, marks=pytest.mark.skipif(TF_TRANSFORMATIONS is None, reason="no tf_transformations"))],
)
def test_quaternions_are_in_the_order_of_ros(ros: bool) -> None:
    quarter_turn = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    half = np.sqrt(0.5)
    np.testing.assert_allclose(quat_xyzw_from_matrix(quarter_turn, use_ros=ros), [0, 0, half, half], atol=1e-12)
    np.testing.assert_allclose(matrix_from_quat_xyzw([0, 0, 2, 2], use_ros=ros), quarter_turn, atol=1e-12)
    for seed in range(20):
        rotation = Rotation.random(random_state=seed).as_matrix()
        quat_xyzw = quat_xyzw_from_matrix(rotation, use_ros=ros)
        assert quat_xyzw[3] >= 0
        np.testing.assert_allclose(matrix_from_quat_xyzw(-quat_xyzw, use_ros=ros), rotation, atol=1e-12)
    for wrong in ([0, 0, 0, 0], [np.nan, 0, 0, 1]):
        with pytest.raises(ValueError, match="no rotation"):
            matrix_from_quat_xyzw(wrong, use_ros=ros)
