"""Exponential histograms by slot: base-2 buckets whose scale follows the data (OTLP metrics data model).

At scale ``s`` the base is ``2 ** 2**-s`` and bucket ``i`` holds values in ``(base**i, base**(i + 1)]``. A slot begins
at the finest scale; when its values span more buckets than allowed, the scale falls until they fit, which joins buckets
in pairs and loses nothing else. The scale in the end depends only on the smallest and largest
value, so order, batches and partial histograms make no difference.

The same buckets are a DDSketch (Masson, Rim, Lee: "DDSketch", VLDB 2019): a quantile taken from them is off by at most
``relative_error(scale)`` of the true value. Unlike sketches that keep samples it gives the same answer every time.
"""

from __future__ import annotations

import math
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

__all__ = ["ExponentialColumn", "bucket_indices", "relative_error", "scale_for"]

Ints: TypeAlias = npt.NDArray[np.int64]
Floats: TypeAlias = npt.NDArray[np.float64]

_MIN_SCALE, _MAX_SCALE = -10, 20  # those of the OpenTelemetry SDK specification
_PENDING = 1 << 16
_FAR = 1 << 40
_HALF = 0.5


def relative_error(scale: int) -> float:
    """Most that the middle of a bucket differs from any value in it, as a part of the value.

    >>> round(relative_error(6), 4)
    0.0054
    """
    base: float = 2.0**2.0**-scale
    return (base - 1) / (base + 1)


def scale_for(error: float) -> int:
    """Coarsest scale whose relative error is at most `error`.

    >>> scale_for(0.01)
    6
    """
    base = (1 + error) / (1 - error)
    return max(_MIN_SCALE, min(_MAX_SCALE, math.ceil(-math.log2(math.log2(base)))))


def bucket_indices(values: Floats, scale: int = _MAX_SCALE) -> Ints:
    """Bucket of each value at a scale of at least 0; values are above 0 and finite.

    >>> bucket_indices(np.array([1.0, 1.5, 2.0, 4.0, 4.1]), 0).tolist()
    [-1, 0, 0, 1, 2]
    """
    fraction, exponent = np.frexp(values)  # value = fraction * 2**exponent, 0.5 <= fraction < 1
    # A power of two is the upper bound of its bucket; logarithms may be off by one there, so it is decided exactly.
    whole = (exponent.astype(np.int64) - 1) << scale
    within = np.ceil(np.log2(2 * fraction) * (1 << scale)).astype(np.int64)
    return whole + np.where(fraction == _HALF, 0, np.clip(within, 1, 1 << scale)) - 1


class ExponentialColumn:
    """A histogram per slot. Buckets are kept sparsely: one number for each bucket that holds something.

    Args:
        max_buckets: Most buckets of a slot on either side of zero.
        scale: The finest scale.

    >>> column = ExponentialColumn(max_buckets=4, scale=20)
    >>> column.grow(2)
    >>> column.add(np.array([0, 0, 0, 1]), np.array([1.0, 3.0, 8.0, 0.0]))
    >>> lists = column.points(np.array([0, 1]))
    >>> lists["scale"].tolist(), lists["zero_count"].tolist(), lists["positive"].to_pylist()[0]
    ([0, 0], [0, 1], {'offset': -1, 'bucket_counts': [1, 0, 1, 1]})
    """

    def __init__(self, max_buckets: int, scale: int) -> None:
        self._max_buckets = max_buckets
        self._finest = scale
        self._scale = np.empty(0, np.int64)
        self._zero = np.empty(0, np.int64)
        none = np.empty(0, np.int64)
        # Side (slot * 2, + 1 for values below zero), bucket, scale of that bucket, count; sorted by side and bucket.
        self._entries = (none, none, none, none)
        self._pending: list[tuple[Ints, Ints, Ints, Ints]] = []
        self._waiting = 0

    def grow(self, rows: int) -> None:
        """Make room for slots below `rows`."""
        more = rows - len(self._scale)
        if more > 0:
            self._scale = np.concatenate([self._scale, np.full(more, self._finest)])
            self._zero = np.concatenate([self._zero, np.zeros(more, np.int64)])

    def add(self, rows: Ints, values: Floats) -> None:
        """Count values in the slots they belong to; NaN is no value, infinity counts as the largest double."""
        zero = values == 0
        if zero.any():
            np.add.at(self._zero, rows[zero], 1)
        counted = np.flatnonzero((values > 0) | (values < 0))
        if counted.size:
            rows, values = rows[counted], values[counted]
            size = np.minimum(np.abs(values), np.finfo(np.float64).max)
            ones = np.ones(len(rows), np.int64)
            self._append(
                rows * 2 + (values < 0), bucket_indices(size) >> (_MAX_SCALE - self._finest), self._finest * ones, ones
            )

    def merge(self, other: ExponentialColumn, rows: Ints | None) -> None:
        """Fold in another column; its slot ``i`` goes to ``rows[i]`` (None: to ``i``)."""
        other._compact()
        rows = np.arange(len(other._scale)) if rows is None else rows
        np.add.at(self._zero, rows, other._zero)
        np.minimum.at(self._scale, rows, other._scale)
        side, bucket, scale, count = other._entries
        self._append(rows[side >> 1] * 2 + (side & 1), bucket, scale, count)

    def take(self, rows: Ints) -> ExponentialColumn:
        """Return a column whose slot ``i`` is this one's ``rows[i]``; these are distinct."""
        self._compact()
        taken = ExponentialColumn(self._max_buckets, self._finest)
        taken._scale, taken._zero, taken._entries = self._scale, self._zero, self._entries
        taken.keep(rows)
        return taken

    def clear(self, rows: Ints) -> None:
        """Empty some slots."""
        self._compact()
        gone = np.zeros(len(self._scale), np.bool_)
        gone[rows] = True
        self._choose(~gone[self._entries[0] >> 1])
        self._scale[rows], self._zero[rows] = self._finest, 0

    def keep(self, rows: Ints) -> None:
        """Forget all other slots: slot ``rows[i]`` becomes ``i``."""
        self._compact()
        moved = np.full(len(self._scale), -1)
        moved[rows] = np.arange(len(rows))
        self._choose(moved[self._entries[0] >> 1] >= 0)
        side, *rest = self._entries
        self._entries = (moved[side >> 1] * 2 + (side & 1), rest[0], rest[1], rest[2])
        self._scale, self._zero = self._scale[rows], self._zero[rows]

    def state(self) -> dict[str, Any]:
        """Return everything as plain data that later changes do not touch."""
        self._compact()
        side, bucket, _, count = self._entries  # never changed in place
        return {"scale": self._scale.copy(), "zero": self._zero.copy(), "side": side, "bucket": bucket, "count": count}

    def restore(self, state: dict[str, Any]) -> None:
        """Take over what `state` returned."""
        self._scale, self._zero = state["scale"].copy(), state["zero"].copy()
        side = state["side"]
        self._entries = (side, state["bucket"], self._scale[side >> 1], state["count"])
        self._pending, self._waiting = [], 0

    def to_arrow(self) -> pa.Array:
        """One struct per slot: scale, zero count, and its buckets as parallel lists."""
        self._compact()
        side, bucket, _, count = self._entries
        ends = np.searchsorted(side, np.arange(len(self._scale) + 1) * 2)
        offsets = pa.array(ends.astype(np.int32))
        lists = [pa.ListArray.from_arrays(offsets, pa.array(values)) for values in (side & 1, bucket, count)]
        return pa.StructArray.from_arrays(
            [pa.array(self._scale), pa.array(self._zero), *lists], ["scale", "zero", "below", "bucket", "count"]
        )

    def from_arrow(self, entries: pa.Array) -> None:
        """Take over what `to_arrow` returned."""
        scale, zero, below, bucket, count = entries.flatten()
        slots = np.repeat(np.arange(len(entries)), np.diff(below.offsets.to_numpy()))
        side = slots * 2 + below.flatten().to_numpy()
        self.restore(
            {
                "scale": scale.to_numpy(),
                "zero": zero.to_numpy(),
                "side": side,
                "bucket": bucket.flatten().to_numpy(),
                "count": count.flatten().to_numpy(),
            }
        )

    def points(self, slots: Ints) -> dict[str, Any]:
        """Return the columns of OTLP exponential histogram points for some slots.

        Returns:
            ``scale`` and ``zero_count`` (int64), ``positive`` and ``negative`` (structs of ``offset`` int32 and
            ``bucket_counts`` list of uint64). A histogram without buckets has scale 0.
        """
        self._compact()
        side, _, _, _ = self._entries
        filled = np.zeros(len(self._scale), np.bool_)
        filled[side >> 1] = True
        return {
            "scale": np.where(filled, self._scale, 0)[slots],
            "zero_count": self._zero[slots],
            "positive": self._side(slots * 2),
            "negative": self._side(slots * 2 + 1),
        }

    def counts(self, slots: Ints) -> Ints:
        """Return how many values each slot has counted."""
        self._compact()
        total = self._zero.copy()
        np.add.at(total, self._entries[0] >> 1, self._entries[3])
        return np.asarray(total[slots])

    def quantiles(self, slots: Ints, quantiles: Floats) -> Floats:
        """Return estimates of quantiles: one row per slot, one column per quantile; NaN for a slot without values.

        The estimate of quantile ``q`` stands for the value of rank ``floor(q * (n - 1))``, counted from 0, and differs
        from it by at most ``relative_error(scale)`` of it.
        """
        self._compact()
        side, bucket, scale, count = self._entries
        zeros = np.flatnonzero(self._zero)
        slot = np.concatenate([side >> 1, zeros])
        sign = np.concatenate([np.where(side & 1, -1, 1), np.zeros(len(zeros), np.int64)])
        bucket = np.concatenate([bucket, np.zeros(len(zeros), np.int64)])
        base = np.exp2(np.exp2(-np.concatenate([scale, np.zeros(len(zeros), np.int64)]).astype(np.float64)))
        # Twice the upper bound by (base + 1) is as far from either end. Logarithms first: bounds may overflow.
        with np.errstate(over="ignore"):
            middle = np.exp2((bucket + 1) * np.log2(base) + 1 - np.log2(base + 1))
        values = sign * np.minimum(middle, np.finfo(np.float64).max)
        order = np.lexsort((sign * (bucket + _FAR), slot))
        values, slot = values[order], slot[order]
        ends = np.cumsum(np.concatenate([count, self._zero[zeros]])[order])
        last = np.searchsorted(slot, slots, side="right") - 1
        first = np.searchsorted(slot, slots, side="left")
        found = np.full((len(slots), len(quantiles)), np.nan)
        some = np.flatnonzero(last >= first)
        if some.size:
            before = np.where(first[some] > 0, ends[first[some] - 1], 0)
            total = ends[last[some]] - before
            rank = np.floor(quantiles * (total[:, None] - 1)).astype(np.int64) + before[:, None]
            found[some] = values[np.searchsorted(ends, rank, side="right")]
        return found

    def _side(self, sides: Ints) -> pa.StructArray:
        """The buckets of one side of some slots as OTLP `Buckets`."""
        side, bucket, _, count = self._entries
        first, end = np.searchsorted(side, sides), np.searchsorted(side, sides, side="right")
        filled = end > first
        low = np.zeros(len(sides), np.int64)
        low[filled] = bucket[first[filled]]
        width = np.zeros(len(sides), np.int64)
        width[filled] = bucket[end[filled] - 1] - low[filled] + 1
        starts = np.concatenate([[0], np.cumsum(width)])
        flat = np.zeros(int(starts[-1]), np.uint64)
        sizes = end - first
        owner = np.repeat(np.arange(len(sides)), sizes)
        entry = np.arange(int(sizes.sum())) - np.repeat(np.cumsum(sizes) - sizes, sizes) + first[owner]
        flat[starts[owner] + bucket[entry] - low[owner]] = count[entry]
        lists = pa.ListArray.from_arrays(
            pa.array(starts.astype(np.int32)),
            pa.array(flat),
            type=pa.list_(pa.field("item", pa.uint64(), nullable=False)),
        )
        return pa.StructArray.from_arrays([pa.array(low.astype(np.int32)), lists], ["offset", "bucket_counts"])

    def _append(self, side: Ints, bucket: Ints, scale: Ints, count: Ints) -> None:
        self._pending.append((side, bucket, scale, count))
        self._waiting += len(side)
        if self._waiting > max(_PENDING, len(self._entries[0])):
            self._compact()

    def _choose(self, which: npt.NDArray[np.bool_]) -> None:
        side, bucket, scale, count = self._entries
        self._entries = (side[which], bucket[which], scale[which], count[which])

    def _compact(self) -> None:
        """Join all entries of equal buckets, at the finest scale at which each slot fits."""
        if not self._pending:
            return
        chunks = [self._entries, *self._pending]
        self._pending, self._waiting = [], 0
        side, bucket, scale, count = (np.concatenate(parts) for parts in zip(*chunks, strict=True))
        slot = side >> 1
        np.minimum.at(self._scale, slot, scale)
        bucket = bucket >> (scale - self._scale[slot])
        low, high = np.full((2, 2 * len(self._scale)), _FAR)
        np.negative(high, out=high)
        np.minimum.at(low, side, bucket)
        np.maximum.at(high, side, bucket)
        shift = np.zeros(len(low), np.int64)
        while (wide := np.flatnonzero(high - low >= self._max_buckets)).size:
            low[wide] >>= 1
            high[wide] >>= 1
            shift[wide] += 1
        per_slot = shift.reshape(-1, 2).max(axis=1)
        bucket >>= per_slot[slot]
        self._scale -= per_slot
        packed = (side << 33) + (bucket + (1 << 32))
        order = np.argsort(packed, kind="stable")
        packed = packed[order]
        first = np.flatnonzero(np.diff(packed, prepend=-1))
        count = np.add.reduceat(count[order], first) if len(first) else count
        side, bucket = side[order][first], bucket[order][first]
        self._entries = (side, bucket, self._scale[side >> 1], count)
