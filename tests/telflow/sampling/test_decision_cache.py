"""The decision cache against an ordered dict."""

from __future__ import annotations

import os

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from telflow.sampling.decision_cache import DecisionCache
from telflow.sampling.trace_index import TraceKeys
from telflow.sampling.trace_state import UNKNOWN

EXAMPLES = int(os.environ.get("TELFLOW_HYPOTHESIS_EXAMPLES", "60"))


def keys_of(traces: list[int]) -> TraceKeys:
    words = np.array(traces, np.uint64)
    return TraceKeys(words, words, np.zeros(len(traces), np.uint32))


class SlowCache:
    """Decisions in the order in which they were made, with when each was last used."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.known: dict[int, tuple[int, int]] = {}

    def put(self, decisions: dict[int, int], tick: int) -> None:
        self.known |= {trace: (threshold, tick) for trace, threshold in decisions.items()}
        if len(self.known) > self.capacity:
            self.shrink(int(self.capacity * 0.9) or 1)

    def get(self, trace: int, tick: int) -> int:
        if trace not in self.known:
            return UNKNOWN
        self.known[trace] = (self.known[trace][0], tick)
        return self.known[trace][0]

    def shrink(self, count: int) -> None:
        # A stable sort: of those used in one tick the ones decided first go first.
        going = sorted(self.known, key=lambda trace: self.known[trace][1])[: max(0, len(self.known) - count)]
        for trace in going:
            del self.known[trace]


@settings(max_examples=EXAMPLES, deadline=None)
@given(
    st.integers(1, 12),
    st.lists(st.tuples(st.lists(st.integers(0, 40), max_size=8), st.sets(st.integers(0, 40), max_size=8)), max_size=8),
    st.integers(0, 8),
)
def test_same_as_a_slow_one(capacity: int, rounds: list[tuple[list[int], set[int]]], restart: int) -> None:
    """Asked, filled, full, saved and restored with another capacity: the same decisions are remembered."""
    cache, slow = DecisionCache(capacity), SlowCache(capacity)
    for tick, (asked, decided) in enumerate(rounds):
        if tick == restart:
            capacity = max(1, capacity // 2)
            state = cache.state()
            cache = DecisionCache(capacity)
            cache.restore(state)
            slow.capacity = capacity
            slow.shrink(capacity)
        expected = [slow.get(trace, tick) for trace in asked]
        assert cache.get(keys_of(asked), tick).tolist() == expected
        new = {trace: trace * 7 for trace in sorted(decided) if trace not in slow.known}
        cache.put(keys_of(list(new)), np.array(list(new.values()), np.uint64), tick)
        slow.put(new, tick)
        assert len(cache) == len(slow.known) <= capacity
    everyone = list(range(41))
    assert cache.get(keys_of(everyone), 99).tolist() == [slow.get(trace, 99) for trace in everyone]


def test_without_capacity_nothing_is_remembered() -> None:
    """And nothing is kept in memory for it."""
    cache = DecisionCache(0)
    cache.put(keys_of([1]), np.array([5], np.uint64), 1)
    assert len(cache) == 0
    assert cache.get(keys_of([1]), 1).tolist() == [UNKNOWN]
