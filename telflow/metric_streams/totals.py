"""The last known values of streams, by slot (`telflow.metric_streams.tracker`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from telflow.metric_streams.exponential_points import ExponentialPoints
from telflow.metric_streams.extents import Extents
from telflow.metric_streams.points import Buckets, PointValues

__all__ = ["Totals", "select"]

Ints: TypeAlias = npt.NDArray[np.int64]

_PLAIN = {"whole": np.int64, "real": np.float64, "count": np.uint64, "low": np.float64, "high": np.float64}
_OF_EXPONENTIAL = {"scale": np.int64, "zero": np.uint64, "threshold": np.float64}


def select(values: PointValues, rows: Ints) -> PointValues:
    """Return the values at `rows`, distinct and ascending."""
    if len(rows) == len(values):
        return values
    buckets = {}
    for width, found in values.buckets.items():
        where, mine = _among(found.at, rows)
        if len(where):
            buckets[width] = Buckets(mine, found.counts[where])
    where, mine = _among(values.exponential_at, rows)
    exponential = values.exponential.take(where) if values.exponential is not None and len(where) else None
    plain = {name: column[rows] for name, column in values.plain()}
    return PointValues(**plain, buckets=buckets, exponential_at=mine, exponential=exponential)


def _among(found: Ints, rows: Ints) -> tuple[Ints, Ints]:
    """Which of `found` are among `rows`, and at which place there; both ascending."""
    place = np.searchsorted(rows, found)
    inside = place < len(rows)
    inside[inside] = rows[place[inside]] == found[inside]
    return np.flatnonzero(inside), place[inside]


class Totals:
    """Values of one point for each slot."""

    def __init__(self) -> None:
        self._columns: dict[str, npt.NDArray[Any]] = {
            name: np.empty(0, dtype) for name, dtype in (_PLAIN | _OF_EXPONENTIAL).items()
        }
        self._explicit = Extents({"count": np.uint64})
        self._exponential = Extents({"below": np.int64, "bucket": np.int64, "count": np.uint64})

    def __len__(self) -> int:
        return len(self._columns["whole"])

    def grow(self, slots: int) -> None:
        """Make room for slots below `slots`; a new one has zeros."""
        if slots <= len(self):
            return
        for name, column in self._columns.items():
            self._columns[name] = np.append(column, np.zeros(slots - len(column), column.dtype))
        self._explicit.grow(slots)
        self._exponential.grow(slots)

    def get(self, slots: Ints, like: PointValues) -> PointValues:
        """Return the values of some slots; of kinds and widths as `like` has them, which belongs to the same streams.

        A slot that nothing was put in has zeros in all buckets.
        """
        plain = {name: self._columns[name][slots] for name in _PLAIN}
        buckets = {}
        for width, found in like.buckets.items():
            sizes, (cells,) = self._explicit.get(slots[found.at])
            counts = np.zeros((len(found.at), width), np.uint64)
            counts[sizes > 0] = cells.reshape(-1, width)
            buckets[width] = Buckets(found.at, counts)
        exponential = self._points(slots[like.exponential_at]) if like.exponential is not None else None
        return PointValues(**plain, buckets=buckets, exponential_at=like.exponential_at, exponential=exponential)

    def put(self, slots: Ints, values: PointValues) -> None:
        """Replace the values of some slots, which are distinct."""
        for name, column in values.plain():
            self._columns[name][slots] = column
        for width, found in values.buckets.items():
            sizes = np.full(len(found.at), width)
            self._explicit.put(slots[found.at], sizes, [found.counts.reshape(-1)])
        points = values.exponential
        if points is not None:
            at = slots[values.exponential_at]
            for name in _OF_EXPONENTIAL:
                self._columns[name][at] = getattr(points, name)
            sizes = np.bincount(points.side >> 1, minlength=len(points))
            self._exponential.put(at, sizes, [points.side & 1, points.bucket, points.count])

    def keep(self, slots: Ints) -> None:
        """Forget all other slots: slot ``slots[i]`` becomes ``i``."""
        self._columns = {name: column[slots] for name, column in self._columns.items()}
        self._explicit.keep(slots)
        self._exponential.keep(slots)

    def state(self) -> dict[str, Any]:
        """Return everything as plain data that later changes do not touch."""
        columns = {name: column.copy() for name, column in self._columns.items()}
        return {"columns": columns, "explicit": self._explicit.state(), "exponential": self._exponential.state()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over what `state` returned."""
        self._columns = {name: state["columns"][name].copy() for name in self._columns}
        self._explicit.restore(state["explicit"])
        self._exponential.restore(state["exponential"])

    def _points(self, slots: Ints) -> ExponentialPoints:
        sizes, (below, bucket, count) = self._exponential.get(slots)
        side = np.repeat(np.arange(len(slots)), sizes) * 2 + below
        scale, zero, threshold = (self._columns[name][slots] for name in _OF_EXPONENTIAL)
        return ExponentialPoints(scale, zero, threshold, side, bucket, count)
