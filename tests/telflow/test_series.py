"""Series table: the same combination always has the same slot, however much there is and however it is cut."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from telflow.errors import BatchError
from telflow.series import SeriesTable, Vocabulary, distinct_rows
from tests.strategies import thorough

Row = tuple[str | None, str | None, int]
DTYPES = [pa.string(), pa.string(), pa.int32()]

_rows = st.lists(
    st.tuples(
        st.sampled_from(["t", "u", None]), st.sampled_from([*"abcdefgh", None]), st.sampled_from([0, 1, -5, 10**6])
    ),
    max_size=30,
)


def _columns(rows: list[Row], *, as_dictionary: bool = False) -> list[pa.Array]:
    columns = [pa.array([row[n] for row in rows], dtype) for n, dtype in enumerate(DTYPES)]
    if as_dictionary:
        # Two entries may hold the same value, as two resources may have the same tenant.
        indices = pa.array(np.arange(len(rows)), pa.int32())
        columns[:2] = [pa.DictionaryArray.from_arrays(indices, column) for column in columns[:2]]
    return columns


class _Reference:
    """The same table as a dictionary."""

    def __init__(self, max_series: int, keeps: int) -> None:
        self.slots: dict[tuple[Any, ...], int] = {}
        self.max_series, self.keeps = max_series, keeps

    def slot(self, row: Row) -> int:
        room = sum(not key[0] for key in self.slots) < self.max_series
        if (False, *row) in self.slots or room:
            return self.slots.setdefault((False, *row), len(self.slots))
        kept = row[: self.keeps] + (None,) * (len(row) - self.keeps)
        return self.slots.setdefault((True, *kept), len(self.slots))


@thorough(60)
@given(batches=st.lists(st.tuples(_rows, st.booleans()), max_size=5), max_series=st.sampled_from([1, 3, 12, 1000]))
def test_slots_are_those_of_a_dictionary(batches: list[tuple[list[Row], bool]], max_series: int) -> None:
    """Slots mean the same values as in a plain dictionary, admission and overflow included."""
    table, reference = SeriesTable(DTYPES, max_series=max_series, overflow_keeps=1), _Reference(max_series, 1)
    for rows, as_dictionary in batches:
        if not rows:
            continue
        got = table.slots(_columns(rows, as_dictionary=as_dictionary))
        meaning = list(zip(table.overflowed.tolist(), *(c.to_pylist() for c in table.decode()), strict=True))
        for row, slot in zip(rows, got.tolist(), strict=True):
            reference.slot(row)
            expected = (False, *row) if (False, *row) in reference.slots else (True, row[0], None, None)
            assert meaning[slot] == expected
        assert sorted(map(repr, meaning)) == sorted(map(repr, reference.slots))


@thorough(40)
@given(rows=_rows.filter(bool), more=_rows.filter(bool), drop=st.integers(0, 5))
def test_forgotten_series_leave_the_others_alone(rows: list[Row], more: list[Row], drop: int) -> None:
    """After `keep` the kept series have the slots asked for, and forgotten ones can come back."""
    table = SeriesTable(DTYPES, max_series=1000)
    table.slots(_columns(rows))
    kept = np.arange(len(table))[drop:][::-1]
    before = [column.take(pa.array(kept, pa.int64())).to_pylist() for column in table.decode()]
    table.keep(kept)
    assert [column.to_pylist() for column in table.decode()] == before
    got = table.slots(_columns(more))
    assert [c.to_pylist() for c in table.decode(got)] == [c.to_pylist() for c in _columns(more)]


@pytest.mark.parametrize("dimensions", [1, 5, 12])
def test_many_dimensions_with_many_values(dimensions: int) -> None:
    """More dimensions than fit one word, growing from batch to batch, still give one slot per combination."""
    rng = np.random.default_rng(5)
    table = SeriesTable([pa.string()] * dimensions, max_series=1 << 20)
    seen: dict[tuple[str, ...], int] = {}
    for high in (2, 5, 3000, 3000):
        columns = [pa.array([f"v{n}" for n in rng.integers(0, high, 2000)]) for _ in range(dimensions)]
        rows = list(zip(*(c.to_pylist() for c in columns), strict=True))
        for row, slot in zip(rows, table.slots(columns).tolist(), strict=True):
            assert seen.setdefault(row, slot) == slot
    assert len(table) == len(seen) == len(set(seen.values()))


def test_a_full_table_does_not_learn_values() -> None:
    """Names of refused series take no memory: a flood of new names leaves the state as it was."""
    table = SeriesTable(DTYPES, max_series=2, overflow_keeps=1)
    table.slots(_columns([("t", "a", 0), ("t", "b", 0), ("t", "c", 0)]))
    before = table.state()
    table.slots(_columns([("t", f"flood-{n}", n) for n in range(500)]))
    assert table.state()["values"] == before["values"]
    assert len(table) == 3


def test_the_state_is_a_copy_and_restores() -> None:
    """A restored table gives the same slots, and later changes do not reach into the state."""
    table = SeriesTable(DTYPES, max_series=3, overflow_keeps=1)
    rows: list[Row] = [("t", "a", 0), (None, None, 7), ("u", "b", 0), ("u", "c", 0)]
    slots = table.slots(_columns(rows)).tolist()
    state = table.state()
    table.keep(np.array([1]))
    other = SeriesTable(DTYPES, max_series=3, overflow_keeps=1)
    other.restore(state)
    assert other.slots(_columns(rows)).tolist() == slots == [0, 1, 2, 3]


@pytest.mark.parametrize("max_series", [0, (1 << 20) + 1])
def test_the_number_of_series_is_bounded(max_series: int) -> None:
    """A limit outside what the table can hold is refused."""
    with pytest.raises(BatchError, match=f"got {max_series}"):
        SeriesTable(DTYPES, max_series=max_series)


def test_a_vocabulary_keeps_the_values_asked_for() -> None:
    """Kept values get the codes of their place."""
    words = Vocabulary(pa.int64(), [5, 6, 7])
    words.keep(np.array([2, 0]))
    assert words.codes(pa.array([5, 6, 7])).tolist() == [1, -1, 0]


def test_distinct_rows_of_no_columns() -> None:
    """Without rows there are no combinations."""
    first, numbers = distinct_rows([pa.array([], pa.string())])
    assert first.tolist() == numbers.tolist() == []


@given(_rows, st.booleans(), st.sampled_from([pa.int8(), pa.int64(), pa.uint64()]))
@thorough(60)
def test_distinct_rows_equals_a_dictionary_of_rows(rows: list[Row], as_dictionary: bool, dtype: pa.DataType) -> None:
    """Combinations are numbered by appearance, whatever the layout of a column, and however many words it needs."""
    columns = _columns(rows, as_dictionary=as_dictionary)
    extremes = {pa.int8(): [-128, 127], pa.int64(): [-(2**63), 2**63 - 1], pa.uint64(): [2**64 - 1, 2**64 - 2]}[dtype]
    columns.append(pa.array([extremes[len(row[1] or "") + row[2] & 1] for row in rows], dtype))
    seen: dict[tuple[object, ...], int] = {}
    expected = [seen.setdefault(row, len(seen)) for row in zip(*(c.to_pylist() for c in columns), strict=True)]
    first, numbers = distinct_rows(columns)
    assert numbers.tolist() == expected
    assert first.tolist() == [expected.index(number) for number in range(len(seen))]


def test_distinct_rows_of_more_combinations_than_a_word_holds() -> None:
    """Columns whose values multiply to beyond 64 bits are told apart as exactly as others."""
    rng = np.random.default_rng(3)
    columns = [pa.array(rng.integers(0, 2**62, 5000)) for _ in range(7)]
    doubled = [pa.concat_arrays([column, column]) for column in columns]
    first, numbers = distinct_rows(doubled)
    assert first.tolist() == list(range(5000))
    assert numbers.tolist() == [*range(5000), *range(5000)]


def test_distinct_rows_with_null_indices() -> None:
    """A dictionary array may say null by its indices as well as by an entry."""
    column = pa.DictionaryArray.from_arrays(pa.array([0, None, 1, 0], pa.int32()), pa.array(["a", None]))
    assert distinct_rows([column])[1].tolist() == [0, 1, 1, 0]


@pytest.mark.parametrize("dimensions", [1, 3])
def test_slots_have_64_bits(dimensions: int) -> None:
    """Also those of series not seen before: whoever puts more bits beside a slot loses none of it."""
    table = SeriesTable([pa.string()] * dimensions, max_series=1 << 16)
    for start in (0, 5000, 2500):
        columns = [pa.array([str(n) for n in range(start, start + 5000)])] * dimensions
        assert table.slots(columns).dtype == np.int64
