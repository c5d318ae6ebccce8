"""The index of traces: exact, whatever hashes do."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from telflow.sampling.trace_index import TraceIndex, TraceKeys, shards_of_words, trace_words

Triple = tuple[int, int, int]


def keys_of(triples: list[Triple], *, one_hash: bool = False) -> TraceKeys:
    columns = [np.array([t[n] for t in triples], np.uint64) for n in range(3)]
    keys = TraceKeys.of(*columns)
    return keys._replace(hash=keys.hash % np.uint64(3)) if one_hash else keys


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.tuples(*[st.integers(0, 3)] * 3), max_size=20), max_size=5), st.booleans())
def test_same_as_a_dict(rounds: list[list[Triple]], one_hash: bool) -> None:
    """Places are given in order of appearance, also where many traces share a hash."""
    index, known = TraceIndex(), dict[Triple, int]()
    for triples in rounds:
        keys = keys_of(triples, one_hash=one_hash)
        assert index.find(keys).tolist() == [known.get(t, -1) for t in triples]
        places = index.admit(keys).tolist()
        for triple, place in zip(triples, places, strict=True):
            known.setdefault(triple, place)
        assert places == [known[t] for t in triples]
        assert sorted(known.values()) == list(range(len(index)))
        order = np.argsort(keys.hash, kind="stable")
        firsts = keys.firsts(order)
        if triples:
            assert firsts[0] == 0
        assert {triples[n] for n in order[firsts].tolist()} == set(triples)


def test_places_follow_arrival() -> None:
    """New traces are numbered by when they came, wherever they stand."""
    index = TraceIndex()
    assert index.admit(keys_of([(3, 0, 0), (1, 0, 0), (2, 0, 0)]), np.array([2, 0, 1])).tolist() == [2, 0, 1]


def test_forgetting_and_restoring() -> None:
    """What is kept is found at its new place, what is not is gone; a copy has the same places."""
    index = TraceIndex()
    index.admit(keys_of([(n, n, 0) for n in range(10)]))
    index.keep(np.array([2, 5, 7]))
    copy = TraceIndex()
    copy.restore(index.state())
    for one in (index, copy):
        assert one.find(keys_of([(n, n, 0) for n in range(10)])).tolist() == [-1, -1, 0, -1, -1, 1, -1, 2, -1, -1]


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
