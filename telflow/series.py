"""Series of an aggregation: distinct combinations of dimension values, each numbered with a dense *slot*.

All look-ups are Arrow kernels over whole columns. The number of series is bounded; what finds no place shares an
overflow series (OpenTelemetry metrics SDK, "Cardinality limits": attribute `otel.metric.overflow`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from telflow.errors import BatchError

__all__ = ["MAX_SERIES_LIMIT", "SeriesTable", "Vocabulary", "distinct_rows"]

Ints: TypeAlias = npt.NDArray[np.int64]

MAX_SERIES_LIMIT = 1 << 20
"""Most series a table may be asked to hold."""

_WORD_BITS = 62  # of an int64: the sign stays free, as any unknown code makes the whole word negative
_ID_BITS = 32
_DENSE = 64  # a table of all words may have this many entries per series, and some to begin with
_DIRECT = 8  # words are numbered through a table of them all when it has no more entries than this per row
_NARROW = 256  # integers below this are looked up through a table
_UNKNOWN = pa.scalar(-1, pa.int32())


class Vocabulary:
    """Distinct values of one Arrow type; a value's position is its code. Null is a value like any other.

    >>> words = Vocabulary(pa.string())
    >>> words.add(pa.array(["a", None, "a"])).tolist()
    [0, 1, 0]
    >>> words.codes(pa.array(["b", "a", None])).tolist()
    [-1, 0, 1]
    """

    def __init__(self, dtype: pa.DataType, values: Sequence[Any] = ()) -> None:
        self._narrow: Ints | None = None
        self.values: pa.Array = pa.array(values, dtype)

    def __len__(self) -> int:
        return len(self.values)

    def codes(self, column: pa.Array) -> Ints:
        """Return each value's code (int64), -1 where it is not known."""
        found = pc.index_in(column, value_set=self.values)
        if found.null_count:
            found = pc.fill_null(found, _UNKNOWN)
        return np.asarray(found.to_numpy(), np.int64)

    def add(self, column: pa.Array) -> Ints:
        """Return each value's code, giving new values the next ones in order of appearance."""
        codes = self.codes(column)
        unknown = codes < 0
        if unknown.any():
            new = pc.unique(column.filter(pa.array(unknown)))
            self.values = pa.concat_arrays([self.values, new])
            self._narrow = None
            codes = self.codes(column)
        return codes

    def keep(self, codes: Ints) -> None:
        """Keep only the values of `codes`; the value of ``codes[i]`` gets the code ``i``."""
        self.values = self.values.take(pa.array(codes, pa.int64()))
        self._narrow = None

    def narrow_codes(self) -> Ints:
        """Return the code of each integer from 0 to 255, -1 where it is not known."""
        if self._narrow is None:
            self._narrow = self.codes(pa.array(np.arange(_NARROW), self.values.type))
        return self._narrow


class SeriesTable:
    """Combinations of dimension values and their slots: 0, 1, 2 ... in order of admission.

    Args:
        dtypes: Arrow type of each dimension.
        max_series: Most series held at once, overflow series not counted.
        overflow_keeps: How many leading dimensions an overflow series keeps: with the tenant as first dimension
            and 1 here, each tenant overflows by itself.

    >>> table = SeriesTable([pa.string(), pa.int32()], max_series=2, overflow_keeps=1)
    >>> table.slots([pa.array(["a", "a", "b", "b", "b"]), pa.array([1, 1, 1, 2, 3], pa.int32())]).tolist()
    [0, 0, 1, 2, 2]
    >>> [column.to_pylist() for column in table.decode()]
    [['a', 'b', 'b'], [1, 1, None]]
    >>> table.overflowed.tolist()
    [False, False, True]
    """

    def __init__(self, dtypes: Sequence[pa.DataType], *, max_series: int, overflow_keeps: int = 0) -> None:
        if not 1 <= max_series <= MAX_SERIES_LIMIT:
            raise BatchError(f"series table: expected 1 to {MAX_SERIES_LIMIT} series, got {max_series}")
        self._max_series = max_series
        self._overflow_keeps = overflow_keeps
        self._vocabularies = [Vocabulary(dtype) for dtype in dtypes]
        # One row per slot: 1 for an overflow series, then the code of each dimension.
        self._codes: npt.NDArray[np.int32] = np.empty((0, 1 + len(dtypes)), np.int32)
        self._pack()

    def __len__(self) -> int:
        return len(self._codes)

    @property
    def overflowed(self) -> npt.NDArray[np.bool_]:
        """One flag per slot: is it an overflow series?"""
        return np.asarray(self._codes[:, 0] == 1)

    def slots(self, columns: Sequence[pa.Array]) -> Ints:
        """Return each row's slot (int64), admitting series not seen before while there is room.

        Args:
            columns: One Arrow array per dimension, of equal length. Dictionary arrays are welcome; their indices must
                not be null.
        """
        slots = self._find(0, self._encode(columns), len(columns[0]))
        missing = np.flatnonzero(slots < 0)
        if not missing.size:
            return slots
        some = [_take(column, missing) for column in columns]
        room = self._max_series - int(np.count_nonzero(~self.overflowed))
        if room > 0:
            first = pa.array(distinct_rows(some)[0][:room])
            chosen = [column.take(first) for column in some]
            self._append(0, [v.add(c) for v, c in zip(self._vocabularies, chosen, strict=True)])
            slots[missing] = self._find(0, self._encode(some), len(missing))
        if room < len(missing):
            left = np.flatnonzero(slots[missing] < 0)
            if left.size:
                slots[missing[left]] = self._overflow([_take(column, left) for column in some])
        return slots

    def decode(self, slots: Ints | None = None) -> list[pa.Array]:
        """Return the dimension values of `slots` (of all when None), one array per dimension.

        Dimensions that an overflow series does not keep are null.
        """
        codes = self._codes if slots is None else self._codes[slots]
        overflowed = codes[:, 0] == 1
        decoded = []
        for number, vocabulary in enumerate(self._vocabularies):
            lost = overflowed if number >= self._overflow_keeps else np.zeros(len(codes), np.bool_)
            decoded.append(vocabulary.values.take(pa.array(codes[:, number + 1], mask=lost)))
        return decoded

    def keep(self, slots: Ints) -> None:
        """Forget all other series: the series of ``slots[i]`` gets slot ``i``."""
        self._codes = self._codes[slots]
        for number, vocabulary in enumerate(self._vocabularies):
            used, self._codes[:, number + 1] = np.unique(self._codes[:, number + 1], return_inverse=True)
            vocabulary.keep(used.astype(np.int64))
        self._pack()

    def state(self) -> dict[str, Any]:
        """Return the table as plain data that later changes do not touch."""
        return {"values": [v.values.to_pylist() for v in self._vocabularies], "codes": self._codes.copy()}

    def restore(self, state: dict[str, Any]) -> None:
        """Take over what `state` returned; the dimensions must be the same."""
        self._vocabularies = [
            Vocabulary(v.values.type, values) for v, values in zip(self._vocabularies, state["values"], strict=True)
        ]
        self._codes = state["codes"].copy()
        self._pack()

    def _encode(self, columns: Sequence[pa.Array]) -> list[_Coded]:
        return [_encode(v, c) for v, c in zip(self._vocabularies, columns, strict=True)]

    def _find(self, flag: int, columns: Sequence[_Coded], rows: int) -> Ints:
        """Slots of coded rows, -1 where unknown."""
        columns = [_Coded(np.array([flag])), *columns]
        ids = None
        for level, words in zip(self._levels, self._words, strict=True):
            ids = words.find(_words(ids, level, columns, rows))
        return ids if ids is not None else np.empty(0, np.int64)

    def _append(self, flag: int, codes: Sequence[Ints]) -> None:
        """Add series that are distinct and not in the table, given as codes."""
        rows = np.stack([np.full(len(codes[0]), flag, np.int64), *codes], axis=1).astype(np.int32)
        self._codes = np.concatenate([self._codes, rows])
        if self._too_narrow():
            self._pack()
        else:
            self._index(rows)

    def _overflow(self, columns: Sequence[pa.Array]) -> Ints:
        kept = self._overflow_keeps
        codes = [v.add(c) for v, c in zip(self._vocabularies[:kept], columns[:kept], strict=True)]
        codes += [np.zeros(len(columns[0]), np.int64)] * (len(columns) - kept)
        if self._too_narrow():
            self._pack()
        slots = self._find(1, [_Coded(code) for code in codes], len(columns[0]))
        new = np.flatnonzero(slots < 0)
        if new.size:
            first = new[distinct_rows([pa.array(code[new]) for code in codes])[0]]
            self._append(1, [code[first] for code in codes])
            slots = self._find(1, [_Coded(code) for code in codes], len(columns[0]))
        return slots

    def _too_narrow(self) -> bool:
        """Has a vocabulary outgrown its bits, so that one word could stand for two combinations?"""
        widths = dict(pair for level in self._levels for pair in level)
        return any(len(v).bit_length() > widths[n + 1] for n, v in enumerate(self._vocabularies))

    def _pack(self) -> None:
        """Lay the dimensions out over as few int64 words as their vocabularies need, and index all series."""
        widths = [(0, 1), *((n + 1, max(1, len(v).bit_length())) for n, v in enumerate(self._vocabularies))]
        self._levels: list[list[tuple[int, int]]] = [[]]
        free = _WORD_BITS
        for column, bits in widths:
            if bits > free:
                self._levels.append([])
                free = _WORD_BITS - _ID_BITS
            self._levels[-1].append((column, bits))
            free -= bits
        dense = 1 << _WORD_BITS - free if len(self._levels) == 1 else 0
        self._words = [_Words(dense if dense <= _DENSE * (len(self) + _DENSE) else 0) for _ in self._levels]
        self._index(self._codes)

    def _index(self, rows: npt.NDArray[np.int32]) -> None:
        columns = [_Coded(column) for column in rows.T.astype(np.int64)]
        ids = None
        for level, words in zip(self._levels, self._words, strict=True):
            ids = words.add(_words(ids, level, columns, len(rows)))


class _Coded(NamedTuple):
    """The codes of a column: ``entries[rows]``; without `rows` one entry per row, or a single one for all."""

    entries: Ints
    rows: Ints | None = None
    same: object = None
    """Equal for columns with equal `rows`."""


class _Words:
    """Numbers the words of a level in order of appearance.

    Args:
        dense: Words are below this, and it is small enough for a table of them all; 0: search instead.
    """

    def __init__(self, dense: int) -> None:
        self._known = Vocabulary(pa.int64())
        self._table: npt.NDArray[np.int32] | None = np.full(dense, -1, np.int32) if dense else None

    def find(self, words: Ints) -> Ints:
        """Number of each word, -1 where it is not known; negative words never are."""
        if self._table is None:
            return self._known.codes(pa.array(words, pa.int64()))
        if words.size and int(words.min()) < 0:
            return np.where(words < 0, np.int64(-1), self._table[np.maximum(words, 0)])
        return self._table[words].astype(np.int64)

    def add(self, words: Ints) -> Ints:
        """Number of each word, new ones included."""
        numbers = self._known.add(pa.array(words, pa.int64()))
        if self._table is not None:
            self._table[words] = numbers
        return numbers


def _encode(vocabulary: Vocabulary, column: pa.Array) -> _Coded:
    """Look a column up, each distinct value once where that is cheap to arrange."""
    if isinstance(column, pa.DictionaryArray):
        indices = column.indices
        same = (indices.buffers()[1].address, indices.offset, str(indices.type))
        return _Coded(vocabulary.codes(column.dictionary), indices.to_numpy(), same)
    if pa.types.is_integer(column.type) and len(column) and not column.null_count:
        numbers = column.to_numpy()
        low, high = numbers.min(), numbers.max()
        if 0 <= low <= high < _NARROW:
            entries = vocabulary.narrow_codes()
            return _Coded(entries[low : low + 1]) if low == high else _Coded(entries, numbers)
    return _Coded(vocabulary.codes(column))


def _words(ids: Ints | None, level: Sequence[tuple[int, int]], columns: Sequence[_Coded], rows: int) -> Ints:
    """One int64 per row: the id from the level before above the codes of this level's columns.

    An unknown code is negative and, as all parts are joined by "or", makes its whole word negative.
    """
    shift = sum(bits for _, bits in level)
    words = np.zeros(rows, np.int64) if ids is None else ids << shift
    by_entry: dict[object, tuple[Ints, Ints]] = {}
    for number, bits in level:
        shift -= bits
        coded = columns[number]
        part = coded.entries << shift
        if coded.rows is None:
            words |= part
        else:
            # Columns over the same rows (all that belong to the resource) are joined before they are spread out.
            same = coded.same or number
            before = by_entry.get(same)
            by_entry[same] = (part if before is None else before[0] | part, coded.rows)
    for part, spread in by_entry.values():
        words |= part[spread]
    return words


def _take(column: pa.Array, rows: Ints) -> pa.Array:
    """Rows of a column; a dictionary array is decoded, as its entries need not be distinct."""
    chosen = column.take(pa.array(rows))
    return chosen.dictionary_decode() if isinstance(chosen, pa.DictionaryArray) else chosen


def distinct_rows(columns: Sequence[pa.Array]) -> tuple[Ints, Ints]:
    """Number the distinct combinations of values, null being one, in order of appearance.

    Args:
        columns: One Arrow array per dimension, of equal length; at least one.

    Returns:
        Row of the first appearance of each combination, and the number of each row's combination.

    >>> first, numbers = distinct_rows([pa.array(["a", None, "a"]), pa.array([1, 1, 1])])
    >>> first.tolist(), numbers.tolist()
    ([0, 1], [0, 1, 0])
    """
    words, size = np.zeros(len(columns[0]), np.int64), 1  # `size`: words are below it
    for column in columns:
        codes, count = _numbered(column)
        if count < 2:  # noqa: PLR2004 - what is the same everywhere tells nothing apart
            continue
        if size * count >> _WORD_BITS:
            first, words = _by_appearance(words, size)
            size = len(first)
        words = words * count + codes
        size *= count
    return _by_appearance(words, size)


def _numbered(column: pa.Array) -> tuple[Ints, int]:
    """Return a number for each value, the same for equal ones and for no others, and what they are all below."""
    if isinstance(column, pa.DictionaryArray):
        if column.indices.null_count:
            return _numbered(column.dictionary_decode())
        codes, count = _numbered(column.dictionary)  # its entries need not be distinct
        return codes[column.indices.to_numpy()], count
    if pa.types.is_integer(column.type) and len(column) and not column.null_count:
        values = column.to_numpy()
        lowest = int(values.argmin())
        extent = int(values.max()) - int(values[lowest])
        if extent < _NARROW:
            wide = values.astype(np.int64)  # wraps what is unsigned, which differences do not mind
            return wide - wide[lowest], extent + 1
    coded = column.dictionary_encode(null_encoding="encode")
    return coded.indices.to_numpy().astype(np.int64), len(coded.dictionary)


def _by_appearance(words: Ints, size: int) -> tuple[Ints, Ints]:
    """Return the row of the first appearance of each word, and for each row the number of its word in that order."""
    rows = np.arange(len(words))
    if size <= _DIRECT * len(words):
        first_of = np.full(size, -1)
        first_of[words[::-1]] = rows[::-1]  # of several assignments to one place the last one stays
        first = np.sort(first_of[first_of >= 0])
        number_of = np.empty(size, np.int64)
        number_of[words[first]] = np.arange(len(first))
        return first, number_of[words]
    numbers = pa.array(words).dictionary_encode().indices.to_numpy().astype(np.int64)
    first = np.empty(int(numbers.max(initial=-1)) + 1, np.int64)
    first[numbers[::-1]] = rows[::-1]
    return first, numbers
