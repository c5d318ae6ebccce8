"""Columns of integers in few bytes: exact for every type and every distance."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from telflow.sampling.packing import packed, unpacked

EXAMPLES = int(os.environ.get("TELFLOW_HYPOTHESIS_EXAMPLES", "100"))
DTYPES: list[Any] = [np.int32, np.int64, np.uint32, np.uint64]


@st.composite
def columns(draw: st.DrawFn) -> np.ndarray[Any, Any]:
    """Near each other, or as far apart as the type allows."""
    dtype = draw(st.sampled_from(DTYPES))
    limits = np.iinfo(dtype)
    low = draw(st.integers(limits.min, limits.max))
    near = st.integers(low, min(limits.max, low + draw(st.sampled_from([0, 200, 70_000]))))
    return np.array(draw(st.lists(st.one_of(near, st.integers(limits.min, limits.max)), max_size=9)), dtype)


@settings(max_examples=EXAMPLES, deadline=None)
@given(columns())
def test_round_trip(column: np.ndarray[Any, Any]) -> None:
    """The same values, the same type, and memory of its own both times."""
    before = packed(column)
    after = unpacked(before, column.dtype)
    assert after.dtype == column.dtype
    assert after.tolist() == column.tolist()
    assert not np.shares_memory(before[1], column)
    assert not np.shares_memory(after, before[1])


@pytest.mark.parametrize(("width", "nbytes"), [(0, 1), (255, 1), (256, 2), (65_536, 4), (2**32, 8)])
def test_bytes_follow_the_width(width: int, nbytes: int) -> None:
    """However large the numbers themselves are."""
    _, above = packed(np.array([2**60, 2**60 + width], np.int64))
    assert above.itemsize == nbytes
