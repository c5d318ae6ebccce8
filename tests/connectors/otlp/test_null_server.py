"""The null server: takes everything, counts and keeps exactly what was sent."""

from __future__ import annotations

import urllib.request
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import TraceServiceStub

from connectors.otlp.null_server import NullOtlpServer
from connectors.otlp.protocol import ExportRequest
from telflow import Signal
from telflow.accounting import Ledger
from telflow.delivery.intake import MemoryIntake
from tests.connectors.otlp.conftest import Running, request_message


def test_it_counts_and_keeps_requests_of_both_transports() -> None:
    """Requests and bytes per signal; payloads byte for byte."""
    message = request_message(Signal.TRACES)
    stub: Any = TraceServiceStub
    body = message.SerializeToString()
    with NullOtlpServer(keep=True) as server:
        sender = Running(server.grpc_port, server.http_port, MemoryIntake(), Ledger(), server.stop)
        with sender.channel() as channel:
            stub(channel).Export(message, timeout=60)
        assert sender.post(body, Signal.TRACES).status == 200
    assert (server.requests(Signal.TRACES), server.payload_bytes(Signal.TRACES)) == (2, 2 * len(body))
    assert [request.payload for request in server.kept] == [body, body]
    assert server.requests(Signal.LOGS) == 0


def test_it_keeps_nothing_unless_asked_to() -> None:
    """A benchmark must not fill the memory."""
    with NullOtlpServer(grpc=None) as server:
        url = f"http://127.0.0.1:{server.http_port}/v1/logs"
        call = urllib.request.Request(url, b"not even OTLP", {"Content-Type": "application/x-protobuf"})
        with urllib.request.urlopen(call) as response:  # noqa: S310
            assert response.status == 200
    assert server.requests(Signal.LOGS) == 1
    assert server.kept == []


def test_its_answers_can_be_made_up() -> None:
    """`answer` sees the request and its bytes are the response."""
    seen: list[ExportRequest] = []

    def answer(request: ExportRequest) -> bytes:
        seen.append(request)
        return b"\x0a\x00"

    with NullOtlpServer(answer=answer) as server:
        reply = Running(0, server.http_port, MemoryIntake(), Ledger(), server.stop).post(b"xyz")
    assert reply.body == b"\x0a\x00"
    assert [(request.signal, request.payload) for request in seen] == [(Signal.LOGS, b"xyz")]
