"""Own metrics as a `TelemetryBatch`, to be sent over OTLP like anybody's."""

from __future__ import annotations

from collections.abc import Iterable

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality
from prometheus_client.core import Metric

from telflow import codec
from telflow.batch import TelemetryBatch
from telflow.schema import Signal

__all__ = ["OWN_SCOPE", "to_batch"]

OWN_SCOPE = "telflow.self"
"""Name of the instrumentation scope of telflow's own metrics."""


def to_batch(
    families: Iterable[Metric], *, instance: str, start_time_unix_nano: int, time_unix_nano: int
) -> TelemetryBatch:
    """Return families as cumulative sums and gauges.

    Args:
        families: The metrics.
        instance: Name of this process (`service.instance.id`).
        start_time_unix_nano: When its counters were zero.
        time_unix_nano: The moment they have these values at.

    >>> from telflow.telemetry.families import MetricNames
    >>> one = MetricNames().value("x", "A value.", 3.0)
    >>> to_batch([one], instance="a", start_time_unix_nano=1, time_unix_nano=2).column("name").to_pylist()
    ['telflow_x']
    """
    request = ExportMetricsServiceRequest()
    envelope = request.resource_metrics.add()
    for key, value in (("service.name", "telflow"), ("service.instance.id", instance)):
        envelope.resource.attributes.add(key=key).value.string_value = value
    scope = envelope.scope_metrics.add()
    scope.scope.name = OWN_SCOPE
    for family in families:
        if not family.samples:
            continue
        metric = scope.metrics.add(name=family.name, description=family.documentation)
        if family.type == "counter":
            metric.sum.is_monotonic = True
            metric.sum.aggregation_temporality = AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE
            points = metric.sum.data_points
        else:
            points = metric.gauge.data_points
        for sample in family.samples:
            point = points.add(
                start_time_unix_nano=start_time_unix_nano, time_unix_nano=time_unix_nano, as_double=sample.value
            )
            for key, value in sample.labels.items():
                point.attributes.add(key=key).value.string_value = value
    return codec.decode(request.SerializeToString(), Signal.METRICS)
