"""A receiver on real sockets, and the senders that tests need."""

from __future__ import annotations

import http.client
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import json_format
from google.rpc import status_pb2

from connectors.otlp.protocol import HTTP_PATHS
from connectors.otlp.receiver import OtlpReceiver
from connectors.otlp.settings import GrpcServerSettings, HttpServerSettings, OtlpReceiverSettings
from telflow import Signal, TelemetryBatch
from telflow.accounting import Ledger
from telflow.delivery.intake import MemoryIntake
from tests.certificates import make_certificates
from tests.oracle import REQUESTS

PROTOBUF = "application/x-protobuf"
JSON = "application/json"
MIB = 1 << 20


def request_message(signal: Signal, records: int = 3, text: str = "x") -> Any:
    """An Export*ServiceRequest with so many records of one service."""
    request: Any = REQUESTS[signal]()
    if signal is Signal.TRACES:
        envelope = request.resource_spans.add()
        scope = envelope.scope_spans.add()
        for number in range(records):
            scope.spans.add(trace_id=b"t" * 16, span_id=number.to_bytes(8, "big"), name=f"{text}{number}")
    elif signal is Signal.LOGS:
        envelope = request.resource_logs.add()
        scope = envelope.scope_logs.add()
        for number in range(records):
            scope.log_records.add(time_unix_nano=number).body.string_value = f"{text}{number}"
    else:
        envelope = request.resource_metrics.add()
        scope = envelope.scope_metrics.add()
        metric = scope.metrics.add(name=text, unit="1")
        for number in range(records):
            metric.gauge.data_points.add(time_unix_nano=number, as_int=number)
    scope.scope.name = "tests"
    envelope.resource.attributes.add(key="service.name").value.string_value = "shop"
    return request


@dataclass
class HttpAnswer:
    """An HTTP response."""

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def content_type(self) -> str:
        return self.headers.get_content_type()

    def rpc_status(self) -> status_pb2.Status:
        """The google.rpc.Status in the body, in the encoding of the answer's Content-Type."""
        status = status_pb2.Status()
        if self.content_type == JSON:
            json_format.Parse(self.body, status)
        else:
            status.ParseFromString(self.body)
        return status


@dataclass
class Running:
    """A started receiver and what it has received."""

    grpc_port: int
    http_port: int
    intake: MemoryIntake
    ledger: Ledger
    stop: Callable[[], None]

    def taken(self) -> list[TelemetryBatch]:
        """All batches in the intake."""
        return self.intake.take(timeout_s=0, max_bytes=1 << 40)

    def post(
        self,
        body: bytes | Iterator[bytes],
        signal: Signal = Signal.LOGS,
        content_type: str = PROTOBUF,
        *,
        path: str | None = None,
        method: str = "POST",
        headers: dict[str, str] | None = None,
    ) -> HttpAnswer:
        """Send one HTTP request."""
        connection = http.client.HTTPConnection("127.0.0.1", self.http_port, timeout=60)
        try:
            all_headers = {"Content-Type": content_type, **(headers or {})}
            connection.request(method, path or HTTP_PATHS[signal], body, all_headers)
            response = connection.getresponse()
            return HttpAnswer(response.status, response.headers, response.read())
        finally:
            connection.close()

    def channel(self) -> grpc.Channel:
        """A gRPC connection."""
        return grpc.insecure_channel(f"127.0.0.1:{self.grpc_port}", [("grpc.max_send_message_length", -1)])


Start = Callable[..., Running]


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An authority; certificates of gateway.test, client.test and stranger.test; `bare` has but a common name."""
    folder = tmp_path_factory.mktemp("certificates")
    hosts = {"server": "gateway.test", "client": "client.test", "stranger": "stranger.test", "bare": None}
    make_certificates(folder, hosts)
    return folder


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts receivers; settings of the protocols and of the whole as keywords."""
    receivers: list[OtlpReceiver] = []

    def start_receiver(
        *,
        grpc: dict[str, Any] | None = None,
        http: dict[str, Any] | None = None,
        intake: MemoryIntake | None = None,
        **settings: Any,
    ) -> Running:
        ledger = Ledger()
        intake = intake or MemoryIntake()
        receiver = OtlpReceiver(
            OtlpReceiverSettings(
                grpc=GrpcServerSettings(**{"endpoint": "127.0.0.1:0", **(grpc or {})}),
                http=HttpServerSettings(**{"endpoint": "127.0.0.1:0", **(http or {})}),
                **settings,
            ),
            intake,
            ledger=ledger,
        )
        receivers.append(receiver)
        ports = receiver.start()
        assert ports.grpc is not None
        assert ports.http is not None
        return Running(ports.grpc, ports.http, intake, ledger, lambda: receiver.stop(30.0))

    yield start_receiver
    for receiver in receivers:
        receiver.stop(0.5)


@pytest.fixture
def running(start: Start) -> Running:
    """A receiver with the default settings on free ports."""
    return start()
