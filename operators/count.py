"""count_records: how many spans, span events, metrics, data points and log records there are, as metrics.

Options and names are those of the OpenTelemetry Collector's ``count`` connector. What differs: counts are those of
windows of event time, not of the requests that happened to arrive; conditions are stated as elsewhere in telflow.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Self

from bytewax.dataflow import Stream, operator
from bytewax.operators import KeyedStream
from pydantic import model_validator
from typing_extensions import override

from telflow.accounting import LEDGER, Ledger
from telflow.aggregation import Count, Item, MetricName, MetricSelection, Plan, ReadySettings
from telflow.aggregation.steps import measured_metrics
from telflow.batch import TelemetryBatch

__all__ = ["CountMetric", "CountSettings", "count_records"]


class CountMetric(MetricSelection):
    """A metric that counts."""

    description: str = ""
    """Description of the metric."""
    unit: str = ""
    """Unit of the metric, such as `{span}`."""


def _default(name: str, of: str) -> dict[str, CountMetric]:
    return {name: CountMetric(description=f"The number of {of} observed.")}


class CountSettings(ReadySettings):
    """Options of `count_records`. A section that is given replaces its default metric; an empty one counts nothing.

    >>> CountSettings.model_validate({"spans": {}, "span_events": {}, "metrics": {}, "data_points": {}}).plans()[0].name
    'log.record.count'
    """

    spans: Mapping[MetricName, CountMetric] = _default("trace.span.count", "spans")
    """Metrics that count spans, by name."""
    span_events: Mapping[MetricName, CountMetric] = _default("trace.span.event.count", "span events")
    """Metrics that count events of spans, each when its span ended; attributes are those of the event."""
    metrics: Mapping[MetricName, CountMetric] = _default("metric.count", "metrics")
    """Metrics that count metrics: runs of data points of one metric. They have no attributes."""
    data_points: Mapping[MetricName, CountMetric] = _default("metric.datapoint.count", "data points")
    """Metrics that count data points of metrics."""
    logs: Mapping[MetricName, CountMetric] = _default("log.record.count", "log records")
    """Metrics that count log records."""

    @override
    def plans(self) -> list[Plan]:
        return [
            self.plan(item, name, Count(description=metric.description, unit=metric.unit), metric)
            for item in Item
            for name, metric in getattr(self, item.value).items()
        ]

    @model_validator(mode="after")
    def _metrics_have_none(self) -> Self:
        for name, metric in self.metrics.items():
            if metric.attributes:
                raise ValueError(f"metrics: expected none with attributes, which data points have, got some of {name}")
        return self


@operator
def count_records(
    step_id: str,
    up: Stream[TelemetryBatch],
    settings: CountSettings | None = None,
    clock: Callable[[], int] = time.time_ns,
    ledger: Ledger = LEDGER,
) -> KeyedStream[TelemetryBatch]:
    """Count records by resource and attributes, in windows of event time.

    State is kept per tenant, survives restarts and changes of the number of workers, and is bounded.

    Args:
        step_id: Unique ID.
        up: Batches of any signal.
        settings: See `CountSettings`; without, all sections count with their default metric.
        clock: System time in Unix nanoseconds.
        ledger: Where points are counted (derived), and refused records (dropped, `late` and `ahead of clock`).

    Returns:
        Monotonic sums for any OTLP backend, by tenant.

    >>> import bytewax.operators as op
    >>> from bytewax.dataflow import Dataflow
    >>> from bytewax.testing import TestingSink, TestingSource, run_main
    >>> from telflow import Signal
    >>> flow = Dataflow("example")
    >>> spans = op.input("spans", flow, TestingSource([TelemetryBatch.empty(Signal.TRACES)]))
    >>> op.output("metrics", count_records("count", spans), TestingSink([]))
    >>> run_main(flow)
    """
    plans = (settings or CountSettings()).plans()
    return measured_metrics(up, plans, step_id=step_id, clock=clock, ledger=ledger)
