"""Exemplars: a bounded, even sample of what a slot has seen; the same for any order, cut and place."""

from __future__ import annotations

import pickle

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from telflow.exemplars import ExemplarColumn, candidates
from tests.strategies import thorough

_events = st.lists(st.tuples(st.integers(0, 3), st.one_of(st.none(), st.integers(1, 60))), max_size=30)


def _candidates(numbers: list[int | None]) -> np.ndarray[tuple[int], np.dtype[np.void]]:
    traces = pa.array([None if n is None else n.to_bytes(16, "big") for n in numbers], pa.binary(16))
    spans = pa.array([None if n is None else n.to_bytes(8, "big") for n in numbers], pa.binary(8))
    values = np.array([n or 0 for n in numbers], np.int64)
    return candidates(traces, spans, values, values)


def _column(events: list[tuple[int, int | None]], limit: int) -> ExemplarColumn:
    column = ExemplarColumn(limit)
    column.grow(4)
    column.add(np.array([row for row, _ in events], np.int64), _candidates([n for _, n in events]))
    return column


def _read(column: ExemplarColumn) -> list[list[int]]:
    lists = column.lists(np.arange(4), per_unit=2)
    found = []
    for exemplars in lists.to_pylist():
        for e in exemplars:
            number = e["time_unix_nano"]
            assert e["trace_id"] == number.to_bytes(16, "big")
            assert e["span_id"] == number.to_bytes(8, "big")
            assert e["value_double"] == number / 2
        found.append([e["time_unix_nano"] for e in exemplars])
    return found


@thorough(80)
@given(events=_events, cut=st.integers(0, 30), limit=st.integers(1, 4), order=st.randoms(use_true_random=False))
def test_the_same_sample_whatever_the_way(
    events: list[tuple[int, int | None]], cut: int, limit: int, order: np.random.Generator
) -> None:
    """Those of the smallest hashes; in two parts, one from another process, resumed in between."""
    hashes = _candidates([n for _, n in events])["hash"].tolist()
    expected = [
        [n for _, n in sorted((h, n) for h, (row, n) in zip(hashes, events, strict=True) if row == slot and n)][:limit]
        for slot in range(4)
    ]
    assert _read(_column(events, limit)) == expected
    shuffled = list(events)
    order.shuffle(shuffled)
    first, second = _column(shuffled[:cut], limit), ExemplarColumn(limit)
    second.from_arrow(_column(shuffled[cut:], limit).to_arrow())
    resumed = ExemplarColumn(limit)
    resumed.restore(pickle.loads(pickle.dumps(first.state())))  # noqa: S301
    resumed.merge(second, None)
    assert _read(resumed) == expected


def test_many_rows_are_turned_away_early_and_the_sample_is_even() -> None:
    """Of 200,000 rows in one slot 100 stay, spread over all of them."""
    column = ExemplarColumn(100)
    column.grow(1)
    for start in range(1, 200_001, 10_000):
        numbers: list[int | None] = list(range(start, start + 10_000))
        column.add(np.zeros(10_000, np.int64), _candidates(numbers))
    times = column.lists(np.array([0])).flatten().field("time_unix_nano").to_numpy()
    assert len(times) == 100
    assert 35 < np.count_nonzero(times > 100_000) < 65


def test_slots_can_be_cleared_kept_taken_and_renewed() -> None:
    """The others keep what they have; a cleared one takes anything again."""
    column = _column([(0, 1), (1, 2), (2, 3)], 1)
    assert [e.as_py()[0]["time_unix_nano"] for e in column.take(np.array([2, 0])).lists(np.array([0, 1]))] == [3, 1]
    column.clear(np.array([1]))
    column.keep(np.array([2, 1]))
    column.add(np.array([1]), _candidates([50]))
    assert [len(e) for e in column.lists(np.array([0, 1])).to_pylist()] == [1, 1]
    column.renew()
    assert column.lists(np.array([0, 1])).to_pylist() == [[], []]
