"""Seeded OTLP payloads for the benchmarks: what a fleet of HTTP services sends, about 420 bytes a record.

`traces`, `logs` and `metrics` return one Export*ServiceRequest as protobuf bytes: 8192 records over 8 resources (the
records of a resource stand together, as an SDK or a Collector sends them), 10 attributes a record with the names of the
semantic conventions and the number of different values such attributes have, events on failed spans.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Iterator

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality, Exemplar, Metric
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from telflow.schema import Signal

__all__ = ["RECORDS", "SMALL", "logs", "metrics", "payload", "traces"]

RECORDS = 8192
"""Records of a large request."""
SMALL = 512
"""Records of a small request: what an SDK's batch processor sends."""

_START = 1_750_000_000_000_000_000
_ROUTES = ["/cart", "/cart/{id}", "/checkout", "/products", "/products/{sku}", "/users/{id}", "/login", "/search"]
_METHODS = ["GET", "GET", "GET", "POST", "PUT", "DELETE"]
_AGENTS = [f"Mozilla/5.0 (X11; Linux x86_64) shop/{n}.4" for n in range(12)]
_SERVICES = ["frontend", "cart", "checkout", "catalogue", "payment", "shipping", "accounts", "search"]
_PLACES = ["berlin", "paris", "oslo", "lima", "quito", "perth", "delhi", "osaka"]
_MESSAGES = [
    "order {n} placed in {ms} ms",
    "cache miss for key product:{n}",
    "retrying call to payment, attempt {n}",
    "user session {n} expired after {ms} ms",
    "connection pool: {n} in use, {ms} ms waited",
]


def payload(signal: Signal, records: int = RECORDS, seed: int = 7) -> bytes:
    """The payload of any signal."""
    builders: dict[Signal, Callable[[int, int], bytes]] = {
        Signal.TRACES: traces,
        Signal.LOGS: logs,
        Signal.METRICS: metrics,
    }
    return builders[signal](records, seed)


@functools.cache
def traces(records: int = RECORDS, seed: int = 7) -> bytes:
    """`records` spans, one in twenty failed with an exception event, one in fifty with a link."""
    random_ = random.Random(seed)
    request = ExportTraceServiceRequest()
    for resource, scope, share in _envelopes(records):
        outer = request.resource_spans.add(resource=resource, schema_url=_SCHEMA_URL)
        inner = outer.scope_spans.add(scope=scope)
        for _ in range(share):
            _span(random_, inner.spans.add())
    return request.SerializeToString()


@functools.cache
def logs(records: int = RECORDS, seed: int = 7) -> bytes:
    """`records` log records with a sentence as body, most of them belonging to a span."""
    random_ = random.Random(seed)
    request = ExportLogsServiceRequest()
    for resource, scope, share in _envelopes(records):
        inner = request.resource_logs.add(resource=resource, schema_url=_SCHEMA_URL).scope_logs.add(scope=scope)
        for _ in range(share):
            _log(random_, inner.log_records.add())
    return request.SerializeToString()


@functools.cache
def metrics(records: int = RECORDS, seed: int = 7) -> bytes:
    """`records` data points, 64 to a metric, of all five kinds, histograms with exemplars."""
    random_ = random.Random(seed)
    request = ExportMetricsServiceRequest()
    for resource, scope, share in _envelopes(records):
        inner = request.resource_metrics.add(resource=resource, schema_url=_SCHEMA_URL).scope_metrics.add(scope=scope)
        for number, start in enumerate(range(0, share, 64)):
            _metric(random_, inner.metrics.add(), number, min(64, share - start))
    return request.SerializeToString()


_SCHEMA_URL = "https://opentelemetry.io/schemas/1.34.0"


def _attribute(key: str, value: str | bool | float) -> KeyValue:
    match value:
        case bool():
            return KeyValue(key=key, value=AnyValue(bool_value=value))
        case int():
            return KeyValue(key=key, value=AnyValue(int_value=value))
        case float():
            return KeyValue(key=key, value=AnyValue(double_value=value))
        case _:
            return KeyValue(key=key, value=AnyValue(string_value=value))


def _envelopes(records: int) -> Iterator[tuple[Resource, InstrumentationScope, int]]:
    scope = InstrumentationScope(name="opentelemetry.instrumentation.asgi", version="0.56b0")
    for number, service in enumerate(_SERVICES):
        resource = Resource(
            attributes=[
                _attribute("service.name", service),
                _attribute("service.namespace", "shop"),
                _attribute("service.version", f"2.{number}.1"),
                _attribute("deployment.environment.name", "production"),
                _attribute("host.name", f"{service}-{number}.{_PLACES[number]}.example"),
                _attribute("k8s.pod.uid", f"{number:08x}-5b1c-4f6e-9d0a-2f6f0a9d{number:04x}"),
                _attribute("process.pid", 1000 + number),
                _attribute("telemetry.sdk.language", "python"),
            ]
        )
        yield resource, scope, records * (number + 1) // 8 - records * number // 8


def _request_attributes(random_: random.Random) -> list[KeyValue]:
    """Ten attributes of a served HTTP request: strings, integers and a boolean, few and many different values."""
    route = random_.choice(_ROUTES)
    status = random_.choice([200, 200, 200, 200, 201, 204, 302, 404, 500])
    return [
        _attribute("http.request.method", random_.choice(_METHODS)),
        _attribute("http.route", route),
        _attribute("url.path", f"{route}/{random_.randrange(100_000)}"),
        _attribute("http.response.status_code", status),
        _attribute("server.address", f"{random_.choice(_PLACES)}.example"),
        _attribute("server.port", 8443),
        _attribute("client.address", f"10.{random_.randrange(256)}.{random_.randrange(256)}.{random_.randrange(256)}"),
        _attribute("user_agent.original", random_.choice(_AGENTS)),
        _attribute("http.request.body.size", random_.randrange(60_000)),
        _attribute("app.user.authenticated", random_.random() < 0.7),
    ]


def _span(random_: random.Random, span: Span) -> None:
    start = _START + random_.randrange(60_000_000_000)
    route = random_.choice(_ROUTES)
    span.trace_id = random_.randbytes(16)
    span.span_id = random_.randbytes(8)
    if random_.random() < 0.8:
        span.parent_span_id = random_.randbytes(8)
    span.flags = 0x101
    span.name = f"{random_.choice(_METHODS)} {route}"
    span.kind = random_.choice([Span.SPAN_KIND_SERVER, Span.SPAN_KIND_CLIENT, Span.SPAN_KIND_INTERNAL])
    span.start_time_unix_nano = start
    span.end_time_unix_nano = end = start + int(random_.lognormvariate(16, 1.2))
    span.attributes.extend(_request_attributes(random_))
    if random_.random() < 0.02:
        span.links.add(trace_id=random_.randbytes(16), span_id=random_.randbytes(8), flags=0x101)
    if random_.random() < 0.05:
        span.status.CopyFrom(Status(code=Status.STATUS_CODE_ERROR, message="upstream timed out"))
        event = span.events.add(time_unix_nano=end, name="exception")
        event.attributes.append(_attribute("exception.type", "TimeoutError"))
        event.attributes.append(_attribute("exception.message", f"no answer within {random_.randrange(5000)} ms"))
        event.attributes.append(_attribute("exception.escaped", value=True))
    elif random_.random() < 0.3:
        span.status.SetInParent()


def _log(random_: random.Random, log: LogRecord) -> None:
    log.time_unix_nano = _START + random_.randrange(60_000_000_000)
    log.observed_time_unix_nano = log.time_unix_nano + random_.randrange(5_000_000)
    number, text = random_.choice([(5, "DEBUG"), (9, "INFO"), (9, "INFO"), (9, "INFO"), (13, "WARN"), (17, "ERROR")])
    log.severity_number = number  # type: ignore[assignment]
    log.severity_text = text
    message = random_.choice(_MESSAGES)
    log.body.string_value = message.format(n=random_.randrange(100_000), ms=random_.randrange(3000))
    log.attributes.extend(_request_attributes(random_))
    if random_.random() < 0.9:
        log.trace_id = random_.randbytes(16)
        log.span_id = random_.randbytes(8)
        log.flags = 1


def _exemplar(random_: random.Random, value: float) -> Exemplar:
    return Exemplar(
        time_unix_nano=_START + random_.randrange(60_000_000_000),
        as_double=value,
        trace_id=random_.randbytes(16),
        span_id=random_.randbytes(8),
    )


def _metric(random_: random.Random, metric: Metric, number: int, points: int) -> None:
    metric.name = f"http.server.request.{number}"
    metric.description = "Duration and size of the requests a server answered"
    metric.unit = "s"
    cumulative = AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE
    # Histograms, sums and gauges are most of what services send.
    kind = ["histogram", "sum", "gauge", "histogram", "sum", "gauge", "exponential_histogram", "summary"][number % 8]
    data = getattr(metric, kind)
    if kind in {"histogram", "sum", "exponential_histogram"}:
        data.aggregation_temporality = cumulative
    if kind == "sum":
        data.is_monotonic = True
    for _ in range(points):
        time = _START + random_.randrange(60_000_000_000)
        point = data.data_points.add(start_time_unix_nano=_START, time_unix_nano=time)
        point.attributes.extend(_request_attributes(random_))
        match kind:
            case "sum":
                point.as_int = random_.randrange(1_000_000)
            case "gauge":
                point.as_double = random_.random()
            case "histogram":
                counts = [random_.randrange(1000) for _ in range(15)]
                point.count, point.sum = sum(counts), random_.uniform(0, 5000)
                point.min, point.max = random_.random(), random_.uniform(5, 60)
                point.bucket_counts.extend(counts)
                point.explicit_bounds.extend(_BOUNDS)
                if random_.random() < 0.1:
                    point.exemplars.append(_exemplar(random_, random_.random()))
            case "exponential_histogram":
                counts = [random_.randrange(1000) for _ in range(20)]
                point.count, point.sum, point.scale, point.zero_count = sum(counts) + 3, 812.5, 3, 3
                point.positive.offset = -10
                point.positive.bucket_counts.extend(counts)
            case _:
                point.count, point.sum = random_.randrange(1, 1000), random_.uniform(0, 500)
                for quantile in (0.5, 0.9, 0.99):
                    point.quantile_values.add(quantile=quantile, value=random_.random())


_BOUNDS = [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0]
