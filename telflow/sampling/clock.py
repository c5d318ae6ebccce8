"""What time it is for a tail sampler: by the system clock, or by the spans."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from datetime import timedelta

import numpy as np

from telflow.sampling.settings import TailSamplingSettings
from telflow.sampling.span_facts import SpanFacts

__all__ = ["SamplingClock"]


class SamplingClock:
    """Turns system time, given from outside, into ticks of `interval`, which never go back.

    Time that a process stood still does not count: spans that came meanwhile wait in front of it.

    Args:
        settings: `interval`, `time` and `idle_timeout`.
    """

    def __init__(self, settings: TailSamplingSettings) -> None:
        self._interval = _nanos(settings.interval)
        self._by_events = settings.time == "event"
        self._idle = None if settings.idle_timeout is None else _nanos(settings.idle_timeout)
        self._time = 0
        self._offset = 0  # of processing time behind system time
        self._seen = 0  # system time of the last spans

    def split(self, facts: SpanFacts, now_unix_nano: int) -> list[tuple[SpanFacts, int]]:
        """Return facts about spans, cut where event time reaches another tick, with the tick of each part."""
        if not self._by_events:
            return [(facts, self._processing_tick(now_unix_nano))]
        self._seen = now_unix_nano
        if not len(facts):
            return []
        # A clock that is ahead of ours must not move time on for all others.
        ends = np.minimum(facts.end, np.uint64(max(0, now_unix_nano)))
        running = np.maximum.accumulate(np.maximum(ends.astype(np.int64), self._time))
        self._time = int(running[-1])
        if running[0] // self._interval == self._time // self._interval:
            return [(facts, self._time // self._interval)]
        ticks = running // self._interval
        cuts = [0, *(np.flatnonzero(np.diff(ticks)) + 1).tolist(), len(facts)]
        return [(facts.at(slice(a, b)), int(ticks[a])) for a, b in itertools.pairwise(cuts)]

    def advance(self, now_unix_nano: int) -> int:
        """Return which tick it is if no spans have come until now."""
        if not self._by_events:
            return self._processing_tick(now_unix_nano)
        silence = now_unix_nano - self._seen
        idle = self._idle is not None and silence >= self._idle
        return (self._time + (silence if idle else 0)) // self._interval

    def system_time_of(self, tick: int) -> int | None:
        """Return the system time at which a tick is reached if no spans come until then; None: never."""
        if not self._by_events:
            return tick * self._interval + self._offset
        return None if self._idle is None else self._seen + max(self._idle, tick * self._interval - self._time)

    def idle_since(self, system_unix_nano: int) -> None:
        """Say that the process stood still until this moment."""
        self._seen = system_unix_nano
        self._offset = system_unix_nano - self._time

    def state(self) -> dict[str, int]:
        """Return what time it is."""
        return {"time": self._time}

    def restore(self, state: Mapping[str, int]) -> None:
        """Take over what `state` returned; `idle_since` comes next."""
        self._time = state["time"]

    def _processing_tick(self, now_unix_nano: int) -> int:
        if now_unix_nano - self._offset < self._time:
            self._offset = now_unix_nano - self._time  # the system clock was set back: go on from here
        self._time = now_unix_nano - self._offset
        return self._time // self._interval


def _nanos(duration: timedelta) -> int:
    return duration // timedelta(microseconds=1) * 1000
