"""Hashes of columns: equal for equal values wherever they stand, spread evenly, the same for ever."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from telflow.hashing import assign, hash_binary, hash_text, mix
from tests.strategies import thorough

_MASK = (1 << 64) - 1


def _mix(value: int) -> int:
    value = (value + 0x9E3779B97F4A7C15) & _MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return value ^ (value >> 31)


def _hash_text(text: str | None) -> int:
    """The same, one byte after the other."""
    if text is None:
        return 0
    sums = sum((byte + 1) * pow(0x9E3779B97F4A7C15, place, 1 << 64) for place, byte in enumerate(text.encode()))
    return _mix((sums & _MASK) ^ _mix(len(text.encode())))


@thorough(100)
@given(texts=st.lists(st.none() | st.text(max_size=12), max_size=20), start=st.integers(0, 5))
def test_texts_against_one_byte_after_the_other(texts: list[str | None], start: int) -> None:
    """Also in a slice, with nulls, with empty texts, and without any text at all."""
    column = pa.array(texts, pa.string()).slice(min(start, len(texts)))
    assert hash_text(column).tolist() == [_hash_text(text) for text in column.to_pylist()]


@thorough(50)
@given(values=st.lists(st.none() | st.binary(min_size=16, max_size=16), max_size=20), start=st.integers(0, 5))
def test_identifiers_against_one_after_the_other(values: list[bytes | None], start: int) -> None:
    """Both halves count, in their order."""
    column = pa.array(values, pa.binary(16)).slice(min(start, len(values)))
    expected = [
        0 if value is None else _mix(_mix(int.from_bytes(value[:8], "little")) ^ int.from_bytes(value[8:], "little"))
        for value in column.to_pylist()
    ]
    assert hash_binary(column).tolist() == expected


@pytest.mark.parametrize("count", [2, 3, 7, 20])
def test_keys_are_spread_evenly_and_stay_where_they_are(count: int) -> None:
    """Each name gets its share within 10 %; when one leaves, only its keys move, and evenly."""
    names = [f"backend-{number}.example:4317" for number in range(count)]
    keys = mix(np.arange(50_000, dtype=np.uint64))
    places = assign(keys, names)
    assert np.bincount(places, minlength=count) == pytest.approx(50_000 / count, rel=0.1)
    left = np.array([0, *range(2, count)])
    moved = left[assign(keys, [names[place] for place in left])]
    assert np.array_equal(moved[places != 1], places[places != 1])
    assert np.array_equal(assign(keys, names), places)


def test_the_order_of_names_does_not_matter() -> None:
    """Two gateways that list the endpoints differently agree."""
    keys = mix(np.arange(1000, dtype=np.uint64))
    names = ["a:1", "b:1", "c:1"]
    other = ["c:1", "a:1", "b:1"]
    assert [names[place] for place in assign(keys, names)] == [other[place] for place in assign(keys, other)]
