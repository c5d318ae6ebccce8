"""Traces with what is known of each: an index, and columns by slot. No Python object per trace."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from telflow.sampling.packing import Packed, packed, unpacked
from telflow.sampling.trace_index import Ints, TraceIndex, TraceKeys

__all__ = ["Columns", "TraceTable"]

Columns: TypeAlias = Mapping[str, tuple[type, int]]
"""Columns, their types and what a trace has there that nothing was said about."""

_FREE = 2**63 - 1
_KEYS: Columns = {
    "high": (np.uint64, 0),
    "low": (np.uint64, 0),
    "tenant": (np.uint32, 0),
    "number": (np.int64, _FREE),  # in the order of admission
}
_SAVED_KEYS = ("high", "low", "tenant")
_SMALLEST = 1024


class TraceTable:
    """Traces, each in a slot of all columns.

    Args:
        columns: Besides those that identify a trace.

    >>> table = TraceTable({"spans": (np.int64, 0)})
    >>> slots = table.admit(TraceKeys(np.array([7, 8], np.uint64), np.ones(2, np.uint64), np.zeros(2, np.uint32)))
    >>> table["spans"][slots] += [3, 4]
    >>> table.remove(slots[:1])
    >>> len(table), table["spans"][table.in_order()].tolist()
    (1, [4])
    """

    def __init__(self, columns: Columns) -> None:
        self._kinds = {**_KEYS, **columns}
        self._saved = (*_SAVED_KEYS, *columns)
        self._index = TraceIndex()
        self._columns: dict[str, npt.NDArray[Any]] = {}
        self._admitted = 0
        self._make_room(_SMALLEST)

    def __len__(self) -> int:
        return len(self._index)

    def __getitem__(self, name: str) -> npt.NDArray[Any]:
        """Return a column by slot; a slot that no trace has holds what nothing was said about."""
        return self._columns[name][: self.high]

    @property
    def high(self) -> int:
        """All slots are below."""
        return self._index.high

    def find(self, keys: TraceKeys) -> Ints:
        """Return the slot of each row's trace; -1 where it is not here."""
        return self._index.find(keys)

    def admit(self, keys: TraceKeys) -> Ints:
        """Return a slot for each row's trace, none of which is here; a trace may be given several times."""
        slots = self._index.admit(keys)
        if self.high > len(self._columns["number"]):
            self._make_room(self.high)
        columns = self._columns
        columns["high"][slots], columns["low"][slots], columns["tenant"][slots] = keys
        # Backwards, so that of the rows of one trace the first says when it came.
        end = self._admitted + len(slots)
        columns["number"][slots[::-1]] = np.arange(end - 1, self._admitted - 1, -1)
        self._admitted = end
        return slots

    def remove(self, slots: Ints) -> None:
        """Forget the traces in these slots."""
        self._index.remove(self.keys(slots))
        for name, (_, unsaid) in self._kinds.items():
            self._columns[name][slots] = unsaid

    def keys(self, slots: Ints) -> TraceKeys:
        """Return what identifies the traces in these slots."""
        return TraceKeys(*(self._columns[name][slots] for name in TraceKeys._fields))

    def in_order(self, slots: Ints | None = None) -> Ints:
        """Return slots in the order in which their traces were admitted; None: all that are taken."""
        if slots is None:
            slots = np.flatnonzero(self["number"] != _FREE)
        return slots[np.argsort(self._columns["number"][slots])]

    def state(self, order: Ints) -> dict[str, Packed]:
        """Return everything as plain data that later changes do not touch.

        Args:
            order: What `in_order` returned.
        """
        return {name: packed(self._columns[name][order]) for name in self._saved}

    def restore(self, state: Mapping[str, Packed]) -> None:
        """Take over what `state` returned, into an empty table: the trace at place i of it gets the slot i."""
        columns = {name: unpacked(state[name], self._kinds[name][0]) for name in self._saved}
        slots = self.admit(TraceKeys(*(columns.pop(name) for name in TraceKeys._fields)))
        for name, column in columns.items():
            self._columns[name][slots] = column

    def _make_room(self, count: int) -> None:
        for name, (dtype, unsaid) in self._kinds.items():
            before = self._columns.get(name, np.empty(0, dtype))
            more: npt.NDArray[Any] = np.full(max(count, 2 * len(before)) - len(before), unsaid, dtype)
            self._columns[name] = np.concatenate([before, more])
