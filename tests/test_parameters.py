# SPDX-License-Identifier: Apache-2.0
"""The table of parameters, without ROS."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from fmh_ros.nodes import parameters
from fmh_ros.nodes.parameters import BY_NAME, CONFIGURATIONS, TABLE, Change, Parameter

ROOT = Path(__file__).parents[1]


def flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    result: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            result |= flat(value, f"{prefix}{name}.")
        else:
            result[prefix + name] = value
    return result


def test_every_default_is_allowed_by_its_own_row() -> None:
    assert len(BY_NAME) == len(TABLE)
    for row in TABLE:
        assert row.problem(row.default) == "", row.name
        assert row.description.endswith("."), row.name
        assert isinstance(row.default, str) or not row.choices
        assert row.bounds is None or not isinstance(row.default, (bool, str))


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("mode", "sometimes", "on_request, continuous"),
        ("queue_size", 9, "0 to 8"),
        ("queue_size", -1, "0 to 8"),
        ("queue_size", 2.0, "integer"),
        ("queue_size", True, "integer"),
        ("sync_slop", float("nan"), "finite"),
        ("sync_slop", float("inf"), "finite"),
        ("sync_slop", 1, "double"),
        ("sync_slop", 1.5, "0 to 1 s"),
        ("use_depth", 1, "bool"),
        ("fixed_frame", None, "string"),
        ("profile", "", "embedded"),
        ("profile", "embedded,generator=none", "triposg"),
        ("stages", "generator=embedded", "string array"),
        ("stages", ["generator=embedded", 3], "string array"),
    ],
)
def test_a_bad_value_is_refused_with_its_name_and_what_was_expected(name: str, value: object, words: str) -> None:
    (problem,) = parameters.problems({name: value}, active=False)
    assert name in problem and words in problem


def test_what_needs_new_subscriptions_or_a_new_worker_cannot_change_while_active() -> None:
    held = [row for row in TABLE if row.change is Change.INACTIVE]
    assert {"image_transport", "use_depth", "worker.python"} <= {row.name for row in held}
    for row in held:
        assert parameters.problems({row.name: row.default}, active=False) == []
        (problem,) = parameters.problems({row.name: row.default}, active=True)
        assert "deactivate" in problem
    assert parameters.problems({"mode": "continuous", "someone_elses": 3}, active=True) == []


@pytest.mark.parametrize("path", sorted(parameters.generated_files()))
def test_committed_files_are_what_the_table_writes(path: str) -> None:
    assert (ROOT / path).read_text() == parameters.generated_files()[path], "run: python -m fmh_ros.nodes.parameters"


@pytest.mark.parametrize("name", sorted(CONFIGURATIONS))
def test_yaml_files_give_every_parameter_an_allowed_value_of_its_type(name: str) -> None:
    loaded = yaml.safe_load(parameters.to_yaml(name))
    values = flat(loaded["/**"]["ros__parameters"])
    assert set(values) == set(BY_NAME)
    assert parameters.problems(values, active=False) == []
    changed = CONFIGURATIONS[name][1]
    wanted = {row.name: changed.get(row.name, row.default) for row in TABLE}
    assert values == {name: list(value) if isinstance(value, tuple) else value for name, value in wanted.items()}


def test_markdown_has_a_row_for_each_parameter() -> None:
    text = parameters.to_markdown()
    assert all(f"| `{row.name}` | {row.type_name} |" in text for row in TABLE)


def test_a_row_says_its_type_from_its_default() -> None:
    assert [Parameter("x", value, "X.").type_name for value in (True, 1, 1.0, "a")] == [
        "bool",
        "integer",
        "double",
        "string",
    ]


def test_the_table_imports_without_ros_and_without_torch() -> None:
    code = "import sys\nfor n in ('rclpy', 'rcl_interfaces', 'torch'): sys.modules[n] = None\n"
    code += "from fmh_ros.nodes.parameters import TABLE, to_markdown; to_markdown()"
    subprocess.run([sys.executable, "-c", code], check=True)
