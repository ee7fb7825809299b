# SPDX-License-Identifier: Apache-2.0
"""Profiles: which back end fills which stage, with which options, where, and within how much memory.

A profile is a YAML file of ``fmh_ros/profiles``, asked for by name, or a user's own, asked for by its path. Behind name
or path anything in it can be changed, after commas: ``h100,generator=hunyuan3d-2.1`` swaps a back end,
``h100,generator.mesh_resolution=384`` sets an option, ``h100,memory_gib=40`` one of the values below. This text is how
profiles are named everywhere: in parameters, goals, messages and results. Nothing here imports torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from fmh_ros.core.backends import DTYPES, STAGES, BackEnd, check_options, find_backend
from fmh_ros.core.cues.types import (
    AmodalEstimator,
    Completer,
    HandDetector,
    HandRegressor,
    PointMapper,
    Segmenter,
    Watcher,
)
from fmh_ros.core.errors import ProfileError, UnsupportedPromptError
from fmh_ros.core.guidance.config import PRESETS

if TYPE_CHECKING:  # these need torch, and whoever only asks for the names of the profiles must not
    from fmh_ros.core.flow.protocol import LatentShapeModel
    from fmh_ros.core.hand.rig import HandRig
    from fmh_ros.core.reconstruction.loading import ModelCache

FOLDER = Path(__file__).parents[2] / "profiles"
#: Names of the profiles that ship with the package, the default first.
PROFILES = tuple(sorted((path.stem for path in FOLDER.glob("*.yaml")), key=lambda name: (name != "embedded", name)))
#: What stands behind a stage that a user's YAML leaves out.
DEFAULT = "embedded"


@dataclass(frozen=True)
class Stages:
    """One loaded back end per stage.

    regressor : gives the hand's mesh in place of the fit of ``rig``; amodal : estimates the hidden part's silhouette in
    place of the segmenter; completer : paints what the hand hides.
    """

    detector: HandDetector
    segmenter: Segmenter
    sensor_points: PointMapper
    monocular_points: PointMapper | None
    rig: HandRig
    generator: LatentShapeModel
    watcher: Watcher
    regressor: HandRegressor | None = None
    amodal: AmodalEstimator | None = None
    completer: Completer | None = None


@dataclass(frozen=True)
class Choice:
    """A back end and the options that the profile gives it, checked."""

    backend: BackEnd
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def models(self) -> tuple[str, ...]:
        """Ids of the models that it needs."""
        return self.backend.models_for(self.options)


@dataclass(frozen=True)
class Profile:
    """A checked profile.

    text : how it was asked for; summary : for people.
    preset : guidance settings where none are named. device : "auto" is the graphics card if torch can use one, else
    the processor; "cpu", "cuda" or "cuda:1". dtype : of networks whose stage says nothing else; "auto" is bfloat16 on
    a graphics card and float32 on a processor.
    memory_gib : networks on the graphics card take no more than this together, 0 for no limit; the longest unused one
    is moved to the machine's memory when another one needs the room. What work needs comes on top.
    stages : a choice for each of ``STAGES``.
    """

    text: str
    summary: str
    stages: Mapping[str, Choice]
    preset: str = "default"
    device: str = "auto"
    dtype: str = "auto"
    memory_gib: float = 0.0

    @property
    def models(self) -> tuple[str, ...]:
        """Ids of all models that it needs, each once, in the order of the stages."""
        return tuple(dict.fromkeys(model for choice in self.stages.values() for model in choice.models))

    @property
    def reads_text(self) -> bool:
        """Whether it can use the object's name."""
        return self.stages["segmenter"].backend.reads_text

    @property
    def missing_libraries(self) -> tuple[str, ...]:
        """Names of the libraries that it needs and that are not installed, each once."""
        found = (name for choice in self.stages.values() for name in choice.backend.missing_libraries())
        return tuple(dict.fromkeys(found))

    def changed(self, changes: Iterable[str]) -> Profile:
        """Return it with stages swapped and values set: "generator=hunyuan3d-mini", "segmenter.dtype=float32".

        Raises ProfileError.
        """
        profile = self
        for change in changes:
            profile = _changed(profile, change)
        return profile


#: Values of a profile beside its stages: what they must be.
_VALUES: Mapping[str, type] = {"summary": str, "preset": str, "device": str, "dtype": str, "memory_gib": float}


def profile_text(profile: str, stages: Iterable[str] = ()) -> str:
    """Return the text of a profile with changes, empty ones left out."""
    return ",".join([profile, *(change.strip() for change in stages if change.strip())])


def load_profile(text: str | Profile) -> Profile:
    """Read and check a profile by its text; one that was read already is returned as it is.

    Raises ProfileError, which says what to change.
    """
    if isinstance(text, Profile):
        return text
    base, *changes = (part.strip() for part in text.split(","))
    path = Path(base).expanduser()
    if base in PROFILES:
        path = FOLDER / f"{base}.yaml"
    elif path.suffix not in (".yaml", ".yml"):
        raise ProfileError(
            f"There is no profile {base!r}",
            expected=f"one of {', '.join(PROFILES)}, or the path of a YAML file",
            change="Use --profile embedded",
        )
    try:
        return _read(base, path, path.stat().st_mtime_ns).changed(changes)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ProfileError(
            f"The profile {path} cannot be read: {str(error).splitlines()[0]}",
            expected="a YAML file as those in fmh_ros/profiles",
            change="Correct its path or content",
        ) from error


@lru_cache(maxsize=16)
def _read(text: str, path: Path, _changed_ns: int) -> Profile:
    """Read a file, again when it has changed: names are looked up for every result."""
    return _parse(yaml.safe_load(path.read_text(encoding="utf-8")), text)


def check_readable(profile: str | Profile, object_name: str) -> None:
    """Raise UnsupportedPromptError when the object is named and the profile cannot use that."""
    if not object_name.strip():
        return
    chosen = load_profile(profile)
    if not chosen.reads_text:
        raise UnsupportedPromptError(
            f"The object is named ({object_name.strip()[:40]!r}), and the profile {chosen.text} cannot read",
            expected="a box, points or a mask",
            change="Leave the name out, or use a profile that can read",
        )


def load_stages(profile: str | Profile, cache: ModelCache | None = None) -> Stages:
    """Load every model of a profile; what a cache has is used from it.

    Raises ProfileError, ModelMissingError, ModelFileError and RemoteModelError, the first two before anything is
    loaded.
    """
    chosen = load_profile(profile)
    from fmh_ros.core.reconstruction.installed import check_installed  # which imports this module

    check_installed(chosen)
    # Imported last: it needs torch.
    from fmh_ros.core.reconstruction.loading import ModelCache

    return (ModelCache() if cache is None else cache).load(chosen)


def _parse(data: Any, text: str) -> Profile:
    """Check what a YAML file says."""
    if not isinstance(data, dict) or not isinstance(data.get("stages"), dict):
        raise ProfileError(
            f"The profile {text} is no mapping with stages", expected="stages: and a back end for each stage below it"
        )
    unknown = [str(name) for name in data if name not in (*_VALUES, "stages")]
    if unknown:
        raise ProfileError(
            f"The profile {text} has a value {unknown[0]!r}",
            expected="one of " + ", ".join((*_VALUES, "stages")),
            change="Correct its name, or leave it out",
        )
    given = {str(stage): _choice(str(stage), value) for stage, value in data["stages"].items()}
    if set(given) < set(STAGES):
        given = {**load_profile(DEFAULT).stages, **given}
    profile = Profile(text=text, summary="", stages={stage: given[stage] for stage in STAGES})
    for name in _VALUES:
        if name in data:
            profile = _with_value(profile, name, data[name])
    return profile


def _choice(stage: str, value: Any) -> Choice:
    """A stage's entry: the back end's name, or a mapping of it and its options."""
    options = dict(value) if isinstance(value, dict) else {"backend": value}
    backend = find_backend(stage, str(options.pop("backend", "")))
    return Choice(backend, check_options(backend, {str(name): option for name, option in options.items()}))


def _changed(profile: Profile, change: str) -> Profile:
    name, separator, text = (part.strip() for part in change.partition("="))
    if not separator or not name or not text:
        raise ProfileError(
            f"The change {change!r} of the profile makes no sense",
            expected="STAGE=BACKEND, STAGE.OPTION=VALUE or NAME=VALUE",
            change="For instance --stage generator=embedded",
        )
    stage, dot, option = name.partition(".")
    if not dot and name in _VALUES:
        changed = _with_value(profile, name, _value(text))
    else:
        choice = _choice(stage, text) if not dot else _with_option(profile, stage, option, _value(text))
        changed = replace(profile, stages={**profile.stages, stage: choice})
    return replace(changed, text=f"{profile.text},{change}")


def _with_option(profile: Profile, stage: str, option: str, value: Any) -> Choice:
    if stage not in profile.stages:
        find_backend(stage, "")  # says which stages there are
    choice = profile.stages[stage]
    return Choice(choice.backend, check_options(choice.backend, {**choice.options, option: value}))


def _value(text: str) -> Any:
    """What YAML makes of a text, which is taken as it is where it makes nothing of it."""
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text


def _with_value(profile: Profile, name: str, value: Any) -> Profile:
    kind = _VALUES[name]
    value = float(value) if kind is float and type(value) is int else value
    allowed = {"preset": tuple(PRESETS), "dtype": DTYPES}.get(name)
    expected = f"a value of type {kind.__name__}" if allowed is None else "one of " + ", ".join(allowed)
    if name == "device":
        expected = "auto, cpu, cuda or cuda:N"
    fits = type(value) is kind and (allowed is None or value in allowed)
    if fits and name == "device":
        head, _, index = value.partition(":")
        fits = value in ("auto", "cpu", "cuda") or (head == "cuda" and index.isdigit())
    if fits and name == "memory_gib":
        fits, expected = 0 <= value < 1e5, "gibibytes, or 0 for no limit"
    if not fits:
        raise ProfileError(
            f"{name} of the profile {profile.text} is {value!r}", expected=expected, change="Correct it in the profile"
        )
    made: Profile = replace(profile, **{name: value})
    return made
