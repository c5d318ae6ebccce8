"""The table of traces against a dict of them."""

from __future__ import annotations

import os
import pickle

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from telflow.sampling.trace_index import TraceKeys
from telflow.sampling.trace_table import TraceTable

EXAMPLES = int(os.environ.get("TELFLOW_HYPOTHESIS_EXAMPLES", "60"))


def keys_of(traces: list[int]) -> TraceKeys:
    words = np.array(traces, np.uint64)
    return TraceKeys(words // 3, words % 3, np.zeros(len(traces), np.uint32))


def table() -> TraceTable:
    return TraceTable({"spans": (np.int64, 0), "least": (np.uint64, 2**64 - 1)})


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.lists(st.tuples(st.sets(st.integers(0, 30)), st.lists(st.integers(0, 30), max_size=20)), max_size=6))
def test_same_as_a_dict(rounds: list[tuple[set[int], list[int]]]) -> None:
    """Traces come and go; a slot given anew knows nothing of who had it; order is that of admission."""
    traces, known = table(), dict[int, list[int]]()
    for going, coming in rounds:
        gone = sorted(going & set(known))
        traces.remove(traces.find(keys_of(gone)))
        for trace in gone:
            del known[trace]
        new = [trace for trace in coming if trace not in known]
        traces.admit(keys_of(new))
        slots = traces.find(keys_of(coming))
        np.add.at(traces["spans"], slots, 1)
        np.minimum.at(traces["least"], slots, np.array(coming, np.uint64))
        for trace in coming:
            known.setdefault(trace, []).append(trace)
        if len(traces) % 2:
            copy = table()
            copy.restore(pickle.loads(pickle.dumps(traces.state(traces.in_order()))))  # noqa: S301 - our own
            traces = copy
        order = traces.in_order()
        found = traces.keys(order)
        assert (found.high * np.uint64(3) + found.low).tolist() == list(known)
        assert traces["spans"][order].tolist() == [len(spans) for spans in known.values()]
        assert traces["least"][order].tolist() == list(known)
        assert len(traces) == len(known)
        free = np.setdiff1d(np.arange(traces.high), order)
        assert not traces["spans"][free].any()


def test_it_grows() -> None:
    """Beyond the room it begins with; what was there stays."""
    traces = table()
    for start in range(0, 5000, 500):
        slots = traces.admit(keys_of(list(range(start, start + 500))))
        traces["spans"][slots] = start
    assert len(traces) == traces.high == 5000
    assert traces["spans"][traces.find(keys_of([0, 999, 4999]))].tolist() == [0, 500, 4500]


def test_a_trace_given_twice_is_as_old_as_its_first_row() -> None:
    """Whatever comes between."""
    traces = table()
    slots = traces.admit(keys_of([7, 8, 7, 9, 8]))
    assert slots.tolist() == [0, 1, 0, 2, 1]
    assert traces.in_order().tolist() == [0, 1, 2]
    assert traces.in_order(np.array([2, 0])).tolist() == [0, 2]


def test_a_state_does_not_change_with_the_table() -> None:
    """It is saved later than it is made."""
    traces = table()
    slots = traces.admit(keys_of([1, 2]))
    state = traces.state(traces.in_order())
    traces["spans"][slots] = 9
    traces.remove(slots[:1])
    copy = table()
    copy.restore(state)
    assert copy["spans"].tolist() == [0, 0]
