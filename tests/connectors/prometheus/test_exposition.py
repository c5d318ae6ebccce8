"""What is to be scraped: the newest value of every series, as another reader of the format understands it."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import Any

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.metrics.v1.metrics_pb2 import AGGREGATION_TEMPORALITY_CUMULATIVE as CUMULATIVE
from opentelemetry.proto.metrics.v1.metrics_pb2 import AGGREGATION_TEMPORALITY_DELTA as DELTA
from prometheus_client.parser import text_string_to_metric_families

from connectors.prometheus.exposition import ExposeSettings, ExpositionSink
from telflow.accounting import Ledger
from telflow.batch import TelemetryBatch
from telflow.codec import decode
from telflow.schema import Signal
from tests.delivery import outcomes
from tests.spans import EPOCH, Span, spans_batch

T0_NANO = 1_750_000_000_000_000_000


def _batch(request: Any, tenant: str | None = None) -> TelemetryBatch:
    return decode(request.SerializeToString(), Signal.METRICS, tenant=tenant)


def _read(sink: ExpositionSink) -> dict[str, tuple[str, dict[Any, float]]]:
    """Type and samples of each family; each family and each sample stands there once."""
    found: dict[str, tuple[str, dict[Any, float]]] = {}
    for family in text_string_to_metric_families(sink.render().decode()):
        assert family.name not in found
        samples = {(s.name, tuple(sorted(s.labels.items()))): s.value for s in family.samples}
        assert len(samples) == len(family.samples)
        found[family.name] = (family.type, samples)
    return found


def _histogram(metrics: Any, *counts: int, at: int = 0) -> Any:
    metric = metrics.add(name="took", unit="s", description='How "long"\nit took.')
    metric.histogram.aggregation_temporality = CUMULATIVE
    point = metric.histogram.data_points.add(
        time_unix_nano=T0_NANO + at, count=sum(counts), sum=1.5, explicit_bounds=[0.5, 2], bucket_counts=counts
    )
    point.attributes.add(key="path").value.string_value = 'a\\b"c\nd'
    return point


def test_the_newest_values_are_shown() -> None:
    """Counter, gauge and histogram under their families; a later value takes the place of an earlier one."""
    sink = ExpositionSink(ExposeSettings(), ledger=Ledger())
    for number in (1, 2):
        request = ExportMetricsServiceRequest()
        of_resource = request.resource_metrics.add()
        for key, value in (("service.name", "shop"), ("host.name", "h")):
            of_resource.resource.attributes.add(key=key).value.string_value = value
        metrics = of_resource.scope_metrics.add().metrics
        _histogram(metrics, number, 2, 3)
        calls = metrics.add(name="calls").sum
        calls.aggregation_temporality, calls.is_monotonic = CUMULATIVE, True
        calls.data_points.add(time_unix_nano=T0_NANO, as_int=10 * number)
        metrics.add(name="temp").gauge.data_points.add(time_unix_nano=T0_NANO, as_double=math.inf)
        sink.show(_batch(request, "acme"))
    who = (("job", "shop"), ("tenant", "acme"))
    path = ("path", 'a\\b"c\nd')
    assert _read(sink) == {
        "calls": ("counter", {("calls_total", who): 20.0}),
        "temp": ("gauge", {("temp", who): math.inf}),
        "target_info": ("gauge", {("target_info", (("host_name", "h"), *who)): 1.0}),
        "took_seconds": (
            "histogram",
            {
                ("took_seconds_bucket", (who[0], ("le", "0.5"), path, who[1])): 2.0,
                ("took_seconds_bucket", (who[0], ("le", "2"), path, who[1])): 4.0,
                ("took_seconds_bucket", (who[0], ("le", "+Inf"), path, who[1])): 7.0,
                ("took_seconds_sum", (who[0], path, who[1])): 1.5,
                ("took_seconds_count", (who[0], path, who[1])): 7.0,
            },
        ),
    }
    assert b'# HELP took_seconds How "long"\\nit took.\n' in sink.render()


def test_what_ends_or_is_old_is_gone() -> None:
    """A stale point ends its series at once; the others go when nothing new came for `metric_expiration`."""
    now_s = [100.0]
    sink = ExpositionSink(
        ExposeSettings(metric_expiration=timedelta(seconds=60)), ledger=Ledger(), clock=lambda: now_s[0]
    )
    request = ExportMetricsServiceRequest()
    metrics = request.resource_metrics.add().scope_metrics.add().metrics
    _histogram(metrics, 1, 2, 3)
    metrics.add(name="temp").gauge.data_points.add(time_unix_nano=T0_NANO, as_int=1)
    sink.show(_batch(request))
    assert _read(sink).keys() == {"took_seconds", "temp"}
    metrics[0].histogram.data_points[0].flags = 1
    del metrics[1]
    sink.show(_batch(request))
    assert _read(sink).keys() == {"temp"}
    now_s[0] += 60
    assert sink.render() == b""


def test_what_text_has_no_form_for_is_counted() -> None:
    """Exponential histograms, delta points, and records that are no metrics."""
    ledger = Ledger()
    sink = ExpositionSink(ExposeSettings(), ledger=ledger)
    part = sink.build_part("expose", "exposition", None)
    request = ExportMetricsServiceRequest()
    metrics = request.resource_metrics.add().scope_metrics.add().metrics
    exponential = metrics.add(name="e").exponential_histogram
    exponential.aggregation_temporality = CUMULATIVE
    exponential.data_points.add(time_unix_nano=T0_NANO, count=1)
    delta = metrics.add(name="d").sum
    delta.aggregation_temporality = DELTA
    delta.data_points.add(time_unix_nano=T0_NANO, as_int=1)
    metrics.add(name="temp").gauge.data_points.add(time_unix_nano=T0_NANO, as_int=1)
    part.write_batch([_batch(request), spans_batch([Span(EPOCH)])])
    assert part.snapshot() is None
    assert outcomes(ledger) == {
        ("dropped", "", "exponential histogram in text"): 1,
        ("dropped", "", "delta temporality"): 1,
        ("dropped", "acme", "not metrics"): 1,
        ("delivered", "", ""): 1,
    }
    assert _read(sink).keys() == {"temp"}


def test_the_memory_is_emptied_when_it_is_full(monkeypatch: Any) -> None:
    """What still comes is shown again."""
    monkeypatch.setattr("connectors.prometheus.series_labels._MOST_SERIES", 10)
    sink = ExpositionSink(ExposeSettings(), ledger=Ledger())
    for first in (0, 8):
        request = ExportMetricsServiceRequest()
        metric = request.resource_metrics.add().scope_metrics.add().metrics.add(name="g")
        for number in range(first, first + 8):
            point = metric.gauge.data_points.add(time_unix_nano=T0_NANO, as_int=number)
            point.attributes.add(key="n").value.int_value = number
        sink.show(_batch(request))
    (_, samples) = _read(sink)["g"]
    assert sorted(samples.values()) == list(range(8, 16))
    assert list(sink._families) == ["g"]
    assert len(sink._targets) <= 1
