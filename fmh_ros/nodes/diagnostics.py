# SPDX-License-Identifier: Apache-2.0
"""What is happening, and when nothing comes out, why: pure functions from facts to diagnostic_msgs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from std_msgs.msg import Header

from fmh_ros.core.errors import FmhError
from fmh_ros.engines.types import EngineState, EngineStatus
from fmh_ros.nodes.input import IMAGE, SHARED_MEMORY_HINT

OK, WARN, ERROR, STALE = (bytes([level]) for level in range(4))
#: Images that came this long ago have stopped, seconds.
SILENT_S = 3.0
_NOT_ACTIVE = {
    "unconfigured": "Not configured: call its change_state service with configure, or set autostart",
    "inactive": "Not active: call its change_state service with activate; goals are answered with NOT_ACTIVE",
    "finalized": "Shut down",
}


@dataclass(frozen=True)
class TopicFacts:
    """One input topic. ``age_s`` : since its last message that was looked at, None for never."""

    topic: str
    publishers: int
    age_s: float | None
    incompatible: str


@dataclass(frozen=True)
class Facts:
    """What the node knows of itself.

    state : lifecycle state; since_active_s : since activation; problem : why it could not configure, empty for none.
    """

    state: str
    mode: str
    since_active_s: float
    problem: str
    engine: EngineStatus | None
    topics: Mapping[str, TopicFacts]
    running: int
    queue_size: int
    succeeded: int
    failed: int
    refused: int
    last_error: FmhError | None
    result_id: str
    result_age_s: float | None
    tf_parent: str
    tf_current: bool
    continuous: str
    jumps: int


def to_diagnostics(name: str, header: Header, facts: Facts) -> DiagnosticArray:
    """Return four statuses: node, input, worker and output, each with one sentence and its numbers."""
    statuses = [
        _status(f"{name}: node", *_node(facts), {"state": facts.state, "mode": facts.mode, "clock_jumps": facts.jumps}),
        _status(f"{name}: input", *_input(facts), _topic_values(facts)),
        _status(f"{name}: worker", *_worker(facts), _worker_values(facts.engine)),
        _status(f"{name}: output", *_output(facts), _output_values(facts)),
    ]
    return DiagnosticArray(header=header, status=statuses)


def _node(facts: Facts) -> tuple[bytes, str]:
    if facts.problem:
        return ERROR, facts.problem
    if facts.state in _NOT_ACTIVE:
        return WARN, _NOT_ACTIVE[facts.state]
    if facts.running:
        return OK, f"{facts.running} job(s) running or waiting"
    return OK, facts.continuous if facts.mode == "continuous" else "Waits for a Reconstruct goal"


def _input(facts: Facts) -> tuple[bytes, str]:
    if facts.state != "active":
        return OK, "Not subscribed while the node is not active"
    for kind, topic in facts.topics.items():
        if topic.incompatible:
            return ERROR, f"{topic.topic}: a publisher's QoS does not match: {topic.incompatible}"
        if topic.publishers == 0:
            level = WARN if topic.age_s is None else ERROR
            return level, f"Nobody publishes {topic.topic}: start the camera, or remap the topic {kind}"
        silent = topic.age_s is None or topic.age_s > SILENT_S
        if silent and facts.since_active_s > SILENT_S:
            hint = f" {SHARED_MEMORY_HINT}." if kind == IMAGE and topic.age_s is None else ""
            when = "no message arrived" if topic.age_s is None else f"the last message came {topic.age_s:.0f} s ago"
            return ERROR, f"{topic.topic} has {topic.publishers} publisher(s), but {when}.{hint}"
    return OK, "Messages arrive on " + ", ".join(topic.topic for topic in facts.topics.values())


def _worker(facts: Facts) -> tuple[bytes, str]:
    engine = facts.engine
    if engine is None or engine.state is EngineState.STOPPED:
        return OK, "No worker process while the node is not configured"
    error = "" if engine.last_error is None else f" Last error: {engine.last_error}"
    if engine.state is EngineState.RECOVERING:
        return ERROR, f"The worker process is being replaced.{error}"
    if engine.state in (EngineState.STARTING, EngineState.LOADING):
        return WARN, f"Models are being loaded; goals wait for that.{error}"
    if not engine.profile:
        return (ERROR if error else OK), f"No models are loaded.{error}"
    if engine.state is EngineState.BUSY and engine.progress is not None:
        return OK, f"Works: {engine.progress.stage} {engine.progress.phase} {100 * engine.progress.fraction:.0f} %"
    return OK, f"Ready with the profile {engine.profile}"


def _output(facts: Facts) -> tuple[bytes, str]:
    if facts.last_error is not None:
        return WARN, f"The last job failed ({type(facts.last_error).__name__}): {facts.last_error}"
    if facts.result_age_s is None:
        return OK, "No reconstruction yet"
    current = f"its frames are published under {facts.tf_parent}" if facts.tf_current else "its frames have expired"
    return OK, f"Latest reconstruction {facts.result_id} is {facts.result_age_s:.0f} s old, {current}"


def _topic_values(facts: Facts) -> dict[str, object]:
    values: dict[str, object] = {}
    for kind, topic in facts.topics.items():
        values[f"{kind}_topic"] = topic.topic
        values[f"{kind}_publishers"] = topic.publishers
        values[f"{kind}_age_s"] = "never" if topic.age_s is None else f"{topic.age_s:.2f}"
    return values


def _worker_values(engine: EngineStatus | None) -> dict[str, object]:
    if engine is None:
        return {}
    age = engine.heartbeat_age_s
    return {
        "state": engine.state.value,
        "profile": engine.profile,
        "pid": engine.pid or "none",
        "restarts": engine.restarts,
        "memory_MiB": engine.memory_bytes // 2**20,
        "heartbeat_age_s": "none" if age is None else f"{age:.2f}",
        "last_error": "" if engine.last_error is None else str(engine.last_error),
    }


def _output_values(facts: Facts) -> dict[str, object]:
    error = facts.last_error
    return {
        "jobs_running": facts.running,
        "queue_size": facts.queue_size,
        "succeeded": facts.succeeded,
        "failed": facts.failed,
        "refused_busy": facts.refused,
        "last_error_code": 0 if error is None else error.code,
        "latest_id": facts.result_id,
        "latest_age_s": "none" if facts.result_age_s is None else f"{facts.result_age_s:.1f}",
    }


def _status(name: str, level: bytes, message: str, values: Mapping[str, object]) -> DiagnosticStatus:
    return DiagnosticStatus(
        level=level,
        name=name,
        message=message,
        hardware_id="follow_my_hold",
        values=[KeyValue(key=key, value=str(value)) for key, value in values.items()],
    )
