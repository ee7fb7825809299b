# SPDX-License-Identifier: Apache-2.0
"""Whether a profile can be loaded: asked before anything is, so that what is missing is said at once. No torch."""

from __future__ import annotations

import shlex

from fmh_ros.core.backends import INSTALL
from fmh_ros.core.errors import ModelMissingError
from fmh_ros.core.reconstruction.profile import Profile
from fmh_ros.models.store import ModelStore


def missing_models(profile: Profile, store: ModelStore | None = None) -> tuple[str, ...]:
    """Ids of the profile's models that are not in the store."""
    store = store or ModelStore()
    return tuple(model for model in profile.models if store.find(model) is None)


def repairs(profile: Profile, libraries: tuple[str, ...], models: tuple[str, ...]) -> str:
    """The one command line that gets what is missing, "" when nothing is."""
    commands = list(dict.fromkeys(INSTALL.get(name, f"pip install {name}") for name in libraries))
    if models:
        commands.append(f"fmh models pull {shlex.quote(profile.text)}")
    return " && ".join(commands)


def check_installed(profile: Profile, *, libraries: bool = True, store: ModelStore | None = None) -> None:
    """Raise ModelMissingError, with the command to run, when weights or libraries of a profile are not there.

    libraries : False when another interpreter will load them, and only weights can be looked for.
    """
    without = profile.missing_libraries if libraries else ()
    models = missing_models(profile, store)
    if not without and not models:
        return
    seen = [f"the libraries {', '.join(without)}"] if without else []
    seen += [f"the weights of {', '.join(models)}"] if models else []
    raise ModelMissingError(
        f"The profile {profile.text} misses {' and '.join(seen)}",
        expected="everything that it names to be installed",
        change=f"Run: {repairs(profile, without, models)}",
    )
