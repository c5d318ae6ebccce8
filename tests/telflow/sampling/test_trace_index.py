"""The index of traces: exact, whatever is asked of it in which order."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from telflow import _native
from telflow.sampling.trace_index import TraceIndex, TraceKeys, shards_of_words, trace_words

EXAMPLES = int(os.environ.get("TELFLOW_HYPOTHESIS_EXAMPLES", "60"))

Triple = tuple[int, int, int]


def keys_of(triples: list[Triple]) -> TraceKeys:
    high, low, tenant = (np.array([t[n] for t in triples], np.uint64) for n in range(3))
    return TraceKeys(high, low, tenant.astype(np.uint32))


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.lists(st.tuples(*[st.integers(0, 2)] * 3), max_size=20)), max_size=8))
def test_same_as_a_dict(rounds: list[tuple[bool, list[Triple]]]) -> None:
    """Admitting and removing in any order: every trace has one slot, below `high`, that no other has."""
    index, known = TraceIndex(), dict[Triple, int]()
    for removing, triples in rounds:
        keys = keys_of(triples)
        assert index.find(keys).tolist() == [known.get(t, -1) for t in triples]
        if removing:
            assert index.remove(keys).tolist() == [known.pop(t, -1) for t in triples]
        else:
            slots = index.admit(keys).tolist()
            for triple, slot in zip(triples, slots, strict=True):
                assert known.setdefault(triple, slot) == slot
        assert len(index) == len(known) == len(set(known.values()))
        assert all(0 <= slot < index.high for slot in known.values())


def test_slots_are_dense() -> None:
    """A slot that is free again is given away before a new one; an empty index begins anew."""
    index = TraceIndex()
    assert index.admit(keys_of([(3, 0, 0), (1, 0, 0), (3, 0, 0), (2, 0, 0)])).tolist() == [0, 1, 0, 2]
    index.remove(keys_of([(1, 0, 0)]))
    assert index.admit(keys_of([(9, 0, 0), (8, 0, 0)])).tolist() == [1, 3]
    assert index.high == 4
    index.remove(keys_of([(3, 0, 0), (9, 0, 0), (2, 0, 0), (8, 0, 0)]))
    assert (len(index), index.high) == (0, 0)


@pytest.mark.parametrize(
    "columns",
    [
        (pa.array([1], pa.uint64()), pa.array([1], pa.uint64()), pa.array([1], pa.uint64())),
        (pa.array([1], pa.uint64()), pa.array([None], pa.uint64()), pa.array([1], pa.uint32())),
        (pa.array([1], pa.uint64()), pa.array([1, 2], pa.uint64()), pa.array([1], pa.uint32())),
    ],
)
@pytest.mark.parametrize("method", ["find", "admit", "remove"])
def test_columns_that_do_not_fit_are_refused(method: str, columns: tuple[Any, Any, Any]) -> None:
    """Other types, nulls, other lengths: an error, and nothing has changed."""
    slots = _native.TraceSlots()
    with pytest.raises(ValueError, match="expected"):
        getattr(slots, method)(*columns, pa.int64())
    assert len(slots) == 0


def test_shards_are_even_and_stable() -> None:
    """Ids that differ little are spread; the numbers are the same in every release, for they are keys of the state."""
    ids = pa.array([n.to_bytes(16, "big") for n in range(4000)], pa.binary(16))
    shards = shards_of_words(*trace_words(ids), 7)
    counts = np.bincount(shards, minlength=7)
    assert counts.min() > 500
    assert counts.max() < 650
    assert shards[:8].tolist() == STABLE
    assert shards_of_words(*trace_words(ids.slice(4, 2)), 7).tolist() == STABLE[4:6]
    assert [len(words) for words in trace_words(ids.slice(0, 0))] == [0, 0]


STABLE = [0, 3, 6, 3, 4, 3, 1, 4]
