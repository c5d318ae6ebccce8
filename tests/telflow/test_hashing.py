"""Hashes of columns: equal for equal values wherever they stand, spread evenly, the same for ever."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from telflow.hashing import assign, hash_binary, hash_rows, hash_text, mix
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


class _Lanes:
    """The hash of a row, word after word, as native/src/row_hash.rs describes it."""

    def __init__(self) -> None:
        self.lanes = [0x9E3779B97F4A7C15, 0xD1B54A32D192ED03]

    def word(self, word: int) -> None:
        for place, factor in enumerate((0xBF58476D1CE4E5B9, 0xAEF17502108EF2D9)):
            product = (self.lanes[place] ^ (word & _MASK)) * factor
            high = product >> 64
            self.lanes[place] = (product & _MASK) ^ (high << 23 & _MASK | high >> 41)

    def octets(self, octets: bytes) -> None:
        if len(octets) >= 8:
            for start in range(0, len(octets) - 8, 8):
                self.word(int.from_bytes(octets[start : start + 8], "little"))
            self.word(int.from_bytes(octets[-8:], "little"))
        elif len(octets) >= 4:
            self.word(int.from_bytes(octets[:4] + octets[-4:], "little"))
        elif octets:
            self.word(int.from_bytes(octets, "big"))

    def value(self, number: int, value: Any) -> None:
        if isinstance(value, bool):
            self.word(number << 32 | value)
        elif isinstance(value, int | float):
            self.word(number)
            self.word(_number(value))
        elif isinstance(value, str | bytes):
            octets = value.encode() if isinstance(value, str) else value
            self.word(number << 32 | len(octets))
            self.octets(octets)
        elif isinstance(value, dict):
            self.word(number)
            self.row(list(value.values()))
        elif value and isinstance(value[0], dict):
            self.word(number)
            sums = [sum(halves) & _MASK for halves in zip(*(_hash_row(list(v.values())) for v in value), strict=True)]
            for half in sums:
                self.word(half)
        elif value:
            self.word(number << 32 | len(value))
            for item in value:
                self.word(_MASK if item is None else _number(item))

    def row(self, values: list[Any]) -> None:
        for number, value in enumerate(values, 1):
            if value is not None:
                self.value(number, value)


def _number(value: Any) -> int:
    if isinstance(value, float):
        return int.from_bytes(struct.pack("<d", value + 0.0), "little")
    return int(value) & _MASK


def _hash_row(values: list[Any]) -> list[int]:
    lanes = _Lanes()
    lanes.row(values)
    return [_finish(lane) for lane in lanes.lanes]


def _finish(value: int) -> int:
    return _mix((value - 0x9E3779B97F4A7C15) & _MASK)


_INTS = st.integers(-(2**63), 2**63 - 1)
_FLOATS = st.floats(allow_nan=False)
_ROW = st.fixed_dictionaries(
    {
        "text": st.none() | st.text(max_size=20),
        "octets": st.none() | st.binary(max_size=20),
        "whole": st.none() | _INTS,
        "real": st.none() | _FLOATS,
        "yes": st.none() | st.booleans(),
        "nothing": st.none(),
        "reals": st.none() | st.lists(st.none() | _FLOATS, max_size=4),
        "attributes": st.none()
        | st.lists(st.fixed_dictionaries({"key": st.text(max_size=9), "int": st.none() | _INTS}), max_size=4),
        "pair": st.none() | st.fixed_dictionaries({"a": st.none() | _INTS, "b": st.none() | st.text(max_size=3)}),
    }
)
_TYPES = {
    "text": pa.string(),
    "octets": pa.binary(),
    "whole": pa.int64(),
    "real": pa.float64(),
    "yes": pa.bool_(),
    "nothing": pa.int64(),
    "reals": pa.list_(pa.float64()),
    "attributes": pa.list_(pa.struct({"key": pa.string(), "int": pa.int64()})),
    "pair": pa.struct({"a": pa.int64(), "b": pa.string()}),
}


@thorough(100)
@given(rows=st.lists(_ROW, max_size=6), start=st.integers(0, 3))
def test_rows_against_one_word_after_the_other(rows: list[dict[str, Any]], start: int) -> None:
    """Every kind of column, nested, in a slice; the same in another process, as the words are those described."""
    schema = pa.schema(list(_TYPES.items()))
    table = pa.RecordBatch.from_pylist(rows, schema=schema).slice(min(start, len(rows)))
    high, low = hash_rows(table)
    expected = [_hash_row(list(row.values())) for row in table.to_pylist()]
    assert np.column_stack([high, low]).tolist() == expected


def test_the_order_of_attributes_does_not_matter() -> None:
    """Nor does -0.0 for 0.0; a list of numbers is another one in another order."""
    a, b = {"key": "a", "int": 1}, {"key": "b", "int": 2}
    table = pa.RecordBatch.from_pylist(
        [{"attributes": [a, b], "reals": [0.0, 1.0]}, {"attributes": [b, a], "reals": [-0.0, 1.0]},
         {"attributes": [a, b], "reals": [1.0, 0.0]}],
        schema=pa.schema([(name, _TYPES[name]) for name in ("attributes", "reals")]),
    )  # fmt: skip
    for half in hash_rows(table):
        assert half[0] == half[1] != half[2]


def test_columns_of_other_types_are_refused() -> None:
    """By name, not by a wrong hash."""
    with pytest.raises(ValueError, match="Date32"):
        hash_rows(pa.record_batch({"a": pa.array([1], pa.date32())}))
