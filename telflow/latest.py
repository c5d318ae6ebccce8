"""The latest value by slot: that of the greatest event time, and among equal times the largest.

Which value that is does not depend on the order in which values come, or on how they are cut into batches.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

__all__ = ["LatestColumn", "timed"]

Ints: TypeAlias = npt.NDArray[np.int64]
Floats: TypeAlias = npt.NDArray[np.float64]
Timed: TypeAlias = npt.NDArray[np.void]

_TIMED = np.dtype([("time", np.int64), ("value", np.float64)])
_NEVER = -(2**63)


def timed(times: npt.NDArray[Any], values: Floats) -> Timed:
    """Return values with their event times, as `LatestColumn` takes them; NaN is no value."""
    found = np.empty(len(values), _TIMED)
    found["time"], found["value"] = times, values
    return found


class LatestColumn:
    """A value with its event time per slot.

    >>> column = LatestColumn()
    >>> column.grow(2)
    >>> column.add(np.array([0, 0, 0]), timed(np.array([5, 9, 7]), np.array([1.0, 2.0, 3.0])))
    >>> column.values.tolist()
    [2.0, nan]
    """

    def __init__(self) -> None:
        self._times = np.empty(0, np.int64)
        self.values = np.empty(0)

    def grow(self, rows: int) -> None:
        """Make room for slots below `rows`."""
        more = rows - len(self.values)
        if more > 0:
            self._times = np.concatenate([self._times, np.full(more, _NEVER)])
            self.values = np.concatenate([self.values, np.full(more, np.nan)])

    def add(self, rows: Ints, values: Timed) -> None:
        """Take over, by slot, what is later than what is held."""
        there = np.flatnonzero(~np.isnan(values["value"]))
        self._fold(rows[there], values["time"][there], values["value"][there])

    def merge(self, other: LatestColumn, rows: Ints | None) -> None:
        """Fold in another column; its slot ``i`` goes to ``rows[i]`` (None: to ``i``)."""
        there = np.flatnonzero(~np.isnan(other.values))
        self._fold(there if rows is None else rows[there], other._times[there], other.values[there])

    def take(self, rows: Ints) -> LatestColumn:
        """Return a column whose slot ``i`` is this one's ``rows[i]``, to be read or merged."""
        taken = LatestColumn()
        taken._times, taken.values = self._times[rows], self.values[rows]
        return taken

    def clear(self, rows: Ints) -> None:
        """Empty some slots."""
        self._times[rows], self.values[rows] = _NEVER, np.nan

    def keep(self, rows: Ints) -> None:
        """Forget all other slots: slot ``rows[i]`` becomes ``i``."""
        self._times, self.values = self._times[rows], self.values[rows]

    def state(self) -> dict[str, Any]:
        """Return everything as plain data that later changes do not touch."""
        return {"times": self._times.copy(), "values": self.values.copy()}

    def restore(self, state: dict[str, Any]) -> None:
        """Take over what `state` returned."""
        self._times, self.values = state["times"].copy(), state["values"].copy()

    def to_arrow(self) -> pa.Array:
        """One struct per slot, for another process."""
        return pa.StructArray.from_arrays([pa.array(self._times), pa.array(self.values)], ["time", "value"])

    def from_arrow(self, entries: pa.Array) -> None:
        """Take over what `to_arrow` returned."""
        times, values = entries.flatten()
        self._times, self.values = times.to_numpy().copy(), values.to_numpy().copy()

    def _fold(self, rows: Ints, times: Ints, values: Floats) -> None:
        order = np.lexsort((values, times, rows))
        rows, times, values = rows[order], times[order], values[order]
        last = np.ones(len(rows), np.bool_)
        last[:-1] = rows[1:] != rows[:-1]
        rows, times, values = rows[last], times[last], values[last]
        held, known = self._times[rows], self.values[rows]
        later = (times > held) | ((times == held) & ~(values <= known))
        self._times[rows[later]], self.values[rows[later]] = times[later], values[later]
