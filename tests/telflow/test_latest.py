"""The latest values: of any order and cut the same, kept, cleared and sent like every column."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from telflow.latest import LatestColumn, timed
from tests.strategies import thorough

_events = st.lists(
    st.tuples(st.integers(0, 3), st.integers(-2, 5), st.sampled_from([0.0, -1.5, 2.0, float("nan")])), max_size=20
)


def _column(events: list[tuple[int, int, float]]) -> LatestColumn:
    column = LatestColumn()
    column.grow(4)
    rows, times, values = zip(*events, strict=True) if events else ((), (), ())
    column.add(np.array(rows, np.int64), timed(np.array(times, np.int64), np.array(values, np.float64)))
    return column


def _expected(events: list[tuple[int, int, float]]) -> list[float]:
    found = [max(((t, v) for row, t, v in events if row == slot and v == v), default=None) for slot in range(4)]  # noqa: PLR0124
    return [float("nan") if pair is None else pair[1] for pair in found]


@thorough(80)
@given(events=_events, cut=st.integers(0, 20), backwards=st.booleans())
def test_the_latest_whatever_the_way(events: list[tuple[int, int, float]], cut: int, backwards: bool) -> None:
    """At once, in two parts, one of them from another process, resumed in between."""
    first, second = _column(events[:cut]), LatestColumn()
    second.from_arrow(_column(events[cut:]).to_arrow())
    if backwards:
        first, second = second, first
    resumed = LatestColumn()
    resumed.restore(pickle.loads(pickle.dumps(first.state())))  # noqa: S301
    resumed.merge(second, np.arange(4))
    assert resumed.values.tolist() == pytest.approx(_expected(events), nan_ok=True)
    assert _column(events).values.tolist() == pytest.approx(_expected(events), nan_ok=True)


def test_slots_can_be_cleared_kept_and_taken() -> None:
    """The others keep what they have; a cleared one begins anew."""
    column = _column([(0, 5, 1.0), (1, 5, 2.0), (2, 5, 3.0)])
    assert column.take(np.array([2, 0])).values.tolist() == [3.0, 1.0]
    column.clear(np.array([1]))
    column.keep(np.array([2, 1]))
    column.add(np.array([0, 1]), timed(np.array([4, 4]), np.array([9.0, 9.0])))
    assert column.values.tolist() == [3.0, 9.0]
    state = column.state()
    column.add(np.array([0]), timed(np.array([9]), np.array([7.0])))
    assert state["values"].tolist() == [3.0, 9.0]
