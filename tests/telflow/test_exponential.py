"""Exponential histograms: OTLP's buckets, the finest scale that fits, and quantiles within their bound."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from telflow.exponential import ExponentialColumn, bucket_indices, relative_error, scale_for
from tests.strategies import thorough

_values = st.lists(st.tuples(st.integers(0, 2), st.floats(1e-9, 1e9) | st.floats(-100, 0)), max_size=40)


def _column(rows: list[tuple[int, float]], max_buckets: int = 10, scale: int = 20) -> ExponentialColumn:
    column = ExponentialColumn(max_buckets, scale)
    column.grow(3)
    column.add(np.array([r for r, _ in rows], np.int64), np.array([v for _, v in rows], np.float64))
    return column


def test_a_power_of_two_is_the_upper_bound_of_its_bucket() -> None:
    """Exactly, at every scale, where a logarithm may be off by one."""
    for scale in (0, 3, 20):
        for exponent in range(-1020, 1020, 7):
            assert bucket_indices(np.array([2.0**exponent]), scale).tolist() == [(exponent << scale) - 1]


@thorough(40)
@given(rows=_values, cut=st.integers(0, 40))
def test_parts_merge_to_the_whole(rows: list[tuple[int, float]], cut: int) -> None:
    """However values are split: the same scale, buckets and quantiles; also after a snapshot and over Arrow."""
    whole, part, rest = _column(rows), _column(rows[:cut]), _column(rows[cut:])
    crossed = ExponentialColumn(10, 20)
    crossed.from_arrow(rest.to_arrow())
    part.merge(crossed, np.array([0, 1, 2]))
    again = ExponentialColumn(10, 20)
    again.restore(part.state())
    assert again.to_arrow() == whole.to_arrow()
    slots, asked = np.arange(3), np.array([0.0, 0.5, 1.0])
    np.testing.assert_array_equal(again.quantiles(slots, asked), whole.quantiles(slots, asked))
    assert whole.counts(slots).tolist() == [sum(r == slot for r, _ in rows) for slot in range(3)]


@thorough(40)
@given(values=st.lists(st.floats(1e-3, 1e3) | st.floats(-1e3, -1e-3) | st.just(0.0), min_size=1, max_size=50))
def test_quantiles_are_within_the_relative_error(values: list[float]) -> None:
    """Of the value of that rank."""
    scale = scale_for(0.01)
    assert relative_error(scale) <= 0.01 < relative_error(scale - 1)
    column = _column([(1, v) for v in values], 2048, scale)
    asked = [0.0, 0.25, 0.5, 0.9, 1.0]
    (found,) = column.quantiles(np.array([1]), np.array(asked)).tolist()
    for quantile, value in zip(asked, found, strict=True):
        true = sorted(values)[math.floor(quantile * (len(values) - 1))]
        assert abs(value - true) <= 0.01 * abs(true) + 1e-12
    assert np.isnan(column.quantiles(np.array([0]), np.array([0.5]))).all()


def test_extreme_doubles_have_buckets() -> None:
    """The smallest, the largest and infinity; NaN is no value."""
    column = _column([(0, 5e-324), (0, 1.7e308), (0, math.inf), (0, math.nan), (0, -1.0)], 160)
    points = column.points(np.array([0]))
    assert sum(points["positive"].to_pylist()[0]["bucket_counts"]) == 3
    assert points["negative"].to_pylist()[0]["bucket_counts"] == [1]


def test_slots_can_be_cleared_kept_and_taken() -> None:
    """The others keep what they have."""
    column = _column([(0, 1.0), (1, 2.0), (2, 0.0)])
    assert column.take(np.array([2, 0])).counts(np.array([0, 1])).tolist() == [1, 1]
    column.clear(np.array([1]))
    column.keep(np.array([2, 1]))
    assert column.counts(np.array([0, 1])).tolist() == [1, 0]
