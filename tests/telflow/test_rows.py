"""Row kernels against pyarrow's own, or against Python's lists, on tables of every column type there is."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from telflow import rows
from telflow.batch import TelemetryBatch
from telflow.schema import RESOURCES, Signal
from tests.batches import batches, spans
from tests.strategies import thorough

MANY = spans([{"a": i, "b": f"text-{i}" * (i % 5), "c": i % 2 == 0} for i in range(300)])


def view(batch: TelemetryBatch, data: st.DataObject) -> pa.RecordBatch:
    """The records, seen through a slice so that offsets are not zero."""
    start = data.draw(st.integers(0, batch.num_rows))
    return batch.records.slice(start, data.draw(st.integers(0, batch.num_rows - start)))


@thorough(30)
@given(batches(), st.data())
def test_filter_keeps_what_pyarrow_keeps(batch: TelemetryBatch, data: st.DataObject) -> None:
    """Filtering any slice by any mask, nulls in it too, equals pyarrow's filter."""
    table = view(batch, data)
    mask = pa.array(
        data.draw(st.lists(st.sampled_from([True, False, None]), min_size=len(table), max_size=len(table))), pa.bool_()
    )
    found = rows.filter_rows(table, mask)
    found.validate(full=True)
    assert same(found, table.filter(mask))


@thorough(30)
@given(batches(), st.data())
def test_take_gives_what_pyarrow_gives(batch: TelemetryBatch, data: st.DataObject) -> None:
    """Taking any rows in any order, repeated or not, equals pyarrow's take."""
    table = view(batch, data)
    places = data.draw(st.lists(st.integers(0, len(table) - 1), max_size=12)) if len(table) else []
    found = rows.take_rows(table, np.array(places, np.uint32))
    found.validate(full=True)
    assert same(found, table.take(pa.array(places, pa.uint32())))


@pytest.mark.parametrize("offset", [0, 1, 7, 8, 63, 64, 65])
@pytest.mark.parametrize("length", [0, 1, 55, 56, 57, 64, 65, 200])
def test_long_runs_at_any_bit_offset(offset: int, length: int) -> None:
    """Runs longer than a machine word, from any bit on, keep every value and null."""
    table = MANY.records.slice(offset, length)
    every_third = pa.array([i % 3 != 0 for i in range(length)], pa.bool_())
    assert rows.filter_rows(table, pa.array([True] * length, pa.bool_())).equals(table)
    assert rows.filter_rows(table, every_third).equals(table.filter(every_third))
    backwards = np.arange(length, dtype=np.uint32)[::-1]
    assert rows.take_rows(table, backwards).equals(table.take(pa.array(backwards)))


def test_a_wrong_row_number_or_mask_is_refused() -> None:
    """A row that is not there, a mask of another length or type: an error, no crash."""
    with pytest.raises(ValueError, match="row 300 of a batch of 300 rows"):
        rows.take_rows(MANY.records, np.array([300], np.uint32))
    with pytest.raises(ValueError, match="mask of 300 booleans"):
        rows.filter_rows(MANY.records, pa.array([True]))
    with pytest.raises(ValueError, match="mask of 300 booleans"):
        rows.filter_rows(MANY.records, pa.array([1] * 300))


def test_malformed_arrays_are_refused_not_followed() -> None:
    """Offsets that point beyond their buffer give an error instead of reading foreign memory."""
    lying = pa.Array.from_buffers(
        pa.string(), 2, [None, pa.py_buffer(np.array([0, 900, 3], np.int32)), pa.py_buffer(b"abc")]
    )
    table = pa.record_batch({"s": lying})  # pyarrow looks at the last offset only
    with pytest.raises(ValueError, match="malformed"):
        rows.take_rows(table, np.array([0], np.uint32))
    with pytest.raises(ValueError, match="malformed"):
        rows.filter_rows(table, pa.array([True, True]))
    with pytest.raises(ValueError, match="malformed"):
        rows.first_difference(table, table)


def test_types_without_a_kernel_are_named() -> None:
    """A column of a type no schema has is refused by name."""
    with pytest.raises(ValueError, match=r"Timestamp"):
        rows.filter_rows(pa.record_batch({"t": pa.array([1], pa.timestamp("ns"))}), pa.array([True]))


@thorough(25)
@given(st.lists(batches(Signal.TRACES), min_size=1, max_size=4))
def test_number_distinct_agrees_with_a_dictionary(found: list[TelemetryBatch]) -> None:
    """Rows get the same place exactly if Python holds them equal (NaN as equal, -0.0 as not 0.0)."""
    tables = [batch.resources for batch in found]
    merged, places = rows.number_distinct(tables)
    keys = [key(row) for table in tables for row in table.to_pylist()]
    firsts = list(dict.fromkeys(keys))
    assert [key(row) for row in merged.to_pylist()] == firsts
    assert np.concatenate(places).tolist() == [firsts.index(k) for k in keys]


@thorough(25)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=8), st.data())
def test_merge_distinct_moves_rows_to_their_equals(which: list[int], data: st.DataObject) -> None:
    """Each row of each table stands, unchanged, where the merged table says; equal rows of two tables are one."""
    pool = [data.draw(batches(Signal.LOGS)).resources for _ in range(4)]
    tables = [pa.record_batch(pool[i].columns, schema=RESOURCES) for i in which]
    merged, places = rows.merge_distinct(tables)
    if places is None:
        assert all(key(t.to_pylist()) == key(merged.to_pylist()) for t in tables)
        return
    kept = merged.to_pylist()
    assert len({key(row) for row in kept}) == len(kept)
    for table, there in zip(tables, places, strict=True):
        assert [key(kept[place]) for place in there] == [key(row) for row in table.to_pylist()]


def test_tables_that_differ_in_a_sign_of_zero_stay_apart() -> None:
    """To pyarrow 0.0 and -0.0 are equal; merged resources keep both."""
    tables = [spans([{}], resource={"zero": zero}).resources for zero in (0.0, -0.0, 0.0)]
    merged, places = rows.merge_distinct(tables)
    assert merged.num_rows == 2
    assert places is not None
    assert [place.tolist() for place in places] == [[0], [1], [0]]


def test_more_different_tables_than_are_compared() -> None:
    """Senders beyond the number that is compared one by one are merged as well."""
    tables = [spans([{}], resource={"service.name": f"s{i % 40}"}).resources for i in range(80)]
    merged, places = rows.merge_distinct(tables)
    assert merged.num_rows == 40
    assert places is not None
    assert [int(place[0]) for place in places] == [i % 40 for i in range(80)]


@thorough(25)
@given(batches(), st.data())
def test_nbytes_counts_only_what_a_slice_shows(batch: TelemetryBatch, data: st.DataObject) -> None:
    """The bytes of a slice are those of the same rows in buffers of their own, but for bitmaps that say nothing."""
    start = data.draw(st.integers(min(1, batch.num_rows), batch.num_rows))
    table = batch.records.slice(start, data.draw(st.integers(0, batch.num_rows - start)))
    own = rows.take_rows(table, np.arange(len(table), dtype=np.uint32))
    assert abs(rows.nbytes(table) - own.nbytes) <= 0.25 * own.nbytes + 512


def test_nbytes_of_a_small_slice_of_much() -> None:
    """A slice of one row in 300 answers with a fraction of the whole."""
    assert rows.nbytes(MANY.records.slice(7, 1)) * 100 < rows.nbytes(MANY.records)


@thorough(25)
@given(batches(), batches())
def test_first_difference_agrees_with_python(left: TelemetryBatch, right: TelemetryBatch) -> None:
    """The first differing row of two tables is the one a loop over Python rows finds."""
    if left.signal is not right.signal:
        right = left
    a, b = left.records.to_pylist(), right.records.to_pylist()
    expected = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if key(x) != key(y)), None)
    if expected is None and len(a) != len(b):
        expected = min(len(a), len(b))
    assert rows.first_difference(left.records, right.records) == expected


def key(value: Any) -> Any:
    """A hashable stand-in for nested Python data: equal when the values are, NaN too, 0.0 and -0.0 apart."""
    match value:
        case dict():
            return tuple((k, key(v)) for k, v in value.items())
        case list():
            return tuple(key(v) for v in value)
        case float():
            return "nan" if math.isnan(value) else (value, math.copysign(1, value))
        case bool():
            return ("bool", value)
        case _:
            return value


def same(left: pa.RecordBatch, right: pa.RecordBatch) -> bool:
    return left.schema.equals(right.schema) and bool(key(left.to_pylist()) == key(right.to_pylist()))
