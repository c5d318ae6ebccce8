"""Segments against a list of spans: every span gets the verdict of its trace, once, and not before it."""

from __future__ import annotations

import os
import pickle
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from telflow.sampling.segments import Decided, Released, Segments
from telflow.sampling.span_facts import SpanFacts

EXAMPLES = int(os.environ.get("TELFLOW_HYPOTHESIS_EXAMPLES", "80"))
HIGH = 12
FAR = 1000


def facts(name: str, rows: list[int], num_bytes: int = 100) -> SpanFacts:
    """Only what segments look at."""
    count = len(rows)
    nothing = np.zeros(count, np.uint64)
    return SpanFacts(
        segment=name,
        num_bytes=num_bytes,
        tenants=(None,),
        rows=np.array(rows, np.uint32),
        high=nothing,
        low=nothing,
        tenant=np.zeros(count, np.int64),
        start=nothing,
        end=nothing,
        root=np.zeros(count, bool),
        bits=nothing,
        explicit=None,
    )


def ints(values: list[int]) -> Any:
    return np.array(values, np.int64)


def released(segments: Segments, decided: Decided) -> dict[str, dict[int, int]]:
    found: dict[str, dict[int, int]] = {}
    for name, rows, verdicts in segments.decide(decided):
        assert name not in found
        assert len(rows) == len(verdicts) > 0
        found[name] = dict(zip(rows.tolist(), verdicts.tolist(), strict=True))
    return found


def decided(slots: list[int], tick: int = 0, *, at_once: bool = False) -> Decided:
    """The verdict on a trace is its slot and the tick."""
    verdicts = np.array([100 * tick + slot for slot in slots], np.uint64)
    return Decided(ints(slots), verdicts, HIGH, tick, at_once)


class SlowSegments:
    """Span by span: the slot of each that is held, and the verdict on each that is decided but still waits."""

    def __init__(self, wait: int) -> None:
        self._wait = wait
        self.due: dict[int, int] = {}  # of open traces, by slot
        self.held: dict[str, dict[int, int]] = {}
        self.done: dict[str, dict[int, int]] = {}

    def open(self, name: str, slots: list[int], tick: int) -> list[int]:
        self.held[name] = dict(enumerate(slots, 10))
        return [self.due.setdefault(slot, tick + self._wait + slot % 2) for slot in slots]

    def decide(self, tick: int, *, everything: bool) -> list[int]:
        going = [slot for slot in self.due if everything or self.due[slot] <= tick]
        for slot in going:
            del self.due[slot]
        for name, rows in self.held.items():
            for row in [row for row, slot in rows.items() if slot in going]:
                self.done.setdefault(name, {})[row] = 100 * tick + rows.pop(row)
        return going

    def renumber(self) -> Any:
        """As a restored state does: return the new slot of each."""
        places = np.full(HIGH, -1)
        places[sorted(self.due)] = np.arange(len(self.due))
        self.due = {int(places[slot]): due for slot, due in self.due.items()}
        self.held = {name: {row: int(places[slot]) for row, slot in rows.items()} for name, rows in self.held.items()}
        return places

    def check(self, segments: Segments) -> None:
        assert len(segments) == sum(map(len, [*self.held.values(), *self.done.values()]))
        # What waits, waits for spans that are still open.
        assert all(self.held[name] for name in self.done)
        places = {
            name: zip(rows.tolist(), at.tolist(), strict=True) for name, rows, at in segments.places_in(self.held)
        }
        for name, rows in self.held.items():
            assert {row: slot for row, slot in places.get(name, ()) if slot >= 0} == rows


ROUND = st.tuples(
    st.lists(st.lists(st.integers(0, HIGH - 1), min_size=1, max_size=6), max_size=3),
    st.integers(0, 2),
    st.booleans(),
    st.booleans(),
)


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.lists(ROUND, max_size=8), st.integers(1, 3))
def test_same_as_span_by_span(rounds: list[tuple[list[list[int]], int, bool, bool]], wait: int) -> None:
    """Traces wait for some ticks or are hastened, slots are given anew, states are saved: nothing lost or twice."""
    segments, slow = Segments(), SlowSegments(wait)
    for tick, (parts, hastened, early, restart) in enumerate(rounds):
        named = {f"{tick}/{n}": slots for n, slots in enumerate(parts)}
        deadlines = [due for name, slots in named.items() for due in slow.open(name, slots, tick)]
        if named:
            new = [facts(name, list(range(10, 10 + len(slots)))) for name, slots in named.items()]
            segments.open(new, ints([slot for slots in parts for slot in slots]), ints(deadlines))
        for slot in sorted(slow.due)[:hastened]:
            slow.due[slot] = tick
            segments.hasten(tick)
        going = slow.decide(tick, everything=early)
        for name, some in released(segments, decided(going, tick, at_once=early)).items():
            assert some == slow.done.pop(name)
            assert early or len(some) >= len(slow.held[name])
        slow.check(segments)
        if restart:
            state = pickle.loads(pickle.dumps(segments.state(slow.renumber())))  # noqa: S301 - our own
            segments = Segments()
            segments.restore(state)
            slow.check(segments)
    going = slow.decide(FAR, everything=True)
    assert released(segments, decided(going, FAR)) == slow.done
    assert len(segments) == 0
    assert segments.num_bytes == 0


def test_small_parts_wait_and_nearly_whole_ones_wait_for_the_rest() -> None:
    """Half at least; all together when the others are due in the next tick."""
    segments = Segments()
    segments.open([facts("a", [0, 1, 2, 3])], ints([0, 1, 2, 3]), ints([1, 2, 9, 9]))
    assert released(segments, decided([0], 1)) == {}
    assert released(segments, decided([1], 2)) == {"a": {0: 100, 1: 201}}
    segments.open([facts("b", [0, 1, 2, 3])], ints([4, 5, 6, 7]), ints([3, 3, 3, 4]))
    assert released(segments, decided([4, 5, 6], 3)) == {}
    assert released(segments, decided([7], 4)) == {"b": {0: 304, 1: 305, 2: 306, 3: 407}}
    assert len(segments) == 2


def test_early_decisions_let_go_at_once() -> None:
    """Memory is short then: however small the part, and what waited goes with it."""
    segments = Segments()
    segments.open([facts("a", list(range(9)))], ints(list(range(9))), ints([1] + [9] * 8))
    assert released(segments, decided([0], 1)) == {}
    assert released(segments, decided([5], 1, at_once=True)) == {"a": {0: 100, 5: 105}}


def test_bytes_are_those_of_whole_segments_until_a_quarter_is_left() -> None:
    """As `HeldSpans` holds them."""
    segments = Segments()
    segments.open([facts("a", list(range(8)), 800), facts("b", [0], 5)], ints(list(range(9))), ints([1] * 9))
    assert segments.num_bytes == 805
    for slot in range(5):
        released(segments, decided([slot], at_once=True))
    assert segments.num_bytes == 805
    released(segments, decided([5], at_once=True))
    assert segments.num_bytes == 205


def test_a_state_does_not_change_with_the_segments() -> None:
    """It is saved later than it is made; a restored one works with other deadlines than it was saved with."""
    segments = Segments()
    segments.open([facts("a", [0, 1, 2])], ints([0, 1, 2]), ints([50, 50, 50]))
    state = segments.state(np.arange(HIGH))
    everything: list[Released] = list(segments.decide(decided([0, 1, 2], 50)))
    assert len(everything) == 1
    copy = Segments()
    copy.restore(state)
    copy.rescale(1000, 500)
    # Its traces may be due before what was said when they came: settings are others now.
    assert released(copy, decided([0, 1], 3)) == {"a": {0: 300, 1: 301}}
