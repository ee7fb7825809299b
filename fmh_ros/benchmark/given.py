# SPDX-License-Identifier: Apache-2.0
"""Back ends that answer with cues that are known, in the place of the networks.

The ``Reconstructor`` runs as always; only who fills its stages is different. It mirrors the frame of a left hand, so
every frame that is not the given one is taken for its mirror image.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from fmh_ros.core.cues.types import HandObservation, SceneMasks
from fmh_ros.core.frame.frame import Frame, ObjectPrompt
from fmh_ros.core.hand.fit import mirror_observation
from fmh_ros.core.reconstruction.mirror import mirror_masks
from fmh_ros.core.reconstruction.profile import Stages


@dataclass(frozen=True)
class Cues:
    """What a reconstruction is given.

    frame : as the camera, the depth and the calibration are chosen. hand, masks : known ones, in pixels of the frame;
    None where the profile's own stage finds them.
    """

    frame: Frame
    hand: HandObservation | None = None
    masks: SceneMasks | None = None


class GivenHand:
    """A ``HandDetector`` that finds one hand."""

    name = "given"

    def __init__(self, frame: Frame, hand: HandObservation) -> None:
        self.frame, self.hand = frame, hand

    def detect(self, frame: Frame) -> list[HandObservation]:
        """Return the hand, mirrored unless the frame is the given one."""
        return [self.hand if frame is self.frame else mirror_observation(self.hand, frame.camera.width)]


class GivenMasks:
    """A ``Segmenter`` that knows the masks."""

    name = "given"

    def __init__(self, frame: Frame, masks: SceneMasks) -> None:
        self.frame, self.masks = frame, masks

    def segment(self, frame: Frame, hand: HandObservation, prompt: ObjectPrompt) -> SceneMasks:
        """Return the masks, mirrored unless the frame is the given one."""
        return self.masks if frame is self.frame else mirror_masks(self.masks)


def with_cues(stages: Stages, cues: Cues) -> Stages:
    """Return the stages with the given cues in the place of what would find them; masks with the hidden part's."""
    if cues.hand is not None:
        stages = replace(stages, detector=GivenHand(cues.frame, cues.hand))
    if cues.masks is not None:
        stages = replace(stages, segmenter=GivenMasks(cues.frame, cues.masks), amodal=None)
    return stages
