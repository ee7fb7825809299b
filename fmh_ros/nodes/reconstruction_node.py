# SPDX-License-Identifier: Apache-2.0
"""The node ``reconstruction_node``: a lifecycle node that puts the parts of this package together."""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Callable, Sequence
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from rcl_interfaces.msg import SetParametersResult
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.clock import JumpThreshold, TimeJump
from rclpy.duration import Duration
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter
from std_msgs.msg import Header

from fmh_ros.core.errors import ClockJumpError, NotActiveError
from fmh_ros.core.frame.frame import Frame
from fmh_ros.core.reconstruction.installed import check_installed
from fmh_ros.core.reconstruction.profile import load_profile, profile_text
from fmh_ros.engines.local import LocalEngine
from fmh_ros.engines.process import ProcessSettings
from fmh_ros.engines.protocol import Engine
from fmh_ros.engines.supervisor import Limits
from fmh_ros.nodes import parameters
from fmh_ros.nodes.continuous import ContinuousMode, ContinuousSettings
from fmh_ros.nodes.diagnostics import Facts, TopicFacts, to_diagnostics
from fmh_ros.nodes.goals import Feedback, GoalServer
from fmh_ros.nodes.input import FrameSource, InputSettings
from fmh_ros.nodes.jobs import JobRunner, JobSettings, Listener
from fmh_ros.nodes.orders import Order, check_profile_and_preset, read_goal
from fmh_ros.nodes.output import Output
from fmh_ros.nodes.results import Entry, Parent, Results
from fmh_ros.nodes.running import run
from fmh_ros.nodes.services import Services
from fmh_ros.nodes.transforms import FrameTree
from fmh_ros.nodes.waiting import Waiter
from fmh_ros.nodes.watching import WatchSettings

NAME = "reconstruction_node"
#: How long deactivation waits for goals to end, seconds.
END_S = 3.0
#: What is still to be sent when a node ends gets this long, seconds.
FAREWELL_S = 0.1


class ReconstructionNode(LifecycleNode):
    """Unconfigured: answers every goal with NOT_ACTIVE. Configured: models are loaded. Active: reconstructs.

    engine : makes the engine; the worker process on this machine when None is given.
    """

    def __init__(self, engine: Callable[[], Engine] | None = None, **kwargs: Any) -> None:
        super().__init__(NAME, **kwargs)
        parameters.declare(self)
        self._make_engine = engine or self._local_engine
        self._problem = ""
        self._active_since: float | None = None
        self._jumps = 0
        self._results = Results()
        self._source = FrameSource(self)
        self._tree = FrameTree(self)
        self._output = Output(self, self._value)
        self._runner = JobRunner(self._source, self._find_parent, self._publish)
        self._continuous = ContinuousMode(
            self, self._runner, self._continuous_settings, self._continuous_order, self._do_order
        )
        self._goals = GoalServer(self, self._do_goal)
        Services(self, self._results, self._clear, lambda: str(self._value("export_root")))
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        group = MutuallyExclusiveCallbackGroup()
        self.create_timer(1.0, self._safely(self._diagnose), callback_group=group)
        self._tf_timer = self.create_timer(
            1.0 / self._value("tf_rate"), self._safely(self._republish), callback_group=MutuallyExclusiveCallbackGroup()
        )
        self.add_on_set_parameters_callback(self._check_parameters)
        self.add_post_set_parameters_callback(self._apply_parameters)
        # Any jump back counts; jumps forward are only time that passed.
        threshold = JumpThreshold(min_forward=None, min_backward=Duration(nanoseconds=-1), on_clock_change=True)
        self._jump_handle = self.get_clock().create_jump_callback(threshold, post_callback=self._clock_jumped)

    def start(self) -> None:
        """Configure and activate; does nothing more after a transition that fails, which the log explains."""
        if self.trigger_configure() == TransitionCallbackReturn.SUCCESS:
            self.trigger_activate()

    # Transitions. rclpy swallows what they raise: see _guarded.

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Create publishers, start the worker, begin to load models; does not wait for them."""
        return self._guarded(super().on_configure, state, self._configure)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Subscribe, and take goals."""
        return self._guarded(super().on_activate, state, self._activate)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """End what runs, and unsubscribe; models stay loaded, results stay available."""
        return self._guarded(super().on_deactivate, state, self._deactivate)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """End the worker, forget results, destroy publishers."""
        return self._guarded(super().on_cleanup, state, self._clean_up)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """The same from whatever state."""
        return self._guarded(super().on_shutdown, state, self._end)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """After a transition failed half-way: go back to unconfigured."""
        return self._guarded(super().on_error, state, self._end)

    def _guarded(
        self,
        inherited: Callable[[LifecycleState], TransitionCallbackReturn],
        state: LifecycleState,
        act: Callable[[], None],
    ) -> TransitionCallbackReturn:
        """Run a transition. What goes wrong is logged with its traceback, undone, and fails the transition."""
        self._problem = ""
        try:
            act()
            return inherited(state)
        except Exception as error:  # noqa: BLE001 - the state machine needs an answer whatever happens
            self._problem = f"{act.__name__.strip('_').capitalize()} failed: {error}"
            self.get_logger().error(f"{self._problem}\n{traceback.format_exc()}")
            self._undo(act)
            return TransitionCallbackReturn.FAILURE

    def _undo(self, act: Callable[[], None]) -> None:
        """Bring things back to where they were before a transition that failed."""
        undo = {"_configure": self._clean_up, "_activate": self._deactivate}.get(act.__name__)
        if undo is None:
            return
        try:
            undo()
        except Exception:  # noqa: BLE001 - as above
            self.get_logger().error(f"Could not be undone:\n{traceback.format_exc()}")

    def _configure(self) -> None:
        profile = self._profile()
        check_profile_and_preset(profile, self._value("preset"))
        # Another interpreter has libraries of its own, which its worker looks for.
        check_installed(load_profile(profile), libraries=not self._value("worker.python"))
        self._output.create()
        engine = self._make_engine()
        engine.start()
        engine.configure(profile)
        self._runner.engine = engine

    def _activate(self) -> None:
        self._follow_fixed_frame(self._value("fixed_frame"))
        self._source.start(
            InputSettings(
                image_transport=self._value("image_transport"),
                depth_transport=self._value("depth_transport"),
                reliability=self._value("image_reliability"),
                camera_info=self._value("use_camera_info"),
                depth=self._value("use_depth"),
                slop_s=self._value("sync_slop"),
            )
        )
        self._active_since = time.monotonic()
        self._continuous.start()

    def _deactivate(self) -> None:
        self._active_since = None
        error = NotActiveError("The node was deactivated before the job ended", change="Activate it and ask again")
        self._continuous.stop()
        self._goals.interrupt_all(lambda: error)
        self._source.stop(error)
        if not self._goals.wait_until_idle(END_S):
            self.get_logger().warning("A goal did not end in time")

    def _clean_up(self) -> None:
        engine, self._runner.engine = self._runner.engine, None
        if engine is not None:
            engine.stop()
        self._output.destroy()
        self._results.clear()

    def _end(self) -> None:
        if self._active_since is not None:
            self._deactivate()
        self._clean_up()

    def end(self) -> None:
        """End everything, from whatever state; clients learn of it while the node is still spun."""
        self._end()
        time.sleep(FAREWELL_S)

    def destroy_node(self) -> None:
        """End everything, and leave the graph."""
        self._end()
        self._goals.destroy()
        super().destroy_node()

    # Jobs

    def _do_goal(self, waiter: Waiter, goal: Any, feedback: Feedback) -> Entry:
        self._require_active()
        order = read_goal(
            goal,
            profile=self._profile(),
            preset=self._value("preset"),
            time_budget_s=self._value("time_budget"),
        )
        return self._do_order(waiter, order, feedback)

    def _do_order(self, waiter: Waiter, order: Order, listener: Listener) -> Entry:
        self._require_active()
        settings = JobSettings(
            queue_size=self._value("queue_size"),
            frame_timeout_s=self._value("frame_timeout"),
            rectified=self._value("image_rectified"),
        )
        return self._runner.run(waiter, order, settings, listener)

    def _require_active(self) -> None:
        if self._active_since is None:
            raise NotActiveError(
                "The node is not active", expected="the lifecycle state active", change="Configure and activate it"
            )

    def _find_parent(self, frame: Frame, waiter: Waiter) -> tuple[Parent, str]:
        return self._tree.find_parent(
            frame,
            waiter,
            self._value("fixed_frame"),
            required=self._value("require_fixed_frame"),
            timeout_s=self._value("tf_timeout"),
        )

    def _publish(self, entry: Entry) -> None:
        self._results.add(entry, self._value("kept_results"))
        if self._value("publish_tf"):
            self._tree.broadcast(entry, self._value("frame_prefix"), first=True)
        self._output.publish(entry)
        self.get_logger().info(
            f"Reconstructed a {entry.result.hand.side} hand and what it holds, score {entry.result.quality.score:.2f}, "
            f"in {entry.result.timings_s.get('total', 0.0):.1f} s"
        )

    def _clear(self) -> bool:
        latest = self._results.latest
        self._output.clear(latest)
        return self._results.clear()

    def _continuous_settings(self) -> ContinuousSettings | None:
        if self._value("mode") != "continuous":
            return None
        return ContinuousSettings(
            rate=self._value("continuous.rate"),
            min_period_s=self._value("continuous.min_period"),
            watch=WatchSettings(
                still_frames=self._value("continuous.still_frames"),
                motion=self._value("continuous.motion"),
                holds=self._value("continuous.holds"),
                retry_s=self._value("continuous.retry"),
            ),
        )

    def _continuous_order(self) -> Order:
        return Order(
            profile=self._profile(),
            preset=self._value("preset"),
            guidance=self._value("continuous.guidance"),
            time_budget_s=self._value("time_budget") or None,
        )

    # Timers and callbacks

    def _safely(self, act: Callable[[], None]) -> Callable[[], None]:
        """Log what a timer's callback raises, which would otherwise end the process."""

        def call() -> None:
            try:
                act()
            except Exception:  # noqa: BLE001 - see above
                self.get_logger().error(f"{act.__name__} failed:\n{traceback.format_exc()}", throttle_duration_sec=10.0)

        return call

    def _republish(self) -> None:
        """Keep the current result's frames alive, and serve who has come to listen since."""
        latest = self._results.latest
        if latest is None or self._active_since is None:
            return
        self._output.serve(latest)
        if self._value("publish_tf") and self._is_current(latest):
            self._tree.broadcast(latest, self._value("frame_prefix"), first=False)

    def _is_current(self, entry: Entry) -> bool:
        lifetime = self._value("result_lifetime")
        return not lifetime or entry.age() <= lifetime

    def _diagnose(self) -> None:
        """Publish the facts, and look for the next ones."""
        header = Header(stamp=self.get_clock().now().to_msg())
        self._diagnostics.publish(to_diagnostics(self.get_fully_qualified_name().lstrip("/"), header, self._facts()))
        if self._active_since is not None:
            self._source.probe()

    def _facts(self) -> Facts:
        latest, counts, engine = self._results.latest, self._runner.counts, self._runner.engine
        topics = {
            kind: TopicFacts(state.topic, self._source.publishers(kind), state.age(), self._source.incompatible(kind))
            for kind, state in self._source.topics.items()
        }
        return Facts(
            state=self._state_machine.current_state[1],
            mode=self._value("mode"),
            since_active_s=0.0 if self._active_since is None else time.monotonic() - self._active_since,
            problem=self._problem,
            engine=None if engine is None else engine.status(),
            topics=topics,
            running=len(self._runner.line),
            queue_size=self._value("queue_size"),
            succeeded=counts.succeeded,
            failed=counts.failed,
            refused=counts.refused,
            last_error=counts.last_error,
            result_id="" if latest is None else latest.made.id,
            result_age_s=None if latest is None else latest.age(),
            tf_parent="" if latest is None else latest.parent.frame_id,
            tf_current=latest is not None and self._is_current(latest) and self._value("publish_tf"),
            continuous=self._continuous.message,
            jumps=self._jumps,
        )

    def _clock_jumped(self, _jump: TimeJump) -> None:
        """A bag began again, or the source of time changed: what has stamps of before means nothing any more."""
        self._jumps += 1
        error = ClockJumpError(
            "Time jumped back while the job ran",
            expected="time that passes",
            change="Ask again; was it a bag's --loop?",
        )
        self._source.clear()
        self._tree.clear()
        self._goals.interrupt_all(lambda: error)
        self._continuous.interrupt(error)
        self._clear()

    def _check_parameters(self, changed: list[Parameter[Any]]) -> SetParametersResult:
        values = {parameter.name: parameter.value for parameter in changed}
        found = parameters.problems(values, active=self._active_since is not None)
        return SetParametersResult(successful=not found, reason="; ".join(found))

    def _apply_parameters(self, changed: list[Parameter[Any]]) -> None:
        for parameter in changed:
            if parameter.name == "tf_rate":
                self._tf_timer.timer_period_ns = round(1e9 / parameter.value)
            elif parameter.name == "sync_slop":
                self._source.set_slop(parameter.value)
            elif parameter.name == "fixed_frame" and self._active_since is not None:
                self._follow_fixed_frame(parameter.value)

    def _follow_fixed_frame(self, fixed_frame: str) -> None:
        """Listen to TF only where somebody wants to know it: a robot's TF is a lot to read."""
        if fixed_frame:
            self._tree.start()

    def _profile(self) -> str:
        return profile_text(self._value("profile"), self._value("stages"))

    def _value(self, name: str) -> Any:
        return self.get_parameter(name).value

    def _local_engine(self) -> Engine:
        megabytes = self._value("worker.memory_limit")
        process = ProcessSettings(
            python=self._value("worker.python") or sys.executable,
            memory_limit_bytes=megabytes * 2**20 if megabytes else None,
        )
        limits = Limits(load_s=self._value("worker.load_timeout"), stall_s=self._value("worker.stall_timeout"))
        return LocalEngine(process, limits)


def main(args: Sequence[str] | None = None) -> int:
    """Run the node until SIGINT or SIGTERM, and end its worker with it."""
    return run(ReconstructionNode, args)


if __name__ == "__main__":
    sys.exit(main())
