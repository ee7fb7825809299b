# SPDX-License-Identifier: Apache-2.0
"""Left hands: the way back from the mirrored frame."""

from __future__ import annotations

import numpy as np
import pytest
import trimesh
from synthetic_result import synthetic_reconstruction

from fmh_ros.core.reconstruction.mesh import place_in_object_frame
from fmh_ros.core.reconstruction.mirror import mirror_reconstruction
from fmh_ros.core.reconstruction.quality import measure_quality
from fmh_ros.core.reconstruction.types import Reconstruction

FLIP = np.array([-1.0, 1.0, 1.0])


@pytest.fixture(scope="module")
def right() -> Reconstruction:
    return synthetic_reconstruction()


@pytest.fixture(scope="module")
def left(right: Reconstruction) -> Reconstruction:
    return mirror_reconstruction(right)


def test_every_point_moves_to_its_mirror_image(right: Reconstruction, left: Reconstruction) -> None:
    hand, mirrored = right.hand, left.hand
    assert mirrored.side == "left"
    assert np.allclose(mirrored.T_camera_hand.apply(mirrored.vertices), hand.T_camera_hand.apply(hand.vertices) * FLIP)
    assert np.allclose(
        mirrored.T_camera_hand.apply(mirrored.keypoints), hand.T_camera_hand.apply(hand.keypoints) * FLIP
    )
    before = right.object.T_camera_object.apply(right.object.vertices)
    assert np.allclose(left.object.T_camera_object.apply(left.object.vertices), before * FLIP)
    for one, other in zip(right.contacts, left.contacts, strict=True):
        assert np.allclose(one.position * FLIP, other.position)
        assert np.allclose(one.normal * FLIP, other.normal)


def test_poses_stay_proper_and_meshes_stay_outward(left: Reconstruction) -> None:
    for pose in (left.hand.T_camera_hand, left.object.T_camera_object):
        assert np.linalg.det(pose.rotation) == pytest.approx(1)
        assert np.allclose(pose.rotation @ pose.rotation.T, np.eye(3))
    for part in (left.hand, left.object):
        mesh = trimesh.Trimesh(part.vertices, part.faces, process=False)
        assert mesh.is_watertight
        assert mesh.is_winding_consistent
        assert mesh.volume > 0


def test_left_hand_frame_is_the_mirrored_convention(left: Reconstruction) -> None:
    """x runs from the wrist to the middle knuckle for both sides; y is negated for a left hand."""
    knuckle = left.hand.keypoints[9]
    assert knuckle[0] > 0.9 * np.linalg.norm(knuckle)
    assert np.allclose(left.hand.keypoints[0], 0, atol=1e-6)


def test_object_axes_follow_the_same_rule_as_without_mirroring(left: Reconstruction) -> None:
    obj = left.object
    again = place_in_object_frame(obj.T_camera_object.apply(obj.vertices), obj.faces)
    assert np.allclose(again.extents_m, obj.extents_m, atol=2e-4)
    # The long axis of a cylinder is unique; its sign is chosen by the rule.
    assert again.T_camera_object.rotation[:, 0] @ obj.T_camera_object.rotation[:, 0] > 0.999


def test_mirroring_twice_gives_the_result_back(right: Reconstruction, left: Reconstruction) -> None:
    back = mirror_reconstruction(left)
    assert back.hand.side == right.hand.side
    assert np.allclose(back.hand.vertices, right.hand.vertices)
    assert np.allclose(back.hand.T_camera_hand.matrix(), right.hand.T_camera_hand.matrix())
    assert np.allclose(back.object.vertices, right.object.vertices)
    assert np.array_equal(back.frame.image, right.frame.image)
    assert np.allclose(back.observation.keypoints_2d, right.observation.keypoints_2d)
    assert np.array_equal(back.masks.object, right.masks.object)


def test_mirrored_result_explains_the_mirrored_image_equally_well(right: Reconstruction, left: Reconstruction) -> None:
    quality = measure_quality(left.frame, left.observation, left.masks, left.hand, left.object, left.contacts)
    assert quality.object_silhouette_iou == pytest.approx(right.quality.object_silhouette_iou, abs=0.01)
    assert quality.keypoint_error_px == pytest.approx(right.quality.keypoint_error_px, abs=0.05)
    assert quality.penetration_cm3 == pytest.approx(right.quality.penetration_cm3, rel=0.05, abs=0.05)
