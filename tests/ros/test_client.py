# SPDX-License-Identifier: Apache-2.0
"""``fmh_ros.client`` against the real node in a process of its own; only the node's engine is scripted."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed")
pytest.importorskip("follow_my_hold.action", reason="the messages are not built")

import rclpy
from follow_my_hold.action import Reconstruct
from ros_world import FRAME, Camera, World, camera_info, make_image, to_ns, to_time

from fmh_ros.client import Reconstructor, error_from_code
from fmh_ros.core.errors import (
    BusyError,
    CancelledError,
    EncodingError,
    FmhError,
    NoHandError,
    NoImageError,
    NotActiveError,
    UnexpectedError,
    UsageError,
)


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with World() as made:
        made.start(job_s=1.5, frame_timeout=1.0)
        made.wait_until_active()
        yield made


@pytest.fixture(scope="module")
def client(world: World) -> Iterator[Reconstructor]:
    with Reconstructor(domain_id=world.domain) as made:  # with a node of its own
        yield made


def image_fields(number: int = 5) -> dict[str, Any]:
    image, info = make_image(np.full((240, 320, 3), 90, np.uint8), "rgb8"), camera_info()
    image.header.stamp = info.header.stamp = to_time(number)
    return {"image": image, "camera_info": info}


def test_a_result_comes_with_feedback_on_the_way(client: Reconstructor) -> None:
    client.reconstruct(**image_fields(7), side="right", seed=12, guidance=False, timeout_s=60)
    assert not client.is_done()
    with pytest.raises(BusyError):
        client.reconstruct()
    with pytest.raises(TimeoutError):
        client.result(timeout_s=0.01)
    deadline = time.monotonic() + 60
    while client.feedback() is None or client.feedback().stage != "flow":
        assert time.monotonic() < deadline
        client.is_done(0.02)
    result = client.result(timeout_s=60)
    assert client.is_done() and result.header.frame_id == FRAME and to_ns(result.header.stamp) == 7
    assert result.provenance.seed == 12 and not result.provenance.guidance and len(result.object.vertices) > 300
    assert client.result() is result  # as often as one likes


def test_the_next_frame_is_taken_when_no_image_is_given(world: World, client: Reconstructor) -> None:
    with Camera(world):
        began = time.time_ns()
        client.reconstruct(timeout_s=60)
        assert to_ns(client.result(timeout_s=60).header.stamp) >= began - 10**9


def test_cancel_ends_the_job_within_a_second(client: Reconstructor) -> None:
    assert not client.cancel()
    client.reconstruct(**image_fields(), timeout_s=60)
    deadline = time.monotonic() + 60
    while client.feedback() is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert client.cancel()
    with pytest.raises(CancelledError):
        client.result(timeout_s=5)


def test_a_cancel_before_the_node_has_answered_counts() -> None:
    with World() as world:
        world.start(job_s=60)  # no machine is so slow that the result comes before the cancel
        world.wait_until_active()
        with Reconstructor(domain_id=world.domain) as client:
            client.reconstruct(**image_fields(), timeout_s=60)
            client.cancel()
            with pytest.raises(CancelledError):
                client.result(timeout_s=60)


def test_the_node_s_error_codes_become_its_typed_errors(client: Reconstructor) -> None:
    fields = image_fields()
    fields["image"].encoding = "32FC1"
    client.reconstruct(**fields, timeout_s=60)
    with pytest.raises(EncodingError, match="32FC1"):
        client.result(timeout_s=60)
    client.reconstruct(timeout_s=60)  # no camera publishes
    with pytest.raises(NoImageError):
        client.result(timeout_s=60)


def test_an_existing_node_can_be_used(world: World) -> None:
    client = Reconstructor(world.node)
    client.reconstruct(**image_fields(9), timeout_s=60)
    assert to_ns(client.result(timeout_s=60).header.stamp) == 9
    client.close()
    assert world.state() == "active" and world.node.get_name() == "world"  # the node is not ours to destroy


def test_nobody_there_is_told_at_once() -> None:
    with Reconstructor(action="/nobody/reconstruct") as client:
        with pytest.raises(UsageError):
            client.result()
        with pytest.raises(NotActiveError, match="/nobody/reconstruct"):
            client.reconstruct(timeout_s=0.1)
        with pytest.raises(NotActiveError):
            client.reconstruct(timeout_s=0.1)  # and not that it is busy


@pytest.mark.parametrize(
    "wrong",
    [{"side": "both"}, {"colour": 3}, {"camera_info": camera_info()}, {"seed": -1}, {"seed": "x"}],
)
def test_goals_that_cannot_be_are_refused_here(wrong: dict[str, Any]) -> None:
    with Reconstructor(action="/nobody/reconstruct") as client, pytest.raises(UsageError):
        client.reconstruct(**wrong)


def test_every_error_code_of_the_action_has_its_class() -> None:
    members = {name: getattr(Reconstruct.Result, name) for name in dir(Reconstruct.Result) if name.isupper()}
    codes = {name: value for name, value in members.items() if isinstance(value, int)}
    assert len(codes) > 30
    for name, code in codes.items():
        if name not in ("NONE", "UNEXPECTED"):
            error = error_from_code(code, "told")
            assert type(error) is not UnexpectedError and error.code == code and "told" in str(error), name
    assert type(error_from_code(20, "x")) is NoHandError
    assert type(error_from_code(9999, "x")) is UnexpectedError and issubclass(UnexpectedError, FmhError)


def test_an_executor_that_sees_the_client_before_it_is_made_can_read_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = rclpy.create_node("spun_by_the_program", context=world.context)
    seen: list[dict[str, Any]] = []
    add_waitable = node.add_waitable

    def take_at_once(waitable: Any) -> None:
        for kind in ("goal_response", "cancel_response", "result_response", "feedback", "status"):
            setattr(waitable, f"_is_{kind}_ready", True)
        seen.append(waitable.take_data())
        add_waitable(waitable)

    monkeypatch.setattr(node, "add_waitable", take_at_once)
    made = Reconstructor(node, action=f"/{world.name}/reconstruct")
    made.close()
    node.destroy_node()
    assert seen == [{}]
