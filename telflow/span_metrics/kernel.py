"""Span metrics of one key of a stream: spans in, metrics of closed windows out. No clock and no I/O."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from telflow.batch import TelemetryBatch
from telflow.errors import BatchError
from telflow.rows import take_rows
from telflow.schema import Signal
from telflow.series_windows import SeriesWindows
from telflow.span_metrics.family import Family, families_of, nanos
from telflow.span_metrics.keys import SpanKeys
from telflow.span_metrics.settings import SpanMetricsSettings
from telflow.window_logic import Update
from telflow.windows import Ints, Sifted

__all__ = ["SpanMetrics"]

_STATE_VERSION = 3
_READ = ("resource", "name", "kind", "start_time_unix_nano", "end_time_unix_nano", "status_code")


class SpanMetrics:
    """The kernel; times are Unix nanoseconds.

    >>> kernel = SpanMetrics(SpanMetricsSettings())
    >>> kernel.add(TelemetryBatch.empty(Signal.TRACES), now_unix_nano=0)
    Update(metrics=(), late=None, ahead=None, rows=(), refused=())
    """

    def __init__(self, settings: SpanMetricsSettings) -> None:
        self._settings = settings
        self._families = families_of(settings)
        # All families see the same times, so their windows open and close together; the first has all spans.
        self._windows = self._families[0].windows
        self._read = _columns(settings, self._families)

    def add(self, batch: TelemetryBatch, now_unix_nano: int) -> Update:
        """Count a batch of spans; batches of other signals change nothing."""
        if batch.signal is not Signal.TRACES or not batch.num_rows:
            return Update()
        sifted = self._windows.sift(batch.records["end_time_unix_nano"].to_numpy(), now_unix_nano)
        late = batch.take(pa.array(sifted.late)) if sifted.late.size else None
        ahead = batch.take(pa.array(sifted.ahead)) if sifted.ahead.size else None
        records = batch.records.select(self._read)
        if sifted.accepted is not None:
            records = take_rows(records, sifted.accepted.astype(np.uint32))
        duration = _durations(records)
        keys = SpanKeys(records, batch.resources, batch.scopes, self._settings)
        metrics: list[TelemetryBatch] = []
        for family in self._families:
            if family.name == "events":
                metrics += self._add_events(family, sifted, records, duration, keys)
            else:
                columns = keys.columns(family.dimensions)
                metrics += family.series.add(sifted, columns, family.inputs(records, duration))
        return Update(tuple(metrics), late, ahead)

    def due_unix_nano(self) -> int | None:
        """System time at which `advance` closes a window if no spans come until then; None when nothing is open."""
        idle = self._settings.idle_timeout
        return None if idle is None else self._windows.due_unix_nano(nanos(idle))

    def idle_since(self, system_unix_nano: int) -> None:
        """Say that silence only counts from this moment: after a restart, or a stall of the process."""
        for family in self._families:
            family.windows.idle_since(system_unix_nano)

    def advance(self, now_unix_nano: int) -> Update:
        """Let the system clock close windows, the input being silent; only when `due_unix_nano` has passed."""
        return self._each(lambda series: series.advance(now_unix_nano))

    def flush(self) -> Update:
        """Close all open windows; spans for them that still come are late."""
        return self._each(SeriesWindows[TelemetryBatch].flush)

    def state(self) -> dict[str, Any]:
        """Return everything as plain, versioned data that later changes do not touch."""
        return {
            "version": _STATE_VERSION,
            "settings": self._settings.model_dump(mode="json"),
            "families": {family.name: family.series.state() for family in self._families},
        }

    def restore(self, state: Mapping[str, Any]) -> Update:
        """Take over what `state` returned, before anything is added.

        When options that shape windows have changed since, the windows of that time cannot go on: they are closed
        under their own options and returned, and counting begins anew behind them.

        Raises:
            BatchError: Another version of telflow wrote it, in a form this one does not read.
        """
        version = state.get("version")
        if version == _STATE_VERSION - 1:  # had one family, of all spans
            families = {"spans": {name: state[name] for name in ("series", "windows", "life", "totals")}}
        elif version == _STATE_VERSION:
            families = state["families"]
        else:
            raise BatchError(
                f"state of span_metrics: expected version {_STATE_VERSION - 1} or {_STATE_VERSION}, got {version}; "
                "resume with the version of telflow that wrote it, or give the step another id to begin anew"
            )
        before = SpanMetricsSettings.model_validate(state["settings"])
        if before.shape() != self._settings.shape():
            old = SpanMetrics(before)
            old.restore(state)
            first = old._families[0].name
            for family in self._families:
                family.windows.restore_time(families[first]["windows"])
            return old.flush()
        for family in self._families:
            family.series.restore(families[family.name])
        return Update()

    def _each(self, step: Callable[[SeriesWindows[TelemetryBatch]], tuple[TelemetryBatch, ...]]) -> Update:
        return Update(tuple(made for family in self._families for made in step(family.series) if made.num_rows))

    def _add_events(
        self, family: Family, sifted: Sifted, records: pa.RecordBatch, duration: Ints, keys: SpanKeys
    ) -> tuple[TelemetryBatch, ...]:
        """Count the events of spans: each in the windows of its span, when it was sent."""
        lists = records["events"]
        span = pc.list_parent_indices(lists)
        attributes = pc.struct_field(lists.flatten(), "attributes")
        rows = span.to_numpy()
        own = self._settings.events.dimensions if self._settings.events is not None else ()
        columns = keys.event_columns(self._settings.dimensions, own, span, attributes)
        inputs = family.inputs(records, duration)
        of_events = Sifted(
            sifted.starts[rows], None, None, sifted.starts[:0], sifted.starts[:0], sifted.high, sifted.now
        )
        family.windows.open(sifted)  # spans without events are no silence, and windows without events repeat totals
        made = family.series.add(of_events, columns, {name: values[rows] for name, values in inputs.items()})
        return tuple(batch for batch in made if batch.num_rows)


def _columns(settings: SpanMetricsSettings, families: list[Family]) -> list[str]:
    """What is read of a span; the rest is not touched."""
    found = list(_READ)
    if any(family.dimensions for family in families):
        found.append("attributes")
    if settings.include_instrumentation_scope:
        found.append("scope")
    if settings.exemplars is not None:
        found += ["trace_id", "span_id"]
    if settings.events is not None:
        found.append("events")
    return found


def _durations(records: pa.RecordBatch) -> Ints:
    """Nanoseconds from start to end; a span that ends before it starts took 0, as in the Collector."""
    start = records["start_time_unix_nano"].to_numpy()
    end = records["end_time_unix_nano"].to_numpy()
    return np.asarray((end - np.minimum(start, end)).view(np.int64))
