"""Cumulative to delta: each point becomes what its stream has grown by since the point before.

Rules, after the OpenTelemetry metrics data model ("Resets and Gaps", "Overlap") and the Collector's
``cumulativetodelta`` processor. With the *last* point of its stream at T:

* a point at T is a duplicate, one before T is out of order; one with an earlier start time than a point before it
  comes from a writer that has been replaced, and overlaps: dropped and counted;
* a later start time, or a value that has fallen, is a reset: the value itself is the growth;
* the first point of a stream, also after a silence of more than `max_stale`, is what `initial_value` says.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from typing_extensions import override

from telflow.metric_points import Temporality
from telflow.metric_streams.conversion import StreamConversion, StreamPoints
from telflow.metric_streams.exponential_points import put_together, subtract
from telflow.metric_streams.points import Buckets, PointValues, read_points, with_interval, write_points
from telflow.metric_streams.runs import Runs, runs_of
from telflow.metric_streams.settings import ConversionSettings
from telflow.metric_streams.totals import select
from telflow.metric_streams.tracker import NEVER

__all__ = ["CumulativeToDeltaSettings", "ToDelta"]

Ints: TypeAlias = npt.NDArray[np.int64]
Mask: TypeAlias = npt.NDArray[np.bool_]


class CumulativeToDeltaSettings(ConversionSettings):
    """Options of `cumulative_to_delta`.

    >>> CumulativeToDeltaSettings(initial_value="keep").initial_value
    'keep'
    """

    initial_value: Literal["auto", "keep", "drop"] = "auto"
    """What the first point of a stream becomes: a delta since its start time (`keep`); nothing, later points are
    compared with it (`drop`); `auto`: the former if the stream began after this step saw its first point, so that all
    of the value is new, else the latter."""


class ToDelta(StreamConversion):
    """The kernel of `cumulative_to_delta`.

    Args:
        settings: See `CumulativeToDeltaSettings`.
        joins: Instead of what `initial_value` says, a stream's first point is kept unless the stream may have been
            here before, and been forgotten: for a sum over streams, which each joins with all it has.

    >>> from telflow.batch import TelemetryBatch
    >>> from telflow.schema import Signal
    >>> ToDelta(CumulativeToDeltaSettings()).add(TelemetryBatch.empty(Signal.METRICS), 0).batch is None
    True
    """

    name = "cumulative_to_delta"

    def __init__(self, settings: CumulativeToDeltaSettings, *, joins: bool = False) -> None:
        super().__init__(settings, Temporality.CUMULATIVE)
        self._settings = settings
        self._joins = joins
        # Time of the point that the next one is compared with; that of a refused one may be later.
        self._until: Ints = np.empty(0, np.int64)

    @override
    def state(self) -> dict[str, Any]:
        return super().state() | {"until": self._until.copy()}

    @override
    def restore(self, state: Mapping[str, Any]) -> None:
        super().restore(state)
        self._until = state["until"].copy()

    @override
    def _grow(self, slots: int) -> None:
        super()._grow(slots)
        if slots > len(self._until):
            self._until = np.append(self._until, np.full(slots - len(self._until), NEVER))

    @override
    def _keep(self, slots: Ints) -> None:
        super()._keep(slots)
        self._until = self._until[slots]

    @override
    def _convert(self, records: pa.RecordBatch, points: StreamPoints) -> tuple[pa.RecordBatch, list[tuple[str, Ints]]]:
        rows, slots, times, horizon = points.rows, points.slots, points.times, points.horizon
        starts = np.where(points.starts <= times, points.starts, 0)
        tracker = self._tracker
        every = np.arange(len(rows))
        runs = runs_of(slots)
        last = tracker.last[slots[runs.starts]]
        ordered = runs.chain(times, np.maximum(times, horizon) - 1, last)
        refused = _late(runs, ordered, times, last)

        # From here on only points in order; `every` says which these are.
        every, rows, slots, starts, times, horizon = (
            column[ordered] for column in (every, rows, slots, starts, times, horizon)
        )
        runs = runs_of(slots)
        before = runs.previous(times, tracker.last[slots[runs.starts]])
        anew = (before == NEVER) | (before < horizon)
        lives = Runs(runs.first | anew)
        base = np.where(anew[lives.starts], 0, tracker.start[slots[lives.starts]])
        known = starts.copy()
        known[lives.starts] = np.maximum(known[lives.starts], base)
        newest = lives.accumulate(np.maximum, known)
        replaced = (starts > 0) & (starts < newest)
        refused.append(("overlapping", every[replaced]))
        tracker.last[slots[runs.last]] = times[runs.last]
        previous_start = lives.previous(newest, base)
        tracker.start[slots[runs.last]] = newest[runs.last]

        # And now only points that count.
        counted = ~replaced  # the first point of a life always does
        every, rows, slots, starts, times, horizon, anew, previous_start = (
            column[counted] for column in (every, rows, slots, starts, times, horizon, anew, previous_start)
        )
        runs = runs_of(slots)
        since = runs.previous(times, self._until[slots[runs.starts]])
        values = read_points(records, rows)
        begun_anew = (previous_start > 0) & (starts > previous_start)
        difference = self._difference(values, runs, slots, np.asarray(anew | begun_anew))
        self._until[slots[runs.last]] = times[runs.last]
        self._totals.put(slots[runs.last], select(values, runs.last))

        begin = np.where(begun_anew, np.maximum(starts, since), since)
        begin = np.where(anew, starts, begin)
        left_out = anew & ~self._kept(starts, times, horizon)
        refused.append(("initial value", every[left_out]))
        records = write_points(records, rows, difference)
        return with_interval(records, rows, begin, Temporality.DELTA), refused

    def _kept(self, starts: Ints, times: Ints, horizon: Ints) -> Mask:
        """Whether points shall become deltas, if they are the first of their streams."""
        if self._joins:
            # Nothing can have been forgotten yet, or only streams that began earlier.
            return np.asarray((horizon <= (self._tracker.since or 0)) | (starts >= horizon))
        match self._settings.initial_value:
            case "keep":
                return np.ones(len(starts), np.bool_)
            case "drop":
                return np.zeros(len(starts), np.bool_)
            case _:
                # Before the horizon the stream may have been here, and been forgotten.
                since = np.maximum(horizon, self._tracker.since or 0)
                return np.asarray((starts > 0) & (starts < times) & (starts >= since))

    def _difference(self, values: PointValues, runs: Runs, slots: Ints, reset: Mask) -> PointValues:
        """Values less those of the point before, or, after a reset or where they have fallen, as they are."""
        base = self._totals.get(slots[runs.starts], select(values, runs.starts))
        first = dict(base.plain())
        before = {name: runs.previous(column, first[name]) for name, column in values.plain()}
        histogram = np.zeros(len(values), np.bool_)
        histogram[values.exponential_at] = True
        past: dict[int, Buckets] = {}
        fallen = np.zeros(len(values), np.bool_)
        for width, found in values.buckets.items():
            counts = Runs(runs.first[found.at]).previous(found.counts, base.buckets[width].counts)
            past[width] = Buckets(found.at, counts)
            fallen[found.at] = (found.counts < counts).any(axis=1)
            histogram[found.at] = True
        histogram |= values.count > 0
        fallen |= (values.whole < before["whole"]) | (values.count < before["count"])
        fallen |= ~histogram & (values.real < before["real"])
        exponential = None
        if values.exponential is not None and base.exponential is not None:
            own = Runs(runs.first[values.exponential_at])
            follow = np.flatnonzero(~own.first)
            earlier = base.exponential
            if follow.size:
                earlier = put_together([(values.exponential.take(follow - 1), follow), (earlier, own.starts)], len(own))
            exponential, less = subtract(values.exponential, earlier)
            fallen[values.exponential_at] |= less
        whole = reset | fallen
        columns = {
            "whole": np.where(whole, values.whole, values.whole - before["whole"]),
            "real": np.where(whole, values.real, values.real - before["real"]),
            "count": np.where(whole, values.count, values.count - before["count"]),
            # Of what came since the point before the extremes are not known.
            "low": np.where(whole, values.low, np.nan),
            "high": np.where(whole, values.high, np.nan),
        }
        buckets = {
            width: Buckets(found.at, np.where(whole[found.at, None], found.counts, found.counts - past[width].counts))
            for width, found in values.buckets.items()
        }
        if exponential is not None and values.exponential is not None:
            fresh = whole[values.exponential_at]
            if fresh.any():
                new, grown = np.flatnonzero(fresh), np.flatnonzero(~fresh)
                exponential = put_together(
                    [(values.exponential.take(new), new), (exponential.take(grown), grown)], len(fresh)
                )
        return PointValues(**columns, buckets=buckets, exponential_at=values.exponential_at, exponential=exponential)


def _late(runs: Runs, ordered: Mask, times: Ints, last: Ints) -> list[tuple[str, Ints]]:
    """Why points are not in order."""
    if ordered.all():
        return []
    latest = runs.latest(ordered)
    before = np.where(latest >= 0, times[latest], np.repeat(last, runs.lengths))
    return [
        ("duplicate", np.flatnonzero(~ordered & (times == before))),
        ("out of order", np.flatnonzero(~ordered & (times < before))),
    ]
