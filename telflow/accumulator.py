"""Columns of running aggregates, indexed by slot (`telflow.series`): sums, extremes, histograms, sketches.

`Accumulator` holds one column per measure. It folds in columns of values, or another accumulator: a *partial* one, made
elsewhere of a part of the rows. Every measure gives the same result for every split into partials and every order of
folding (sums of doubles as long as they are exact: whole numbers below 2**53).
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, Self, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from telflow.distinct import DistinctColumn
from telflow.exemplars import ExemplarColumn
from telflow.exponential import ExponentialColumn
from telflow.latest import LatestColumn

__all__ = ["Accumulator", "Column", "Measure", "Reduce"]

Ints: TypeAlias = npt.NDArray[np.int64]
Values: TypeAlias = npt.NDArray[Any]

_INT64_MAX = 2**63 - 1
_SMALLEST = 64


class Reduce(enum.StrEnum):
    """How a measure combines values."""

    SUM = "sum"
    MIN = "min"
    MAX = "max"
    BUCKETS = "buckets"
    """Counts per bucket: the values are bucket numbers, -1 where there is none."""
    EXPONENTIAL = "exponential"
    """Counts per exponential bucket (`telflow.exponential`): the values are float64, NaN where there is none."""
    DISTINCT = "distinct"
    """Number of different values (`telflow.distinct`): the values are their hashes, 0 where there is none."""
    LATEST = "latest"
    """The value of the greatest event time (`telflow.latest`): values with their times, NaN where there is none."""
    EXEMPLARS = "exemplars"
    """A few rows that stand for all (`telflow.exemplars`): the values are its candidates."""


@dataclass(frozen=True, slots=True)
class Measure:
    """One column of an accumulator.

    Attributes:
        reduce: How values combine. The extremes of doubles pass over NaN.
        dtype: ``int64`` or ``float64``. Sums of whole numbers are exact, and so independent of the order, in both:
            below 2**63 (then they wrap) and below 2**53 (then they round).
        width: Buckets: their number. Exponential, exemplars: the most there may be. Distinct: log2 of the sketch's
            registers.
        scale: Exponential: the finest scale.
    """

    reduce: Reduce
    dtype: str = "int64"
    width: int = 1
    scale: int = 20

    @property
    def identity(self) -> float:
        """What a slot without values holds."""
        bound = _INT64_MAX if self.dtype == "int64" else np.inf
        match self.reduce:
            case Reduce.MIN:
                return bound
            case Reduce.MAX:
                return -bound
            case _:
                return 0

    def empty(self, rows: int) -> Values:
        """Return `rows` slots without values; only for what is dense."""
        shape = rows if self.reduce is not Reduce.BUCKETS else (rows, self.width)
        return np.full(shape, self.identity, self.dtype)

    def column(self) -> Column:
        """Return a column without slots."""
        match self.reduce:
            case Reduce.EXPONENTIAL:
                return ExponentialColumn(self.width, self.scale)
            case Reduce.DISTINCT:
                return DistinctColumn(self.width)
            case Reduce.LATEST:
                return LatestColumn()
            case Reduce.EXEMPLARS:
                return ExemplarColumn(self.width)
            case _:
                return _DenseColumn(self)


class Column(Protocol):
    """The aggregates of one measure by slot. `grow` comes before what speaks of new slots."""

    def grow(self, rows: int) -> None:
        """Make room for slots below `rows`."""

    def add(self, rows: Ints, values: Values) -> None:
        """Fold values into the slots they belong to."""

    def merge(self, other: Self, rows: Ints | None) -> None:
        """Fold in another column; its slot ``i`` goes to ``rows[i]`` (None: to ``i``)."""

    def take(self, rows: Ints) -> Self:
        """Return a column whose slot ``i`` is this one's ``rows[i]``, to be read."""

    def clear(self, rows: Ints) -> None:
        """Empty some slots."""

    def keep(self, rows: Ints) -> None:
        """Forget all other slots: slot ``rows[i]`` becomes ``i``."""

    def state(self) -> Any:
        """Everything as plain data that later changes do not touch."""

    def restore(self, state: Any) -> None:
        """Take over what `state` returned."""

    def to_arrow(self) -> pa.Array:
        """One entry per slot, for another process."""

    def from_arrow(self, entries: pa.Array) -> None:
        """Take over what `to_arrow` returned."""


class Accumulator:
    """One column per measure, indexed by slot.

    >>> calls = Accumulator({"calls": Measure(Reduce.BUCKETS, width=2), "longest": Measure(Reduce.MAX)})
    >>> calls.add(np.array([0, 2, 2]), {"calls": np.array([1, 0, 0]), "longest": np.array([5, 9, 7])}, slots=3)
    >>> calls["calls"].tolist(), calls["longest"][[0, 2]].tolist()
    ([[0, 1], [0, 0], [2, 0]], [5, 9])
    """

    def __init__(self, measures: Mapping[str, Measure]) -> None:
        self._measures = measures
        self._columns = {name: measure.column() for name, measure in measures.items()}
        self._rows = 0
        self._filled = np.zeros(0, np.bool_)

    def __len__(self) -> int:
        return self._rows

    def __getitem__(self, name: str) -> Values:
        """The column of a dense measure, one entry (buckets: one row) per slot; a view."""
        column = self._columns[name]
        assert isinstance(column, _DenseColumn)  # noqa: S101 - a measure's column is of its kind
        return column.values[: self._rows]

    def filled(self) -> Ints:
        """Slots that something was folded into, ascending."""
        return np.flatnonzero(self._filled[: self._rows])

    def exponential(self, name: str) -> ExponentialColumn:
        """The column of an exponential measure."""
        column = self._columns[name]
        assert isinstance(column, ExponentialColumn)  # noqa: S101 - as above
        return column

    def distinct(self, name: str) -> DistinctColumn:
        """The column of a distinct count."""
        column = self._columns[name]
        assert isinstance(column, DistinctColumn)  # noqa: S101 - as above
        return column

    def latest(self, name: str) -> LatestColumn:
        """The column of latest values."""
        column = self._columns[name]
        assert isinstance(column, LatestColumn)  # noqa: S101 - as above
        return column

    def exemplars(self, name: str) -> ExemplarColumn:
        """The column of exemplars."""
        column = self._columns[name]
        assert isinstance(column, ExemplarColumn)  # noqa: S101 - as above
        return column

    def forget_exemplars(self) -> None:
        """Empty the columns of exemplars: also beside running totals they are those of one window."""
        for column in self._columns.values():
            if isinstance(column, ExemplarColumn):
                column.renew()

    def grow(self, slots: int) -> None:
        """Make room for slots below `slots`."""
        if slots > self._rows:
            for column in self._columns.values():
                column.grow(slots)
            if slots > len(self._filled):
                filled = np.zeros(max(_SMALLEST, slots, 2 * len(self._filled)), np.bool_)
                filled[: self._rows] = self._filled[: self._rows]
                self._filled = filled
            self._rows = slots

    def add(self, rows: Ints, values: Mapping[str, Values], *, slots: int) -> None:
        """Fold values into the slots they belong to.

        Args:
            rows: Slot of each value, below `slots`.
            values: For each measure one value per row.
            slots: Number of slots that exist.
        """
        self.grow(slots)
        self._filled[rows] = True
        for name, column in self._columns.items():
            column.add(rows, values[name])

    def merge(self, other: Accumulator, rows: Ints | None = None, *, slots: int = 0) -> None:
        """Fold another accumulator of the same measures into this one.

        Args:
            other: The other.
            rows: Where each of its slots belongs; None: where it is.
            slots: Number of slots that exist.
        """
        self.grow(max(slots, len(other) if rows is None else 0))
        filled = other.filled()
        self._filled[filled if rows is None else rows[filled]] = True
        for name, column in self._columns.items():
            column.merge(other._columns[name], rows)

    def take(self, rows: Ints) -> Accumulator:
        """Return an accumulator whose slot ``i`` is this one's ``rows[i]``, to be read or merged."""
        taken = Accumulator({})
        taken._measures, taken._rows, taken._filled = self._measures, len(rows), self._filled[rows]
        taken._columns = {name: column.take(rows) for name, column in self._columns.items()}
        return taken

    def clear(self, rows: Ints) -> None:
        """Empty some slots."""
        self._filled[rows] = False
        for column in self._columns.values():
            column.clear(rows)

    def keep(self, rows: Ints) -> None:
        """Forget all other slots: slot ``rows[i]`` becomes ``i``. Slots this accumulator has not reached are empty."""
        self.grow(int(rows.max(initial=-1)) + 1)
        for column in self._columns.values():
            column.keep(rows)
        self._filled = self._filled[rows]
        self._rows = len(rows)

    def state(self) -> dict[str, Any]:
        """Return the columns as plain data that later changes do not touch."""
        columns = {name: column.state() for name, column in self._columns.items()}
        return {"filled": self._filled[: self._rows].copy(), "columns": columns}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over what `state` returned; the measures must be the same."""
        self._filled = state["filled"].copy()
        self._rows = len(self._filled)
        for name, column in self._columns.items():
            column.restore(state["columns"][name])

    def to_arrow(self) -> list[pa.Array]:
        """One array per measure with an entry per slot, for another process."""
        return [column.to_arrow() for column in self._columns.values()]

    def from_arrow(self, arrays: list[pa.Array], rows: int) -> None:
        """Take over what `to_arrow` returned for `rows` slots, all of them filled; the measures must be the same."""
        self._rows = rows
        self._filled = np.ones(rows, np.bool_)
        for column, entries in zip(self._columns.values(), arrays, strict=True):
            column.from_arrow(entries)


class _DenseColumn:
    """Numbers in one numpy array."""

    def __init__(self, measure: Measure) -> None:
        self._measure = measure
        self._rows = 0
        self.values = measure.empty(0)

    def grow(self, rows: int) -> None:
        if rows > len(self.values):
            values = self._measure.empty(max(_SMALLEST, rows, 2 * len(self.values)))
            values[: self._rows] = self.values[: self._rows]
            self.values = values
        self._rows = max(self._rows, rows)

    def add(self, rows: Ints, values: Values) -> None:
        match self._measure.reduce:
            case Reduce.BUCKETS:
                places = rows * self._measure.width + values
                if values.size and values.min() < 0:
                    places = places[values >= 0]
                # A flat view: one-dimensional indexing is numpy's fast path.
                np.add.at(self.values.reshape(-1), places, 1)
            case Reduce.SUM:
                np.add.at(self.values, rows, values)
            case Reduce.MIN:
                np.fmin.at(self.values, rows, values)
            case _:
                np.fmax.at(self.values, rows, values)

    def merge(self, other: _DenseColumn, rows: Ints | None) -> None:
        theirs = other.values[: other._rows]
        fold = {Reduce.MIN: np.minimum, Reduce.MAX: np.maximum}.get(self._measure.reduce, np.add)
        if rows is None:
            mine = self.values[: len(theirs)]
            fold(mine, theirs, out=mine)
        else:
            fold.at(self.values, rows, theirs)

    def take(self, rows: Ints) -> _DenseColumn:
        taken = _DenseColumn(self._measure)
        taken.values, taken._rows = self.values[rows], len(rows)
        return taken

    def clear(self, rows: Ints) -> None:
        self.values[rows] = self._measure.identity

    def keep(self, rows: Ints) -> None:
        self.values = self.values[rows]
        self._rows = len(rows)

    def state(self) -> Values:
        return self.values[: self._rows].copy()

    def restore(self, state: Values) -> None:
        self.values = state.copy()
        self._rows = len(state)

    def to_arrow(self) -> pa.Array:
        values = self.values[: self._rows]
        if self._measure.reduce is Reduce.BUCKETS:
            return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), self._measure.width)
        return pa.array(values)

    def from_arrow(self, entries: pa.Array) -> None:
        self._rows = len(entries)
        if self._measure.reduce is Reduce.BUCKETS:
            self.values = entries.flatten().to_numpy().reshape(len(entries), self._measure.width)
        else:
            self.values = entries.to_numpy()
