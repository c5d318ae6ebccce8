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

from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import Field

from telflow.batch import TelemetryBatch
from telflow.errors import BatchError
from telflow.metric_points import Temporality
from telflow.metric_streams.exponential_points import ExponentialPoints, add_up
from telflow.metric_streams.identity import stream_hashes
from telflow.metric_streams.points import Buckets, PointValues, read_points, with_interval, write_points
from telflow.metric_streams.runs import Runs, runs_of
from telflow.metric_streams.selection import Converted, Selector, converted, no_value
from telflow.metric_streams.settings import ConversionSettings
from telflow.metric_streams.totals import Totals, select
from telflow.metric_streams.tracker import NEVER, StreamTracker, times_of

__all__ = ["DeltaToCumulativeSettings", "ToCumulative"]

Ints: TypeAlias = npt.NDArray[np.int64]
Mask: TypeAlias = npt.NDArray[np.bool_]

_STATE_VERSION = 1


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


class ToCumulative:
    """The kernel, for one key of a stream. No clock and no I/O; times are Unix nanoseconds.

    >>> from telflow.schema import Signal
    >>> ToCumulative(DeltaToCumulativeSettings()).add(TelemetryBatch.empty(Signal.METRICS), 0).batch is None
    True
    """

    def __init__(self, settings: DeltaToCumulativeSettings) -> None:
        self._settings = settings
        self._selector = Selector(settings, Temporality.DELTA)
        streams = -(-settings.max_streams // settings.shards)
        self._tracker = StreamTracker(streams, settings.stale_nano)
        self._totals = Totals()

    def __len__(self) -> int:
        """Streams in memory."""
        return len(self._tracker)

    def add(self, batch: TelemetryBatch, now_unix_nano: int) -> Converted:
        """Convert a batch of metrics; what is not meant to be converted goes on as it is."""
        rows = np.flatnonzero(self._selector.chosen(batch.records))
        empty = no_value(batch.records, rows)
        dropped = [(rows[empty], "no recorded value")]
        rows = rows[~empty]
        if not rows.size:
            return converted(batch, batch.records, dropped)
        times = times_of(batch.records["time_unix_nano"])[rows]
        seen = self._tracker.see(stream_hashes(batch, rows), times, now_unix_nano)
        self._totals.grow(len(self._tracker))
        dropped.append((rows[seen.slots < 0], "too many streams"))
        order = np.argsort(seen.slots, kind="stable")[int((seen.slots < 0).sum()) :]
        rows, slots, times, horizon = rows[order], seen.slots[order], times[order], seen.horizon[order]
        if not rows.size:
            self._forget()
            return converted(batch, batch.records, dropped)
        starts = times_of(batch.records["start_time_unix_nano"])[rows]
        starts = np.where(starts < times, starts, 0)  # what takes no time has an unknown start

        accepted, refused = self._sift(slots, starts, times, horizon)
        dropped += [(rows[found], reason) for reason, found in refused]
        rows, slots, times, starts = rows[accepted], slots[accepted], times[accepted], starts[accepted]
        records = self._accumulate(batch.records, rows, slots, starts, times, horizon[accepted])
        self._forget()
        return converted(batch, records, dropped)

    def knows(self, batch: TelemetryBatch) -> Mask:
        """Return for each point of a batch of delta points whether there is a total of its stream."""
        return self._tracker.knows(stream_hashes(batch, np.arange(batch.num_rows)))

    def state(self) -> dict[str, Any]:
        """Return everything as plain, versioned data that later changes do not touch."""
        return {"version": _STATE_VERSION, "tracker": self._tracker.state(), "totals": self._totals.state()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over what `state` returned.

        Raises:
            BatchError: Another version of telflow wrote it, in a form this one does not read.
        """
        if state.get("version") != _STATE_VERSION:
            raise BatchError(
                f"state of delta_to_cumulative: expected version {_STATE_VERSION}, got {state.get('version')}; resume "
                "with the version of telflow that wrote it, or give the step another id to begin anew"
            )
        self._tracker.restore(state["tracker"])
        self._totals.restore(state["totals"])

    def _forget(self) -> None:
        kept = self._tracker.forget()
        if kept is not None:
            self._totals.keep(kept)

    def _sift(self, slots: Ints, starts: Ints, times: Ints, horizon: Ints) -> tuple[Ints, list[tuple[str, Ints]]]:
        """Which points are accepted, and why the others are not; all in the order of streams."""
        runs = runs_of(slots)
        last = self._tracker.last[slots[runs.starts]]
        # A point continues its stream from its start on, or, if that is unknown, is just later; or after a silence.
        earliest = np.maximum(np.where(starts > 0, starts, times - 1), horizon - 1)
        taken = runs.chain(times, earliest, last)
        if taken.all():
            return np.arange(len(slots)), []
        latest = runs.latest(taken)
        before = np.where(latest >= 0, times[latest], np.repeat(last, runs.lengths))
        refused = ~taken
        return np.flatnonzero(taken), [
            ("duplicate", np.flatnonzero(refused & (times == before))),
            ("out of order", np.flatnonzero(refused & (times < before))),
            ("overlapping", np.flatnonzero(refused & (times > before))),
        ]

    def _accumulate(  # noqa: PLR0917 - columns
        self, records: pa.RecordBatch, rows: Ints, slots: Ints, starts: Ints, times: Ints, horizon: Ints
    ) -> pa.RecordBatch:
        """Turn accepted points, in the order of streams, into totals, and remember the last ones."""
        streams = runs_of(slots)
        before = streams.previous(times, self._tracker.last[slots[streams.starts]])
        anew = (before == NEVER) | (before < horizon)
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
            counts = found.counts.copy()
            if width in base.buckets:
                mine = base.buckets[width]
                counts[np.searchsorted(found.at, rows[mine.at])] += mine.counts
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
