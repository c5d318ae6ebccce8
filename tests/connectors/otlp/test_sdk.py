"""The real OpenTelemetry Python SDK through receiver, dataflow and exporter: nothing lost, nothing altered.

Each SDK object goes to two exporters: one sends straight to a null server, the other to a receiver whose dataflow
exports to a second null server. What the two null servers got must mean the same, field by field.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from typing import Any

import bytewax.operators as op
import pytest
from bytewax.dataflow import Dataflow
from bytewax.testing import run_main
from opentelemetry._logs import SeverityNumber
from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter as GrpcLogExporter
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter as GrpcMetricExporter
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcSpanExporter
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter as HttpLogExporter
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter as HttpMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpSpanExporter
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.metrics.view import ExponentialBucketHistogramAggregation, View
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Link, SpanKind, Status, StatusCode
from opentelemetry.util.types import AnyValue

from connectors.intake_source import IntakeSource
from connectors.otlp import NullOtlpServer, OtlpExporterSettings, OtlpReceiver, OtlpReceiverSettings, OtlpSink
from connectors.otlp.settings import GrpcServerSettings, HttpServerSettings
from telflow import Signal
from telflow.accounting import Balance, Ledger
from telflow.delivery.intake import MemoryIntake
from tests.oracle import REQUESTS, normal_form

RESOURCE = Resource.create({"service.name": "shop", "service.version": "1.2", "host.cpus": [1, 2], "canary": True})
ANY = "127.0.0.1:0"
Exporters = Callable[[int, int], Any]


def _spans(make: Exporters, ports: Sequence[tuple[int, int]]) -> int:
    provider = TracerProvider(resource=RESOURCE)
    for pair in ports:
        provider.add_span_processor(BatchSpanProcessor(make(*pair)))
    tracer = provider.get_tracer("shop.checkout", "3.1", "https://opentelemetry.io/schemas/1.37.0", {"scope": "yes"})
    with tracer.start_as_current_span("checkout", kind=SpanKind.SERVER) as parent:
        parent.set_attributes({"text": "grüße 🍵", "none": "", "int": -(2**63), "double": 1e-300, "bool": False})
        parent.set_attributes({"ints": [1, 2], "doubles": [0.5], "bools": [True], "texts": ["a", ""]})
        parent.add_event("cart read", {"items": 3}, timestamp=1_700_000_000_000_000_001)
        for number in range(600):
            link = Link(parent.get_span_context(), {"why": number})
            with tracer.start_as_current_span(f"step {number}", kind=SpanKind.CLIENT, links=[link]) as span:
                if number % 7 == 0:
                    span.record_exception(ValueError("no stock"))
                    span.set_status(Status(StatusCode.ERROR, "no stock"))
    provider.shutdown()
    return 601


def _log_records(make: Exporters, ports: Sequence[tuple[int, int]]) -> int:
    provider = LoggerProvider(resource=RESOURCE)
    for pair in ports:
        provider.add_log_record_processor(BatchLogRecordProcessor(make(*pair)))
    logger = provider.get_logger("shop.audit", "1", attributes={"scope": 1})
    bodies: list[Any] = ["text", "", 7, 0.25, True, b"\x00\xff", ["a", 1, None], {"map": {"of": [{"maps": 1}]}}, None]
    for number in range(600):
        logger.emit(
            timestamp=1_700_000_000_000_000_000 + number,
            observed_timestamp=1_700_000_000_000_000_009,
            severity_number=SeverityNumber.WARN,
            severity_text="WARN",
            body=bodies[number % len(bodies)],
            attributes={"number": number, "nested": {"list": [1, "two", {"three": 3.0}]}},
            event_name="order.placed" if number % 2 else None,
        )
    provider.shutdown()
    return 600


def _data_points(make: Exporters, ports: Sequence[tuple[int, int]]) -> int:
    reader = InMemoryMetricReader()
    views = [View(instrument_name="latency.exp", aggregation=ExponentialBucketHistogramAggregation())]
    provider = MeterProvider([reader], RESOURCE, views=views)
    meter = provider.get_meter("shop.meter", "2")
    counter = meter.create_counter("orders", "{order}", "Orders placed")
    balance = meter.create_up_down_counter("stock")
    gauge = meter.create_gauge("temperature", "Cel")
    histograms = [meter.create_histogram("latency", "ms"), meter.create_histogram("latency.exp", "ms")]
    for number in range(200):
        series: dict[str, AnyValue] = {"region": f"r{number % 20}", "tier": number % 3}
        counter.add(number, series)
        balance.add(-number, series)
        gauge.set(number / 3, series)
        for histogram in histograms:
            histogram.record(number * 1.5, series)
    data = reader.get_metrics_data()  # collected once, so that both exporters send the same
    assert data is not None
    for pair in ports:
        exporter = make(*pair)
        assert exporter.export(data).name == "SUCCESS"
        exporter.shutdown()
    provider.shutdown()
    return 5 * 60


CASES: dict[str, tuple[Signal, Callable[..., int], Exporters]] = {
    "grpc-traces": (Signal.TRACES, _spans, lambda g, _: GrpcSpanExporter(f"127.0.0.1:{g}", insecure=True)),
    "grpc-metrics": (Signal.METRICS, _data_points, lambda g, _: GrpcMetricExporter(f"127.0.0.1:{g}", insecure=True)),
    "grpc-logs": (Signal.LOGS, _log_records, lambda g, _: GrpcLogExporter(f"127.0.0.1:{g}", insecure=True)),
    "http-traces": (Signal.TRACES, _spans, lambda _, h: HttpSpanExporter(f"http://127.0.0.1:{h}/v1/traces")),
    "http-metrics": (
        Signal.METRICS,
        _data_points,
        lambda _, h: HttpMetricExporter(f"http://127.0.0.1:{h}/v1/metrics", compression=Compression.Gzip),
    ),
    "http-logs": (
        Signal.LOGS,
        _log_records,
        lambda _, h: HttpLogExporter(f"http://127.0.0.1:{h}/v1/logs", compression=Compression.Deflate),
    ),
}


@pytest.mark.parametrize("out", ["grpc", "http/protobuf"])
@pytest.mark.parametrize("case", list(CASES))
def test_the_sdk_delivers_the_same_through_telflow_as_directly(
    case: str, out: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Both ways carry the same records with every field, and the ledger closes with nothing in flight."""
    signal, send, make = CASES[case]
    ledger, intake = Ledger(), MemoryIntake()
    receiver = OtlpReceiver(
        OtlpReceiverSettings(grpc=GrpcServerSettings(endpoint=ANY), http=HttpServerSettings(endpoint=ANY)),
        intake,
        ledger=ledger,
    )
    with NullOtlpServer(keep=True) as direct, NullOtlpServer(keep=True) as behind:
        endpoint = f"127.0.0.1:{behind.grpc_port if out == 'grpc' else behind.http_port}"
        settings = OtlpExporterSettings.model_validate({"endpoint": endpoint, "protocol": out})
        ports = receiver.start()
        sent: list[int] = []

        def run_sender() -> None:
            try:
                to = [(direct.grpc_port, direct.http_port), (ports.grpc or 0, ports.http or 0)]
                sent.append(send(make, to))
            finally:
                receiver.stop()
                intake.close()

        flow = Dataflow("through")
        up = op.key_on("key", op.input("in", flow, IntakeSource(intake)), lambda _: "k")
        op.output("out", up, OtlpSink(settings, ledger=ledger))
        sender = threading.Thread(target=run_sender)
        sender.start()
        run_main(flow)
        sender.join()
    count = sent[0]
    assert ledger.balance() == {("", signal): Balance(received=count, delivered=count)}
    assert _meaning(behind, signal) == _meaning(direct, signal)
    assert sum(map(len, _meaning(direct, signal).values())) == count
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


def _meaning(server: NullOtlpServer, signal: Signal) -> dict[tuple[bytes, bytes, bytes], list[bytes]]:
    """All that arrived as one request; batches may arrive in any order."""
    whole: Any = REQUESTS[signal]()
    for request in server.kept:
        assert request.signal is signal
        whole.MergeFromString(request.payload)
    return {place: sorted(records) for place, records in normal_form(whole, signal).items()}
