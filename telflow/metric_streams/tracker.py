"""The streams a step remembers: which, since when and until when; bounded in number, and forgotten when they are idle.

Time is event time, so the same points in the same order give the same results live and replayed. The *horizon* of a
point is the latest time of all points before it (never ahead of the system clock) minus `max_stale`: a stream whose
last point lies before it counts as gone, whether it is still in memory or not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from telflow.metric_streams.identity import StreamHash
from telflow.sampling.trace_index import TraceIndex, TraceKeys

__all__ = ["NEVER", "StreamTracker", "keys_of", "times_of"]

Ints: TypeAlias = npt.NDArray[np.int64]

NEVER = -(2**62)
"""A time before all others."""

_SHARE = 8
_LATEST = np.uint64(2**62)


def times_of(column: pa.Array) -> Ints:
    """Return Unix nanoseconds as int64; those after the year 2116 are all the same."""
    return np.asarray(np.minimum(column.to_numpy(), _LATEST).astype(np.int64))


@dataclass(frozen=True, slots=True)
class _Seen:
    slots: Ints
    """Of each point's stream; -1: there is no room for it."""
    horizon: Ints
    """Of each point."""


class StreamTracker:
    """Streams by *slot*: 0, 1, 2 ... in order of admission.

    Args:
        max_streams: Most that are remembered.
        max_stale_nano: How long one is remembered after its last point.

    Attributes:
        last: Time of the last accepted point of each stream.
        start: Start time of each stream; 0 when unknown.
        since: Time of the first point of all.
    """

    def __init__(self, max_streams: int, max_stale_nano: int) -> None:
        self._max_streams = max_streams
        self._max_stale = max_stale_nano
        self._index = TraceIndex()
        self._streams = StreamHash(np.empty(0, np.uint64), np.empty(0, np.uint64))
        self.last: Ints = np.empty(0, np.int64)
        self.start: Ints = np.empty(0, np.int64)
        self.since: int | None = None
        self._high = NEVER

    def __len__(self) -> int:
        return len(self.last)

    def see(self, streams: StreamHash, times: Ints, now_unix_nano: int) -> _Seen:
        """Find the streams of points, in their order, and admit those not seen before while there is room."""
        if len(times) and self.since is None:
            self.since = min(int(times[0]), now_unix_nano)
        believed = np.maximum.accumulate(np.append(self._high, np.minimum(times, now_unix_nano)))
        self._high = int(believed[-1])
        keys = keys_of(streams)
        slots = self._index.find(keys)
        missing = np.flatnonzero(slots < 0)
        if missing.size:
            room = max(self._max_streams - len(self), 0)
            first = missing[np.sort(np.unique(keys.high[missing], return_index=True)[1])[:room]]
            self._index.admit(keys.at(first))
            self._streams = StreamHash(*(np.append(a, b[first]) for a, b in zip(self._streams, streams, strict=True)))
            slots = self._index.find(keys)
            more = len(first)
            self.last = np.append(self.last, np.full(more, NEVER))
            self.start = np.append(self.start, np.zeros(more, np.int64))
        return _Seen(slots, np.maximum(believed[:-1] - self._max_stale, NEVER))

    def knows(self, streams: StreamHash) -> npt.NDArray[np.bool_]:
        """Return which streams are remembered."""
        return np.asarray(self._index.find(keys_of(streams)) >= 0)

    def forget(self) -> Ints | None:
        """Forget the streams that are gone: return the slots that are left, in their new order; None: all are."""
        alive = self.last >= self._high - self._max_stale
        gone = len(self) - int(np.count_nonzero(alive))
        # Not for every single one, as all that is left gets other slots; but when there is no room.
        if not gone or (gone * _SHARE < len(self) < self._max_streams):
            return None
        kept = np.flatnonzero(alive)
        self._take(self._streams.take(kept))
        self.last, self.start = self.last[kept], self.start[kept]
        return kept

    def state(self) -> dict[str, Any]:
        """Return everything as plain data that later changes do not touch."""
        return {
            "high": self._streams.high.copy(),
            "low": self._streams.low.copy(),
            "last": self.last.copy(),
            "start": self.start.copy(),
            "since": self.since,
            "latest": self._high,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over what `state` returned."""
        self._take(StreamHash(state["high"].copy(), state["low"].copy()))
        self.last, self.start = state["last"].copy(), state["start"].copy()
        self.since, self._high = state["since"], state["latest"]

    def _take(self, streams: StreamHash) -> None:
        """Let these be the streams, in the order of their slots."""
        self._streams = streams
        self._index = TraceIndex()
        self._index.admit(keys_of(streams))


def keys_of(streams: StreamHash) -> TraceKeys:
    """Return what an index takes; the tenant is part of what is hashed."""
    return TraceKeys(streams.high, streams.low, np.zeros(len(streams.high), np.uint32))
