"""An example shop of three services, instrumented with the real OpenTelemetry SDK as any application would be.

`storefront` calls `checkout`, which calls `payment`; the trace context travels in W3C headers. Each service has
providers and exporters of its own: `storefront` and `checkout` export over OTLP/gRPC, `payment` over OTLP/HTTP.
Like careless real programs they put personal data where it does not belong: e-mail addresses in log bodies and
attributes, a card number in a span event, a bearer token in a header attribute.

Orders are placed at seeded moments of the minute before the start, with explicit start and end times, so that the shop
needs no real time to produce a minute of telemetry. Run as a program: ``python -m control.demo.shop --help``.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from dataclasses import asdict, dataclass, field

from opentelemetry import propagate, trace
from opentelemetry._logs import SeverityNumber
from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter as GrpcLogExporter
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter as GrpcMetricExporter
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcSpanExporter
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter as HttpLogExporter
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter as HttpMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpSpanExporter
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor, LogRecordExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricExporter, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.trace import Span, SpanKind, Status, StatusCode

__all__ = ["PERSONAL_DATA", "Sent", "Service", "main", "place_orders"]

NS_PER_MS = 1_000_000
NS_PER_S = 1_000_000_000
_FIRST = ("ada", "grace", "alan", "edsger", "barbara", "ken", "radia", "donald", "margaret", "linus")
_LAST = ("lovelace", "hopper", "turing", "dijkstra", "liskov", "thompson", "perlman", "knuth", "hamilton", "tester")
_ITEMS = ("teapot", "notebook", "lamp", "backpack", "headphones")
# Numbers the card networks publish for tests: they pass every check and belong to nobody.
_CARDS = ("4111111111111111", "5555555555554444", "378282246310005", "6011111111111117")
_DECLINED_SHARE = 0.08

PERSONAL_DATA = tuple(f"{f}.{n}@shop.example" for f in _FIRST for n in _LAST) + _CARDS
"""Every e-mail address and card number the shop may let slip."""


@dataclass
class Sent:
    """What the shop handed to the exporters.

    Attributes:
        orders: Orders placed.
        spans: Spans ended.
        log_records: Log records written.
        samples: The first personal value of each place: the place, the value, and the id (hex) of its span.
    """

    orders: int = 0
    spans: int = 0
    log_records: int = 0
    samples: dict[str, dict[str, str]] = field(default_factory=dict)

    def sample(self, place: str, value: str, span: Span) -> None:
        """Remember the first value of a place, to be looked up again behind the gateway."""
        span_id = trace.format_span_id(span.get_span_context().span_id)
        self.samples.setdefault(place, {"value": value, "span_id": span_id})


class Service:
    """One instrumented service: a tracer, a meter and a logger, exporting to one OTLP endpoint."""

    def __init__(self, name: str, grpc: str, http: str | None, sent: Sent) -> None:
        resource = Resource.create(
            {"service.name": name, "service.version": "1.4.2", "deployment.environment.name": "demo"}
        )
        spans: SpanExporter
        metrics: MetricExporter
        logs: LogRecordExporter
        if http is None:
            spans = GrpcSpanExporter(endpoint=grpc, insecure=True)
            metrics = GrpcMetricExporter(endpoint=grpc, insecure=True)
            logs = GrpcLogExporter(endpoint=grpc, insecure=True)
        else:
            spans = HttpSpanExporter(endpoint=f"{http}/v1/traces")
            metrics = HttpMetricExporter(endpoint=f"{http}/v1/metrics")
            logs = HttpLogExporter(endpoint=f"{http}/v1/logs")
        self.name = name
        self.sent = sent
        self._tracers = TracerProvider(resource=resource)
        self._tracers.add_span_processor(BatchSpanProcessor(spans, max_queue_size=65_536, max_export_batch_size=512))
        self._meters = MeterProvider([PeriodicExportingMetricReader(metrics, 60_000)], resource=resource)
        self._loggers = LoggerProvider(resource=resource)
        self._loggers.add_log_record_processor(
            BatchLogRecordProcessor(logs, max_queue_size=65_536, max_export_batch_size=512)
        )
        self.tracer = self._tracers.get_tracer("shop", "1.4.2")
        meter = self._meters.get_meter("shop", "1.4.2")
        self.requests = meter.create_counter("shop.requests", unit="{request}")
        self.duration = meter.create_histogram("shop.request.duration", unit="s")
        self._logger = self._loggers.get_logger("shop", "1.4.2")

    def span(self, name: str, kind: SpanKind, start_unix_nano: int, headers: dict[str, str] | None = None) -> Span:
        """Start a span under the caller's context, which stands in its W3C headers."""
        self.sent.spans += 1
        context = propagate.extract(headers) if headers else None
        return self.tracer.start_span(name, context=context, kind=kind, start_time=start_unix_nano)

    def log(self, span: Span, unix_nano: int, severity: SeverityNumber, body: str, **attributes: str | int) -> None:
        """Write a log record that belongs to a span."""
        self.sent.log_records += 1
        self._logger.emit(
            timestamp=unix_nano,
            context=trace.set_span_in_context(span),
            severity_number=severity,
            severity_text=severity.name,
            body=body,
            attributes={k.replace("_", "."): v for k, v in attributes.items()},
        )

    def end(self, span: Span, start_unix_nano: int, end_unix_nano: int, route: str) -> None:
        """End a span and count the request in the service's own metrics."""
        span.end(end_unix_nano)
        self.requests.add(1, {"http.route": route})
        self.duration.record((end_unix_nano - start_unix_nano) / NS_PER_S, {"http.route": route})

    def close(self) -> None:
        """Send what is buffered and stop."""
        self._tracers.shutdown()
        self._loggers.shutdown()
        self._meters.shutdown()


def _headers(span: Span) -> dict[str, str]:
    headers: dict[str, str] = {}
    propagate.inject(headers, trace.set_span_in_context(span))
    return headers


def _pay(payment: Service, headers: dict[str, str], start: int, rng: random.Random, email: str) -> tuple[int, bool]:
    """Charge a card; return when that ended and whether it worked."""
    card = rng.choice(_CARDS)
    span = payment.span("POST /charge", SpanKind.SERVER, start, headers)
    end = start + int(rng.lognormvariate(3.4, 0.5) * NS_PER_MS)
    declined = rng.random() < _DECLINED_SHARE
    span.set_attributes(
        {"http.request.method": "POST", "http.route": "/charge", "http.response.status_code": 402 if declined else 200}
    )
    if declined:
        span.add_event(
            "card.declined", {"exception.message": f"card {card} was declined", "payment.provider": "acme"}, end
        )
        span.set_status(Status(StatusCode.ERROR, f"declined for {email}"))
        payment.sent.sample("event attribute", f"card {card} was declined", span)
        payment.sent.sample("status message", f"declined for {email}", span)
        payment.log(span, end, SeverityNumber.ERROR, f"charge failed: card {card} of {email}", payment_provider="acme")
    payment.end(span, start, end, "/charge")
    return end, not declined


def _checkout(
    checkout: Service, payment: Service, *, headers: dict[str, str], start: int, rng: random.Random, email: str
) -> tuple[int, bool]:
    span = checkout.span("POST /checkout", SpanKind.SERVER, start, headers)
    span.set_attributes({"http.request.method": "POST", "http.route": "/checkout", "cart.items": rng.randint(1, 5)})
    token = "Bearer " + rng.randbytes(18).hex()
    span.set_attribute("http.request.header.authorization", [token])
    checkout.sent.sample("array in an attribute", token, span)
    paying = start + rng.randint(2, 12) * NS_PER_MS
    call = checkout.span("charge card", SpanKind.CLIENT, paying, _headers(span))
    done, paid = _pay(payment, _headers(call), paying + NS_PER_MS, rng, email)
    call.end(done + NS_PER_MS)
    end = done + rng.randint(1, 4) * NS_PER_MS
    if not paid:
        span.set_status(Status(StatusCode.ERROR))
    checkout.end(span, start, end, "/checkout")
    return end, paid


def place_orders(grpc: str, http: str, orders: int, seed: int, now_unix_nano: int) -> Sent:
    """Place `orders` orders spread over the minute before `now_unix_nano`; return what was sent once it is."""
    rng = random.Random(seed)  # noqa: S311 - a demonstration wants the same orders each time
    sent = Sent(orders=orders)
    storefront = Service("storefront", grpc, None, sent)
    checkout = Service("checkout", grpc, None, sent)
    payment = Service("payment", grpc, http, sent)
    for start in sorted(now_unix_nano - rng.randrange(2 * NS_PER_S, 60 * NS_PER_S) for _ in range(orders)):
        email = f"{rng.choice(_FIRST)}.{rng.choice(_LAST)}@shop.example"
        item = rng.choice(_ITEMS)
        span = storefront.span("POST /order", SpanKind.SERVER, start)
        span.set_attributes({"http.request.method": "POST", "http.route": "/order", "user.email": email, "item": item})
        end, paid = _checkout(
            checkout, payment, headers=_headers(span), start=start + 3 * NS_PER_MS, rng=rng, email=email
        )
        end += rng.randint(1, 5) * NS_PER_MS
        body = f"order of a {item} for {email} {'placed' if paid else 'failed'}"
        storefront.log(span, end, SeverityNumber.INFO, body)
        sent.sample("span attribute", email, span)
        sent.sample("log body", body, span)
        if not paid:
            span.set_status(Status(StatusCode.ERROR))
        storefront.end(span, start, end, "/order")
    for service in (storefront, checkout, payment):
        service.close()
    return sent


def main() -> None:
    """Run the shop once and print what was sent as one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--grpc", default="localhost:4317", help="OTLP/gRPC endpoint, host:port")
    parser.add_argument("--http", default="http://localhost:4318", help="OTLP/HTTP base address")
    parser.add_argument("--orders", type=int, default=400, help="orders to place")
    parser.add_argument("--seed", type=int, default=7, help="seed of everything random")
    options = parser.parse_args()
    sent = place_orders(options.grpc, options.http, options.orders, options.seed, time.time_ns())
    sys.stdout.write(json.dumps(asdict(sent)) + "\n")


if __name__ == "__main__":
    main()
