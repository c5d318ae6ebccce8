"""How long a source keeps quiet at the end of an epoch: as long as it always has to wait then."""

from __future__ import annotations

import pytest

from telflow.epoch_pace import EpochPace


class Engine:
    """Asks a source every 10 ms, and after an epoch not before the others are through."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.pace = EpochPace(1.0, lambda: self.now_s)
        self.begun_s = 0.0

    def epoch(self, wait_s: float) -> list[float]:
        """Run an epoch; return the pauses the source asked for, the last one at its end."""
        pauses = []
        while True:
            asked_s = self.now_s
            self.pace.asked()
            self.now_s += 0.01
            pauses.append(self.pace.pause_s())
            if asked_s >= self.begun_s + 1.0:
                self.begun_s = asked_s
                self.pace.ended()
                self.now_s += max(wait_s, pauses[-1])
                return pauses


def test_the_source_is_quiet_only_while_it_cannot_be_asked() -> None:
    """Nothing in the middle of an epoch; at its end a little less than the shortest of the last waits."""
    engine = Engine()
    for wait_s in (0.3, 0.4, 0.2, 0.25):
        assert not any(engine.epoch(wait_s)[:-1])
    *before, last = engine.epoch(0.25)
    assert not any(before)
    assert last == pytest.approx(0.9 * 0.2)


def test_nothing_is_assumed_before_waits_are_known() -> None:
    """Three of them."""
    engine = Engine()
    assert [engine.epoch(0.3)[-1] > 0 for _ in range(5)] == [False, False, False, True, True]


def test_a_wait_that_became_short_is_found_out() -> None:
    """The pause itself looks like a wait, but a shorter one each time."""
    engine = Engine()
    for _ in range(4):
        engine.epoch(0.5)
    pauses = [engine.epoch(0.001)[-1] for _ in range(60)]
    assert pauses[0] > 0.4
    assert pauses[-1] < 0.01


def test_a_long_wait_does_not_make_it_deaf_for_as_long() -> None:
    """Others that took far longer than an epoch for a while: the source is asked once an epoch all the same."""
    engine = Engine()
    pauses = [engine.epoch(30.0)[-1] for _ in range(5)]
    assert pauses == [0.0, 0.0, 0.0, 1.0, 1.0]
