# SPDX-License-Identifier: Apache-2.0
"""Profiles: which back end fills which stage."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fmh_ros.core.cues.types import Completer, HandDetector, HandRegressor, PointMapper, Segmenter, Watcher
from fmh_ros.core.errors import ProfileError, UnsupportedPromptError

if TYPE_CHECKING:  # these need torch, and whoever only asks for the names of the profiles must not
    from fmh_ros.core.flow.protocol import LatentShapeModel
    from fmh_ros.core.hand.rig import HandRig

PROFILES = ("embedded",)
#: Profiles that can use the object's name.
READING_PROFILES: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Stages:
    """One loaded back end per stage.

    regressor : gives the hand's mesh in place of the fit of ``rig``; completer : paints what the hand hides.
    """

    detector: HandDetector
    segmenter: Segmenter
    sensor_points: PointMapper
    monocular_points: PointMapper | None
    rig: HandRig
    generator: LatentShapeModel
    watcher: Watcher
    regressor: HandRegressor | None = None
    completer: Completer | None = None


def check_profile(name: str) -> None:
    """Raise ProfileError for a name that is not a profile."""
    if name not in PROFILES:
        raise ProfileError(
            f"There is no profile {name!r}", expected="one of " + ", ".join(PROFILES), change="Use --profile embedded"
        )


def check_readable(name: str, text: str) -> None:
    """Raise UnsupportedPromptError when the object is named and the profile cannot use that."""
    if text.strip() and name not in READING_PROFILES:
        raise UnsupportedPromptError(
            f"The object is named ({text.strip()[:40]!r}), and the profile {name} cannot read",
            expected="a box, points or a mask",
            change="Leave the name out, or use a profile that can read",
        )


def load_stages(name: str) -> Stages:
    """Load every model of a profile. Raises ProfileError and ModelMissingError."""
    check_profile(name)
    # Imported here: each profile imports only its own libraries.
    from fmh_ros.core.cues.hand_detector import MediaPipeHandDetector
    from fmh_ros.core.cues.hand_models import HandNetworks
    from fmh_ros.core.cues.hand_watcher import HandWatcher
    from fmh_ros.core.cues.mask_predictor import MaskPredictor
    from fmh_ros.core.cues.point_map import SensorPointMapper
    from fmh_ros.core.cues.segmenter import EmbeddedSegmenter
    from fmh_ros.core.flow.embedded.model import EmbeddedShapeModel
    from fmh_ros.core.hand.rig import load_generic_rig

    generator = EmbeddedShapeModel()
    generator.load()
    networks, predictor = HandNetworks(), MaskPredictor()
    return Stages(
        detector=MediaPipeHandDetector(networks),
        segmenter=EmbeddedSegmenter(predictor),
        sensor_points=SensorPointMapper(),
        monocular_points=None,
        rig=load_generic_rig(),
        generator=generator,
        watcher=HandWatcher(networks, predictor),
    )
