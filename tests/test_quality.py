# SPDX-License-Identifier: Apache-2.0
"""Metrics of a reconstruction against known geometry, and the score made of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import trimesh
from synthetic_result import CAMERA, synthetic_reconstruction

from fmh_ros.core.frame.camera import camera_from_field_of_view
from fmh_ros.core.frame.frame import Frame
from fmh_ros.core.hand.types import HandMesh
from fmh_ros.core.reconstruction.mesh import place_in_object_frame
from fmh_ros.core.reconstruction.quality import (
    combined_score,
    keypoint_error,
    measure_quality,
    penetration_volume,
    render_parts,
    seen_size,
    unseen_distance,
)
from fmh_ros.core.reconstruction.types import ObjectMesh, Quality, Reconstruction
from fmh_ros.core.transforms import Similarity


@pytest.fixture(scope="module")
def result() -> Reconstruction:
    return synthetic_reconstruction()


def measured(result: Reconstruction, **changes: object) -> Quality:
    used = replace(result, **changes)
    return measure_quality(used.frame, used.observation, used.masks, used.hand, used.object, used.contacts)


def moved(obj: ObjectMesh, by: tuple[float, float, float]) -> ObjectMesh:
    pose = obj.T_camera_object
    return replace(obj, T_camera_object=Similarity(pose.rotation, pose.translation + np.array(by)))


def block(size: tuple[float, float, float], centre: tuple[float, float, float]) -> ObjectMesh:
    mesh = trimesh.creation.box(size)
    mesh.apply_translation(centre)
    return place_in_object_frame(np.asarray(mesh.vertices), np.asarray(mesh.faces, np.int64))


def block_hand(size: tuple[float, float, float], centre: tuple[float, float, float]) -> HandMesh:
    obj = block(size, centre)
    vertices = obj.T_camera_object.apply(obj.vertices)
    finger = np.zeros(len(vertices), np.int64)
    return HandMesh("right", Similarity(), vertices, obj.faces, finger, np.zeros((21, 3)), 1.0, 0.1, 0.0, 1.0)


def test_the_truth_itself_scores_perfectly_in_every_image_metric(result: Reconstruction) -> None:
    quality = result.quality
    assert quality.hand_silhouette_iou > 0.99 and quality.object_silhouette_iou > 0.99
    assert quality.keypoint_error_px == pytest.approx(0.0, abs=1e-9)
    assert quality.depth_error_m == pytest.approx(0.0, abs=5e-4)


def test_a_shifted_object_loses_silhouette_and_depth(result: Reconstruction) -> None:
    aside = measured(result, object=moved(result.object, (0.03, 0.0, 0.0)))
    assert aside.object_silhouette_iou < 0.7 and aside.score < result.quality.score
    behind = measured(result, object=moved(result.object, (0.0, 0.0, 0.02)))
    assert behind.depth_error_m is not None and behind.depth_error_m > 5e-3


def test_silhouettes_are_compared_where_they_are_visible(result: Reconstruction) -> None:
    """The part of the object that the fingers hide must not count against it."""
    parts = render_parts(result.frame, result.hand, result.object)
    alone = render_parts(result.frame, result.hand, moved(result.object, (0, 0, -0.2)))
    assert (alone.object & parts.hand).sum() > 100, "fingers do hide object pixels here"
    assert not (parts.hand & parts.object).any()
    assert result.quality.object_silhouette_iou > 0.99


def test_an_object_rendered_before_the_hand_that_hides_it_is_wrong(result: Reconstruction) -> None:
    in_front = measured(result, object=moved(result.object, (0.0, 0.0, -0.1)))
    assert in_front.object_silhouette_iou < 0.95 and in_front.hand_silhouette_iou < 0.95


def test_the_forearm_is_no_error_of_the_hand(result: Reconstruction) -> None:
    wrist = result.observation.keypoints_2d[0]
    forward = result.observation.keypoints_2d[9] - wrist
    side = np.array([-forward[1], forward[0]]) / np.linalg.norm(forward)
    offset = CAMERA.pixel_grid() - wrist
    arm = (offset @ forward < 0) & (np.abs(offset @ side) < 25)
    masks = replace(result.masks, hand=result.masks.hand | (arm & ~result.masks.object))
    assert masks.hand.sum() > result.masks.hand.sum() + 500
    assert measured(result, masks=masks).hand_silhouette_iou > 0.98


def test_keypoint_error_is_in_pixels_of_the_full_size_image(result: Reconstruction) -> None:
    observation = replace(result.observation, keypoints_2d=result.observation.keypoints_2d + [3.0, 4.0])
    assert keypoint_error(result.frame, observation, result.hand) == pytest.approx(5.0)
    full = CAMERA.crop((0, 0, 320, 240), 960, 720)
    reduced = replace(result.frame, source_camera=full)
    assert keypoint_error(reduced, observation, result.hand) == pytest.approx(15.0)


@pytest.mark.parametrize("overlap", [0.004, 0.01, 0.02])
def test_penetration_is_the_shared_volume(overlap: float) -> None:
    hand = block_hand((0.03, 0.05, 0.02), (0.0, 0.0, 0.5))
    obj = block((0.04, 0.08, 0.06), (0.0, 0.0, 0.5 + 0.01 + 0.03 - overlap))
    assert penetration_volume(hand, obj) == pytest.approx(0.03 * 0.05 * overlap, rel=0.05)


def test_bodies_apart_do_not_penetrate() -> None:
    hand = block_hand((0.03, 0.05, 0.02), (0.0, 0.0, 0.5))
    assert penetration_volume(hand, block((0.04, 0.08, 0.06), (0.0, 0.0, 0.545))) == 0.0
    assert penetration_volume(hand, block((0.04, 0.08, 0.06), (0.2, 0.0, 0.5))) == 0.0


def test_depth_error_needs_a_sensor(result: Reconstruction) -> None:
    assert measured(result, frame=replace(result.frame, depth=None)).depth_error_m is None


def test_contact_fraction_counts_fingers_and_palm(result: Reconstruction) -> None:
    only = tuple(contact for contact in result.contacts if contact.finger in ("thumb", "index"))
    assert measured(result, contacts=only).contact_fraction == pytest.approx(2 / 6)
    assert measured(result, contacts=()).contact_fraction == 0.0


WORSE = {
    "object_silhouette_iou": [1.0, 0.8, 0.5, 0.1, 0.0],
    "hand_silhouette_iou": [1.0, 0.8, 0.5, 0.1, 0.0],
    "keypoint_error_px": [0.0, 2.0, 5.0, 20.0, 100.0],
    "depth_error_m": [0.0, 0.005, 0.02, 0.1, 1.0],
    "penetration_cm3": [0.0, 1.0, 5.0, 20.0, 200.0],
    "contact_fraction": [2 / 6, 1 / 6, 0.0],
}


@pytest.mark.parametrize("metric", WORSE)
def test_the_score_falls_with_every_metric_and_stays_between_0_and_1(result: Reconstruction, metric: str) -> None:
    perfect = Quality(0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 1.0)
    scores = [
        combined_score(
            replace(perfect, **{metric: value}), result.frame, result.observation, result.masks, result.hand, 0.0
        )
        for value in WORSE[metric]
    ]
    assert all(0 <= score <= 1 for score in scores)
    assert (np.diff(scores) < 0).all(), scores


def test_the_score_falls_with_every_doubt_of_the_cues(result: Reconstruction) -> None:
    perfect = Quality(0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 1.0)
    frame, seen, masks, hand = result.frame, result.observation, result.masks, result.hand
    best = combined_score(perfect, frame, seen, masks, hand, 0.0)
    estimated = replace(camera_from_field_of_view(320, 240), K=CAMERA.K)
    doubts = [
        (replace(frame, camera=estimated), seen, masks, hand),
        (frame, replace(seen, score=0.5), masks, hand),
        (frame, replace(seen, side_score=0.5), masks, hand),
        (frame, seen, replace(masks, object_score=0.3), hand),
        (frame, seen, masks, replace(hand, score=0.4)),
    ]
    assert all(combined_score(perfect, *doubt, 0.0) < best for doubt in doubts)
    assert best > combined_score(perfect, frame, seen, masks, hand, 0.05) > 0


@pytest.mark.parametrize("length", [0.004, 0.05, 0.2])
def test_the_unseen_distance_of_a_bar_seen_from_its_end_follows_from_its_length(length: float) -> None:
    side = 0.02
    bar = trimesh.creation.box((side, side, length)).subdivide_to_size(0.002)
    bar.apply_translation((0.0, 0.0, 0.5 + length / 2))
    obj = place_in_object_frame(np.asarray(bar.vertices), np.asarray(bar.faces, np.int64))
    frame = Frame(np.zeros((CAMERA.height, CAMERA.width, 3), np.uint8), CAMERA)
    parts = render_parts(frame, block_hand((0.03, 0.05, 0.02), (0.15, 0.0, 0.5)), obj)
    # The front is seen; of the four sides a share at every depth is not, and the far end is a whole length away.
    squares = (4 * side * length * length**2 / 3 + side**2 * length**2) / (4 * side * length + 2 * side**2)
    assert unseen_distance(frame, parts, obj) == pytest.approx(np.sqrt(squares), rel=0.05, abs=0.001)
    contradicted = replace(frame, depth=np.full((CAMERA.height, CAMERA.width), 0.45))
    assert unseen_distance(contradicted, parts, obj) == float("inf")


def test_the_seen_size_is_the_masks_longer_side_at_the_hands_distance(result: Reconstruction) -> None:
    mask = np.zeros_like(result.masks.object)
    mask[40:60, 30:130] = True
    distance = float(result.hand.T_camera_hand.translation[2])
    masks = replace(result.masks, object=mask)
    size = seen_size(result.frame, masks, result.hand)
    assert size == pytest.approx(100 * distance / result.frame.camera.focal)
    assert seen_size(result.frame, replace(masks, object=np.zeros_like(mask)), result.hand) == 0.0
    # What is seen four times as large scores half, until it is small.
    scores = []
    for pixels in (1, 40, 160):
        mask = np.zeros_like(mask)
        mask[40, 30 : 30 + pixels] = True
        given = result.frame, result.observation, replace(masks, object=mask), result.hand, 0.0
        sizes = seen_size(result.frame, given[2], result.hand)
        scores.append((sizes, combined_score(result.quality, *given)))
    (tiny, most), (small, more), (large, less) = scores
    assert tiny < 0.05 < small
    assert large == pytest.approx(4 * small)
    assert less == pytest.approx(more / 2)
    assert more == pytest.approx(most * np.sqrt(0.05 / small))
