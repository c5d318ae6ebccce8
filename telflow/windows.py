"""Columnar tumbling and sliding windows over event time: panes of accumulators, a watermark, and no wall clock.

Times are nanoseconds since the Unix epoch. A window holds the events with ``start <= time < start + length``; windows
start at the multiples of ``slide``, which is ``length`` for tumbling ones. Events are accumulated once, in *panes* of
the length of a slide; a window is the sum of its panes. The watermark is the highest event time seen, but never ahead
of the system clock, minus the allowed lateness; a window closes when the watermark reaches its end, and rows all whose
windows are closed are late. It is followed row by row within a batch, so the same rows in the same order give the same
windows however they are cut into batches.

What a batch by itself decides (`sift`) is apart from what the windows so far decide (`EventWindows.add`): the first may
happen in another process, and only partial aggregates need to travel.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from telflow.accumulator import Accumulator, Measure
from telflow.errors import BatchError

__all__ = [
    "Closed",
    "EventWindows",
    "Sifted",
    "TimedWindows",
    "WindowShape",
    "believable",
    "fold",
    "sift",
    "watermarks",
]

Ints: TypeAlias = npt.NDArray[np.int64]
Values: TypeAlias = npt.NDArray[Any]

_INT64_MAX = 2**63 - 1
_FEW_WINDOWS = 8


@dataclass(frozen=True, slots=True)
class WindowShape:
    """What windows there are, and for how long.

    Attributes:
        length_nano: Length of a window.
        slide_nano: From the start of one window to that of the next; divides the length. 0: the length.
        lateness_nano: How far events may be out of order and still count.
        max_ahead_nano: How far ahead of the system clock an event may be. One further ahead is refused: a single wrong
            clock must not hold memory for windows of the far future.
        retain_nano: How long after its end, in event time, a closed window still takes late rows and is corrected;
            becomes the next multiple of the slide.
    """

    length_nano: int
    lateness_nano: int
    max_ahead_nano: int
    slide_nano: int = 0
    retain_nano: int = 0

    def __post_init__(self) -> None:
        if not self.slide_nano:
            object.__setattr__(self, "slide_nano", self.length_nano)
        if self.length_nano < 1 or min(self.lateness_nano, self.max_ahead_nano, self.retain_nano) < 0:
            raise BatchError(
                "windows: expected a length of at least 1 ns and lateness, max_ahead and retain of at least 0, "
                f"got {self.length_nano}, {self.lateness_nano}, {self.max_ahead_nano} and {self.retain_nano}"
            )
        if not 0 < self.slide_nano <= self.length_nano or self.length_nano % self.slide_nano:
            raise BatchError(f"windows: expected a slide that divides {self.length_nano}, got {self.slide_nano}")
        object.__setattr__(self, "retain_nano", -(-self.retain_nano // self.slide_nano) * self.slide_nano)


@dataclass(frozen=True, slots=True)
class Sifted:
    """What `sift` found out about a batch.

    Attributes:
        starts: Start of the pane of each accepted row (int64).
        firsts: End of the first window each accepted row counts in; None: of the first that holds it.
        accepted: Row numbers of the accepted rows, or None when all are.
        late: Row numbers of the rows whose windows are all closed.
        ahead: Row numbers of the rows too far in the future to be believed.
        high: Latest time among all rows but those.
        now: The system time it was done at.
    """

    starts: Ints
    firsts: Ints | None
    accepted: Ints | None
    late: Ints
    ahead: Ints
    high: int
    now: int


def believable(times: npt.NDArray[np.uint64], now_unix_nano: int, shape: WindowShape) -> tuple[Ints, Ints | None, Ints]:
    """Return the times that are not too far ahead of the clock, their row numbers (None: all), and the others'."""
    limit = min(now_unix_nano + shape.max_ahead_nano, _INT64_MAX - 2 * shape.length_nano - shape.retain_nano)
    ahead = np.empty(0, np.int64)
    accepted: Ints | None = None
    if times.size and int(times.max()) > limit:
        ahead = np.flatnonzero(times > limit)
        accepted = np.flatnonzero(times <= limit)
        times = times[accepted]
    return times.view(np.int64), accepted, ahead


def watermarks(event: Ints, now_unix_nano: int, lateness_nano: int, high: int, watermark: int) -> Ints:
    """Return the watermark that each row meets: what the rows up to it, itself included, have made it."""
    passed = np.minimum(np.maximum.accumulate(np.maximum(event, high)), now_unix_nano) - lateness_nano
    return np.asarray(np.maximum(passed, watermark))


def sift(
    times: npt.NDArray[np.uint64],
    now_unix_nano: int,
    shape: WindowShape,
    *,
    high: int = 0,
    watermark: int = -_INT64_MAX,
) -> Sifted:
    """Decide by event time which rows count, and where.

    Args:
        times: Event time of each row.
        now_unix_nano: System time.
        shape: Of the windows.
        high: Highest event time seen before.
        watermark: How far it had come. Both left out: what these rows alone decide.
    """
    event, accepted, ahead = believable(times, now_unix_nano, shape)
    none = np.empty(0, np.int64)
    if not event.size:
        return Sifted(none, None, accepted, none, ahead, 0, now_unix_nano)
    slide = shape.slide_nano
    starts = event // slide * slide  # several times as fast as the remainder
    highest = int(event.max())
    late, firsts = none, None
    if int(starts.min()) + slide <= max(watermark, min(max(high, highest), now_unix_nano) - shape.lateness_nano):
        # Some window closes within or before this batch.
        passed = watermarks(event, now_unix_nano, shape.lateness_nano, high, watermark)
        is_late = starts + (shape.length_nano + shape.retain_nano) <= passed
        if is_late.any():
            late, on_time = np.flatnonzero(is_late), np.flatnonzero(~is_late)
            starts, passed = starts[on_time], passed[on_time]
            late, accepted = (late, on_time) if accepted is None else (accepted[late], accepted[on_time])
        if slide < shape.length_nano or shape.retain_nano:
            firsts = np.maximum(starts, passed // slide * slide) + slide
    return Sifted(starts, firsts, accepted, late, ahead, highest, now_unix_nano)


@dataclass(frozen=True, slots=True)
class Closed:
    """Results of windows.

    Attributes:
        starts: Start of the window: one for all, or of each entry.
        ends: Its end, likewise.
        slots: Slot of the series of each entry.
        rows: Slot of each entry in `window`; the same for all but sessions.
        window: The accumulated values.
        correction: Whether these windows had been closed before.
    """

    starts: int | Ints
    ends: int | Ints
    slots: Ints
    rows: Ints
    window: Accumulator
    correction: bool = False


class TimedWindows(ABC):
    """What all kinds of windows know of time: how far events have come, and when silence makes up for them.

    Args:
        measures: What each window accumulates.
        shape: Of the windows.
    """

    def __init__(self, measures: Mapping[str, Measure], shape: WindowShape) -> None:
        self._measures = measures
        self._shape = shape
        self._high = 0
        self._watermark = -_INT64_MAX
        # System time of the last accepted row. Not part of the state: time spent stopped is not time without events.
        self._seen = 0

    @property
    def watermark_unix_nano(self) -> int:
        """Windows that end at or before this are closed."""
        return self._watermark

    @property
    def high_unix_nano(self) -> int:
        """Highest event time seen."""
        return self._high

    def idle_since(self, system_unix_nano: int) -> None:
        """Say that silence only counts from this moment: after a restart, or a stall of this process."""
        self._seen = system_unix_nano

    def advance(self, now_unix_nano: int) -> Iterator[Closed]:
        """Let the watermark follow the system clock since the last event; yield the windows that closes."""
        silence = max(0, now_unix_nano - self._seen)
        self._watermark = max(self._watermark, min(self._high, self._seen) + silence - self._shape.lateness_nano)
        yield from self._close(self._watermark)

    def restore_time(self, state: Mapping[str, Any]) -> None:
        """Take over only how far event time had come."""
        self._high, self._watermark = state["high"], state["watermark"]

    def _passed(self, sifted: Sifted) -> int:
        """The watermark by the time of a sifting."""
        return max(self._watermark, min(self._high, sifted.now) - self._shape.lateness_nano)

    def _follow(self, sifted: Sifted) -> None:
        """Let the watermark follow sifted rows."""
        self._high = max(self._high, sifted.high)
        self._watermark = self._passed(sifted)

    def _due(self, end: int, idle_nano: int) -> int:
        """System time at which a window with this end closes if no more events come."""
        missing = end + self._shape.lateness_nano - min(self._high, self._seen)
        return self._seen + max(idle_nano, missing)

    @abstractmethod
    def _close(self, watermark: int) -> Iterator[Closed]: ...


class EventWindows(TimedWindows):
    """Open windows and the watermark that closes them.

    Args:
        measures: What each window accumulates.
        shape: Of the windows.

    >>> from telflow.accumulator import Reduce
    >>> shape = WindowShape(length_nano=10, lateness_nano=2, max_ahead_nano=100)
    >>> windows = EventWindows({"n": Measure(Reduce.SUM)}, shape)
    >>> def feed(*times: int) -> list[tuple[int, list[int]]]:
    ...     sifted = windows.sift(np.array(times, np.uint64), now_unix_nano=1000)
    ...     n = len(sifted.starts)
    ...     closed = windows.add(sifted, np.zeros(n, np.int64), {"n": np.ones(n, np.int64)}, slots=1)
    ...     return [(found.starts, found.window["n"].tolist()) for found in closed]
    >>> feed(1, 9, 11), feed(8, 12, 4), feed(33)
    ([], [(0, [3])], [(10, [2])])
    """

    def __init__(self, measures: Mapping[str, Measure], shape: WindowShape) -> None:
        super().__init__(measures, shape)
        self._panes: dict[int, Accumulator] = {}
        self._emitted = -_INT64_MAX
        # Ends of windows that have been closed and changed since, with the slots that have.
        self._changed: dict[int, list[Ints]] = {}

    def __len__(self) -> int:
        return len(self._panes)

    def sift(self, times: npt.NDArray[np.uint64], now_unix_nano: int) -> Sifted:
        """Decide which rows count, after all that was added before; `sift` with these windows' time."""
        return sift(times, now_unix_nano, self._shape, high=self._high, watermark=self._watermark)

    def late(self, sifted: Sifted) -> Ints:
        """Which of the rows accepted by a sifting without these windows' time are late all the same."""
        held = self._shape.length_nano + self._shape.retain_nano
        return np.flatnonzero(sifted.starts + held <= self._passed(sifted))

    def add(
        self,
        sifted: Sifted,
        rows: Ints,
        values: Mapping[str, Values] | Accumulator,
        *,
        slots: int,
    ) -> Iterator[Closed]:
        """Fold the accepted rows into their windows; yield each that closes, oldest first, then those corrected.

        The iterator must be exhausted before anything else is called. However many windows a batch spans, only those
        that stay open are held at once.

        Args:
            sifted: What `sift` returned for the same rows.
            rows: Slot of each accepted row.
            values: Per measure, one value per accepted row; or an accumulator with a slot per accepted row.
            slots: Number of slots that exist.
        """
        yield from self._close(self._passed(sifted))
        self._follow(sifted)
        if sifted.starts.size:
            self._seen = sifted.now
        for first, start, chosen in _groups(sifted, self._shape.slide_nano):
            # What closes before this row counts, windows without rows in this batch among them, in order.
            yield from self._close(min(self._watermark, first - 1))
            pane = self._panes.get(start)
            if pane is None:
                pane = self._panes[start] = Accumulator(self._measures)
            fold(pane, rows, values, chosen, slots)
            if start + self._shape.slide_nano <= self._emitted:
                self._note_changes(start, rows if chosen is None else rows[chosen])
        yield from self._close(self._watermark)
        yield from self._correct(list(self._changed))

    def open(self, sifted: Sifted) -> None:
        """Open the panes of rows that are not counted here; call `add` with the same times next."""
        if sifted.starts.size:
            self._seen = sifted.now
        for start in np.unique(sifted.starts).tolist():
            if start not in self._panes:
                self._panes[start] = Accumulator(self._measures)

    def open_windows(self) -> Iterator[Closed]:
        """Yield the windows that are not closed yet, as far as they have come."""
        for end in self._ends(_INT64_MAX):
            yield self._window(end)

    def due_unix_nano(self, idle_nano: int) -> int | None:
        """System time at which the oldest window closes if no more events come; None when no window is open.

        Args:
            idle_nano: How long there must be no events before the system clock counts.
        """
        ends = self._ends(_INT64_MAX)
        return self._due(ends[0], idle_nano) if ends else None

    def flush(self) -> Iterator[Closed]:
        """Yield all open windows and count them as closed: rows for them that still come are late."""
        if self._panes:
            self._watermark = max(self._watermark, max(self._panes) + self._shape.length_nano)
        yield from self._close(self._watermark)

    def used(self, slots: int) -> npt.NDArray[np.bool_]:
        """Return for each slot whether a window holds something of it."""
        found = np.zeros(slots, np.bool_)
        for pane in self._panes.values():
            found[pane.filled()] = True
        return found

    def keep(self, slots: Ints) -> None:
        """Renumber the slots of all panes, see `Accumulator.keep`."""
        for pane in self._panes.values():
            pane.keep(slots)

    def state(self) -> dict[str, Any]:
        """Return everything but the system time as plain data that later changes do not touch."""
        return {
            "high": self._high,
            "watermark": self._watermark,
            "emitted": self._emitted,
            "open": {start: pane.state() for start, pane in self._panes.items()},
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over what `state` returned; the measures, length and slide must be the same."""
        self.restore_time(state)
        self._emitted = state["emitted"]
        self._panes = {}
        for start, columns in state["open"].items():
            self._panes[start] = Accumulator(self._measures)
            self._panes[start].restore(columns)

    def _ends(self, watermark: int) -> list[int]:
        """Ends of windows with something in them that are due at a watermark, ascending."""
        slide, length = self._shape.slide_nano, self._shape.length_nano
        ends: set[int] = set()
        for start in self._panes:
            first = max(start, self._emitted // slide * slide) + slide
            ends.update(range(first, min(start + length, watermark) + 1, slide))
        return sorted(ends)

    def _window(self, end: int, slots: Ints | None = None) -> Closed:
        slide, start = self._shape.slide_nano, end - self._shape.length_nano
        window = self._panes.get(start) if self._shape.length_nano == slide else None
        if window is None:
            window = Accumulator(self._measures)
            for place in range(start, end, slide):
                if place in self._panes:
                    window.merge(self._panes[place])
        filled = window.filled() if slots is None else slots
        return Closed(start, end, filled, filled, window, correction=slots is not None)

    def _close(self, watermark: int) -> Iterator[Closed]:
        if watermark <= self._emitted:
            return
        for end in self._ends(watermark):
            yield self._window(end)
            self._emitted = end
            yield from self._forget(end)
        self._emitted = watermark
        yield from self._forget(watermark)

    def _forget(self, watermark: int) -> Iterator[Closed]:
        """Drop panes that no window needs any more; yield the last corrections of those windows."""
        yield from self._correct([end for end in self._changed if end + self._shape.retain_nano <= watermark])
        held = self._shape.length_nano + self._shape.retain_nano
        for start in [start for start in self._panes if start + held <= watermark]:
            del self._panes[start]

    def _note_changes(self, start: int, rows: Ints) -> None:
        shape = self._shape
        last = min(start + shape.length_nano, self._emitted)
        for end in range(start + shape.slide_nano, last + 1, shape.slide_nano):
            if end + shape.retain_nano > self._emitted:
                self._changed.setdefault(end, []).append(rows)

    def _correct(self, ends: Iterable[int]) -> Iterator[Closed]:
        for end in sorted(ends):
            yield self._window(end, np.unique(np.concatenate(self._changed.pop(end))))


def fold(
    into: Accumulator, rows: Ints, values: Mapping[str, Values] | Accumulator, chosen: Ints | None, slots: int
) -> None:
    """Fold some rows (None: all) of a batch, or of a partial accumulator, into an accumulator."""
    if isinstance(values, Accumulator):
        part = values if chosen is None else values.take(chosen)
        into.merge(part, rows if chosen is None else rows[chosen], slots=slots)
    elif chosen is None:
        into.add(rows, values, slots=slots)
    else:
        into.add(rows[chosen], {name: column[chosen] for name, column in values.items()}, slots=slots)


def _groups(sifted: Sifted, slide: int) -> Iterator[tuple[int, int, Ints | None]]:
    """Yield (first window's end, start of the pane, rows; None: all), by the first and then the second."""
    if sifted.firsts is None:
        for start, rows in _by_value(sifted.starts, slide):
            yield start + slide, start, rows
        return
    for first, rows in _by_value(sifted.firsts, slide):
        inside = sifted.starts if rows is None else sifted.starts[rows]
        for start, some in _by_value(inside, slide):
            yield first, start, some if rows is None else rows if some is None else rows[some]


def _by_value(starts: Ints, length: int) -> Iterator[tuple[int, Ints | None]]:
    """Yield each distinct multiple of `length`, ascending, with the rows that have it; None: all rows."""
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
