"""What of a batch is counted: spans, span events, metrics, data points, log records."""

from __future__ import annotations

import enum

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from telflow.batch import TelemetryBatch
from telflow.columns import fill_record_batch
from telflow.schema import RECORD_SCHEMAS, Signal
from telflow.series import distinct_rows

__all__ = ["Item", "items_of"]

_METRIC = ("resource", "scope", "name", "description", "unit", "type", "aggregation_temporality", "is_monotonic")


class Item(enum.StrEnum):
    """What a section of the Collector's count connector counts, under its name there."""

    SPANS = "spans"
    SPAN_EVENTS = "span_events"
    METRICS = "metrics"
    DATA_POINTS = "data_points"
    LOGS = "logs"

    @property
    def source(self) -> Signal:
        """The signal they are found in."""
        return {"spans": Signal.TRACES, "span_events": Signal.TRACES, "logs": Signal.LOGS}.get(self, Signal.METRICS)

    @property
    def signal(self) -> Signal:
        """The signal that `items_of` has them as."""
        return Signal.LOGS if self is Item.SPAN_EVENTS else self.source


def items_of(batch: TelemetryBatch, item: Item) -> TelemetryBatch | None:
    """Return a batch with one record for each item; None when there is none.

    A span event is a log record with the event's name and attributes; its time is the end of its span, when it was sent
    (its own time is the observed time). A metric is the first of the data points that follow each other and share
    resource, scope, name, unit and kind.
    """
    if batch.signal is not item.source or not batch.num_rows:
        return None
    match item:
        case Item.SPAN_EVENTS:
            return _span_events(batch)
        case Item.METRICS:
            numbers = distinct_rows([batch.records[name] for name in _METRIC])[1]
            return batch.take(np.flatnonzero(np.diff(numbers, prepend=-1)))
        case _:
            return batch


def _span_events(batch: TelemetryBatch) -> TelemetryBatch | None:
    lists = batch.records["events"]
    events = lists.flatten()
    if not len(events):
        return None
    fields = dict(zip([field.name for field in events.type], events.flatten(), strict=True))
    span: pa.Array = pc.list_parent_indices(lists)
    of_span = ("resource", "scope", "trace_id", "span_id")
    columns = {
        **{name: batch.records[name].take(span) for name in of_span},
        "time_unix_nano": batch.records["end_time_unix_nano"].take(span),
        "observed_time_unix_nano": fields["time_unix_nano"],
        "event_name": fields["name"],
        "attributes": fields["attributes"],
        "dropped_attributes_count": fields["dropped_attributes_count"],
    }
    records = fill_record_batch(RECORD_SCHEMAS[Signal.LOGS], len(events), columns)
    return TelemetryBatch(Signal.LOGS, records, batch.resources, batch.scopes)
