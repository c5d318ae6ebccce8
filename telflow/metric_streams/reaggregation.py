"""Metrics with fewer attributes: points that then belong to one stream become one point per interval.

Time is event time: a point belongs to the interval in which it ends, or, if that is closed, to the oldest one open, so
nothing is late. An interval closes when the latest point (never ahead of the system clock) is `lateness` past its end.

* Delta sums and histograms add up. What comes out covers the interval.
* Cumulative ones: what comes out is the sum of the latest values of all streams that ever came. Each stream is
  remembered, and counts with what it has grown by (`telflow.metric_streams.to_delta`); so a stream that starts anew
  does not let the sum fall, nor does one that goes away.
* Gauges: a function of the latest value of each stream in the interval.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import Field, model_validator

from telflow.accounting import split_by_tenant
from telflow.attributes import drop_attributes, matching_keys
from telflow.batch import TelemetryBatch
from telflow.metric_points import Temporality
from telflow.metric_streams.identity import stream_hashes
from telflow.metric_streams.merging import GaugeFunction, latest_points, merge_gauges, merge_points
from telflow.metric_streams.points import with_interval
from telflow.metric_streams.selection import Selector, no_value
from telflow.metric_streams.settings import ConversionSettings, nanos
from telflow.metric_streams.to_cumulative import DeltaToCumulativeSettings, ToCumulative
from telflow.metric_streams.to_delta import CumulativeToDeltaSettings, ToDelta
from telflow.metric_streams.tracker import NEVER, times_of
from telflow.rows import replace_column
from telflow.schema import MetricType, Signal
from telflow.settings import Duration
from telflow.state_version import state_version
from telflow.window_logic import Refused, Update

__all__ = ["GroupSelector", "ReaggregateSettings", "Reaggregation", "split_by_group"]

Ints: TypeAlias = npt.NDArray[np.int64]
Mask: TypeAlias = npt.NDArray[np.bool_]

_STATE_VERSION = 1


class ReaggregateSettings(ConversionSettings):
    """Options of `reaggregate`.

    >>> ReaggregateSettings(remove=["http.route"]).interval
    datetime.timedelta(seconds=60)
    """

    keep: tuple[str, ...] | None = None
    """Attributes of points to keep; all others are left out."""
    remove: tuple[str, ...] | None = None
    """Attributes of points to leave out; all others are kept. Exactly one of this and `keep` is given."""
    gauge: GaugeFunction = "last"
    """What the values of gauges that become one are made into: that of the latest point, the smallest, the largest,
    their mean or their sum."""
    interval: Duration = timedelta(seconds=60)
    """Length of an interval of event time; each gives one point per stream."""
    lateness: Duration = timedelta(seconds=5)
    """How long an interval stays open after its end."""
    max_ahead: Duration = timedelta(minutes=5)
    """A point that lies further ahead of the system clock than this is refused; its clock is wrong."""
    idle_timeout: Duration | None = timedelta(seconds=10)
    """After this long without points all intervals close. Null: only points move time."""
    emit_on_eof: bool = False
    """Close all intervals when the input ends, which is for finite inputs; see `SpanMetricsSettings.emit_on_eof`."""
    max_stale: Duration | None = None
    """A cumulative stream is forgotten this long after its last point, null: never. One that comes back with a start
    time before it was forgotten counts only from then on."""
    max_size: Annotated[int, Field(ge=2, le=16384)] = 160
    """Most buckets of an exponential histogram on either side of zero; its scale falls until they fit."""

    @model_validator(mode="after")
    def _merges(self) -> ReaggregateSettings:
        if (self.keep is None) == (self.remove is None):
            raise ValueError("expected exactly one of keep and remove")
        if self.interval < timedelta(milliseconds=1):
            raise ValueError(f"interval: expected at least 1ms, got {self.interval}")
        for name in ("lateness", "max_ahead", "idle_timeout"):
            value = getattr(self, name)
            if value is not None and value < timedelta():
                raise ValueError(f"{name}: expected at least 0, got {value}")
        return self

    def reduced(self, attributes: pa.ListArray) -> pa.ListArray:
        """Return attribute lists without what is left out."""
        if self.remove is not None:
            return drop_attributes(attributes, self.remove)
        kept = frozenset(self.keep or ())
        return drop_attributes(attributes, matching_keys(attributes, lambda key: key not in kept))


class GroupSelector:
    """Finds the points that are merged: gauges, sums and histograms, but no cumulative sums that may fall."""

    def __init__(self, settings: ConversionSettings) -> None:
        self._wants = Selector(settings, Temporality.DELTA).wanted
        self._types = sorted({int(MetricType.GAUGE), *settings.types})

    def chosen(self, records: pa.RecordBatch) -> Mask:
        """Return which points are merged."""
        kinds = records["type"].to_numpy()
        monotonic = records["is_monotonic"].to_numpy(zero_copy_only=False)
        temporality = records["aggregation_temporality"].to_numpy()
        mask = np.isin(kinds, self._types)
        adds = (temporality == int(Temporality.DELTA)) | (temporality == int(Temporality.CUMULATIVE))
        mask &= (kinds == int(MetricType.GAUGE)) | adds
        mask &= (kinds != int(MetricType.SUM)) | monotonic | (temporality == int(Temporality.DELTA))
        return self._wants(records, mask)


def split_by_group(
    batch: TelemetryBatch, settings: ReaggregateSettings, chooser: GroupSelector
) -> tuple[TelemetryBatch | None, list[tuple[str, TelemetryBatch]]]:
    """Divide a batch by who merges it: streams that become one come to the same key; also what passes, or None."""
    if batch.signal is not Signal.METRICS or not batch.num_rows:
        return batch, []
    mask = chooser.chosen(batch.records)
    if not mask.any():
        return batch, []
    rest = None if mask.all() else batch.filter(~mask).compact()
    parts: list[tuple[str, TelemetryBatch]] = []
    for tenant, owned in split_by_tenant(batch.filter(mask)):
        key = tenant or "(none)"
        if settings.shards == 1:
            parts.append((key, owned.compact()))
            continue
        merged = owned.with_column("attributes", settings.reduced(owned.records["attributes"]))
        low = stream_hashes(merged).low
        shard = (low >> np.uint64(33)) % np.uint64(settings.shards)
        parts += [(f"{key}/{n}", owned.filter(shard == n).compact()) for n in np.unique(shard).tolist()]
    return rest, parts


class Reaggregation:
    """The kernel, for one key of a stream; see `telflow.window_logic.WindowKernel`."""

    def __init__(self, settings: ReaggregateSettings) -> None:
        self._settings = settings
        self._length, self._lateness = nanos(settings.interval), nanos(settings.lateness)
        self._limit = -(-settings.max_streams // settings.shards)
        common = {"max_stale": settings.max_stale, "max_streams": self._limit}
        self._differences = ToDelta(CumulativeToDeltaSettings.model_validate(common), joins=True)
        self._sums = ToCumulative(
            DeltaToCumulativeSettings.model_validate({**common, "gap": "continue", "max_size": settings.max_size})
        )
        # By start of an interval: what adds up (cumulative: what it has grown by), and gauges as they came.
        self._adding: dict[int, TelemetryBatch] = {}
        self._gauges: dict[int, TelemetryBatch] = {}
        self._high = NEVER
        self._closed = NEVER
        self._silent_since: int | None = None

    def add(self, batch: TelemetryBatch, now_unix_nano: int) -> Update:
        """Take points in; returns those of the intervals that close."""
        self._silent_since = now_unix_nano
        refused: list[tuple[TelemetryBatch, str]] = []
        times = times_of(batch.records["time_unix_nano"])
        wrong = times > now_unix_nano + nanos(self._settings.max_ahead)
        empty = no_value(batch.records, np.arange(batch.num_rows)) & ~wrong
        for mask, reason in ((wrong, "ahead of clock"), (empty, "no recorded value")):
            if mask.any():
                refused.append((batch.filter(mask), reason))
        good = ~(wrong | empty)
        if not good.all():
            batch, times = batch.filter(good), times[good]
        high = np.maximum.accumulate(np.append(self._high, np.minimum(times, now_unix_nano)))
        self._high = int(high[-1])
        oldest = np.maximum((high[1:] - self._lateness) // self._length * self._length, self._closed)
        places = np.maximum(times // self._length * self._length, oldest)
        cumulative = batch.records["aggregation_temporality"].to_numpy() == int(Temporality.CUMULATIVE)
        gauges = batch.records["type"].to_numpy() == int(MetricType.GAUGE)
        if cumulative.any():
            found = self._differences.add(batch.filter(cumulative), now_unix_nano)
            refused += found.dropped
            if found.batch is not None:
                rows = np.arange(found.batch.num_rows)
                starts = found.batch.records["start_time_unix_nano"].to_numpy()
                # What it was tells it apart from deltas, and what becomes of it.
                records = with_interval(found.batch.records, rows, starts, Temporality.CUMULATIVE)
                where = places[cumulative] if found.rows is None else places[cumulative][found.rows]
                refused += self._put(self._adding, found.batch.with_records(records), where)
        refused += self._put(self._adding, batch.filter(~cumulative & ~gauges), places[~cumulative & ~gauges])
        refused += self._put(self._gauges, batch.filter(gauges), places[gauges])
        closed = (self._high - self._lateness) // self._length * self._length
        return self._update(self._close(closed, now_unix_nano), refused)

    def due_unix_nano(self) -> int | None:
        """System time at which `advance` closes intervals if no points come until then; None when none is open."""
        idle = self._settings.idle_timeout
        if idle is None or self._silent_since is None or not (self._adding or self._gauges):
            return None
        return self._silent_since + nanos(idle)

    def idle_since(self, system_unix_nano: int) -> None:
        """Say that silence only counts from this moment."""
        self._silent_since = system_unix_nano

    def advance(self, now_unix_nano: int) -> Update:
        """Close all intervals, the input being silent."""
        self._silent_since = now_unix_nano
        return self._update(self._close(2**62, now_unix_nano), [])

    def flush(self) -> Update:
        """Close all intervals."""
        return self._update(self._close(2**62, max(self._high, 0)), [])

    def state(self) -> dict[str, Any]:
        """Return everything as plain, versioned data that later changes do not touch."""
        return {
            "version": _STATE_VERSION,
            "adding": {start: batch.to_ipc_bytes() for start, batch in self._adding.items()},
            "gauges": {start: batch.to_ipc_bytes() for start, batch in self._gauges.items()},
            "differences": self._differences.state(),
            "sums": self._sums.state(),
            "high": self._high,
            "closed": self._closed,
        }

    def restore(self, state: Mapping[str, Any]) -> Update:
        """Take over what `state` returned; attributes that are left out by now do not come back.

        Raises:
            BatchError: Another version of telflow wrote it, in a form this one does not read.
        """
        state_version(state, "reaggregate", _STATE_VERSION)
        self._adding = {start: TelemetryBatch.from_ipc_bytes(data) for start, data in state["adding"].items()}
        self._gauges = {start: TelemetryBatch.from_ipc_bytes(data) for start, data in state["gauges"].items()}
        self._differences.restore(state["differences"])
        self._sums.restore(state["sums"])
        self._high, self._closed = state["high"], state["closed"]
        return Update()

    def _put(
        self, intervals: dict[int, TelemetryBatch], batch: TelemetryBatch, places: Ints
    ) -> list[tuple[TelemetryBatch, str]]:
        """Put points into their intervals, which stay as small as what comes out of them; returns what has no room."""
        refused = []
        for start in np.unique(places).tolist():
            part = batch.filter(places == start)
            if intervals is self._adding:
                part = part.with_column("attributes", self._settings.reduced(part.records["attributes"]))
            before = intervals.get(start)
            part = part if before is None else TelemetryBatch.concat([before, part])
            merged = latest_points(part) if intervals is self._gauges else merge_points(part, self._settings.max_size)
            if merged.num_rows > self._limit:
                refused.append((merged.slice(self._limit), "too many streams"))
                merged = merged.slice(0, self._limit).compact()
            intervals[start] = merged
        return refused

    def _close(self, before: int, now_unix_nano: int) -> list[TelemetryBatch]:
        """What the intervals that start before a time give, oldest first."""
        starts = sorted(start for start in {*self._adding, *self._gauges} if start < before)
        found: list[TelemetryBatch] = []
        for start in starts:
            end = start + self._length
            self._closed = max(self._closed, end)
            if start in self._adding:
                found += self._totals(self._adding.pop(start), start, end, now_unix_nano)
            if start in self._gauges:
                gauges = self._gauges.pop(start)
                gauges = gauges.with_column("attributes", self._settings.reduced(gauges.records["attributes"]))
                streams = stream_hashes(gauges)
                found.append(merge_gauges(gauges, streams, self._settings.gauge))
        return found

    def _totals(self, batch: TelemetryBatch, start: int, end: int, now_unix_nano: int) -> list[TelemetryBatch]:
        """Points that cover an interval, or, of cumulative streams, all until its end."""
        records = batch.records
        cumulative = records["aggregation_temporality"].to_numpy() == int(Temporality.CUMULATIVE)
        begun = records["start_time_unix_nano"].to_numpy()
        records = replace_column(records, "time_unix_nano", pa.array(np.full(len(begun), end, np.uint64)))
        records = with_interval(records, np.arange(len(begun)), np.full(len(begun), start), Temporality.DELTA)
        whole = batch.with_records(records)
        out = [whole.filter(~cumulative).compact()] if not cumulative.all() else []
        if cumulative.any():
            part = whole.filter(cumulative).compact()
            rows = np.arange(part.num_rows)
            # A sum began when the first of its streams did.
            known = self._sums.knows(part)
            starts = np.where(known, np.uint64(start), begun[cumulative])
            part = part.with_records(with_interval(part.records, rows, starts, Temporality.DELTA))
            found = self._sums.add(part, max(now_unix_nano, end))
            out += [] if found.batch is None else [found.batch]
        return out

    def _update(self, metrics: list[TelemetryBatch], refused: list[tuple[TelemetryBatch, str]]) -> Update:
        return Update(
            tuple(metrics),
            refused=tuple(
                Refused(Signal.METRICS, batch.resources["tenant"][0].as_py(), batch.num_rows, reason)
                for batch, reason in refused
            ),
        )
