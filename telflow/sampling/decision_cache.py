"""What was decided about traces, so that a span that comes late goes the way of its trace."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from telflow.sampling.packing import Packed
from telflow.sampling.trace_index import TraceKeys
from telflow.sampling.trace_state import UNKNOWN, Words
from telflow.sampling.trace_table import Columns, TraceTable

__all__ = ["DecisionCache"]

_KEPT_WHEN_FULL = 0.9
_COLUMNS: Columns = {"threshold": (np.uint64, UNKNOWN), "used": (np.int64, 0)}


class DecisionCache:
    """Thresholds of decided traces, as many as fit; those that were longest without use go first.

    Args:
        capacity: Most traces; 0: none at all, every late span opens its trace anew.

    >>> cache = DecisionCache(10)
    >>> keys = TraceKeys(np.array([1, 2], np.uint64), np.array([1, 2], np.uint64), np.zeros(2, np.uint32))
    >>> cache.put(keys.at(np.array([0])), np.array([7], np.uint64), tick=1)
    >>> cache.get(keys, tick=1) == [7, UNKNOWN]
    array([ True,  True])
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._table = TraceTable(_COLUMNS)

    def __len__(self) -> int:
        return len(self._table)

    def get(self, keys: TraceKeys, tick: int) -> Words:
        """Return the threshold of each row's trace, `UNKNOWN` where nothing is known.

        Args:
            keys: What identifies the traces.
            tick: When this is; asking for a trace counts as its use.
        """
        found = np.full(len(keys.high), UNKNOWN, np.uint64)
        slots = self._table.find(keys)
        hits = np.flatnonzero(slots >= 0)
        if hits.size:
            self._table["used"][slots[hits]] = tick
            found[hits] = self._table["threshold"][slots[hits]]
        return found

    def put(self, keys: TraceKeys, thresholds: Words, tick: int) -> None:
        """Remember what was decided about distinct traces that are not in the cache."""
        if not self._capacity:
            return
        slots = self._table.admit(keys)
        self._table["threshold"][slots] = thresholds
        self._table["used"][slots] = tick
        if len(self) > self._capacity:
            # A part more than need be: forgetting costs a look at all.
            self._forget(len(self) - (int(self._capacity * _KEPT_WHEN_FULL) or 1))

    def state(self) -> dict[str, Packed]:
        """Return everything as plain data that later changes do not touch."""
        return self._table.state(self._table.in_order())

    def restore(self, state: Mapping[str, Packed]) -> None:
        """Take over what `state` returned, as far as there is room."""
        self._table.restore(state)
        if len(self) > self._capacity:
            self._forget(len(self) - self._capacity)

    def _forget(self, count: int) -> None:
        slots = self._table.in_order()
        used = self._table["used"][slots]
        # The latest tick in which any of those was used that have to go; of that tick those decided first.
        last = np.partition(used, count - 1)[count - 1]
        before = slots[used < last]
        self._table.remove(np.concatenate([before, slots[used == last][: count - len(before)]]))
