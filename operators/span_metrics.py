"""span_metrics: request rate, errors and duration (RED) of spans, in event-time windows, as OTLP metrics.

Names, attributes and defaults are those of the OpenTelemetry Collector's ``spanmetrics`` connector, so that its
dashboards work unchanged:

* ``traces.span.metrics.calls``, a monotonic sum of spans; errors are its points with ``status.code`` =
  ``STATUS_CODE_ERROR``;
* ``traces.span.metrics.duration``, a histogram of span durations with count, sum, min, max;
* if asked for, ``traces.span.metrics.events``, a monotonic sum of span events.

All have the attributes ``service.name``, ``span.name``, ``span.kind`` (``SPAN_KIND_SERVER`` ...), ``status.code``
(``STATUS_CODE_UNSET`` ...) and the dimensions asked for; a resource holds ``service.name`` and belongs to the tenant.
Where this operator differs from the connector: it aggregates in windows of *event time*, by the time a span **ended**
(the moment it is exported, so that long spans are not late), not in intervals of arrival; a resource without
``service.name`` counts as ``unknown_service`` (semantic conventions, "Service") instead of being left out.

What crosses to the worker that keeps the windows of a key are partial aggregates; within a process batches go as they
are (`telflow.span_metrics.rows`). Time, lateness and what is refused: `telflow.windows`. A series belongs to one key of
the stream: partition by tenant or by anything that does not split one series over several keys.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import bytewax.operators as op
from bytewax.dataflow import operator
from bytewax.operators import KeyedStream

from telflow.accounting import LEDGER, Ledger
from telflow.batch import TelemetryBatch
from telflow.schema import Signal
from telflow.span_metrics import CrossedPart, Dimension, SpanMetrics, SpanMetricsSettings, SpanPart, SpanReader
from telflow.window_logic import WindowLogic

__all__ = ["Dimension", "SpanMetrics", "SpanMetricsOut", "SpanMetricsSettings", "span_metrics"]

_Spans: TypeAlias = TelemetryBatch | SpanPart | CrossedPart


@dataclass(frozen=True)
class SpanMetricsOut:
    """Streams of `span_metrics`.

    Attributes:
        metrics: One metrics batch per key, closed window and set of dimensions, to be sent to any OTLP backend.
        late: With `late="side_output"`: the spans refused because of their time, whole. Counted as dropped already.
    """

    metrics: KeyedStream[TelemetryBatch]
    late: KeyedStream[TelemetryBatch]


@operator
def span_metrics(
    step_id: str,
    up: KeyedStream[TelemetryBatch],
    settings: SpanMetricsSettings,
    clock: Callable[[], int] = time.time_ns,
    ledger: Ledger = LEDGER,
) -> SpanMetricsOut:
    """Aggregate spans into request, error and duration metrics per event-time window.

    State is kept per key and survives restarts and changes of the number of workers. Spans refused because of their
    time are counted in the ledger as dropped (reasons `late` and `ahead of clock`), points made as derived.

    Args:
        step_id: Unique ID.
        up: Keyed batches; those of other signals are ignored.
        settings: See `SpanMetricsSettings`.
        clock: System time in Unix nanoseconds.
        ledger: Where outcomes are counted.

    Returns:
        The metrics, and the spans that came too late.

    >>> from bytewax.dataflow import Dataflow
    >>> from bytewax.testing import TestingSink, TestingSource, run_main
    >>> out: list[tuple[str, TelemetryBatch]] = []
    >>> flow = Dataflow("example")
    >>> spans = op.input("spans", flow, TestingSource([("acme", TelemetryBatch.empty(Signal.TRACES))]))
    >>> red = span_metrics("red", spans, SpanMetricsSettings(window="1m", emit_on_eof=True))
    >>> op.output("metrics", red.metrics, TestingSink(out))
    >>> run_main(flow)
    """
    reader = SpanReader(settings)

    def take(items: list[tuple[str, TelemetryBatch]]) -> list[tuple[str, _Spans]]:
        now = clock()
        return [
            # Late spans leave whole, so whole spans go where it is known that they are late.
            (key, batch if settings.late == "side_output" else SpanPart(batch, reader, now))
            for key, batch in items
            if batch.signal is Signal.TRACES and batch.num_rows
        ]

    def build(state: dict[str, Any] | None) -> WindowLogic[_Spans]:
        return WindowLogic(
            step_id, SpanMetrics(settings), state, emit_on_eof=settings.emit_on_eof, clock=clock, ledger=ledger
        )

    out = op.stateful_batch("window", op.flat_map_batch("spans", up, take), build)
    metrics = op.filter_value("metrics", out, lambda batch: batch.signal is Signal.METRICS)
    late = op.filter_value("late", out, lambda batch: batch.signal is Signal.TRACES)
    return SpanMetricsOut(metrics, late)
