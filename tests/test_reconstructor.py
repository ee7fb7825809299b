# SPDX-License-Identifier: Apache-2.0
"""The whole pipeline on the bundled example, with the shipped models."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import trimesh

import fmh_ros
from fmh_ros.core.errors import CancelledError, ProfileError
from fmh_ros.core.frame.frame import Frame
from fmh_ros.core.frame.load import load_frame
from fmh_ros.core.guidance.config import GuidanceConfig, preset
from fmh_ros.core.progress import Progress
from fmh_ros.core.reconstruction.reconstructor import Reconstructor
from fmh_ros.core.reconstruction.types import Reconstruction

EXAMPLE = Path(fmh_ros.__file__).parent / "assets" / "example"


def short(config: GuidanceConfig) -> GuidanceConfig:
    """The same method with few iterations."""
    phases = {n: replace(getattr(config, n), iterations=k) for n, k in (("hand", 6), ("object", 6), ("joint", 2))}
    return replace(config, flow_steps=14, **phases)


@pytest.fixture(scope="module")
def frame() -> Frame:
    return load_frame(EXAMPLE / "rgb.png", EXAMPLE / "depth.png", EXAMPLE / "camera.yaml")


@pytest.fixture(scope="module")
def reconstructor() -> Reconstructor:
    made = Reconstructor()
    made.load()
    return made


@pytest.fixture(scope="module")
def guided(frame: Frame, reconstructor: Reconstructor) -> tuple[Reconstruction, list[Progress]]:
    reports: list[Progress] = []
    result = reconstructor.reconstruct(frame, config=short(preset("default")), progress=reports.append)
    return result, reports


@pytest.fixture(scope="module")
def free(frame: Frame, reconstructor: Reconstructor) -> Reconstruction:
    return reconstructor.reconstruct(frame, guidance=False, seed=3)


def test_meshes_are_closed_and_where_the_depth_is(guided: tuple[Reconstruction, list[Progress]], frame: Frame) -> None:
    result, _ = guided
    for part in (result.hand, result.object):
        mesh = trimesh.Trimesh(part.vertices, part.faces, process=False)
        assert mesh.is_watertight
        assert mesh.is_winding_consistent
        assert mesh.volume > 0
        assert mesh.body_count == 1
    assert result.hand.T_camera_hand.scale == 1
    assert np.allclose(result.hand.keypoints[0], 0, atol=1e-6)
    assert frame.depth is not None
    seen = np.median(frame.depth[result.masks.object & np.isfinite(frame.depth)])
    vertices = result.object.T_camera_object.apply(result.object.vertices)
    assert abs(np.quantile(vertices[:, 2], 0.1) - seen) < 0.05
    assert result.quality.depth_error_m is not None
    assert result.quality.depth_error_m < 0.02
    assert result.quality.object_silhouette_iou > 0.75
    assert result.quality.hand_silhouette_iou > 0.75


def test_contacts_lie_on_the_object(guided: tuple[Reconstruction, list[Progress]]) -> None:
    result, _ = guided
    obj = result.object
    mesh = trimesh.Trimesh(obj.T_camera_object.apply(obj.vertices), obj.faces, process=False)
    assert result.contacts
    points = np.array([c.position for c in result.contacts])
    assert np.abs(trimesh.proximity.closest_point(mesh, points)[1]).max() < 1e-4


def test_three_phases_run_in_order_and_report_falling_losses(guided: tuple[Reconstruction, list[Progress]]) -> None:
    result, reports = guided
    assert [p.name for p in result.phases] == ["hand", "object", "joint"]
    for phase in result.phases:
        assert phase.rolled_back or phase.loss_last <= phase.loss_first
    fractions = [r.fraction for r in reports]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1
    assert list(dict.fromkeys(r.stage for r in reports))[:3] == ["detect", "points", "fit"]
    assert {"hand", "object", "joint"} <= {r.phase for r in reports}
    assert sum(v for k, v in result.timings_s.items() if k != "total") == pytest.approx(
        result.timings_s["total"], rel=0.05
    )


def test_a_mirrored_photo_gives_the_mirrored_result(
    free: Reconstruction, frame: Frame, reconstructor: Reconstructor
) -> None:
    mirrored = reconstructor.reconstruct(frame.mirrored(), guidance=False, seed=3)
    assert free.hand.side == "right"
    assert mirrored.hand.side == "left"
    flip = np.array([-1.0, 1.0, 1.0])
    there = mirrored.hand.T_camera_hand.apply(mirrored.hand.vertices) * flip
    here = free.hand.T_camera_hand.apply(free.hand.vertices)
    assert np.abs(there - here).max() < 1e-6
    there = mirrored.object.T_camera_object.apply(mirrored.object.vertices) * flip
    here = free.object.T_camera_object.apply(free.object.vertices)
    assert there.shape == here.shape
    assert np.abs(there - here).max() < 1e-6
    assert mirrored.quality.score == pytest.approx(free.quality.score)


def test_the_same_seed_gives_the_same_result(free: Reconstruction, frame: Frame, reconstructor: Reconstructor) -> None:
    again = reconstructor.reconstruct(frame, guidance=False, seed=3)
    assert np.array_equal(again.object.vertices, free.object.vertices)
    other = reconstructor.reconstruct(frame, guidance=False, seed=4)
    assert not np.array_equal(other.object.vertices, free.object.vertices)


def test_samples_keep_the_best_by_score(free: Reconstruction, frame: Frame, reconstructor: Reconstructor) -> None:
    best = reconstructor.reconstruct(frame, guidance=False, seed=3, samples=2)
    single = [free, reconstructor.reconstruct(frame, guidance=False, seed=4)]
    expected = max(single, key=lambda r: r.quality.score)
    assert best.seed == expected.seed
    assert best.quality.score == expected.quality.score


def test_cancelling_stops_between_iterations(frame: Frame, reconstructor: Reconstructor) -> None:
    reports: list[Progress] = []
    with pytest.raises(CancelledError):
        reconstructor.reconstruct(
            frame,
            progress=reports.append,
            cancelled=lambda: any(r.phase == "hand" and r.iteration >= 2 for r in reports),
        )
    assert reports[-1].phase == "hand"
    assert reports[-1].iteration <= 4


def test_an_unknown_profile_is_refused_before_anything_is_loaded(frame: Frame) -> None:
    with pytest.raises(ProfileError, match="embedded"):
        Reconstructor(profile="none").reconstruct(frame)


def test_where_guidance_lost_the_object_the_same_noise_without_it_is_kept(
    frame: Frame, reconstructor: Reconstructor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guidance rarely loses anything here, so the bounds are moved: everything counts as lost, then nothing as less."""
    config = short(preset("default"))
    plain = reconstructor.reconstruct(frame, config=config, guidance=False, seed=3)
    monkeypatch.setattr("fmh_ros.core.reconstruction.reconstructor.LOST_IOU", 2.0)
    monkeypatch.setattr("fmh_ros.core.reconstruction.reconstructor.LOST_IOU_MARGIN", -2.0)
    reports: list[Progress] = []
    kept = reconstructor.reconstruct(frame, config=config, seed=3, progress=reports.append)
    assert np.array_equal(kept.object.vertices, plain.object.vertices)
    assert np.array_equal(kept.hand.vertices, plain.hand.vertices)
    assert [phase.rolled_back for phase in kept.phases] == [True, True, True]
    assert any("Guidance lost the object" in warning for warning in kept.warnings)
    fractions = [report.fraction for report in reports]
    assert fractions == sorted(fractions)
    monkeypatch.setattr("fmh_ros.core.reconstruction.reconstructor.LOST_IOU_MARGIN", 2.0)
    guided = reconstructor.reconstruct(frame, config=config, seed=3)
    assert not np.array_equal(guided.object.vertices, plain.object.vertices)
    assert not any("Guidance lost" in warning for warning in guided.warnings)
