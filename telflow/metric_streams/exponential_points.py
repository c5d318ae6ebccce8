"""Exponential histograms of many points, sparsely: one number for each bucket that holds something.

Histograms of different scales, and different zero thresholds, are added as the OTLP metrics data model says
("Exponential Buckets: merging", "ZeroThreshold"): all come to the coarsest scale, which joins buckets in pairs, and
coarser still until the buckets of either side fit in what is allowed; all come to the widest zero bucket, which takes
up the buckets it reaches into, whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from telflow.metric_streams.extents import cells_of
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
_DENSE = 8
_COLUMNS = ("scale", "zero_count", "zero_threshold", "positive", "negative")
_SCHEMA = pa.schema([RECORD_SCHEMAS[Signal.METRICS].field(name) for name in _COLUMNS])


@dataclass(frozen=True)
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
        first = self._firsts
        sizes = first[rows * 2 + 2] - first[rows * 2]
        entry = cells_of(first[rows * 2], sizes)
        side = np.repeat(np.arange(len(rows)) * 2, sizes) + (self.side[entry] & 1)
        return ExponentialPoints(
            self.scale[rows], self.zero[rows], self.threshold[rows], side, self.bucket[entry], self.count[entry]
        )

    def columns(self, places: Ints) -> pa.RecordBatch:
        """Return the columns of OTLP points, in another order: point number n at ``places[n]``, of all places each."""
        order = np.empty_like(places)
        order[places] = np.arange(len(places))
        return pa.RecordBatch.from_arrays(
            [
                pa.array(self.scale[order].astype(np.int32)),
                pa.array(self.zero[order]),
                pa.array(self.threshold[order]),
                self._lists(0, places),
                self._lists(1, places),
            ],
            schema=_SCHEMA,
        )

    def extents(self) -> tuple[Ints, Ints]:
        """Return the lowest bucket of each side, and the highest; of an empty one a high and a low number."""
        first = self._firsts
        low, high = np.full(2 * len(self), _FAR), np.full(2 * len(self), -_FAR)
        filled = np.flatnonzero(first[1:] > first[:-1])
        low[filled] = self.bucket[first[filled]]
        high[filled] = self.bucket[first[filled + 1] - 1]
        return low, high

    @cached_property
    def _firsts(self) -> Ints:
        """Where the buckets of each side begin, with the end of the last."""
        return np.append(0, np.cumsum(np.bincount(self.side, minlength=2 * len(self))))

    def _lists(self, negative: int, places: Ints) -> pa.StructArray:
        low, high = (ends[negative::2] for ends in self.extents())
        filled = low <= high
        offset, width = np.zeros(len(self), np.int64), np.zeros(len(self), np.int64)
        offset[places] = np.where(filled, low, 0)
        width[places] = np.where(filled, high - low + 1, 0)
        starts = np.append(0, np.cumsum(width))
        cells = np.zeros(int(starts[-1]), np.uint64)
        if cells.size:
            mine = (self.side & 1) == negative
            side, bucket, count = (self.side, self.bucket, self.count) if mine.all() else self._entries(mine)
            cells[(starts[places] - low)[side >> 1] + bucket] = count
        dtype = _SCHEMA.field("positive").type
        lists = pa.ListArray.from_arrays(pa.array(starts.astype(np.int32)), pa.array(cells), type=dtype[1].type)
        return pa.StructArray.from_arrays([pa.array(offset.astype(np.int32)), lists], fields=list(dtype))

    def _entries(self, which: npt.NDArray[np.bool_]) -> tuple[Ints, Ints, Counts]:
        return self.side[which], self.bucket[which], self.count[which]


def read_exponential(records: pa.RecordBatch, rows: Ints) -> ExponentialPoints:
    """Return the buckets of some points, which are exponential histograms; those at a scale above 20 at scale 20."""
    taken = take_rows(records.select(list(_COLUMNS)), rows.astype(np.uint32))
    scale = np.clip(pc.fill_null(taken["scale"], _ZERO).to_numpy().astype(np.int64), _COARSEST, None)
    sides = [_read_side(taken[name], negative) for negative, name in enumerate(("positive", "negative"))]
    found = ExponentialPoints(
        scale,
        pc.fill_null(taken["zero_count"], pa.scalar(0, pa.uint64())).to_numpy(),
        pc.fill_null(taken["zero_threshold"], pa.scalar(0.0, pa.float64())).to_numpy(),
        *_joined([some for some in sides if len(some[0])] or sides[:1], len(rows)),
    )
    return _summed(found, np.minimum(scale, _FINEST))


def _read_side(column: pa.StructArray, negative: int) -> tuple[Ints, Ints, Counts]:
    """Sides, buckets and counts of one side of all points."""
    offset, lists = column.flatten()
    lengths = pc.fill_null(pc.list_value_length(lists), _ZERO).to_numpy().astype(np.int64)
    cells = lists.flatten().to_numpy(zero_copy_only=False).astype(np.uint64, copy=False)
    before = pc.fill_null(offset, _ZERO).to_numpy() - (np.cumsum(lengths) - lengths)
    side = np.repeat(np.arange(len(lengths)) * 2 + negative, lengths)
    bucket = np.repeat(before, lengths) + np.arange(len(cells))
    some = cells != 0
    return (side, bucket, cells) if some.all() else (side[some], bucket[some], cells[some])


def write_exponential(records: pa.RecordBatch, rows: Ints, points: ExponentialPoints) -> pa.RecordBatch:
    """Return a table of points with other buckets at some rows, which are distinct."""
    if not len(rows):
        return records
    if len(rows) == records.num_rows:
        taken = points.columns(rows)
    else:
        both = pa.concat_batches([records.select(list(_COLUMNS)).cast(_SCHEMA), points.columns(np.arange(len(rows)))])
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
    coarser = [scale[into] for _, into in parts]
    low, high = np.full(2 * points, _FAR), np.full(2 * points, -_FAR)
    for (part, into), common in zip(parts, coarser, strict=True):
        lowest, highest = part.extents()
        filled = np.flatnonzero(lowest <= highest)
        down = np.minimum(part.scale - common, _LARGEST_SHIFT)[filled >> 1]
        np.minimum.at(low, _sides(into)[filled], lowest[filled] >> down)
        np.maximum.at(high, _sides(into)[filled], highest[filled] >> down)
    shift = _needed_shift(low, high, max_buckets)
    by_side = np.repeat(shift, 2)
    ends = np.right_shift(low, by_side), np.right_shift(high, by_side)
    found = []
    for (part, into), common in zip(parts, coarser, strict=True):
        down = np.minimum(part.scale - common + shift[into], _LARGEST_SHIFT)
        bucket = part.bucket >> down[part.side >> 1] if down.any() else part.bucket
        found.append((_sides(into)[part.side], bucket, part.count))
    summed = ExponentialPoints(scale - shift, zero, threshold, *_joined(found, points, ends))
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
    negated = (-past.count.view(np.int64)).view(np.uint64)
    (low, high), (past_low, past_high) = now.extents(), past.extents()
    joined = _joined(
        [(now.side, now.bucket, now.count), (past.side, past.bucket, negated)],
        len(points),
        (np.minimum(low, past_low), np.maximum(high, past_high)),
    )
    found = ExponentialPoints(scale, points.zero - before.zero, points.threshold, *joined)
    fallen[found.side[found.count.view(np.int64) < 0] >> 1] = True
    fallen |= before.zero > points.zero
    some = found.count != 0
    if not some.all():
        found = replace(found, side=found.side[some], bucket=found.bucket[some], count=found.count[some])
    return found, fallen


def _sides(into: Ints) -> Ints:
    """Where each side goes, of points that go to `into`."""
    return np.asarray(np.repeat(into * 2, 2) + np.tile([0, 1], len(into)))


def _summed(points: ExponentialPoints, scale: Ints) -> ExponentialPoints:
    """The same at scales that are no finer."""
    shift = np.minimum(points.scale - scale, _LARGEST_SHIFT)
    if not shift.any():
        return points
    bucket = points.bucket >> shift[points.side >> 1]
    joined = _joined([(points.side, bucket, points.count)], len(points))
    return ExponentialPoints(scale, points.zero, points.threshold, *joined)


def _joined(
    parts: Sequence[tuple[Ints, Ints, Counts]], points: int, ends: tuple[Ints, Ints] | None = None
) -> tuple[Ints, Ints, Counts]:
    """Sides, buckets and counts in order, with one entry for each bucket; those of nothing may be missing.

    `ends` are the first bucket of each side and the last.
    """
    side, bucket, count = parts[0] if len(parts) == 1 else (np.concatenate(some) for some in zip(*parts, strict=True))
    same = side[1:] == side[:-1]
    ordered = bool((same | (side[1:] > side[:-1])).all()) and bool((bucket[1:] >= bucket[:-1])[same].all())
    if not ordered:
        if ends is None:
            ends = np.full(2 * points, _FAR), np.full(2 * points, -_FAR)
            np.minimum.at(ends[0], side, bucket)
            np.maximum.at(ends[1], side, bucket)
        low, high = ends
        width = np.maximum(high - low + 1, 0)
        total = int(width.sum())
        if total <= _DENSE * len(side):
            # A cell for each bucket between the first and the last of its side: much quicker than to sort them.
            before = np.cumsum(width) - width - low
            cells = np.zeros(total, np.uint64)
            np.add.at(cells, before[side] + bucket, count)
            some = np.flatnonzero(cells)
            side = np.repeat(np.arange(2 * points), width)[some]
            return side, some - before[side], cells[some]
        order = np.lexsort((bucket, side))
        side, bucket, count = side[order], bucket[order], count[order]
        same = side[1:] == side[:-1]
    first = np.flatnonzero(np.append(True, ~same | (bucket[1:] != bucket[:-1])))
    if len(first) < len(side):
        side, bucket, count = side[first], bucket[first], np.add.reduceat(count, first)
    return side, bucket, count


def _needed_shift(low: Ints, high: Ints, max_buckets: int) -> Ints:
    """By how much each point's scale must fall for its buckets to fit, of which these are the ends on each side."""
    low, high = low.copy(), high.copy()
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
