"""sum_values: sums of a numeric attribute of spans, span events, data points and log records, as metrics.

Options are those of the OpenTelemetry Collector's ``sum`` connector; what differs is said in `operators.count`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Annotated

from bytewax.dataflow import Stream, operator
from bytewax.operators import KeyedStream
from pydantic import Field
from typing_extensions import override

from telflow.accounting import LEDGER, Ledger
from telflow.aggregation import Item, MetricName, MetricSelection, Plan, ReadySettings, Sum
from telflow.aggregation.steps import measured_metrics
from telflow.batch import TelemetryBatch
from telflow.fields import FieldRef

__all__ = ["SumMetric", "SumSettings", "sum_values"]

_SECTIONS = (Item.SPANS, Item.SPAN_EVENTS, Item.DATA_POINTS, Item.LOGS)


class SumMetric(MetricSelection):
    """A metric that adds up."""

    source_attribute: Annotated[str, Field(min_length=1)]
    """Attribute that holds the number: an integer, a double, or text that is one. Anything else adds nothing."""
    description: str = ""
    """Description of the metric."""
    unit: str = ""
    """Unit of the metric, such as `By`."""
    monotonic: bool = True
    """Whether the numbers are never negative, so that the metric is a counter."""


class SumSettings(ReadySettings):
    """Options of `sum_values`."""

    spans: Mapping[MetricName, SumMetric] = {}
    """Metrics of spans, by name."""
    span_events: Mapping[MetricName, SumMetric] = {}
    """Metrics of events of spans, each when its span ended."""
    data_points: Mapping[MetricName, SumMetric] = {}
    """Metrics of data points."""
    logs: Mapping[MetricName, SumMetric] = {}
    """Metrics of log records."""

    @override
    def plans(self) -> list[Plan]:
        return [
            self.plan(item, name, _measure(metric), metric)
            for item in _SECTIONS
            for name, metric in getattr(self, item.value).items()
        ]


def _measure(metric: SumMetric) -> Sum:
    number = FieldRef(name=metric.source_attribute, source="attribute", parse=True)
    return Sum(of=number, monotonic=metric.monotonic, description=metric.description, unit=metric.unit)


@operator
def sum_values(
    step_id: str,
    up: Stream[TelemetryBatch],
    settings: SumSettings,
    clock: Callable[[], int] = time.time_ns,
    ledger: Ledger = LEDGER,
) -> KeyedStream[TelemetryBatch]:
    """Add up an attribute of records by resource and attributes, in windows of event time.

    State is kept per tenant, survives restarts and changes of the number of workers, and is bounded.

    Args:
        step_id: Unique ID.
        up: Batches of any signal.
        settings: See `SumSettings`.
        clock: System time in Unix nanoseconds.
        ledger: Where points are counted (derived), and refused records (dropped, `late` and `ahead of clock`).

    Returns:
        Sums for any OTLP backend, by tenant.

    >>> SumSettings.model_validate({"logs": {"bytes.sent": {"source_attribute": "size"}}}).plans()[0].name
    'bytes.sent'
    """
    return measured_metrics(up, settings.plans(), step_id=step_id, clock=clock, ledger=ledger)
