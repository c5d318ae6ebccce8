"""A real Prometheus takes what we send: numbers by PromQL equal the reference, in order, through failures."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.metrics.v1.metrics_pb2 import AGGREGATION_TEMPORALITY_CUMULATIVE as CUMULATIVE

from connectors.prometheus import PrometheusExporterSettings, PrometheusSink
from connectors.prometheus.transport import PrometheusTransport
from telflow.accounting import Ledger
from telflow.batch import TelemetryBatch
from telflow.codec import decode, encode
from telflow.delivery.log import Durability, Log
from telflow.delivery.transport import Answer, Verdict
from telflow.schema import Signal
from tests.delivery import outcomes
from tests.kafka_broker import free_ports
from tests.prometheus_server import Prometheus, needs_prometheus, run_prometheus

pytestmark = needs_prometheus


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """One for the tests of this file, whose metrics have names of their own."""
    [port] = free_ports(1)
    with run_prometheus(tmp_path_factory.mktemp("prometheus"), port) as running:
        yield running


NOW_S = int(time.time()) // 10 * 10


def gauges(name: str, *values: tuple[int, int], of: str = "") -> TelemetryBatch:
    """Points of a gauge: (seconds after the beginning, value); `of` is an attribute."""
    request = ExportMetricsServiceRequest()
    metric = request.resource_metrics.add().scope_metrics.add().metrics.add(name=name)
    for at_s, value in values:
        point = metric.gauge.data_points.add(time_unix_nano=(NOW_S + at_s) * 10**9, as_int=value)
        point.attributes.add(key="of").value.string_value = of or f"v{value}"
    return decode(request.SerializeToString(), Signal.METRICS)


def send(transport: PrometheusTransport, batch: TelemetryBatch) -> Answer:
    [(route, part)] = transport.split(batch)
    return transport.send_to(route, Signal.METRICS, encode(part))


def samples(server: Prometheus, name: str) -> list[tuple[int, float]]:
    """All samples of the series of a name: seconds after the beginning, and value."""
    found = server.ask("query", query=f"{name}[1h]", time=NOW_S + 600)["result"]
    rows = [pair for entry in found for pair in entry["values"]]
    return sorted((round(at_s - NOW_S), float(value)) for at_s, value in rows)


def test_a_refused_sample_takes_no_others_along(server: Prometheus) -> None:
    """What came before the newest of its series is refused by itself, counted, and all the rest is taken."""
    transport = PrometheusTransport(PrometheusExporterSettings(endpoint=server.write_url))
    assert send(transport, gauges("apart", (10, 1), of="a")).rejected == 0
    late = TelemetryBatch.concat([gauges("apart", *[(20, n) for n in range(20)]), gauges("apart", (5, 3), of="a")])
    answer = send(transport, late)
    assert (answer.verdict, answer.rejected) == (Verdict.ACCEPTED, 1)
    assert samples(server, "apart") == [(10, 1.0), *((20, float(n)) for n in range(20))]
    assert send(transport, gauges("apart", (4, 3), of="a")).verdict is Verdict.REFUSED
    assert send(transport, gauges("apart", (3, 3), (4, 4), of="a")).verdict is Verdict.REFUSED
    transport.close()


def test_what_arrived_may_come_again(server: Prometheus) -> None:
    """A crash repeats the last request: the same sample at the same time is no error."""
    transport = PrometheusTransport(PrometheusExporterSettings(endpoint=server.write_url))
    for _ in range(2):
        answer = send(transport, gauges("again", (10, 1)))
        assert (answer.verdict, answer.rejected) == (Verdict.ACCEPTED, 0)
    assert samples(server, "again") == [(10, 1.0)]
    transport.close()


def test_exponential_histograms_become_native_ones(server: Prometheus) -> None:
    """Count, sum, and a quantile from its buckets; a scale finer than Prometheus has, merged."""
    request = ExportMetricsServiceRequest()
    metric = request.resource_metrics.add().scope_metrics.add().metrics.add(name="native", unit="s")
    metric.exponential_histogram.aggregation_temporality = CUMULATIVE
    for scale, label in ((3, "coarse"), (12, "fine")):
        point = metric.exponential_histogram.data_points.add(
            time_unix_nano=NOW_S * 10**9, scale=scale, count=100, sum=800
        )
        point.attributes.add(key="of").value.string_value = label
        # All values lie between 8 and 8 * 2 ** (1 / 8).
        point.positive.offset = 3 * 2**scale
        share = 2 ** (scale - 3)
        point.positive.bucket_counts.extend([0] * share)
        point.positive.bucket_counts[0] = 100
    transport = PrometheusTransport(PrometheusExporterSettings(endpoint=server.write_url))
    assert send(transport, decode(request.SerializeToString(), Signal.METRICS)).rejected == 0
    transport.close()
    for label in ("coarse", "fine"):
        assert server.value(f'histogram_count(native_seconds{{of="{label}"}})', NOW_S + 1) == 100
        assert server.value(f'histogram_sum(native_seconds{{of="{label}"}})', NOW_S + 1) == 800
        median = server.value(f'histogram_quantile(0.5, native_seconds{{of="{label}"}})', NOW_S + 1)
        assert median is not None
        assert 8 <= median <= 8 * 2 ** (1 / 8)


def test_exemplars_lead_to_traces(server: Prometheus) -> None:
    """At the bucket that the value lies in, with the trace's identifier."""
    request = ExportMetricsServiceRequest()
    metric = request.resource_metrics.add().scope_metrics.add().metrics.add(name="exemplary")
    metric.histogram.aggregation_temporality = CUMULATIVE
    point = metric.histogram.data_points.add(
        time_unix_nano=NOW_S * 10**9, count=1, explicit_bounds=[1, 2], bucket_counts=[0, 1, 0]
    )
    point.exemplars.add(time_unix_nano=NOW_S * 10**9, as_double=1.5, trace_id=b"\x0a" * 16, span_id=b"\x0b" * 8)
    transport = PrometheusTransport(PrometheusExporterSettings(endpoint=server.write_url))
    assert send(transport, decode(request.SerializeToString(), Signal.METRICS)).rejected == 0
    transport.close()

    def exemplars() -> Any:
        return server.ask("query_exemplars", query="exemplary_bucket", start=NOW_S - 5, end=NOW_S + 5)

    server.wait(lambda: bool(exemplars()))
    [found] = exemplars()
    assert found["seriesLabels"]["le"] == "2"
    [exemplar] = found["exemplars"]
    assert (exemplar["labels"], float(exemplar["value"])) == ({"trace_id": "0a" * 16, "span_id": "0b" * 8}, 1.5)


def test_a_value_that_ends_is_gone(server: Prometheus) -> None:
    """A stale marker: not the last value for another five minutes."""
    transport = PrometheusTransport(PrometheusExporterSettings(endpoint=server.write_url))
    send(transport, gauges("ends", (0, 1), of="a"))
    assert server.value("ends", NOW_S + 11) == 1
    request = ExportMetricsServiceRequest()
    metric = request.resource_metrics.add().scope_metrics.add().metrics.add(name="ends")
    point = metric.gauge.data_points.add(time_unix_nano=(NOW_S + 10) * 10**9, flags=1)
    point.attributes.add(key="of").value.string_value = "a"
    send(transport, decode(request.SerializeToString(), Signal.METRICS))
    transport.close()
    assert server.value("ends", NOW_S + 9) == 1
    assert server.value("ends", NOW_S + 11) is None


def _options(url: str, **more: Any) -> PrometheusExporterSettings:
    quick = {
        "timeout": "5s",
        "retry_on_failure": {"initial_interval": "20ms", "max_interval": "100ms"},
        "circuit_breaker": {"open_duration": "50ms"},
        "shutdown_timeout": "20s",
    }
    return PrometheusExporterSettings.model_validate({"endpoint": url, **quick, **more})


def test_all_that_waited_arrives_in_order(tmp_path: Path) -> None:
    """Down, restarted, back: what two runs left on disk and what came later is all there, and nothing overtook."""
    [port] = free_ports(1)
    options = _options(f"http://127.0.0.1:{port}/api/v1/write", shutdown_timeout="100ms")
    ledger = Ledger()
    with Log(tmp_path / "queues.db", durability=Durability.OS, min_free_bytes=0) as log:
        part = PrometheusSink(options, ledger=Ledger(), log=log).build_part("step", "prometheus-0", None)
        for number in range(5):
            part.write_batch([gauges("waited", (10 * number, number), of="a")])
        state = part.snapshot()
        part.close()
        options = _options(options.endpoint)
        part = PrometheusSink(options, ledger=ledger, log=log).build_part("step", "prometheus-0", state)
        for number in range(5, 10):
            part.write_batch([gauges("waited", (10 * number, number), of="a")])
        part.snapshot()
        with run_prometheus(tmp_path / "prometheus", port) as server:
            part.write_batch([gauges("waited", (100, 10), of="a")])
            part.snapshot()
            server.wait(lambda: len(samples(server, "waited")) == 11)
            part.close()
            assert samples(server, "waited") == [(10 * n, float(n)) for n in range(11)]
    counted = outcomes(ledger)
    assert {key[0]: n for key, n in counted.items() if key[0] != "derived"} == {"delivered": 11}
