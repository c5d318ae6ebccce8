"""Open traces against a dict of what their spans say."""

from __future__ import annotations

import os
import pickle
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from telflow.sampling.open_traces import OpenTraces
from telflow.sampling.trace_index import TraceKeys
from telflow.sampling.trace_state import UNKNOWN, randomness

EXAMPLES = int(os.environ.get("TELFLOW_HYPOTHESIS_EXAMPLES", "60"))

Span = tuple[int, int, int, int, int | None]
"""Trace, start, end, bits, explicit randomness."""


def keys_of(traces: list[int]) -> TraceKeys:
    words = np.array(traces, np.uint64)
    return TraceKeys(words, words << np.uint64(40), np.array(traces, np.uint32) % 2)


def words(values: list[int]) -> Any:
    return np.array(values, np.uint64)


def add(traces: OpenTraces, spans: list[Span], deadline: int) -> None:
    keys = keys_of([span[0] for span in spans])
    slots = traces.find(keys).copy()
    slots[slots < 0] = traces.open(keys.at(slots < 0))
    explicit = None
    if any(span[4] is not None for span in spans):
        explicit = words([UNKNOWN if span[4] is None else span[4] for span in spans])
    start, end, bits = (words([int(span[n] or 0) for span in spans]) for n in (1, 2, 3))
    traces.add(slots, deadline, start=start, end=end, bits=bits, explicit=explicit)


SPANS = st.tuples(
    st.integers(0, 9), st.integers(0, 50), st.integers(0, 50), st.integers(0, 9), st.none() | st.integers(0, 99)
)


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.lists(st.tuples(st.lists(SPANS, min_size=1, max_size=12), st.booleans()), max_size=6), st.integers(1, 3))
def test_same_as_a_dict(rounds: list[tuple[list[Span], bool]], wait: int) -> None:
    """Spans come, traces fall due in the order of their deadlines, states are saved: the same facts of each."""
    traces, known = OpenTraces(), dict[int, dict[str, Any]]()
    for tick, (spans, restart) in enumerate(rounds):
        for number, due in traces.due(tick):
            expected = [trace for trace, facts in known.items() if facts["deadline"] == number]
            assert traces.keys(due).high.tolist() == expected
            found = traces.facts(due)
            mine = [known.pop(trace) for trace in expected]
            assert found.spans.tolist() == [facts["spans"] for facts in mine]
            assert found.start_unix_nano.tolist() == [facts["start"] for facts in mine]
            assert found.end_unix_nano.tolist() == [facts["end"] for facts in mine]
            assert found.bits.tolist() == [facts["bits"] for facts in mine]
            assert found.tenant.tolist() == [trace % 2 for trace in expected]
            low, explicit = keys_of(expected).low, words([facts["explicit"] for facts in mine])
            assert found.randomness.tolist() == randomness(low, explicit).tolist()
            traces.close(due)
        assert all(facts["deadline"] > tick for facts in known.values())
        add(traces, spans, tick + wait)
        for trace, start, end, bits, explicit in spans:
            unseen = {"deadline": tick + wait, "spans": 0, "start": start, "end": end, "bits": 0, "explicit": UNKNOWN}
            facts = known.setdefault(trace, unseen)
            facts["spans"] += 1
            facts["start"], facts["end"] = min(facts["start"], start), max(facts["end"], end)
            facts["bits"] |= bits
            facts["explicit"] = min(facts["explicit"], UNKNOWN if explicit is None else explicit)
        if restart:
            copy = OpenTraces()
            copy.restore(pickle.loads(pickle.dumps(traces.state(traces.by_age()))), lambda bits: bits)  # noqa: S301
            traces = copy
        assert len(traces) == len(known)
        assert traces.keys(traces.by_age()).high.tolist() == list(known)


def test_hastened_traces_are_due_earlier_never_later() -> None:
    """As when a root span has come."""
    traces = OpenTraces()
    add(traces, [(1, 0, 0, 0, None), (2, 0, 0, 0, None)], 10)
    slots = traces.find(keys_of([1, 2]))
    traces.hasten(slots[:1], 4)
    traces.hasten(slots, 20)
    assert [(tick, traces.keys(due).high.tolist()) for tick, due in traces.due(99)] == [(4, [1]), (10, [2])]


def test_deadlines_in_other_ticks() -> None:
    """After a restart with another interval; rounded up, so that nothing is decided before its time."""
    traces = OpenTraces()
    add(traces, [(1, 0, 0, 0, None)], 7)
    traces.rescale(1000, 300)
    assert traces.deadline.tolist() == [24]


def test_a_state_is_restored_under_other_policies() -> None:
    """Bits are what today's predicates make of them; ages and slots follow the order of the state."""
    traces = OpenTraces()
    add(traces, [(5, 0, 0, 1, None), (3, 0, 0, 2, None), (4, 0, 0, 3, None)], 7)
    traces.close(traces.find(keys_of([5])))
    copy = OpenTraces()
    copy.restore(traces.state(traces.by_age()), lambda bits: bits << np.uint64(4))
    assert copy.facts(copy.by_age()).bits.tolist() == [32, 48]
    assert copy.find(keys_of([3, 4])).tolist() == [0, 1]
