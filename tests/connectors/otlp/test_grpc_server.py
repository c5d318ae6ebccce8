"""OTLP/gRPC over real sockets with the official stubs (numbers: OTLP conformance points)."""

from __future__ import annotations

import logging
import socket
import threading
import time
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from opentelemetry.proto.collector.logs.v1.logs_service_pb2_grpc import LogsServiceStub
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2_grpc import MetricsServiceStub
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import TraceServiceStub

from connectors.otlp.grpc_server import GrpcServer
from connectors.otlp.protocol import RPC_METHODS
from connectors.otlp.reception import Reception
from connectors.otlp.settings import GrpcServerSettings
from telflow import Signal
from telflow.accounting import LedgerRow, Outcome
from telflow.delivery.intake import MemoryIntake, RequestMeta
from tests.connectors.otlp.conftest import MIB, Running, Start, request_message
from tests.oracle import REQUESTS, batch_from_message

STUBS: dict[Signal, Any] = {
    Signal.TRACES: TraceServiceStub,
    Signal.METRICS: MetricsServiceStub,
    Signal.LOGS: LogsServiceStub,
}
CANARY = "canary@example.com"


def export(running: Running, message: Any, signal: Signal, **call: Any) -> Any:
    """Call Export through the official stub."""
    with running.channel() as channel:
        return STUBS[signal](channel).Export(message, timeout=60, **call)


def refused(running: Running, body: bytes, signal: Signal = Signal.LOGS, **call: Any) -> tuple[Any, status_pb2.Status]:
    """Send raw bytes that are to be refused; returns the error and the Status in its trailer."""
    with running.channel() as channel:
        method = channel.unary_unary(RPC_METHODS[signal], None, None)
        with pytest.raises(grpc.RpcError) as failed:
            method(body, timeout=60, **call)
    error: Any = failed.value
    details = dict(error.trailing_metadata()).get("grpc-status-details-bin", b"")
    return error, status_pb2.Status.FromString(details)


@pytest.mark.parametrize("compression", [grpc.Compression.NoCompression, grpc.Compression.Gzip])
@pytest.mark.parametrize("signal", list(Signal))
def test_01_every_signal_arrives_compressed_or_not(
    running: Running, signal: Signal, compression: grpc.Compression
) -> None:
    """(1, 2, 6) The three services take uncompressed and gzip messages; partial success stays unset."""
    message = request_message(signal, 500)
    answer = export(running, message, signal, compression=compression)
    assert not answer.HasField("partial_success")
    (batch,) = running.taken()
    assert batch.records.equals(batch_from_message(message, signal).records)
    assert running.ledger.rows() == (LedgerRow(Outcome.RECEIVED, signal, "", "otlp", "", 500),)


@pytest.mark.parametrize("signal", list(Signal))
def test_05_an_empty_request_succeeds(running: Running, signal: Signal) -> None:
    """(5) Success, and nothing enters the flow."""
    answer = export(running, REQUESTS[signal](), signal)
    assert not answer.HasField("partial_success")
    assert running.taken() == []


def test_03_a_large_message_is_refused(start: Start) -> None:
    """(3) Over the limit: RESOURCE_EXHAUSTED without RetryInfo, so that no sender repeats it."""
    running = start(grpc={"max_request_bytes": 4 * MIB})
    error, status = refused(running, bytes(4 * MIB + 1))
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert not status.details
    export(running, request_message(Signal.LOGS), Signal.LOGS)


def test_03_a_message_of_4_mib_is_taken(start: Start) -> None:
    """(3) The least limit there can be is 4 MiB."""
    running = start(grpc={"max_request_bytes": 4 * MIB})
    message = request_message(Signal.LOGS, 1, "x" * (4 * MIB - 100))
    assert 4 * MIB - 100 < message.ByteSize() <= 4 * MIB
    export(running, message, Signal.LOGS)
    assert len(running.taken()) == 1


def test_03_a_bomb_is_refused(start: Start) -> None:
    """(3) A small gzip message that would become 64 MiB is refused where it passes the limit."""
    running = start(grpc={"max_request_bytes": 4 * MIB})
    error, _ = refused(running, bytes(64 * MIB), compression=grpc.Compression.Gzip)
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "Decompressed message larger than max" in error.details()  # gRPC stops there: it unpacks no further


def test_09_garbage_is_an_invalid_argument_that_says_where(running: Running) -> None:
    """(9) INVALID_ARGUMENT with a BadRequest that names the field and the byte."""
    body = request_message(Signal.LOGS, text="QQQQ").SerializeToString().replace(b"QQQQ1", b"\xff\xff\xff\xff1")
    error, status = refused(running, body)
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert status.code == 3
    assert status.message == error.details()
    bad = error_details_pb2.BadRequest()
    assert status.details[0].Unpack(bad)
    assert bad.field_violations[0].field.startswith("resource_logs[0].scope_logs[0].log_records[1].body")
    at = body.index(0xFF)
    assert f"byte {at}" in bad.field_violations[0].description


@pytest.mark.parametrize("body", [b"\xff" * 100, b"\x0a", b"\x0b" * 2000])
def test_09_whatever_the_bytes_the_server_goes_on(running: Running, body: bytes) -> None:
    """(9) Garbage, a truncated field, deep groups: each INVALID_ARGUMENT, and the next request is served."""
    assert refused(running, body)[0].code() is grpc.StatusCode.INVALID_ARGUMENT
    export(running, request_message(Signal.LOGS), Signal.LOGS)


def test_02_an_unknown_method_is_unimplemented(running: Running) -> None:
    """(2) Another service or method does not exist."""
    with running.channel() as channel, pytest.raises(grpc.RpcError) as failed:
        channel.unary_unary("/opentelemetry.proto.collector.trace.v1.TraceService/Import", None, None)(b"", timeout=60)
    error: Any = failed.value
    assert error.code() is grpc.StatusCode.UNIMPLEMENTED


def test_10_a_full_intake_means_unavailable_with_retry_info(start: Start) -> None:
    """(10) Overload: UNAVAILABLE and a RetryInfo with the wait; nothing is counted as received."""
    running = start(intake=MemoryIntake(1, retry_after_s=2.5))
    error, status = refused(running, request_message(Signal.LOGS).SerializeToString())
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    retry = error_details_pb2.RetryInfo()
    assert status.details[0].Unpack(retry)
    assert retry.retry_delay.ToMilliseconds() == 2500
    assert running.ledger.rows() == ()


def test_tenants_come_from_the_metadata_or_the_setting(start: Start) -> None:
    """The metadata key names the tenant; without it the setting does."""
    running = start(tenant="house", tenant_header="X-Scope-OrgID")
    message = request_message(Signal.LOGS)
    export(running, message, Signal.LOGS, metadata=(("x-other", "1"), ("x-scope-orgid", "acme")))
    export(running, message, Signal.LOGS)
    assert [batch.resources["tenant"].to_pylist() for batch in running.taken()] == [["acme", "house"]]


def test_an_impossible_tenant_name_is_refused(start: Start) -> None:
    """A key that cannot be a name is INVALID_ARGUMENT, never the default tenant."""
    running = start(tenant="house", tenant_header="x-scope-orgid")
    body = request_message(Signal.LOGS).SerializeToString()
    error, _ = refused(running, body, metadata=(("x-scope-orgid", "x" * 257),))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert running.taken() == []


def test_a_fault_of_ours_is_internal_and_the_log_quotes_no_payload(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    """An unexpected exception becomes INTERNAL and a log line without data; the next request is served."""

    class Broken(MemoryIntake):
        def accept(self, request: RequestMeta) -> int:
            super().accept(request)
            raise RuntimeError(CANARY)

    running = start(intake=Broken())
    with caplog.at_level(logging.DEBUG):
        body = request_message(Signal.LOGS, text=CANARY).SerializeToString()
        error, status = refused(running, body)
        assert refused(running, body[:-1])[0].code() is grpc.StatusCode.INVALID_ARGUMENT
    assert error.code() is grpc.StatusCode.INTERNAL
    assert status.code == 13
    assert "RuntimeError" in caplog.text
    assert CANARY not in caplog.text
    assert CANARY not in str(status)


def test_many_senders_at_once_lose_nothing(running: Running) -> None:
    """Eight connections with twenty calls of three spans each: all are there."""
    message = request_message(Signal.TRACES)

    def send() -> None:
        with running.channel() as channel:
            stub = STUBS[Signal.TRACES](channel)
            calls = [stub.Export.future(message, timeout=60) for _ in range(20)]
            for call in calls:
                call.result()

    threads = [threading.Thread(target=send) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(batch.num_rows for batch in running.taken()) == 160 * 3


def test_a_stopping_receiver_lets_requests_under_way_finish(start: Start) -> None:
    """Stopped in the middle of handling a request, the server still answers it with success."""
    entered, stopping = threading.Event(), threading.Event()

    class Slow(MemoryIntake):
        def accept(self, request: RequestMeta) -> int:
            entered.set()
            stopping.wait(0.2)
            return super().accept(request)

    running = start(intake=Slow())
    with running.channel() as channel:
        call = STUBS[Signal.LOGS](channel).Export.future(request_message(Signal.LOGS), timeout=60)
        assert entered.wait(30)
        running.stop()
        call.result()
    assert len(running.taken()) == 1


def test_who_only_connects_does_not_hold_up_a_stop() -> None:
    """A probe of the port, or a client that has gone away silently, is not a request under way."""
    server = GrpcServer(GrpcServerSettings(endpoint="127.0.0.1:0"), Reception(MemoryIntake()))
    with socket.create_connection(("127.0.0.1", server.start())):
        begun_s = time.monotonic()
        server.stop(grace_s=120)
        assert time.monotonic() - begun_s < 60
