# SPDX-License-Identifier: Apache-2.0
"""When mode continuous takes a hand to be still, moving, empty or gone; no ROS is needed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fmh_ros.core.cues.types import SeenHand
from fmh_ros.core.frame.frame import Side
from fmh_ros.nodes.watching import Watch, WatchSettings

SETTINGS = WatchSettings(still_frames=3, motion=0.05, holds=0.4, retry_s=10.0)
#: A hand whose box has a longer side of 100 pixels.
LANDMARKS = np.stack([np.linspace(100, 200, 21), np.linspace(80, 160, 21)], 1)


def hand(shift_px: float = 0.0, holds: float = 0.9, side: Side = "right") -> SeenHand:
    return SeenHand(side, 0.9, (100 + shift_px, 80, 200 + shift_px, 160), LANDMARKS + [shift_px, 0], holds)


def watched(*looks: SeenHand | None) -> Watch:
    watch = Watch()
    for one in looks:
        watch.see([] if one is None else [one], SETTINGS)
    return watch


def ready(watch: Watch, now: float = 0.0) -> bool:
    return watch.ready(SETTINGS, now) is not None


def test_a_hand_is_ready_after_so_many_looks_without_moving_and_not_one_before() -> None:
    watch = Watch()
    said = []
    for _ in range(4):
        assert not ready(watch)
        watch.see([hand()], SETTINGS)
        said.append(watch.describe(SETTINGS))
    assert ready(watch)
    assert said == [f"right hand still {count}/3" for count in range(4)]


@pytest.mark.parametrize(("shift_px", "still"), [(4.9, True), (5.1, False)])
def test_moving_is_measured_by_the_hand_s_box(shift_px: float, still: bool) -> None:
    watch = watched(*[hand()] * 3, hand(shift_px))
    assert ready(watch) == still
    if not still:
        assert watch.describe(SETTINGS) == "right hand moving 5 px"
        watch.see([hand(shift_px + 14)], SETTINGS)
        assert watch.describe(SETTINGS) == "right hand moving 14 px"


def test_creeping_is_moving() -> None:
    assert not ready(watched(*[hand(2.0 * step) for step in range(40)]))
    assert ready(watched(*[hand(0.1 * step) for step in range(40)]))


def test_an_empty_hand_is_never_ready_and_one_that_takes_something_becomes_so() -> None:
    watch = watched(*[hand(holds=0.39)] * 9)
    assert not ready(watch) and watch.describe(SETTINGS) == "right hand empty (holds 0.39, wanted 0.4)"
    watch.see([hand(holds=0.41)], SETTINGS)
    assert ready(watch)
    watch.see([hand(holds=0.3)], SETTINGS)  # an unsure moment
    assert ready(watch)
    watch.see([hand(holds=0.19)], SETTINGS)
    assert not ready(watch)


def worked(*, failed: bool = False) -> Watch:
    watch = watched(*[hand()] * 4)
    one = watch.ready(SETTINGS, 100.0)
    assert one is not None
    one.worked_on(failed=failed, now=100.0)
    return watch


def test_there_is_one_job_until_the_hand_moves() -> None:
    watch = worked()
    for _ in range(50):
        watch.see([hand(1.0)], SETTINGS)
        assert not ready(watch, 1e6)
    assert watch.describe(SETTINGS) == "right hand reconstructed, waits until it moves or lets go"
    for count in range(4):
        assert not ready(watch), count
        watch.see([hand(30.0)], SETTINGS)
    assert ready(watch)


def test_there_is_one_job_until_the_hand_lets_go() -> None:
    watch = worked()
    watch.see([hand(holds=0.1)], SETTINGS)
    assert "empty" in watch.describe(SETTINGS)
    watch.see([hand()], SETTINGS)
    assert ready(watch)


def test_a_hand_that_one_look_misses_is_the_same_and_one_that_is_gone_is_new_when_it_comes_back() -> None:
    watch = worked()
    watch.see([], SETTINGS)
    for _ in range(9):
        watch.see([hand()], SETTINGS)
    assert not ready(watch)
    for _ in range(2):
        watch.see([], SETTINGS)
    assert watch.describe(SETTINGS) == "no hand"
    for _ in range(4):
        watch.see([hand()], SETTINGS)
    assert ready(watch)


def test_a_look_that_misses_the_hand_begins_the_count_again() -> None:
    assert not ready(watched(hand(), hand(), hand(), None, hand()))
    assert not ready(watched(*[hand()] * 4, None))
    assert ready(watched(hand(), hand(), hand(), None, *[hand()] * 3))


def test_landmarks_that_settle_after_a_jump_are_no_new_movement() -> None:
    # The first look after a jump is taken for the place; a little later the landmarks have settled 4.5 px from it.
    watch = watched(*[hand()] * 4, *[hand(60.0 + settled) for settled in (0.0, 2.5, 4.0, 4.5)])
    one = watch.ready(SETTINGS, 0.0)
    assert one is not None
    one.worked_on(failed=False, now=0.0)
    for noise in (0.6, 0.8, -0.5, 0.7):
        watch.see([hand(64.5 + noise)], SETTINGS)
        assert not ready(watch) and "reconstructed" in watch.describe(SETTINGS)
    watch.see([hand(70.0)], SETTINGS)
    assert "moving" in watch.describe(SETTINGS)


def test_a_job_that_failed_is_tried_again_after_a_while() -> None:
    watch = worked(failed=True)
    watch.see([hand()], SETTINGS)
    assert not ready(watch, 109.0) and ready(watch, 110.0)
    assert "no reconstruction" in watch.describe(SETTINGS)


def test_two_hands_are_told_apart_and_each_has_its_job() -> None:
    watch = Watch()
    left = hand(150.0, 0.8, "left")
    for step in range(5):
        watch.see([left, hand(20.0 * step)], SETTINGS)
    first = watch.ready(SETTINGS, 0.0)
    assert first is not None and first.side == "left"
    first.worked_on(failed=False, now=0.0)
    for _ in range(3):
        watch.see([hand(80.0), left], SETTINGS)
    second = watch.ready(SETTINGS, 0.0)
    assert second is not None and second.side == "right"
    second.worked_on(failed=False, now=0.0)
    watch.see([left], SETTINGS)
    assert not ready(watch) and len(watch.hands) == 2


def test_a_side_that_flickers_is_no_other_hand() -> None:
    watch = worked()
    for side in ("left", "right", "left"):
        watch.see([replace(hand(), side=side)], SETTINGS)  # type: ignore[arg-type]
        assert len(watch.hands) == 1 and not ready(watch)
