# SPDX-License-Identifier: Apache-2.0
"""The node's states: up and down again and again, faults in transitions, a process that is told to configure."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="ROS 2 is not installed here")
pytest.importorskip("follow_my_hold.msg", reason="the interfaces are not built here")

from action_msgs.msg import GoalStatus
from diagnostic_msgs.msg import DiagnosticStatus
from follow_my_hold.action import Reconstruct
from lifecycle_msgs.msg import Transition
from rcl_interfaces.msg import ParameterType, ParameterValue
from ros_world import Camera, World, children, stop_process, wait_for_status

UP_AND_DOWN = (
    Transition.TRANSITION_CONFIGURE,
    Transition.TRANSITION_ACTIVATE,
    Transition.TRANSITION_DEACTIVATE,
    Transition.TRANSITION_CLEANUP,
)


def resources(pid: int) -> tuple[int, int, int]:
    """Resident memory in KiB, open files and threads of a process."""
    status = Path(f"/proc/{pid}/status").read_text()
    fields = dict(line.split(":", 1) for line in status.splitlines())
    files = len(list(Path(f"/proc/{pid}/fd").iterdir()))
    return int(fields["VmRSS"].split()[0]), files, int(fields["Threads"])


def test_up_and_down_100_times_leaks_nothing_and_the_node_still_works() -> None:
    with World() as world, Camera(world):
        process = world.start(autostart=False)
        samples = []
        for _ in range(100):
            assert all(world.change_state(step) for step in UP_AND_DOWN)
            samples.append(resources(process.pid))
        # Executors start the threads of their pools when they are first needed, fourteen in all.
        memory, files, threads = np.min(samples[-10:], axis=0) - np.min(samples[5:15], axis=0)
        assert files <= 2 and threads <= 14, f"{files} more open files and {threads} more threads after 85 times"
        assert memory < 20_000, f"{memory / 85:.0f} KiB are lost each time"
        assert all(world.change_state(step) for step in UP_AND_DOWN[:2])
        assert world.goal().result.error_code == 0
        assert "Traceback" not in world.log()
        assert stop_process(process) == 0


def test_the_worker_process_lives_from_configure_to_cleanup() -> None:
    with World() as world:
        process = world.start(scripted=False, autostart=False)
        assert world.state() == "unconfigured" and not children(process.pid)
        for _ in range(2):
            assert world.change_state(Transition.TRANSITION_CONFIGURE)
            world.wait_for(lambda: len(children(process.pid)) == 1)
            assert world.change_state(Transition.TRANSITION_ACTIVATE)
            assert world.change_state(Transition.TRANSITION_DEACTIVATE)
            assert len(children(process.pid)) == 1
            assert world.change_state(Transition.TRANSITION_CLEANUP)
            assert not children(process.pid)
        assert world.change_state(Transition.TRANSITION_UNCONFIGURED_SHUTDOWN)
        assert world.state() == "finalized"
        assert stop_process(process) == 0


@pytest.mark.parametrize(("fault", "state"), [("configure", "unconfigured"), ("activate", "inactive")])
def test_a_fault_in_a_transition_is_logged_with_its_traceback_and_fails_it(fault: str, state: str) -> None:
    with World() as world:
        process = world.start(autostart=True, environment={"FMH_TEST_FAULT": fault})
        failed = f"{fault.capitalize()} failed"
        wait_for_status(world, "node", lambda s: s.level == DiagnosticStatus.ERROR and failed in s.message)
        world.wait_for(lambda: "Traceback (most recent call last)" in world.log() and failed in world.log())
        world.wait_for(lambda: world.state() == state)
        transition = Transition.TRANSITION_CONFIGURE if fault == "configure" else Transition.TRANSITION_ACTIVATE
        assert not world.change_state(transition)
        assert world.state() == state and process.poll() is None
        ending = world.goal()
        assert ending.status == GoalStatus.STATUS_ABORTED
        assert ending.result.error_code == Reconstruct.Result.NOT_ACTIVE


def test_what_needs_new_subscriptions_can_change_while_inactive() -> None:
    with World() as world, Camera(world):
        world.start()
        world.wait_until_active()
        assert world.change_state(Transition.TRANSITION_DEACTIVATE)
        value = ParameterValue(type=ParameterType.PARAMETER_STRING, string_value="reliable")
        assert world.set_parameter("image_reliability", value).successful
        assert world.change_state(Transition.TRANSITION_ACTIVATE)
        # The camera is best effort: that the change took effect shows in what no longer arrives.
        assert world.goal().result.error_code == Reconstruct.Result.NO_IMAGE


def test_a_bad_parameter_at_start_is_named_and_nothing_runs() -> None:
    with World() as world:
        process = world.start(queue_size=99)
        assert process.wait(60) != 0
        assert "queue_size" in world.log()


def test_missing_weights_fail_configure_with_the_command_to_run(tmp_path: Path) -> None:
    with World() as world:
        environment = {"FMH_MODELS": str(tmp_path)}
        stages = "[generator=triposg]"
        process = world.start(scripted=False, autostart=False, environment=environment, stages=stages)
        assert not world.change_state(Transition.TRANSITION_CONFIGURE)
        assert world.state() == "unconfigured" and not children(process.pid)
        assert "Run: fmh models pull embedded,generator=triposg" in world.log()
        value = ParameterValue(type=ParameterType.PARAMETER_STRING_ARRAY, string_array_value=[""])
        assert world.set_parameter("stages", value).successful
        assert world.change_state(Transition.TRANSITION_CONFIGURE)
        assert stop_process(process) == 0
