"""Columnar session windows over event time: runs of a series' events with less than a gap between them.

A session ends a gap after its last event and closes when the watermark reaches that. A row before the watermark is
late. So a row that counts never touches a session that has closed, and which rows count decides the sessions, whatever
their order and however they are cut into batches.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from telflow.accumulator import Accumulator, Measure
from telflow.windows import Closed, Ints, Sifted, TimedWindows, Values, WindowShape, believable, watermarks

__all__ = ["SessionWindows", "sift_sessions"]

_INT64_MAX = 2**63 - 1


def sift_sessions(
    times: npt.NDArray[np.uint64],
    now_unix_nano: int,
    shape: WindowShape,
    *,
    high: int = 0,
    watermark: int = -_INT64_MAX,
) -> Sifted:
    """Decide by event time which rows count; as `telflow.windows.sift`, with each row's own time as its start."""
    event, accepted, ahead = believable(times, now_unix_nano, shape)
    late = np.empty(0, np.int64)
    if not event.size:
        return Sifted(late, None, accepted, late, ahead, 0, now_unix_nano)
    highest, starts = int(event.max()), event
    is_late = event < watermarks(event, now_unix_nano, shape.lateness_nano, high, watermark)
    if is_late.any():
        late, on_time = np.flatnonzero(is_late), np.flatnonzero(~is_late)
        starts = event[on_time]
        late, accepted = (late, on_time) if accepted is None else (accepted[late], accepted[on_time])
    return Sifted(starts, None, accepted, late, ahead, highest, now_unix_nano)


class SessionWindows(TimedWindows):
    """Open sessions and the watermark that closes them; the same methods as `telflow.windows.EventWindows`.

    Args:
        measures: What each session accumulates.
        shape: Its length is the gap.
    """

    def __init__(self, measures: Mapping[str, Measure], shape: WindowShape) -> None:
        super().__init__(measures, shape)
        self._gap = shape.length_nano
        none = np.empty(0, np.int64)
        # By session: its series, first and last event; session i has slot i of the accumulator.
        self._slot, self._first, self._last = none, none, none
        self._values = Accumulator(measures)

    def __len__(self) -> int:
        return len(self._slot)

    def sift(self, times: npt.NDArray[np.uint64], now_unix_nano: int) -> Sifted:
        """Decide which rows count, after all that was added before."""
        return sift_sessions(times, now_unix_nano, self._shape, high=self._high, watermark=self._watermark)

    def late(self, sifted: Sifted) -> Ints:
        """Which of the rows accepted by a sifting without these windows' time are late all the same."""
        return np.flatnonzero(sifted.starts < self._passed(sifted))

    def add(
        self, sifted: Sifted, rows: Ints, values: Mapping[str, Values] | Accumulator, *, slots: int
    ) -> Iterator[Closed]:
        """Fold the accepted rows into sessions; yield those that close, all at once."""
        del slots  # sessions have slots of their own
        if sifted.starts.size:
            self._seen = sifted.now
            self._fold(sifted.starts, rows, values)
        self._follow(sifted)
        yield from self._close(self._watermark)

    def open_windows(self) -> Iterator[Closed]:
        """Yield the sessions that are not closed yet, as far as they have come."""
        if len(self):
            yield self._sessions(np.arange(len(self)))

    def due_unix_nano(self, idle_nano: int) -> int | None:
        """System time at which the first session closes if no more events come; None when none is open."""
        return self._due(int(self._last.min()) + self._gap, idle_nano) if len(self) else None

    def flush(self) -> Iterator[Closed]:
        """Yield all open sessions and count them as closed: earlier rows that still come are late."""
        if len(self):
            self._watermark = max(self._watermark, int(self._last.max()) + self._gap)
        yield from self._close(self._watermark)

    def used(self, slots: int) -> npt.NDArray[np.bool_]:
        """Return for each series' slot whether a session of it is open."""
        found = np.zeros(slots, np.bool_)
        found[self._slot] = True
        return found

    def keep(self, slots: Ints) -> None:
        """Renumber the series: that of ``slots[i]`` becomes ``i``; those of open sessions are all kept."""
        moved = np.full(max(int(slots.max(initial=-1)), int(self._slot.max(initial=-1))) + 1, -1)
        moved[slots] = np.arange(len(slots))
        self._slot = moved[self._slot]

    def state(self) -> dict[str, Any]:
        """Return everything but the system time as plain data that later changes do not touch."""
        return {
            "high": self._high,
            "watermark": self._watermark,
            "slot": self._slot.copy(),
            "first": self._first.copy(),
            "last": self._last.copy(),
            "values": self._values.state(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over what `state` returned; the measures and the gap must be the same."""
        self.restore_time(state)
        self._slot, self._first, self._last = (state[name].copy() for name in ("slot", "first", "last"))
        self._values.restore(state["values"])

    def _fold(self, times: Ints, rows: Ints, values: Mapping[str, Values] | Accumulator) -> None:
        """Join rows and open sessions that are less than a gap apart."""
        held = len(self)
        slot = np.concatenate([self._slot, rows])
        first, last = np.concatenate([self._first, times]), np.concatenate([self._last, times])
        order = np.lexsort((first, slot))
        # A session may reach beyond rows that begin after it: the latest end so far counts, series by series. Series
        # and time are packed into one number, by rank.
        known, rank = np.unique(last[order], return_inverse=True)
        series = np.cumsum(np.diff(slot[order], prepend=-1) != 0)
        reach = known[np.maximum.accumulate(series * len(known) + rank) - series * len(known)]
        begins = np.ones(len(order), np.bool_)
        begins[1:] = (series[1:] != series[:-1]) | (first[order][1:] - reach[:-1] >= self._gap)
        group = np.empty(len(order), np.int64)
        group[order] = np.cumsum(begins) - 1
        ends = np.append(np.flatnonzero(begins)[1:], len(order)) - 1
        before, self._values = self._values, Accumulator(self._measures)
        count = len(ends)
        self._slot, self._first, self._last = slot[order][begins], first[order][begins], reach[ends]
        self._values.grow(count)
        if held:
            self._values.merge(before, group[:held], slots=count)
        if isinstance(values, Accumulator):
            self._values.merge(values, group[held:], slots=count)
        else:
            self._values.add(group[held:], values, slots=count)

    def _sessions(self, chosen: Ints) -> Closed:
        return Closed(self._first[chosen], self._last[chosen] + self._gap, self._slot[chosen], chosen, self._values)

    def _close(self, watermark: int) -> Iterator[Closed]:
        over = self._last + self._gap <= watermark
        if not over.any():
            return
        done = np.flatnonzero(over)
        yield self._sessions(done[np.lexsort((self._slot[done], self._first[done], self._last[done]))])
        left = np.flatnonzero(~over)
        self._slot, self._first, self._last = self._slot[left], self._first[left], self._last[left]
        self._values.keep(left)
