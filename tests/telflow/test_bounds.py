"""Histogram bounds: the table finds the bucket that a binary search finds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from telflow.bounds import Bounds
from telflow.errors import BatchError
from tests.strategies import thorough

_numbers = st.one_of(
    st.integers(1, 200),
    st.integers(1, 2**63 - 1),
    st.integers(0, 62).flatmap(lambda e: st.sampled_from([2**e, 2**e + 1, max(1, 2**e - 1)])),
)


@thorough(150)
@given(bounds=st.sets(_numbers, max_size=20), values=st.lists(_numbers | st.just(0), max_size=30))
def test_equal_to_a_binary_search(bounds: set[int], values: list[int]) -> None:
    """Any bounds, any values, the bounds themselves and their neighbours included."""
    near = [max(0, min(2**63 - 1, b + d)) for b in bounds for d in (-1, 0, 1)]
    column = np.array(values + near, np.int64)
    expected = np.searchsorted(np.array(sorted(bounds), np.int64), column, side="left")
    assert Bounds(sorted(bounds)).buckets(column).tolist() == expected.tolist()


@pytest.mark.parametrize("bounds", [[2, 1], [1, 1], [0]])
def test_bounds_ascend(bounds: list[int]) -> None:
    """Other bounds are refused."""
    with pytest.raises(BatchError, match="ascending"):
        Bounds(bounds)
