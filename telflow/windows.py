"""Columnar tumbling windows over event time: dense numpy accumulators, a watermark, and no wall clock.

`Accumulator` reduces columns of values by slot (`telflow.series`); `TumblingWindows` keeps one per open window and
decides which rows are late. Both know nothing of spans, keys or Bytewax.

Times are nanoseconds since the Unix epoch. A window holds the events with ``start <= time < start + length``, where
``start`` is a multiple of ``length``. The watermark is the highest event time seen, but never ahead of the system
clock, minus the allowed lateness; a window closes when the watermark reaches its end, and rows of a closed window are
late. It is followed row by row within a batch, so the same rows in the same order give the same windows however they
are cut into batches.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from telflow.errors import BatchError

__all__ = ["Accumulator", "Measure", "Reduce", "Sifted", "TumblingWindows"]

Ints: TypeAlias = npt.NDArray[np.int64]
Values: TypeAlias = npt.NDArray[Any]

_INT64_MAX = 2**63 - 1
_FEW_WINDOWS = 8
_SMALLEST = 64


class Reduce(enum.StrEnum):
    """How a measure combines values."""

    SUM = "sum"
    MIN = "min"
    MAX = "max"
    BUCKETS = "buckets"
    """Counts per bucket: the values are bucket numbers."""


@dataclass(frozen=True, slots=True)
class Measure:
    """One column of an accumulator.

    Attributes:
        reduce: How values combine.
        dtype: ``int64`` or ``float64``. Sums of whole numbers are exact, and so independent of the order, in both:
            below 2**63 (then they wrap) and below 2**53 (then they round).
        width: Number of buckets; 1 for all other kinds.
    """

    reduce: Reduce
    dtype: str = "int64"
    width: int = 1

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
        """Return `rows` slots without values."""
        shape = rows if self.reduce is not Reduce.BUCKETS else (rows, self.width)
        return np.full(shape, self.identity, self.dtype)


class Accumulator:
    """One dense array per measure, indexed by slot.

    >>> calls = Accumulator({"calls": Measure(Reduce.BUCKETS, width=2), "longest": Measure(Reduce.MAX)})
    >>> calls.add(np.array([0, 2, 2]), {"calls": np.array([1, 0, 0]), "longest": np.array([5, 9, 7])}, slots=3)
    >>> calls["calls"].tolist(), calls["longest"][[0, 2]].tolist()
    ([[0, 1], [0, 0], [2, 0]], [5, 9])
    """

    def __init__(self, measures: Mapping[str, Measure]) -> None:
        self._measures = measures
        self._columns = {name: measure.empty(0) for name, measure in measures.items()}
        self._rows = 0
        self._capacity = 0

    def __len__(self) -> int:
        return self._rows

    def __getitem__(self, name: str) -> Values:
        """The column of a measure, one entry (buckets: one row) per slot; a view."""
        return self._columns[name][: self._rows]

    def grow(self, slots: int) -> None:
        """Make room for slots below `slots`."""
        if slots > self._capacity:
            self._capacity = max(_SMALLEST, slots, 2 * self._capacity)
            for name, measure in self._measures.items():
                column = measure.empty(self._capacity)
                column[: self._rows] = self._columns[name][: self._rows]
                self._columns[name] = column
        self._rows = max(self._rows, slots)

    def add(self, rows: Ints, values: Mapping[str, Values], *, slots: int) -> None:
        """Fold values into the slots they belong to.

        Args:
            rows: Slot of each value, below `slots`.
            values: For each measure one value per row; bucket numbers for buckets.
            slots: Number of slots that exist.
        """
        self.grow(slots)
        for name, measure in self._measures.items():
            column, folded = self._columns[name], values[name]
            match measure.reduce:
                case Reduce.BUCKETS:
                    # A flat view: one-dimensional indexing is numpy's fast path.
                    np.add.at(column.reshape(-1), rows * measure.width + folded, 1)
                case Reduce.SUM:
                    np.add.at(column, rows, folded)
                case Reduce.MIN:
                    np.minimum.at(column, rows, folded)
                case Reduce.MAX:
                    np.maximum.at(column, rows, folded)

    def merge(self, other: Accumulator) -> None:
        """Fold another accumulator of the same measures into this one, slot by slot."""
        self.grow(len(other))
        for name, measure in self._measures.items():
            mine, theirs = self._columns[name][: len(other)], other[name]
            match measure.reduce:
                case Reduce.MIN:
                    np.minimum(mine, theirs, out=mine)
                case Reduce.MAX:
                    np.maximum(mine, theirs, out=mine)
                case _:
                    np.add(mine, theirs, out=mine)

    def clear(self, rows: Ints) -> None:
        """Empty some slots."""
        for name, measure in self._measures.items():
            self._columns[name][rows] = measure.identity

    def keep(self, rows: Ints) -> None:
        """Forget all other slots: slot ``rows[i]`` becomes ``i``. Slots this accumulator has not reached are empty."""
        self.grow(int(rows.max(initial=-1)) + 1)
        self._columns = {name: column[rows] for name, column in self._columns.items()}
        self._rows = self._capacity = len(rows)

    def state(self) -> dict[str, Values]:
        """Return the columns as copies."""
        return {name: self[name].copy() for name in self._measures}

    def restore(self, state: Mapping[str, Values]) -> None:
        """Take over what `state` returned; the measures must be the same."""
        self._columns = {name: state[name].copy() for name in self._measures}
        self._rows = self._capacity = min((len(column) for column in self._columns.values()), default=0)


@dataclass(frozen=True, slots=True)
class Sifted:
    """What `TumblingWindows.sift` found out about a batch.

    Attributes:
        starts: Window start of each accepted row (int64).
        accepted: Row numbers of the accepted rows, or None when all are.
        late: Row numbers of the rows whose window is closed.
        ahead: Row numbers of the rows too far in the future to be believed.
    """

    starts: Ints
    accepted: Ints | None
    late: Ints
    ahead: Ints


class TumblingWindows:
    """Open windows and the watermark that closes them.

    Args:
        measures: What each window accumulates.
        length_nano: Length of a window.
        lateness_nano: How far events may be out of order and still count.
        max_ahead_nano: How far ahead of the system clock an event may be. One further ahead is refused: a single wrong
            clock must not hold memory for windows of the far future.

    >>> windows = TumblingWindows({"n": Measure(Reduce.SUM)}, length_nano=10, lateness_nano=2, max_ahead_nano=100)
    >>> def feed(*times: int) -> list[tuple[int, list[int]]]:
    ...     sifted = windows.sift(np.array(times, np.uint64), now_unix_nano=1000)
    ...     n = len(sifted.starts)
    ...     closed = windows.add(sifted, np.zeros(n, np.int64), {"n": np.ones(n, np.int64)}, slots=1)
    ...     return [(start, window["n"].tolist()) for start, window in closed]
    >>> feed(1, 9, 11), feed(8, 12, 4), feed(33)
    ([], [(0, [3])], [(10, [2])])
    """

    def __init__(
        self, measures: Mapping[str, Measure], *, length_nano: int, lateness_nano: int, max_ahead_nano: int
    ) -> None:
        if length_nano < 1 or lateness_nano < 0 or max_ahead_nano < 0:
            raise BatchError(
                "windows: expected a length of at least 1 ns and lateness and max_ahead of at least 0, "
                f"got {length_nano}, {lateness_nano} and {max_ahead_nano}"
            )
        self._measures = measures
        self._length = length_nano
        self._lateness = lateness_nano
        self._max_ahead = max_ahead_nano
        self._open: dict[int, Accumulator] = {}
        self._high = 0
        self._watermark = -_INT64_MAX
        # System time of the last accepted row. Not part of the state: time spent stopped is not time without events.
        self._seen = 0

    def __len__(self) -> int:
        return len(self._open)

    def __iter__(self) -> Iterator[Accumulator]:
        return iter(self._open.values())

    @property
    def watermark_unix_nano(self) -> int:
        """Windows that end at or before this are closed."""
        return self._watermark

    def sift(self, times: npt.NDArray[np.uint64], now_unix_nano: int) -> Sifted:
        """Decide which rows count, by event time, and move the watermark on.

        Args:
            times: Event time of each row.
            now_unix_nano: System time.
        """
        limit = min(now_unix_nano + self._max_ahead, _INT64_MAX - self._length)
        ahead = none = np.empty(0, np.int64)
        accepted: Ints | None = None
        if times.size and int(times.max()) > limit:
            ahead = np.flatnonzero(times > limit)
            accepted = np.flatnonzero(times <= limit)
            times = times[accepted]
        event = times.view(np.int64)
        if not event.size:
            return Sifted(none, accepted, none, ahead)
        starts = event // self._length * self._length  # several times as fast as the remainder
        high = max(self._high, int(event.max()))
        watermark = max(self._watermark, min(high, now_unix_nano) - self._lateness)
        late = none
        if int(starts.min()) + self._length <= watermark:
            # Some window closes within or before this batch: each row meets the watermark the rows up to it have made.
            passed = np.minimum(np.maximum.accumulate(np.maximum(event, self._high)), now_unix_nano) - self._lateness
            is_late = starts + self._length <= np.maximum(passed, self._watermark)
            if is_late.any():
                late, on_time = np.flatnonzero(is_late), np.flatnonzero(~is_late)
                starts = starts[on_time]
                late, accepted = (late, on_time) if accepted is None else (accepted[late], accepted[on_time])
        self._high, self._watermark = high, watermark
        if starts.size:
            self._seen = now_unix_nano
        return Sifted(starts, accepted, late, ahead)

    def add(
        self, sifted: Sifted, rows: Ints, values: Mapping[str, Values], *, slots: int
    ) -> Iterator[tuple[int, Accumulator]]:
        """Fold the accepted rows into their windows; yield (start, accumulator) of each that closes, oldest first.

        The iterator must be exhausted before anything else is called. However many windows a batch spans, only those
        that stay open are held at once.

        Args:
            sifted: What `sift` returned for the same rows.
            rows: Slot of each accepted row.
            values: Per measure, one value per accepted row.
            slots: Number of slots that exist.
        """
        for start, chosen in _by_window(sifted.starts, self._length):
            # Windows without rows in this batch come in between, in order.
            yield from self._close(min(self._watermark, start + self._length - 1))
            window = self._open.get(start)
            if window is None:
                window = self._open[start] = Accumulator(self._measures)
            if chosen is None:
                window.add(rows, values, slots=slots)
            else:
                window.add(rows[chosen], {name: column[chosen] for name, column in values.items()}, slots=slots)
        yield from self._close(self._watermark)

    def due_unix_nano(self, idle_nano: int) -> int | None:
        """System time at which the oldest window closes if no more events come; None when no window is open.

        Args:
            idle_nano: How long there must be no events before the system clock counts.
        """
        if not self._open:
            return None
        missing = min(self._open) + self._length + self._lateness - min(self._high, self._seen)
        return self._seen + max(idle_nano, missing)

    def idle_since(self, system_unix_nano: int) -> None:
        """Say that silence only counts from this moment: after a restart, or a stall of this process."""
        self._seen = system_unix_nano

    def advance(self, now_unix_nano: int) -> Iterator[tuple[int, Accumulator]]:
        """Let the watermark follow the system clock since the last event; yield the windows that closes."""
        silence = max(0, now_unix_nano - self._seen)
        self._watermark = max(self._watermark, min(self._high, self._seen) + silence - self._lateness)
        yield from self._close(self._watermark)

    def flush(self) -> Iterator[tuple[int, Accumulator]]:
        """Yield all open windows and count them as closed: rows for them that still come are late."""
        if self._open:
            self._watermark = max(self._watermark, max(self._open) + self._length)
        yield from self._close(self._watermark)

    def keep(self, slots: Ints) -> None:
        """Renumber the slots of all open windows, see `Accumulator.keep`."""
        for window in self._open.values():
            window.keep(slots)

    def state(self) -> dict[str, Any]:
        """Return everything but the system time as plain data that later changes do not touch."""
        return {
            "high": self._high,
            "watermark": self._watermark,
            "open": {start: window.state() for start, window in self._open.items()},
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over what `state` returned; the measures and the length must be the same."""
        self.restore_time(state)
        self._open = {}
        for start, columns in state["open"].items():
            self._open[start] = Accumulator(self._measures)
            self._open[start].restore(columns)

    def restore_time(self, state: Mapping[str, Any]) -> None:
        """Take over only how far event time had come."""
        self._high, self._watermark = state["high"], state["watermark"]

    def _close(self, watermark: int) -> Iterator[tuple[int, Accumulator]]:
        for start in sorted(start for start in self._open if start + self._length <= watermark):
            yield start, self._open.pop(start)


def _by_window(starts: Ints, length: int) -> Iterator[tuple[int, Ints | None]]:
    """Yield each distinct window start, ascending, with the rows in it; None: all rows."""
    if not starts.size:
        return
    first, last = int(starts.min()), int(starts.max())
    if first == last:
        yield first, None
        return
    number = (starts - first) // length
    if (last - first) // length <= _FEW_WINDOWS:
        for window in np.flatnonzero(np.bincount(number)).tolist():
            yield first + window * length, np.flatnonzero(number == window)
        return
    order = np.argsort(number, kind="stable")
    in_order = number[order]
    for rows in np.split(order, np.flatnonzero(np.diff(in_order)) + 1):
        yield int(starts[rows[0]]), rows
