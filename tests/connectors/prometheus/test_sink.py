"""The Prometheus sink at a receiver of remote write: in order, and what is not for it counted."""

from __future__ import annotations

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.metrics.v1.metrics_pb2 import AGGREGATION_TEMPORALITY_DELTA as DELTA

from connectors.prometheus import PrometheusExporterSettings, PrometheusSink
from telflow.accounting import Ledger
from telflow.batch import TelemetryBatch
from telflow.codec import decode
from telflow.schema import Signal
from tests.connectors.prometheus.receiver import receiver_of
from tests.connectors.prometheus.write_request import read
from tests.delivery import outcomes
from tests.spans import EPOCH, Span, spans_batch


def _numbers(first: int, *, delta: int = 0) -> TelemetryBatch:
    """A point of a gauge, and so many of a sum of differences."""
    request = ExportMetricsServiceRequest()
    metrics = request.resource_metrics.add().scope_metrics.add().metrics
    metrics.add(name="level").gauge.data_points.add(time_unix_nano=first * 10**9, as_int=first)
    if delta:
        changes = metrics.add(name="changes").sum
        changes.aggregation_temporality = DELTA
        for number in range(delta):
            changes.data_points.add(time_unix_nano=(first + number) * 10**9, as_int=1)
    return decode(request.SerializeToString(), Signal.METRICS)


def test_metrics_travel_in_order_over_a_repeated_request() -> None:
    """What failed is sent again before what came after it."""
    with receiver_of((503, {})) as receiver:
        settings = PrometheusExporterSettings.model_validate(
            {"endpoint": receiver.url, "target_info": False, "retry_on_failure": {"initial_interval": "10ms"}}
        )
        ledger = Ledger()
        sink = PrometheusSink(settings, partitions=2, ledger=ledger)
        assert sink.list_parts() == ["prometheus-0", "prometheus-1"]
        part = sink.build_part("step", "prometheus-0", None)
        for at_s in range(1, 6):
            part.write_batch([_numbers(at_s)])
        part.snapshot()
        part.close()
    taken = [entry for _, body in receiver.requests[1:] for entries in read(body).values() for entry in entries]
    assert taken == [(1000 * n, float(n)) for n in range(1, 6)]
    assert outcomes(ledger) == {("delivered", "", ""): 5}


def test_what_prometheus_has_no_form_for_is_counted(caplog: pytest.LogCaptureFixture) -> None:
    """Spans and differences are dropped with the reason, which is told once, with what to do; the rest is sent."""
    with receiver_of() as receiver:
        ledger = Ledger()
        settings = PrometheusExporterSettings(endpoint=receiver.url, target_info=False)
        sink = PrometheusSink(settings, ledger=ledger)
        part = sink.build_part("step", "prometheus-0", None)
        for at_s in (1, 2):
            part.write_batch([_numbers(at_s, delta=3), spans_batch([Span(EPOCH)]), TelemetryBatch.empty(Signal.LOGS)])
        part.snapshot()
        part.close()
    assert outcomes(ledger) == {
        ("dropped", "", "delta temporality"): 6,
        ("dropped", "acme", "not metrics"): 2,
        ("delivered", "", ""): 2,
    }
    assert [len(read(body)) for _, body in receiver.requests] == [1, 1]
    delta, not_metrics = [record.message for record in caplog.records if "dropped" in record.message]
    assert delta.startswith("step: dropped 3 records: delta temporality; Prometheus takes cumulative metrics")
    assert not_metrics == "step: dropped 1 records: not metrics"
