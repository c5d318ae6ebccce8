"""Delta to cumulative: each point becomes the total of its stream since it began.

Rules, after the OpenTelemetry metrics data model ("Sums: Delta-to-Cumulative", "Resets and Gaps", "Overlap"). With the
*last* accepted point of its stream ending at T:

* a point that ends at T is a duplicate, one that ends earlier is out of order, one that begins before T and ends after
  it overlaps: dropped and counted;
* one that begins at T, or whose start is unknown, is added;
* one that begins after T comes after a gap: the total starts anew with it, or, with ``gap: continue``, goes on;
* a stream that was silent for longer than `max_stale` starts anew.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import Field
from typing_extensions import override

from telflow.batch import TelemetryBatch
from telflow.metric_points import Temporality
from telflow.metric_streams.conversion import StreamConversion, StreamPoints
from telflow.metric_streams.exponential_points import ExponentialPoints, add_up
from telflow.metric_streams.identity import stream_hashes
from telflow.metric_streams.points import Buckets, PointValues, read_points, with_interval, write_points
from telflow.metric_streams.runs import Runs, runs_of
from telflow.metric_streams.settings import ConversionSettings
from telflow.metric_streams.totals import select
from telflow.metric_streams.tracker import NEVER

__all__ = ["DeltaToCumulativeSettings", "ToCumulative"]

Ints: TypeAlias = npt.NDArray[np.int64]
Mask: TypeAlias = npt.NDArray[np.bool_]


class DeltaToCumulativeSettings(ConversionSettings):
    """Options of `delta_to_cumulative`.

    >>> DeltaToCumulativeSettings(max_stale="1h").max_stale
    datetime.timedelta(seconds=3600)
    """

    gap: Literal["reset", "continue"] = "reset"
    """What a gap between two points does to the total: it starts anew with the point after it, as the data model has
    it, so that no rate is made up for the gap; or it goes on, as the Collector has it."""
    max_size: int = Field(default=160, ge=2, le=16384)
    """Most buckets of an exponential histogram on either side of zero; its scale falls until they fit."""


class ToCumulative(StreamConversion):
    """The kernel of `delta_to_cumulative`.

    >>> from telflow.schema import Signal
    >>> ToCumulative(DeltaToCumulativeSettings()).add(TelemetryBatch.empty(Signal.METRICS), 0).batch is None
    True
    """

    name = "delta_to_cumulative"

    def __init__(self, settings: DeltaToCumulativeSettings) -> None:
        super().__init__(settings, Temporality.DELTA)
        self._settings = settings

    def knows(self, batch: TelemetryBatch) -> Mask:
        """Return for each point of a batch of delta points whether there is a total of its stream."""
        return self._tracker.knows(stream_hashes(batch))

    @override
    def _convert(self, records: pa.RecordBatch, points: StreamPoints) -> tuple[pa.RecordBatch, list[tuple[str, Ints]]]:
        # What takes no time has an unknown start.
        points = replace(points, starts=np.where(points.starts < points.times, points.starts, 0))
        accepted, refused = self._sift(points)
        return self._accumulate(records, points if accepted.all() else points.at(accepted)), refused

    def _sift(self, points: StreamPoints) -> tuple[Mask, list[tuple[str, Ints]]]:
        """Which points are accepted, and why the others are not."""
        runs, times = runs_of(points.slots), points.times
        last = self._tracker.last[points.slots[runs.starts]]
        # A point continues its stream from its start on, or, if that is unknown, is just later; or after a silence.
        earliest = np.maximum(np.where(points.starts > 0, points.starts, times - 1), points.horizon - 1)
        taken = runs.chain(times, earliest, last)
        if taken.all():
            return taken, []
        latest = runs.latest(taken)
        before = np.where(latest >= 0, times[latest], np.repeat(last, runs.lengths))
        refused = ~taken
        return taken, [
            ("duplicate", np.flatnonzero(refused & (times == before))),
            ("out of order", np.flatnonzero(refused & (times < before))),
            ("overlapping", np.flatnonzero(refused & (times > before))),
        ]

    def _accumulate(self, records: pa.RecordBatch, points: StreamPoints) -> pa.RecordBatch:
        """Turn accepted points into totals, and remember the last ones."""
        rows, slots, times, starts = points.rows, points.slots, points.times, points.starts
        streams = runs_of(slots)
        before = streams.previous(times, self._tracker.last[slots[streams.starts]])
        anew = (before == NEVER) | (before < points.horizon)
        if self._settings.gap == "reset":
            anew |= starts > before
        begun = streams.latest(anew)
        since = np.where(begun >= 0, starts[begun], self._tracker.start[slots])

        parts = Runs(streams.first | anew)
        values = read_points(records, rows)
        goes_on = np.flatnonzero(~anew[parts.starts])
        values = self._with_base(values, slots, parts.starts[goes_on])
        totals = _running(values, parts, self._settings.max_size)
        records = write_points(records, rows, totals)

        last = streams.last
        self._totals.put(slots[last], select(totals, last))
        self._tracker.last[slots[last]] = times[last]
        self._tracker.start[slots[last]] = since[last]

        return with_interval(records, rows, since, Temporality.CUMULATIVE)

    def _with_base(self, values: PointValues, slots: Ints, rows: Ints) -> PointValues:
        """Add what streams have so far to their first point here, at `rows`, which are ascending."""
        if not rows.size:
            return values
        some = select(values, rows)
        base = self._totals.get(slots[rows], some)
        columns = {name: column.copy() for name, column in values.plain()}
        for name, total in base.plain():
            columns[name][rows] = _ADD[name](total, columns[name][rows])
        buckets = {}
        for width, found in values.buckets.items():
            counts = found.counts
            if width in base.buckets:
                mine = base.buckets[width]
                more = np.zeros_like(counts)
                more[np.searchsorted(found.at, rows[mine.at])] = mine.counts
                counts = counts + more
            buckets[width] = Buckets(found.at, counts)
        exponential = values.exponential
        if exponential is not None and base.exponential is not None:
            into = np.searchsorted(values.exponential_at, rows[base.exponential_at])
            own = np.arange(len(exponential))
            exponential = add_up([(exponential, own), (base.exponential, into)], len(own), self._settings.max_size)
        return PointValues(**columns, buckets=buckets, exponential_at=values.exponential_at, exponential=exponential)


_ADD = {"whole": np.add, "real": np.add, "count": np.add, "low": np.minimum, "high": np.maximum}


def _running(values: PointValues, runs: Runs, max_size: int) -> PointValues:
    """The totals along runs."""
    columns = {
        "whole": runs.sums(values.whole),
        "real": runs.accumulate(np.add, values.real),
        "count": runs.sums(values.count),
        "low": runs.accumulate(np.minimum, values.low),
        "high": runs.accumulate(np.maximum, values.high),
    }
    buckets = {
        width: Buckets(found.at, Runs(runs.first[found.at]).sums(found.counts))
        for width, found in values.buckets.items()
    }
    exponential = values.exponential
    if exponential is not None:
        exponential = _running_exponential(exponential, Runs(runs.first[values.exponential_at]), max_size)
    return PointValues(**columns, buckets=buckets, exponential_at=values.exponential_at, exponential=exponential)


def _running_exponential(points: ExponentialPoints, runs: Runs, max_size: int) -> ExponentialPoints:
    own = np.arange(len(points))
    rank = own - runs.start_of
    most = int(rank.max(initial=0))
    points = add_up([(points, own)], len(own), max_size)
    if (points.threshold == points.threshold[runs.start_of]).all():
        # Adding is associative: after k rounds each point is the sum of the 2**k up to it.
        step = 1
        while step <= most:
            rows = np.flatnonzero(rank >= step)
            points = add_up([(points, own), (points.take(rows - step), rows)], len(own), max_size)
            step *= 2
        return points
    # With zero buckets of different widths it is not quite, so one after the other; no SDK makes such points.
    for place in range(1, most + 1):
        rows = np.flatnonzero(rank == place)
        points = add_up([(points, own), (points.take(rows - 1), rows)], len(own), max_size)
    return points
