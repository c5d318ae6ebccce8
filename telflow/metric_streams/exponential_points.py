"""Exponential histograms of many points, sparsely: one number for each bucket that holds something.

Histograms of different scales, and different zero thresholds, are added as the OTLP metrics data model says
("Exponential Buckets: merging", "ZeroThreshold"): all come to the coarsest scale, which joins buckets in pairs, and
coarser still until the buckets of either side fit in what is allowed; all come to the widest zero bucket, which takes
up the buckets it reaches into, whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from telflow.rows import take_rows
from telflow.schema import RECORD_SCHEMAS, Signal

__all__ = ["ExponentialPoints", "add_up", "put_together", "read_exponential", "subtract", "write_exponential"]

Ints: TypeAlias = npt.NDArray[np.int64]
Counts: TypeAlias = npt.NDArray[np.uint64]
Floats: TypeAlias = npt.NDArray[np.float64]

_ZERO = pa.scalar(0, pa.int32())
_FINEST = 20
_COARSEST = -64
_FAR = 1 << 40
_LARGEST_SHIFT = 62
_COLUMNS = ("scale", "zero_count", "zero_threshold", "positive", "negative")
_SCHEMA = pa.schema([RECORD_SCHEMAS[Signal.METRICS].field(name) for name in _COLUMNS])


@dataclass(frozen=True, slots=True)
class ExponentialPoints:
    """Buckets of some points.

    Attributes:
        scale: Of each point.
        zero: Count of the zero bucket of each.
        threshold: Its width.
        side: Of each bucket that holds something: twice its point's number, one more for values below zero; ascending.
        bucket: Index of each bucket; ascending within a side.
        count: Of each bucket.
    """

    scale: Ints
    zero: Counts
    threshold: Floats
    side: Ints
    bucket: Ints
    count: Counts

    def __len__(self) -> int:
        return len(self.scale)

    def take(self, rows: Ints) -> ExponentialPoints:
        """Return the points at `rows`, in that order."""
        first = np.searchsorted(self.side, rows * 2)
        sizes = np.searchsorted(self.side, rows * 2 + 2) - first
        owner = np.repeat(np.arange(len(rows)), sizes)
        entry = np.arange(int(sizes.sum())) - np.repeat(np.cumsum(sizes) - sizes, sizes) + first[owner]
        side = owner * 2 + (self.side[entry] & 1)
        return ExponentialPoints(
            self.scale[rows], self.zero[rows], self.threshold[rows], side, self.bucket[entry], self.count[entry]
        )

    def columns(self) -> pa.RecordBatch:
        """Return the columns of OTLP points."""
        return pa.RecordBatch.from_arrays(
            [
                pa.array(self.scale.astype(np.int32)),
                pa.array(self.zero),
                pa.array(self.threshold),
                self._lists(0),
                self._lists(1),
            ],
            schema=_SCHEMA,
        )

    def state(self) -> dict[str, Any]:
        """Return everything as plain data; arrays are never changed in place."""
        return {name: getattr(self, name) for name in self.__slots__}

    def _lists(self, negative: int) -> pa.StructArray:
        sides = np.arange(len(self)) * 2 + negative
        first, end = np.searchsorted(self.side, sides), np.searchsorted(self.side, sides, side="right")
        filled = end > first
        low, width = np.zeros(len(sides), np.int64), np.zeros(len(sides), np.int64)
        low[filled] = self.bucket[first[filled]]
        width[filled] = self.bucket[end[filled] - 1] - low[filled] + 1
        starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(width)])
        cells = np.zeros(int(starts[-1]), np.uint64)
        mine = np.flatnonzero((self.side & 1) == negative)
        owner = self.side[mine] >> 1
        cells[starts[owner] + self.bucket[mine] - low[owner]] = self.count[mine]
        dtype = _SCHEMA.field("positive").type
        lists = pa.ListArray.from_arrays(pa.array(starts.astype(np.int32)), pa.array(cells), type=dtype[1].type)
        return pa.StructArray.from_arrays([pa.array(low.astype(np.int32)), lists], fields=list(dtype))


def read_exponential(records: pa.RecordBatch, rows: Ints) -> ExponentialPoints:
    """Return the buckets of some points, which are exponential histograms; those at a scale above 20 at scale 20."""
    taken = take_rows(records.select(list(_COLUMNS)), rows.astype(np.uint32))
    scale = np.clip(pc.fill_null(taken["scale"], _ZERO).to_numpy().astype(np.int64), _COARSEST, None)
    sides, buckets, counts = [], [], []
    for negative, name in enumerate(("positive", "negative")):
        offset, lists = taken[name].flatten()
        lengths = pc.fill_null(pc.list_value_length(lists), _ZERO).to_numpy().astype(np.int64)
        owner = np.repeat(np.arange(len(rows)), lengths)
        place = np.arange(len(owner)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        cells = lists.flatten().to_numpy(zero_copy_only=False).astype(np.uint64)
        some = np.flatnonzero(cells)
        sides.append(owner[some] * 2 + negative)
        buckets.append((pc.fill_null(offset, _ZERO).to_numpy().astype(np.int64)[owner] + place)[some])
        counts.append(cells[some])
    found = ExponentialPoints(
        scale,
        pc.fill_null(taken["zero_count"], pa.scalar(0, pa.uint64())).to_numpy(),
        pc.fill_null(taken["zero_threshold"], pa.scalar(0.0, pa.float64())).to_numpy(),
        np.concatenate(sides),
        np.concatenate(buckets),
        np.concatenate(counts),
    )
    return _summed(found, np.minimum(scale, _FINEST))


def write_exponential(records: pa.RecordBatch, rows: Ints, points: ExponentialPoints) -> pa.RecordBatch:
    """Return a table of points with other buckets at some rows."""
    if not len(rows):
        return records
    both = pa.concat_batches([records.select(list(_COLUMNS)).cast(_SCHEMA), points.columns()])
    places = np.arange(records.num_rows, dtype=np.uint32)
    places[rows] = records.num_rows + np.arange(len(rows))
    taken = take_rows(both, places)
    for name in _COLUMNS:
        place = records.schema.get_field_index(name)
        records = records.set_column(place, records.schema.field(place), taken[name])
    return records


def add_up(parts: Sequence[tuple[ExponentialPoints, Ints]], points: int, max_buckets: int) -> ExponentialPoints:
    """Add points up.

    Args:
        parts: Points, and to which sum each belongs.
        points: Number of sums.
        max_buckets: Most buckets on either side of zero.

    Returns:
        The sums; one that nothing belongs to has scale 20 and no buckets.
    """
    scale = np.full(points, _FINEST)
    threshold = np.zeros(points)
    zero = np.zeros(points, np.uint64)
    for part, into in parts:
        np.minimum.at(scale, into, part.scale)
        np.maximum.at(threshold, into, part.threshold)
        np.add.at(zero, into, part.zero)
    own = np.concatenate([part.scale[part.side >> 1] for part, _ in parts])
    side = np.concatenate([into[part.side >> 1] * 2 + (part.side & 1) for part, into in parts])
    bucket = np.concatenate([part.bucket for part, _ in parts])
    count = np.concatenate([part.count for part, _ in parts])
    bucket = bucket >> np.minimum(own - scale[side >> 1], _LARGEST_SHIFT)
    shift = _needed_shift(side, bucket, points, max_buckets)
    bucket >>= shift[side >> 1]
    summed = _joined(ExponentialPoints(scale - shift, zero, threshold, side, bucket, count))
    wider = np.zeros(points, np.bool_)
    for part, into in parts:
        wider[into[part.threshold < threshold[into]]] = True
    return _folded(summed, wider) if wider.any() else summed


def put_together(parts: Sequence[tuple[ExponentialPoints, Ints]], points: int) -> ExponentialPoints:
    """Return points of several parts, each at the places given beside it."""
    return add_up(parts, points, _FAR)


def subtract(points: ExponentialPoints, before: ExponentialPoints) -> tuple[ExponentialPoints, npt.NDArray[np.bool_]]:
    """Take from each point the one before it.

    Returns:
        The differences, and where there is none: some count has fallen, the zero bucket has become narrower.
    """
    scale = np.minimum(points.scale, before.scale)
    fallen = (before.zero > points.zero) | (before.threshold > points.threshold)
    wider = before.threshold < points.threshold
    if wider.any():
        before = _folded(
            ExponentialPoints(
                before.scale,
                before.zero,
                np.maximum(before.threshold, points.threshold),
                before.side,
                before.bucket,
                before.count,
            ),
            wider,
        )
    now, past = _summed(points, scale), _summed(before, scale)
    side = np.concatenate([now.side, past.side])
    bucket = np.concatenate([now.bucket, past.bucket])
    signed = np.concatenate([now.count.view(np.int64), -past.count.view(np.int64)]).view(np.uint64)
    found = _joined(ExponentialPoints(scale, points.zero - before.zero, points.threshold.copy(), side, bucket, signed))
    fallen[found.side[found.count.view(np.int64) < 0] >> 1] = True
    fallen |= before.zero > points.zero
    some = np.flatnonzero(found.count)
    return (
        ExponentialPoints(
            found.scale, found.zero, found.threshold, found.side[some], found.bucket[some], found.count[some]
        ),
        fallen,
    )


def _summed(points: ExponentialPoints, scale: Ints) -> ExponentialPoints:
    """The same at scales that are no finer."""
    shift = np.minimum(points.scale - scale, _LARGEST_SHIFT)
    bucket = points.bucket >> shift[points.side >> 1]
    return _joined(ExponentialPoints(scale, points.zero, points.threshold, points.side, bucket, points.count))


def _joined(points: ExponentialPoints) -> ExponentialPoints:
    """In order, with one entry for each bucket."""
    order = np.lexsort((points.bucket, points.side))
    side, bucket, count = points.side[order], points.bucket[order], points.count[order]
    new = np.ones(len(side), np.bool_)
    new[1:] = (side[1:] != side[:-1]) | (bucket[1:] != bucket[:-1])
    first = np.flatnonzero(new)
    if len(first) < len(side):
        count = np.add.reduceat(count, first)
    return ExponentialPoints(points.scale, points.zero, points.threshold, side[first], bucket[first], count)


def _needed_shift(side: Ints, bucket: Ints, points: int, max_buckets: int) -> Ints:
    """By how much each point's scale must fall for its buckets to fit."""
    low, high = np.full((2, 2 * points), _FAR)
    np.negative(high, out=high)
    np.minimum.at(low, side, bucket)
    np.maximum.at(high, side, bucket)
    shift = np.zeros(len(low), np.int64)
    while (wide := np.flatnonzero(high - low >= max_buckets)).size:
        low[wide] >>= 1
        high[wide] >>= 1
        shift[wide] += 1
    return np.asarray(shift.reshape(-1, 2).max(axis=1, initial=0))


def _folded(points: ExponentialPoints, which: npt.NDArray[np.bool_]) -> ExponentialPoints:
    """Let the zero bucket take up the buckets it reaches into; it then ends where the last of them does."""
    zero, threshold = points.zero.copy(), points.threshold.copy()
    side, bucket, count = points.side, points.bucket, points.count
    while True:
        row = side >> 1
        width = np.exp2(-points.scale[row].astype(np.float64))
        with np.errstate(over="ignore"):
            reached = which[row] & (np.exp2(bucket * width) < threshold[row])
            upper = np.exp2((bucket + 1) * width)
        if not reached.any():
            return ExponentialPoints(points.scale, zero, threshold, side, bucket, count)
        np.add.at(zero, row[reached], count[reached])
        np.maximum.at(threshold, row[reached], upper[reached])
        side, bucket, count = side[~reached], bucket[~reached], count[~reached]
