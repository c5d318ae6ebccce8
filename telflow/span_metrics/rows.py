"""From spans to what is counted of them: when they were, by which dimensions, and which values.

Spans travel to where the windows of their key are. Within a process that is the batch itself (`SpanPart`), to be read
there. Where it crosses to another process it is read before, and only partial aggregates travel (`CrossedPart`): what
crosses grows with the series, not with the spans.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from telflow.accounting import count_by_tenant
from telflow.aggregation.partial import Partial
from telflow.batch import TelemetryBatch
from telflow.rows import take_rows
from telflow.schema import Signal
from telflow.span_metrics.keys import SpanKeys
from telflow.span_metrics.measured import Measured, measured_of
from telflow.span_metrics.settings import SpanMetricsSettings
from telflow.window_logic import Refused
from telflow.windows import Ints, Sifted, sift

__all__ = ["CrossedPart", "SpanPart", "SpanReader", "refused_spans"]

_READ = ("resource", "name", "kind", "start_time_unix_nano", "end_time_unix_nano", "status_code")


class SpanReader:
    """Reads what is counted out of batches of spans.

    Args:
        settings: Of the span metrics.
    """

    def __init__(self, settings: SpanMetricsSettings) -> None:
        self._settings = settings
        self._columns = _columns(settings, measured := measured_of(settings))
        self.measured = measured
        """What is counted, by series."""

    def parts(self, batch: TelemetryBatch, sifted: Sifted) -> list[Partial]:
        """Return keys and values of the accepted spans of a batch: one part for each of `measured`.

        Args:
            batch: Spans.
            sifted: What sifting them gave.
        """
        records = batch.records.select(self._columns)
        if sifted.accepted is not None:
            records = take_rows(records, sifted.accepted.astype(np.uint32))
        duration = _durations(records)
        keys = SpanKeys(records, batch.resources, batch.scopes, self._settings)
        found = []
        for measured in self.measured:
            values = measured.inputs(records, duration)
            if measured.name == "events":
                # Events count in the windows of their span, when they were sent.
                lists = records["events"]
                span = pc.list_parent_indices(lists)
                attributes = pc.struct_field(lists.flatten(), "attributes")
                own = self._settings.events.dimensions if self._settings.events is not None else ()
                columns = keys.event_columns(self._settings.dimensions, own, span, attributes)
                rows = span.to_numpy()
                none = sifted.starts[:0]
                times = Sifted(sifted.starts[rows], None, None, none, none, sifted.high, sifted.now)
                values = {name: column[rows] for name, column in values.items()}
            else:
                columns, times = keys.columns(measured.dimensions), sifted
            ones = np.ones(len(times.starts), np.int64)
            # Whose the spans are is their first key.
            found.append(Partial(Signal.TRACES, None, times, columns, values, ones, measured.measures))
        return found

    def crossing(self, batch: TelemetryBatch, now_unix_nano: int) -> CrossedPart:
        """Return what another process needs to know of a batch, and what its own times refuse."""
        times = batch.records["end_time_unix_nano"].to_numpy()
        sifted = sift(times, now_unix_nano, self._settings.window_shape())
        parts = tuple(part.fold() for part in self.parts(batch, sifted))
        return CrossedPart(parts, refused_spans(batch, sifted))


@dataclass(frozen=True, slots=True)
class CrossedPart:
    """What has come from another process of a batch of spans.

    Attributes:
        parts: Partial aggregates, one for each of `SpanReader.measured`.
        refused: Spans that do not count.
    """

    parts: tuple[Partial, ...]
    refused: tuple[Refused, ...]


class SpanPart:
    """A batch of spans on its way to where its windows are.

    Args:
        batch: Spans, at least one.
        reader: Reads them, should they have to cross to another process.
        now_unix_nano: System time.
    """

    __slots__ = ("_crossing", "_now", "_reader", "batch")

    def __init__(self, batch: TelemetryBatch, reader: SpanReader, now_unix_nano: int) -> None:
        self.batch = batch
        self._reader = reader
        self._now = now_unix_nano
        self._crossing: CrossedPart | None = None

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        # Bytewax pickles twice, once for the size and once to write: both times the same parts.
        if self._crossing is None:
            self._crossing = self._reader.crossing(self.batch, self._now)
        return CrossedPart, (self._crossing.parts, self._crossing.refused)


def refused_spans(batch: TelemetryBatch, sifted: Sifted) -> tuple[Refused, ...]:
    """Return how many spans of a batch do not count, by reason and tenant."""
    return tuple(
        Refused(Signal.TRACES, tenant or None, count, reason)
        for rows, reason in ((sifted.late, "late"), (sifted.ahead, "ahead of clock"))
        if rows.size
        for tenant, count in count_by_tenant(batch.take(pa.array(rows))).items()
    )


def _columns(settings: SpanMetricsSettings, measured: list[Measured]) -> list[str]:
    """What is read of a span; the rest is not touched."""
    found = list(_READ)
    if any(one.dimensions for one in measured):
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
