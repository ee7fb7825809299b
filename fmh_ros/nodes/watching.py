# SPDX-License-Identifier: Apache-2.0
"""Which hand has been still for long enough, holds something and is still to be reconstructed; no ROS in here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from fmh_ros.core.cues.types import FloatArray, SeenHand, keypoint_distance
from fmh_ros.core.frame.frame import Side

#: A hand that was not seen in so many looks in a row is gone; one look may miss it.
GONE = 2
#: A hand that is known to hold something is empty only below this part of the threshold, so that it does not flicker.
EMPTY_SHARE = 0.5
#: A hand that is nearer than this part of its box to where one was is the same, even when it seems to be the other one.
SAME_PLACE = 0.5


@dataclass(frozen=True)
class WatchSettings:
    """still_frames : looks in a row in which the hand must not have moved; motion : mean distance of the landmarks to
    where they were, over the hand's box, beyond which it has; holds : probability from which it holds something;
    retry_s : seconds after which a hand whose job failed may have another."""

    still_frames: int
    motion: float
    holds: float
    retry_s: float


@dataclass
class WatchedHand:
    """One hand. An episode begins when it stops and ends when it moves, lets go or is gone.

    anchor : landmarks (21, 2) px where it stopped, so that creeping counts as moving, and after its job where it was
    then; latest : where it was seen last.
    still : looks in this episode; moved_px : how far it moved in the last look, 0 when it did not.
    worked : the episode had its job; failed : when that failed, seconds of the steady clock, None when it did not.
    """

    side: Side
    anchor: FloatArray
    latest: FloatArray
    still: int = 0
    moved_px: float = 0.0
    holds: float = 0.0
    holding: bool = False
    missed: int = 0
    worked: bool = False
    failed: float | None = None

    def see(self, hand: SeenHand, settings: WatchSettings) -> None:
        """Take the next look at it."""
        self.side, self.latest, self.missed = hand.side, hand.landmarks, 0
        share = keypoint_distance(hand.landmarks, self.anchor)
        if share > settings.motion:
            size = max(float((self.anchor.max(0) - self.anchor.min(0)).max()), 1.0)
            self.moved_px, self.anchor, self.still = share * size, hand.landmarks, 0
            self._begin()
        else:
            self.moved_px, self.still = 0.0, self.still + 1
        self._judge(hand.holds, settings)

    def meet(self, hand: SeenHand, settings: WatchSettings) -> WatchedHand:
        """Take the first look at it."""
        self._judge(hand.holds, settings)
        return self

    def worked_on(self, *, failed: bool, now: float) -> None:
        """Remember that this episode had its job.

        From now on moving is measured from here: after a jump the first landmarks are off, and what still settles to
        its place is no new movement.
        """
        self.worked, self.failed = True, now if failed else None
        self.anchor = self.latest

    def is_ready(self, settings: WatchSettings, now: float) -> bool:
        """Whether it is time for its job."""
        if not self.holding or self.still < settings.still_frames or self.missed:
            return False
        return not self.worked or (self.failed is not None and now - self.failed >= settings.retry_s)

    def describe(self, settings: WatchSettings) -> str:
        """Say what is waited for."""
        name = f"{self.side} hand"
        if not self.holding:
            return f"{name} empty (holds {self.holds:.2f}, wanted {settings.holds:g})"
        if self.worked:
            what = "reconstructed" if self.failed is None else "has given no reconstruction"
            return f"{name} {what}, waits until it moves or lets go"
        if self.moved_px:
            return f"{name} moving {self.moved_px:.0f} px"
        return f"{name} still {self.still}/{settings.still_frames}"

    def _judge(self, holds: float, settings: WatchSettings) -> None:
        self.holds = holds
        self.holding = holds >= settings.holds * (EMPTY_SHARE if self.holding else 1.0)
        if not self.holding:
            self._begin()

    def _begin(self) -> None:
        self.worked, self.failed = False, None


@dataclass
class Watch:
    """All hands that are watched."""

    hands: list[WatchedHand] = field(default_factory=list)

    def see(self, seen: Sequence[SeenHand], settings: WatchSettings) -> None:
        """Take what a look has seen: the nearest one of its side is the same hand, others are new."""
        unknown = list(seen)
        for hand in self.hands:
            apart = [(keypoint_distance(one.landmarks, hand.latest), one) for one in unknown]
            alike = [pair for pair in apart if pair[1].side == hand.side or pair[0] < SAME_PLACE]
            if alike:
                _, nearest = min(alike, key=lambda pair: pair[0])
                unknown = [one for one in unknown if one is not nearest]
                hand.see(nearest, settings)
            else:
                hand.missed, hand.still = hand.missed + 1, 0
        self.hands = [hand for hand in self.hands if hand.missed < GONE]
        self.hands += [WatchedHand(one.side, one.landmarks, one.landmarks).meet(one, settings) for one in unknown]

    def ready(self, settings: WatchSettings, now: float) -> WatchedHand | None:
        """Return the hand that should be reconstructed now, the surest when there are several, None for none."""
        found = [hand for hand in self.hands if hand.is_ready(settings, now)]
        return max(found, key=lambda hand: hand.holds, default=None)

    def describe(self, settings: WatchSettings) -> str:
        """Say what is waited for, of the hand that is nearest to its job."""
        if not self.hands:
            return "no hand"
        first = max(self.hands, key=lambda hand: (hand.holding, not hand.worked, hand.still, hand.holds))
        return first.describe(settings)
