# SPDX-License-Identifier: Apache-2.0
"""Factories of the embedded cue back ends, for the registry; what they share is handed over as an option."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fmh_ros.core.cues.amodal import AmodalNetworkEstimator
from fmh_ros.core.cues.hand_detector import MediaPipeHandDetector
from fmh_ros.core.cues.hand_models import HandNetworks
from fmh_ros.core.cues.hand_watcher import HandWatcher
from fmh_ros.core.cues.mask_predictor import MaskPredictor
from fmh_ros.core.cues.point_map import SensorPointMapper
from fmh_ros.core.cues.segmenter import EmbeddedSegmenter


def make_hand_networks(models: Mapping[str, Path], options: Mapping[str, Any], device: str) -> HandNetworks:
    """MediaPipe's networks; they load at first use."""
    return HandNetworks()


def make_mask_predictor(models: Mapping[str, Path], options: Mapping[str, Any], device: str) -> MaskPredictor:
    """Load the mask network. Raises ModelMissingError."""
    predictor = MaskPredictor()
    predictor.load()
    return predictor


def make_detector(models: Mapping[str, Path], options: Mapping[str, Any], device: str) -> MediaPipeHandDetector:
    """Options: networks, the loaded `HandNetworks`."""
    return MediaPipeHandDetector(options["networks"])


def make_segmenter(models: Mapping[str, Path], options: Mapping[str, Any], device: str) -> EmbeddedSegmenter:
    """Options: predictor, the loaded `MaskPredictor`."""
    return EmbeddedSegmenter(options["predictor"])


def make_amodal(models: Mapping[str, Path], options: Mapping[str, Any], device: str) -> AmodalNetworkEstimator:
    """Load the network of hidden silhouettes. Raises ModelMissingError."""
    estimator = AmodalNetworkEstimator()
    estimator.load()
    return estimator


def make_sensor_points(models: Mapping[str, Path], options: Mapping[str, Any], device: str) -> SensorPointMapper:
    """The mapper of aligned depth."""
    return SensorPointMapper()


def make_watcher(models: Mapping[str, Path], options: Mapping[str, Any], device: str) -> HandWatcher:
    """Options: networks and predictor, as above."""
    return HandWatcher(options["networks"], options["predictor"])
