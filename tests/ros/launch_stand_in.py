# SPDX-License-Identifier: Apache-2.0
"""A stand-in for ROS's launch library, for machines that do not have it. It is not ``ros2 launch``.

``python launch_stand_in.py FILE [name:=value ...]`` runs a launch file until every process has ended or SIGINT comes.
It knows only the names and arguments that this package's launch files use, and is strict where the real library is
lenient: unknown names, arguments and parameters, values outside the choices, missing programs and files are errors.
Processes are started with the command line that the real library starts them with.
"""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import yaml
from ament_index_python.packages import get_package_prefix, get_package_share_directory

GRACE_S = 10.0


class StandInError(Exception):
    """Something that a launch file or its caller should not do."""


@dataclass
class LaunchContext:
    """What is known while a description is carried out."""

    launch_configurations: dict[str, str]
    environment: dict[str, str]
    folder: Path
    processes: list[Process] = field(default_factory=list)


@dataclass(frozen=True)
class Process:
    """A process to start. ``cmd`` : the command line; ``environment`` : all of its variables."""

    cmd: tuple[str, ...]
    environment: Mapping[str, str]


class Substitution:
    """Something that becomes a text."""

    def perform(self, context: LaunchContext) -> str:
        raise NotImplementedError(f"{type(self).__name__} does not say which text it becomes")


def text_of(context: LaunchContext, value: Any) -> str:
    """A text, a substitution, or several in a row, as one text."""
    if isinstance(value, str):
        return value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Substitution):
        return value.perform(context)
    if isinstance(value, (list, tuple)) and value:
        return "".join(text_of(context, part) for part in value)
    raise StandInError(f"{value!r} is neither a text nor a substitution")


def truth_of(text: str) -> bool:
    if text.lower() not in ("true", "1", "false", "0"):
        raise StandInError(f"{text!r} is not true or false")
    return text.lower() in ("true", "1")


class LaunchConfiguration(Substitution):
    def __init__(self, variable_name: str) -> None:
        self.name = variable_name

    def perform(self, context: LaunchContext) -> str:
        if self.name not in context.launch_configurations:
            raise StandInError(f"launch configuration {self.name!r} does not exist")
        return context.launch_configurations[self.name]


class PathJoinSubstitution(Substitution):
    def __init__(self, substitutions: Sequence[Any]) -> None:
        self.parts = list(substitutions)

    def perform(self, context: LaunchContext) -> str:
        return str(Path(*(text_of(context, part) for part in self.parts)))


class FindPackageShare(Substitution):
    def __init__(self, package: Any) -> None:
        self.package = package

    def perform(self, context: LaunchContext) -> str:
        return str(get_package_share_directory(text_of(context, self.package)))


class FindPackagePrefix(Substitution):
    def __init__(self, package: Any) -> None:
        self.package = package

    def perform(self, context: LaunchContext) -> str:
        return str(get_package_prefix(text_of(context, self.package)))


class IfCondition:
    def __init__(self, predicate_expression: Any) -> None:
        self.predicate = predicate_expression

    def evaluate(self, context: LaunchContext) -> bool:
        return truth_of(text_of(context, self.predicate))


class ParameterValue:
    def __init__(self, value: Any, *, value_type: type) -> None:
        if value_type not in (bool, int, float, str):
            raise StandInError(f"{value_type} is no type of a parameter")
        self.value, self.value_type = value, value_type

    def evaluate(self, context: LaunchContext) -> Any:
        text = text_of(context, self.value)
        try:
            return truth_of(text) if self.value_type is bool else self.value_type(text)
        except ValueError as error:
            raise StandInError(f"{text!r} is no {self.value_type.__name__}") from error


class Action:
    """Something that is carried out, unless its condition says no."""

    condition: IfCondition | None = None

    def visit(self, context: LaunchContext) -> None:
        if self.condition is None or self.condition.evaluate(context):
            self.execute(context)

    def execute(self, context: LaunchContext) -> None:
        raise NotImplementedError(f"{type(self).__name__} does not say what it does")


class LaunchDescription:
    def __init__(self, initial_entities: Sequence[Action]) -> None:
        for entity in initial_entities:
            if not isinstance(entity, Action):
                raise StandInError(f"{entity!r} is no action")
        self.entities = list(initial_entities)

    def declared(self) -> dict[str, DeclareLaunchArgument]:
        return {entity.name: entity for entity in self.entities if isinstance(entity, DeclareLaunchArgument)}

    def visit(self, context: LaunchContext) -> None:
        for entity in self.entities:
            entity.visit(context)


class DeclareLaunchArgument(Action):
    def __init__(
        self, name: str, *, default_value: Any = None, description: str, choices: Sequence[str] | None = None
    ) -> None:
        if not description:
            raise StandInError(f"the argument {name} has no description")
        self.name, self.default_value, self.description, self.choices = name, default_value, description, choices

    def execute(self, context: LaunchContext) -> None:
        known = context.launch_configurations
        if self.name not in known:
            if self.default_value is None:
                raise StandInError(f"the argument {self.name} is required")
            known[self.name] = text_of(context, self.default_value)
        if self.choices is not None and known[self.name] not in self.choices:
            raise StandInError(f"the argument {self.name} is {known[self.name]!r}, not one of {list(self.choices)}")


class SetEnvironmentVariable(Action):
    def __init__(self, name: Any, value: Any) -> None:
        self.name, self.value = name, value

    def execute(self, context: LaunchContext) -> None:
        context.environment[text_of(context, self.name)] = text_of(context, self.value)


class OpaqueFunction(Action):
    def __init__(self, *, function: Callable[[LaunchContext], Sequence[Action] | None]) -> None:
        self.function = function

    def execute(self, context: LaunchContext) -> None:
        for entity in LaunchDescription(self.function(context) or []).entities:
            entity.visit(context)


class PythonLaunchDescriptionSource:
    def __init__(self, launch_file_path: Any) -> None:
        self.path = launch_file_path


class IncludeLaunchDescription(Action):
    def __init__(
        self,
        launch_description_source: PythonLaunchDescriptionSource,
        *,
        launch_arguments: Sequence[tuple[Any, Any]] = (),
    ) -> None:
        self.source, self.arguments = launch_description_source, launch_arguments

    def execute(self, context: LaunchContext) -> None:
        description = load(Path(text_of(context, self.source.path)))
        given = {text_of(context, name): text_of(context, value) for name, value in self.arguments}
        check_arguments(description, given)
        context.launch_configurations.update(given)
        description.visit(context)


class ExecuteProcess(Action):
    def __init__(self, *, cmd: Sequence[Any], output: str) -> None:
        self.cmd, self.output = cmd, checked_output(output)

    def execute(self, context: LaunchContext) -> None:
        cmd = [text_of(context, part) for part in self.cmd]
        check_program(Path(cmd[0]))
        context.processes.append(Process(tuple(cmd), dict(context.environment)))


class Node(Action):
    def __init__(
        self,
        *,
        package: Any,
        executable: Any,
        name: Any,
        namespace: Any = None,
        output: str = "log",
        parameters: Sequence[Any] = (),
        remappings: Sequence[tuple[Any, Any]] = (),
        arguments: Sequence[Any] = (),
        ros_arguments: Sequence[Any] = (),
        condition: IfCondition | None = None,
    ) -> None:
        self.package, self.executable, self.name, self.namespace = package, executable, name, namespace
        self.parameters, self.remappings = parameters, remappings
        self.arguments, self.ros_arguments = arguments, ros_arguments
        self.output, self.condition = checked_output(output), condition

    def execute(self, context: LaunchContext) -> None:
        package, executable = text_of(context, self.package), text_of(context, self.executable)
        program = Path(get_package_prefix(package)) / "lib" / package / executable
        check_program(program)
        cmd = [str(program), *(text_of(context, part) for part in self.arguments), "--ros-args"]
        cmd += [text_of(context, part) for part in self.ros_arguments]
        cmd += ["-r", f"__node:={text_of(context, self.name)}"]
        if self.namespace is not None:
            cmd += ["-r", "__ns:=/" + text_of(context, self.namespace).lstrip("/")]
        for given in self.parameters:
            cmd += ["--params-file", str(self._parameter_file(context, given, executable))]
        for source, target in self.remappings:
            cmd += ["-r", f"{text_of(context, source)}:={text_of(context, target)}"]
        context.processes.append(Process(tuple(cmd), dict(context.environment)))

    def _parameter_file(self, context: LaunchContext, given: Any, executable: str) -> Path:
        if not isinstance(given, dict):
            path = Path(text_of(context, given))
            if not path.is_file():
                raise StandInError(f"the parameter file {path} does not exist")
            check_parameters(yaml.safe_load(path.read_text()), executable, str(path))
            return path
        values = {name: plain(context, value) for name, value in given.items()}
        content = {"/**": {"ros__parameters": values}}
        check_parameters(content, executable, "the launch file")
        path = context.folder / f"launch_params_{len(list(context.folder.iterdir()))}"
        path.write_text(yaml.safe_dump(content))
        return path


def plain(context: LaunchContext, value: Any) -> Any:
    """The value of a parameter. Texts must say that they are: the real library reads others as YAML."""
    if isinstance(value, ParameterValue):
        return value.evaluate(context)
    if isinstance(value, (bool, int, float)):
        return value
    raise StandInError(f"the parameter value {value!r} needs ParameterValue with a value_type")


def check_parameters(content: Any, executable: str, where: str) -> None:
    """Refuse files without parameters, and values that the node's table refuses."""
    from fmh_ros.nodes.parameters import BY_NAME

    if not isinstance(content, dict) or not content:
        raise StandInError(f"{where} holds no parameters")
    for node, groups in content.items():
        if not isinstance(groups, dict) or not isinstance(groups.get("ros__parameters"), dict):
            raise StandInError(f"{where} has no ros__parameters for {node}")
        if not groups["ros__parameters"]:
            raise StandInError(f"{where} has empty ros__parameters for {node}")
        if executable != "reconstruction_node":
            continue
        for name, value in flattened(groups["ros__parameters"]):
            if name == "use_sim_time" or name.startswith("qos_overrides."):
                continue
            problem = BY_NAME[name].problem(value) if name in BY_NAME else f"there is no parameter {name}"
            if problem:
                raise StandInError(f"{where}: {problem}")


def flattened(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from flattened(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def checked_output(output: str) -> str:
    if output not in ("screen", "log", "both"):
        raise StandInError(f"output is {output!r}, not screen, log or both")
    return output


def check_program(program: Path) -> None:
    if not (program.is_file() and os.access(program, os.X_OK)):
        raise StandInError(f"the program {program} does not exist or cannot be executed")


def check_arguments(description: LaunchDescription, given: Mapping[str, str]) -> None:
    unknown = sorted(set(given) - set(description.declared()))
    if unknown:
        raise StandInError(f"there is no argument {', '.join(unknown)}; known are {sorted(description.declared())}")


MODULES: dict[str, tuple[type, ...]] = {
    "launch": (LaunchContext, LaunchDescription),
    "launch.actions": (
        DeclareLaunchArgument,
        ExecuteProcess,
        IncludeLaunchDescription,
        OpaqueFunction,
        SetEnvironmentVariable,
    ),
    "launch.conditions": (IfCondition,),
    "launch.launch_description_sources": (PythonLaunchDescriptionSource,),
    "launch.substitutions": (LaunchConfiguration, PathJoinSubstitution),
    "launch_ros": (),
    "launch_ros.actions": (Node,),
    "launch_ros.parameter_descriptions": (ParameterValue,),
    "launch_ros.substitutions": (FindPackagePrefix, FindPackageShare),
}


@contextmanager
def standing_in() -> Iterator[None]:
    """Let launch files import what is here in place of the real library, and nothing else of it."""
    if importlib.util.find_spec("launch_ros") is not None:
        raise StandInError("the real launch library is installed: use it")
    before = {name: sys.modules.get(name) for name in MODULES}
    for name, classes in MODULES.items():
        module = ModuleType(name)
        module.__path__ = []  # a package, of which nothing can be imported that is not in the table
        for known in classes:
            setattr(module, known.__name__, known)
        sys.modules[name] = module
    try:
        yield
    finally:
        for name, module_before in before.items():
            del sys.modules[name]
            if module_before is not None:
                sys.modules[name] = module_before


def load(path: Path) -> LaunchDescription:
    """Evaluate a launch file; inside ``standing_in`` only."""
    if not path.is_file():
        raise StandInError(f"the launch file {path} does not exist")
    spec = importlib.util.spec_from_file_location(path.name.replace(".", "_"), path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    description = module.generate_launch_description()
    if not isinstance(description, LaunchDescription):
        raise StandInError(f"{path} returns {description!r}")
    return description


def plan(path: Path, arguments: Mapping[str, str], folder: Path) -> list[Process]:
    """Return the processes that a launch file starts, in order; ``folder`` takes their parameter files.

    Raises StandInError, or whatever the launch file raises.
    """
    with standing_in():
        description = load(path)
        check_arguments(description, arguments)
        context = LaunchContext(dict(arguments), dict(os.environ), folder)
        description.visit(context)
    return context.processes


def run(processes: Sequence[Process]) -> int:
    """Start the processes and wait for them; SIGINT and SIGTERM are passed on. Return the first code that is not 0."""
    children: list[subprocess.Popen[bytes]] = []

    def stop(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)
    try:
        for process in processes:
            print("launch stand-in:", *process.cmd, file=sys.stderr, flush=True)
            children.append(subprocess.Popen(process.cmd, env=dict(process.environment), start_new_session=True))
        for child in children:
            child.wait()
    except KeyboardInterrupt:
        for child in children:
            child.send_signal(signal.SIGINT)
        for child in children:
            try:
                child.wait(GRACE_S)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
    return next((child.returncode for child in children if child.returncode), 0)


def main(argv: Sequence[str]) -> int:
    # Where ROS comes from PyPI, it is installed in the interpreter's prefix, and nothing is sourced.
    os.environ.setdefault("AMENT_PREFIX_PATH", sys.prefix)
    try:
        pairs = [text.split(":=", 1) for text in argv[1:]]
        if not argv or any(len(pair) != 2 for pair in pairs):
            raise StandInError("usage: launch_stand_in.py FILE [name:=value ...]")
        with tempfile.TemporaryDirectory(prefix="launch_stand_in_") as folder:
            return run(plan(Path(argv[0]), dict(map(tuple, pairs)), Path(folder)))  # type: ignore[arg-type]
    except (StandInError, ImportError, LookupError, TypeError) as error:
        print(f"launch stand-in: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
