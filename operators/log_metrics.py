"""log_metrics: metrics of what log records say: a number in an attribute or in the body, as gauge, sum or histogram.

As the OpenTelemetry Collector's ``signaltometrics`` connector does for logs, in windows of event time.
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
from telflow.aggregation import AnyMeasure, Item, MetricName, MetricSelection, Plan, ReadySettings
from telflow.aggregation.steps import measured_metrics
from telflow.batch import TelemetryBatch

__all__ = ["LogMetric", "LogMetricsSettings", "log_metrics"]


class LogMetric(MetricSelection):
    """A metric made of log records."""

    measure: AnyMeasure
    """What is measured: `last` gives a gauge, `sum` and `count` a sum, `histogram` and `exponential_histogram` those.
    Its `of` says where the number is: `{name: duration_ms, parse: true}` in an attribute, also as text;
    `{name: body, pattern: "took (?P<value>[0-9.]+) ms"}` in the text of the body."""


class LogMetricsSettings(ReadySettings):
    """Options of `log_metrics`."""

    metrics: Annotated[Mapping[MetricName, LogMetric], Field(min_length=1)]
    """The metrics, by name."""

    @override
    def plans(self) -> list[Plan]:
        return [self.plan(Item.LOGS, name, metric.measure, metric) for name, metric in self.metrics.items()]


@operator
def log_metrics(
    step_id: str,
    up: Stream[TelemetryBatch],
    settings: LogMetricsSettings,
    clock: Callable[[], int] = time.time_ns,
    ledger: Ledger = LEDGER,
) -> KeyedStream[TelemetryBatch]:
    """Make metrics of log records by resource and attributes, in windows of event time.

    State is kept per tenant, survives restarts and changes of the number of workers, and is bounded.

    Args:
        step_id: Unique ID.
        up: Batches; those of other signals are ignored.
        settings: See `LogMetricsSettings`.
        clock: System time in Unix nanoseconds.
        ledger: Where points are counted (derived), and refused records (dropped, `late` and `ahead of clock`).

    Returns:
        Metrics for any OTLP backend, by tenant.

    >>> measure = {"kind": "histogram", "of": {"name": "ms", "parse": True}, "bounds": [10, 100], "unit": "ms"}
    >>> LogMetricsSettings.model_validate({"metrics": {"query.duration": {"measure": measure}}}).plans()[0].name
    'query.duration'
    """
    return measured_metrics(up, settings.plans(), step_id=step_id, clock=clock, ledger=ledger)
