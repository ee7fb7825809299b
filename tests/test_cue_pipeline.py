# SPDX-License-Identifier: Apache-2.0
"""Foundation cues in the whole pipeline: around the embedded generator, a result comes out and says what it is of."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny_cues as tiny
from numpy.typing import NDArray

pytest.importorskip("diffusers", reason="the extra 'foundation' is not installed")

import fmh_ros
from fmh_ros.core.cues.foundation.editors import DiffusersEditor, kontext_arguments
from fmh_ros.core.cues.foundation.hands import RegressedHand, to_hand_mesh
from fmh_ros.core.cues.foundation.inpainting import PaintingCompleter
from fmh_ros.core.cues.foundation.points import NetworkPointMapper, Surface
from fmh_ros.core.cues.hand_detector import MediaPipeHandDetector
from fmh_ros.core.cues.hand_models import HandNetworks
from fmh_ros.core.cues.hand_watcher import HandWatcher
from fmh_ros.core.cues.mask_predictor import MaskPredictor
from fmh_ros.core.cues.point_map import SensorPointMapper
from fmh_ros.core.cues.segmenter import EmbeddedSegmenter
from fmh_ros.core.cues.types import HandObservation
from fmh_ros.core.flow.embedded.model import EmbeddedShapeModel
from fmh_ros.core.frame.camera import CameraModel
from fmh_ros.core.frame.frame import Frame
from fmh_ros.core.frame.load import load_frame
from fmh_ros.core.hand.fit import fit_hand
from fmh_ros.core.hand.rig import load_generic_rig
from fmh_ros.core.hand.types import HandMesh
from fmh_ros.core.reconstruction.profile import Stages
from fmh_ros.core.reconstruction.reconstructor import Reconstructor

EXAMPLE = Path(fmh_ros.__file__).parent / "assets" / "example"


class WrongScale:
    """A depth network that knows the true depth but for its scale; centre : the real camera's principal point."""

    name, scale_sigma = "wrong-scale", 0.2

    def __init__(self, depth: NDArray[np.float32], centre: tuple[float, float]) -> None:
        self.depth, self.centre = depth, centre

    def look(self, image: NDArray[np.uint8], camera: CameraModel) -> Surface:
        # The example's principal point is nearly in the middle: the network sees its picture with a border.
        height, width = self.depth.shape
        left, top = round(camera.K[0, 2] - self.centre[0]), round(camera.K[1, 2] - self.centre[1])
        assert image.shape[0] <= height + 20 and image.shape[1] <= width + 20
        depth = np.full(image.shape[:2], np.nan, np.float32)
        depth[top : top + height, left : left + width] = 1.4 * self.depth
        return Surface(depth, None)


class Regresses:
    """A regressor whose hand is the fitted one, as vertices and joints before the camera."""

    name = "told"

    def regress(self, frame: Frame, hand: HandObservation) -> HandMesh:
        rig = load_generic_rig()
        fitted = fit_hand(hand, frame.camera, rig).mesh
        place = fitted.T_camera_hand
        found = RegressedHand(place.apply(fitted.vertices), place.apply(fitted.keypoints))
        return to_hand_mesh(found, rig, fitted.reprojection_px, fitted.score)


@pytest.fixture(scope="module")
def example() -> Frame:
    return load_frame(EXAMPLE / "rgb.png", EXAMPLE / "depth.png", EXAMPLE / "camera.yaml")


def test_estimated_depth_at_another_scale_and_a_random_editor_still_give_the_object_at_the_hand(example: Frame) -> None:
    assert example.depth is not None
    network = WrongScale(example.depth, (float(example.camera.K[0, 2]), float(example.camera.K[1, 2])))
    editor = DiffusersEditor(tiny.tiny_kontext(), "flux-kontext", kontext_arguments(1, 32), side=64)
    editor.pipeline.set_progress_bar_config(disable=True)
    networks, predictor, generator = HandNetworks(), MaskPredictor(), EmbeddedShapeModel()
    generator.load()
    stages = Stages(
        detector=MediaPipeHandDetector(networks),
        segmenter=EmbeddedSegmenter(predictor),
        sensor_points=SensorPointMapper(),
        monocular_points=NetworkPointMapper(network),
        rig=load_generic_rig(),
        generator=generator,
        watcher=HandWatcher(networks, predictor),
        regressor=Regresses(),
        completer=PaintingCompleter(editor, attempts=1),
    )
    plain = Reconstructor(stages=stages).reconstruct(replace(example, depth=None), guidance=False)
    assert any("flux-kontext changed the object itself" in warning for warning in plain.warnings)
    assert plain.versions["completer"] == "flux-kontext" and plain.versions["points"] == "wrong-scale"
    assert plain.versions["hand"] == "told"
    hand = plain.hand.T_camera_hand.apply(plain.hand.keypoints)[:, 2].mean()
    thing = plain.object.T_camera_object.apply(plain.object.vertices)[:, 2].mean()
    assert abs(thing - hand) < 0.06  # the estimate stood 40 % further away
    measured = Reconstructor(stages=stages).reconstruct(example, guidance=False)
    assert measured.quality.depth_error_m is not None and measured.quality.depth_error_m < 0.02
    assert measured.hand.scale_sigma < plain.hand.scale_sigma  # measured skin placed the regressed hand
