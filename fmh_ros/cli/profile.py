# SPDX-License-Identifier: Apache-2.0
"""The profile and preset that a command line names, checked before anything is loaded."""

from __future__ import annotations

import argparse

from fmh_ros.core.guidance.config import preset
from fmh_ros.core.reconstruction.installed import check_installed
from fmh_ros.core.reconstruction.profile import Profile, check_readable, load_profile, profile_text


def chosen_profile(arguments: argparse.Namespace, object_name: str = "") -> Profile:
    """Return the profile of --profile and --stage.

    Raises ProfileError, UnsupportedPromptError when it cannot use the object's name, and ModelMissingError when not all
    of it is installed.
    """
    profile = load_profile(profile_text(arguments.profile, arguments.stage))
    check_readable(profile, object_name)
    check_installed(profile)
    return profile


def chosen_preset(arguments: argparse.Namespace, profile: Profile) -> str:
    """Return the preset of --preset, or the profile's. Raises UsageError for one that does not exist."""
    chosen: str = arguments.preset or profile.preset
    preset(chosen)
    return chosen
