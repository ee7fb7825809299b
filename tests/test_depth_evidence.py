# SPDX-License-Identifier: Apache-2.0
"""What measured depth adds to a network that does not know the object, on a drawn hand with a disc beside it."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from fmh_ros.core.cues.depth_evidence import depth_edges, find_evidence, weigh

SIZE = 200
ROWS, COLUMNS = np.mgrid[:SIZE, :SIZE]
#: An upright hand 100 px tall: the wrist below, the fingers side by side.
KEYPOINTS = np.array([[90, 150], *[[70 + 10 * f, 125 - 25 * j] for f in range(5) for j in range(4)]], float)
HAND = (COLUMNS > 62) & (COLUMNS < 118) & (ROWS > 45) & (ROWS < 152)
ARM = (COLUMNS > 72) & (COLUMNS < 108) & (ROWS >= 152)
BALL = (COLUMNS - 140) ** 2 + (ROWS - 80) ** 2 < 24**2
EVERYWHERE = np.ones((SIZE, SIZE), bool)


def _depth(background: float | NDArray[np.floating] = 1.2, ball: float = 0.5) -> NDArray[np.float32]:
    depth = np.broadcast_to(np.asarray(background, float), (SIZE, SIZE)).copy()
    depth[BALL] = ball
    depth[HAND | ARM] = 0.5
    return depth.astype(np.float32)


def _classes() -> NDArray[np.float32]:
    """A network that knows the hand and takes everything else for the background."""
    classes = np.zeros((SIZE, SIZE, 3), np.float32)
    classes[..., 0] = 1
    classes[HAND] = (0.05, 0.95, 0)
    return classes


def _weighed(depth: NDArray[np.float32]) -> NDArray[np.float32]:
    evidence = find_evidence(depth, KEYPOINTS, EVERYWHERE)
    assert evidence is not None
    result = weigh(evidence, _classes(), KEYPOINTS)
    np.testing.assert_allclose(result.sum(-1), 1, atol=1e-5)
    return result


def test_a_body_in_the_hand_that_stands_free_is_the_object_though_the_network_does_not_know_it() -> None:
    classes = _weighed(_depth())
    assert (classes[BALL & ~HAND, 2] > 0.5).mean() > 0.97
    assert (classes[HAND, 1] > 0.9).all()
    assert (classes[~(BALL | HAND | ARM) & (ROWS < 140)].argmax(-1) == 0).mean() > 0.97


def test_what_goes_on_from_the_wrist_is_the_arm() -> None:
    assert (_weighed(_depth())[ARM, 1] > 0.5).mean() > 0.95


def test_a_body_behind_the_hand_that_comes_out_beside_it_is_the_object() -> None:
    # A step between the hand and the body separates their surfaces.
    assert (_weighed(_depth(ball=0.57))[BALL & ~HAND, 2] > 0.5).mean() > 0.98


def test_what_lies_on_a_table_that_the_hand_touches_keeps_the_networks_answer() -> None:
    # A table seen from above: at the ball it is as far away as the ball, so the ball does not stand free.
    table = 0.5 + 0.0008 * (COLUMNS - 140.0)
    np.testing.assert_allclose(_weighed(_depth(table))[BALL & ~HAND], _classes()[BALL & ~HAND])


def test_what_is_out_of_reach_is_not_the_object() -> None:
    classes = _classes()
    classes[BALL & ~HAND] = (0.1, 0, 0.9)
    depth = _depth(ball=1.1)
    evidence = find_evidence(depth, KEYPOINTS, EVERYWHERE)
    assert evidence is not None
    assert (weigh(evidence, classes, KEYPOINTS)[BALL & ~HAND, 0] == 1).all()


def test_a_free_body_far_from_the_hand_in_the_picture_is_left_alone() -> None:
    depth = _depth()
    depth[:, 118:] = 1.2
    away = (COLUMNS - 185) ** 2 + (ROWS - 60) ** 2 < 10**2
    depth[away] = 0.5
    np.testing.assert_allclose(_weighed(depth)[away], _classes()[away])


@pytest.mark.parametrize("lost", [0.2, 0.5])
def test_holes_in_the_depth_change_little(lost: float) -> None:
    depth = _depth()
    cells = np.random.default_rng(0).random((SIZE // 10, SIZE // 10)) < lost * 0.2
    depth[np.kron(cells, np.ones((10, 10), bool))] = np.nan
    seen = BALL & ~HAND & np.isfinite(depth)
    assert (_weighed(depth)[seen, 2] > 0.5).mean() > 0.95


def test_a_hand_without_depth_gives_no_evidence() -> None:
    depth = _depth()
    depth[HAND] = np.nan
    assert find_evidence(depth, KEYPOINTS, EVERYWHERE) is None


def test_edges_are_jumps_and_not_slopes() -> None:
    slope = (0.5 + 0.002 * COLUMNS).astype(np.float32)
    assert not depth_edges(slope).any()
    slope[:, 100:] += 0.05
    assert depth_edges(slope).any(0).tolist() == [c == 99 for c in range(SIZE)]
