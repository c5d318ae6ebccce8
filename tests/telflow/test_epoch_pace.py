"""How long a source keeps quiet at the end of an epoch: as long as it always has to wait then."""

from __future__ import annotations

import pytest

from telflow.epoch_pace import EpochPace


class Engine:
    """Asks a source every 10 ms, and after an epoch not before the others are through."""

    def __init__(self, first_s: float | None = None) -> None:
        self.now_s = 0.0
        self.pace = EpochPace(1.0, first_s=first_s, now_s=lambda: self.now_s)
        self.begun_s = 0.0

    def epoch(self, wait_s: float, *, idle: bool = False) -> list[float]:
        """Run an epoch; return the pauses the source asked for, the last one at its end."""
        pauses = []
        while True:
            asked_s = self.now_s
            self.pace.asked()
            self.now_s += 0.01
            pauses.append(self.pace.pause_s(idle=idle))
            if asked_s >= self.begun_s + 1.0:
                self.begun_s = asked_s
                self.pace.ended()
                self.now_s += max(wait_s, pauses[-1])
                return pauses


def test_the_source_is_quiet_only_while_it_cannot_be_asked() -> None:
    """Nothing in the middle of an epoch; at its end a little less than the shortest of the last waits."""
    engine = Engine()
    for wait_s in (0.3, 0.4, 0.35, 0.36):
        assert not any(engine.epoch(wait_s)[:-1])
    *before, last = engine.epoch(0.36)
    assert not any(before)
    assert last == pytest.approx(0.9 * 0.35)


def test_nothing_is_assumed_before_a_wait_is_known_unless_told() -> None:
    """After one, or from the start."""
    engine = Engine()
    assert [engine.epoch(0.3)[-1] > 0 for _ in range(3)] == [False, True, True]
    assert Engine(first_s=0.2).epoch(0.3)[-1] == pytest.approx(0.9 * 0.2)


def test_a_wait_that_became_short_is_found_out_soon() -> None:
    """Asked as soon as the pause is over, it may have been far too long: half of it next time."""
    engine = Engine()
    for _ in range(4):
        engine.epoch(0.5)
    pauses = [engine.epoch(0.001)[-1] for _ in range(8)]
    assert pauses[0] == pytest.approx(0.45)
    assert pauses[-1] < 0.01


def test_an_idle_source_sleeps_for_the_longest_of_the_last_waits() -> None:
    """But then for a quarter of an epoch at most; one with data goes by the shortest."""
    engine = Engine()
    for wait_s in (0.02, 0.1, 0.04):
        engine.epoch(wait_s, idle=True)
    assert engine.epoch(0.2, idle=True)[-1] == pytest.approx(0.9 * 0.1)
    assert engine.epoch(9.0, idle=True)[-1] == pytest.approx(0.9 * 0.2)
    assert engine.epoch(9.0, idle=True)[-1] == 0.25
    assert engine.epoch(9.0)[-1] == pytest.approx(0.9 * 0.2)


def test_a_long_wait_does_not_make_it_deaf_for_as_long() -> None:
    """Others that took far longer than an epoch for a while: the source is asked once an epoch all the same."""
    engine = Engine()
    pauses = [engine.epoch(30.0)[-1] for _ in range(4)]
    assert pauses == [0.0, 1.0, 1.0, 1.0]
