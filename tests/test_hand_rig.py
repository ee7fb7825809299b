# SPDX-License-Identifier: Apache-2.0
"""The shipped hand rig and its kinematics."""

import numpy as np
import pytest
import torch
import trimesh
from scipy.spatial.transform import Rotation

from fmh_ros.core.hand.rig import (
    FINGER_NAMES,
    JOINT_NAMES,
    KEYPOINT_JOINTS,
    joint_limits,
    load_generic_rig,
    rotation_matrices,
)
from fmh_ros.core.hand.types import FINGERS

RIG = load_generic_rig()


def pose(rotations, **options):
    vertices, keypoints = RIG.pose(torch.as_tensor(np.asarray(rotations, np.float64)), **options)
    return vertices.numpy(), keypoints.numpy()


def test_the_mesh_is_one_closed_outward_body_of_human_size():
    mesh = trimesh.Trimesh(RIG.vertices, RIG.faces, process=False)
    assert mesh.is_watertight
    assert mesh.is_winding_consistent
    assert mesh.body_count == 1
    assert mesh.euler_number == 2
    assert 2.5e-4 < mesh.volume < 6e-4  # an adult hand displaces about 0.35 l
    assert 0.18 < RIG.vertices[:, 0].max() < 0.192


def test_weights_are_a_partition_of_unity_and_every_vertex_has_a_finger_label():
    assert np.allclose(RIG.weights.sum(1), 1, atol=1e-6)
    assert (RIG.weights >= 0).all()
    for finger, name in enumerate(FINGER_NAMES):
        assert FINGERS[finger] == name
        own = RIG.weights[RIG.vertex_finger == finger, 1 + 3 * finger : 4 + 3 * finger].sum(1)
        assert len(own) > 50
        assert own.min() > 0.3
    assert (RIG.vertex_finger[RIG.weights[:, 0] > 0.9] == 5).all()


def test_the_hand_frame_is_the_documented_one():
    index, middle, little = RIG.keypoints[5], RIG.keypoints[9], RIG.keypoints[17]
    assert np.allclose(RIG.keypoints[0], 0)
    assert np.allclose(middle[1:], 0, atol=1e-9)
    assert middle[0] > 0
    # Thumb side is +y of a right hand whose back is +z; a curling finger moves to -z.
    assert index[1] > 0 > little[1]
    assert RIG.keypoints[4, 1] > index[1]
    _, bent = pose(RIG.curl(np.full(5, 0.5)))
    assert (bent[[8, 12, 16, 20], 2] < RIG.keypoints[[8, 12, 16, 20], 2] - 0.02).all()


def test_zero_rotations_give_the_rest_pose_and_axes_are_rotations():
    vertices, keypoints = pose(np.zeros((15, 3)))
    assert np.allclose(vertices, RIG.vertices, atol=1e-9)
    assert np.allclose(keypoints, RIG.keypoints, atol=1e-9)
    assert np.allclose(RIG.axes @ RIG.axes.transpose(0, 2, 1), np.eye(3), atol=1e-9)
    assert np.allclose(np.linalg.det(RIG.axes), 1)


def test_bones_keep_their_length_when_joints_turn():
    rotations = np.random.default_rng(3).normal(0, 0.4, (15, 3))
    _, keypoints = pose(rotations)
    for finger in range(5):
        for k in (2, 3, 4):
            a, b = 4 * finger + k - 1, 4 * finger + k
            if a == 1:
                continue  # the thumb's first keypoint is on the palm, not at the joint
            rest = np.linalg.norm(RIG.keypoints[b] - RIG.keypoints[a])
            assert np.linalg.norm(keypoints[b] - keypoints[a]) == pytest.approx(rest, abs=1e-9)


def test_flexing_one_finger_moves_only_that_finger():
    rotations = np.zeros((15, 3))
    rotations[JOINT_NAMES.index("ring_mcp"), 0] = 0.8
    vertices, keypoints = pose(rotations)
    moved = np.linalg.norm(keypoints - RIG.keypoints, axis=1) > 1e-9
    assert set(np.flatnonzero(moved)) == {14, 15, 16}
    still = RIG.weights[:, 10:13].sum(1) == 0
    assert np.allclose(vertices[still], RIG.vertices[still], atol=1e-9)


def test_scales_act_on_size_finger_length_and_palm():
    vertices, keypoints = pose(np.zeros((15, 3)), scale=1.1)
    assert np.allclose(vertices, 1.1 * RIG.vertices)
    length = torch.tensor([1.0, 1.2, 1.0, 1.0, 1.0], dtype=torch.float64)
    _, keypoints = pose(np.zeros((15, 3)), bone_scale=length)
    for k in (6, 7, 8):
        before = np.linalg.norm(RIG.keypoints[k] - RIG.keypoints[k - 1])
        assert np.linalg.norm(keypoints[k] - keypoints[k - 1]) == pytest.approx(1.2 * before, rel=0.02)
    assert np.allclose(keypoints[9:], RIG.keypoints[9:])
    wide = torch.tensor([1.0, 1.3, 1.0], dtype=torch.float64)
    _, keypoints = pose(np.zeros((15, 3)), palm_scale=wide)
    assert np.allclose(keypoints[[5, 9, 13, 17]], RIG.keypoints[[5, 9, 13, 17]] * [1, 1.3, 1])


def test_derivatives_agree_with_finite_differences():
    rng = np.random.default_rng(0)
    ids = rng.choice(len(RIG.vertices), 40, replace=False)

    def run(x):
        vertices, keypoints = RIG.pose(
            x[:45].reshape(15, 3), x[45:55].reshape(5, 2), x[55], palm_scale=x[56:59], vertex_ids=ids
        )
        return torch.cat([vertices, keypoints])

    start = np.concatenate([rng.normal(0, 0.3, 45), 1 + rng.normal(0, 0.1, 14)])
    assert torch.autograd.gradcheck(run, torch.tensor(start, requires_grad=True), eps=1e-6, atol=1e-7)
    flat = torch.tensor(np.concatenate([np.zeros(45), np.ones(14)]), requires_grad=True)
    assert torch.autograd.gradcheck(run, flat, eps=1e-6, atol=1e-7)


def test_rotations_equal_the_matrix_exponential():
    vectors = torch.tensor(np.random.default_rng(1).normal(0, 1.5, (30, 3)))
    x, y, z = vectors.unbind(-1)
    zero = torch.zeros_like(x)
    skew = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).reshape(-1, 3, 3)
    assert torch.allclose(rotation_matrices(vectors), torch.linalg.matrix_exp(skew), atol=1e-12)


def test_curled_hands_stay_within_the_joint_limits():
    lower, upper = joint_limits()
    assert (lower < 0).all()
    assert (upper > 0).all()
    for flexion in (np.zeros(5), np.full(5, 0.5), np.full(5, 1.5)):
        for spread in (-1.0, 1.0):
            for opposition in (0.0, 1.0):
                rotations = RIG.curl(flexion, spread, opposition)
                assert (rotations >= lower).all()
                assert (rotations <= upper).all()


def test_spreading_moves_the_outer_fingertips_apart():
    _, together = pose(RIG.curl(np.zeros(5), -0.5))
    _, apart = pose(RIG.curl(np.zeros(5), 1.0))
    width = [np.linalg.norm(k[8] - k[20]) for k in (together, apart)]
    assert width[1] > width[0] + 0.02


@pytest.mark.parametrize("name", JOINT_NAMES)
def test_what_lies_beyond_a_joint_turns_rigidly_about_it_and_nothing_else_moves(name):
    joint = JOINT_NAMES.index(name)
    rotations = np.zeros((15, 3))
    rotations[joint] = [0.5, 0.2, -0.1]
    _, keypoints = pose(rotations)
    turn = RIG.axes[joint] @ Rotation.from_rotvec(rotations[joint]).as_matrix() @ RIG.axes[joint].T
    last = 3 * (joint // 3) + 2
    beyond = np.array([joint <= carrier <= last for carrier in KEYPOINT_JOINTS])
    expected = (RIG.keypoints - RIG.joints[joint]) @ turn.T + RIG.joints[joint]
    assert np.allclose(keypoints, np.where(beyond[:, None], expected, RIG.keypoints), atol=1e-9)
    assert (np.linalg.norm(keypoints - RIG.keypoints, axis=1) > 1e-3).sum() == 3 - joint % 3, "the joint itself stays"
