"""The OTLP sink at a real destination: every record delivered, or dropped and counted with the reason."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from typing import Any

import bytewax.operators as op
import grpc
import pytest
from bytewax.dataflow import Dataflow
from bytewax.testing import TestingSource, run_main
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsPartialSuccess,
    ExportLogsServiceResponse,
)

from connectors.otlp.exporter import OtlpSink
from connectors.otlp.null_server import NullOtlpServer
from connectors.otlp.protocol import ExportRequest, Refusal
from connectors.otlp.settings import OtlpExporterSettings
from connectors.otlp.transport import connect
from telflow import Signal, TelemetryBatch
from telflow.accounting import Ledger, Outcome
from tests.connectors.otlp.conftest import request_message
from tests.delivery import FakeClock
from tests.oracle import REQUESTS, batch_from_message, normal_form

PROTOCOLS = ["grpc", "http/protobuf", "http/json"]
BUSY = Refusal(grpc.StatusCode.UNAVAILABLE, 503, "busy", retry_after_s=0.25)
NO_ROOM = Refusal(grpc.StatusCode.UNAVAILABLE, 503, "busy")
START_S = FakeClock().now
WRONG = Refusal(grpc.StatusCode.INVALID_ARGUMENT, 400, "wrong")


def settings(server: NullOtlpServer, protocol: str = "grpc", **more: Any) -> OtlpExporterSettings:
    port = server.grpc_port if protocol == "grpc" else server.http_port
    return OtlpExporterSettings(endpoint=f"127.0.0.1:{port}", **{"protocol": protocol, "timeout": "60s", **more})


def sink_on(clock: FakeClock, config: OtlpExporterSettings, ledger: Ledger) -> OtlpSink:
    return OtlpSink(config, ledger=ledger, clock=clock, connect=lambda settings: clock.around(connect(settings)))


def deliver(config: OtlpExporterSettings, *batches: TelemetryBatch, clock: FakeClock | None = None) -> Ledger:
    """Run batches through a sink partition, snapshot and close it."""
    ledger = Ledger()
    part = sink_on(clock or FakeClock(), config, ledger).build_part("export", "otlp-0", None)
    part.write_batch(list(batches))
    assert part.snapshot() == {"format": 1, "position": None}
    before_close = ledger.rows()
    part.close()
    assert ledger.rows() == before_close
    return ledger


def outcomes(ledger: Ledger) -> dict[tuple[Outcome, str], int]:
    """Counts by outcome and reason."""
    return {(row.outcome, row.reason): row.count for row in ledger.rows()}


def batch_of(signal: Signal, records: int = 3, tenant: str | None = "acme", text: str = "x") -> TelemetryBatch:
    return batch_from_message(request_message(signal, records, text), signal, tenant)


def meaning(kept: list[ExportRequest], signal: Signal) -> dict[tuple[bytes, bytes, bytes], list[bytes]]:
    """What arrived, as one request."""
    whole: Any = REQUESTS[signal]()
    for request in kept:
        assert request.signal is signal
        assert request.encoding == "protobuf"
        whole.MergeFromString(request.payload)
    return normal_form(whole, signal)


@pytest.mark.parametrize("signal", list(Signal))
@pytest.mark.parametrize(
    ("protocol", "compression"),
    [(p, c) for p in PROTOCOLS for c in ("none", "gzip", "zstd") if (p, c) != ("grpc", "zstd")],
)
def test_18_what_was_written_arrives(protocol: str, compression: str, signal: Signal) -> None:
    """(18) All transports, encodings and compressions deliver the same records, field by field."""
    message = request_message(signal, 50)
    with NullOtlpServer(keep=True) as server:
        ledger = deliver(
            settings(server, protocol, compression=compression), batch_from_message(message, signal, "acme")
        )
    assert outcomes(ledger) == {(Outcome.DELIVERED, ""): 50}
    (request,) = server.kept
    if protocol == "http/json":
        assert request.encoding == "json"
        assert request.payload.startswith(b'{"resource')
    else:
        assert meaning(server.kept, signal) == normal_form(message, signal)


@pytest.mark.parametrize("signal", list(Signal))
def test_18_large_batches_are_split_losslessly(signal: Signal) -> None:
    """(18) No request is larger than the limit, and together they are the batch."""
    message = request_message(signal, 2000)
    with NullOtlpServer(keep=True) as server:
        ledger = deliver(settings(server, max_request_bytes=1024), batch_from_message(message, signal))
    assert len(server.kept) > 10
    assert max(len(request.payload) for request in server.kept) <= 1024
    arrived = meaning(server.kept, signal)
    assert {k: sorted(v) for k, v in arrived.items()} == {k: sorted(v) for k, v in normal_form(message, signal).items()}
    assert outcomes(ledger) == {(Outcome.DELIVERED, ""): 2000}


def test_18_a_single_record_over_the_limit_is_sent_all_the_same() -> None:
    """(18) It cannot be split, and whether it is too large is for the destination to say."""
    with NullOtlpServer(keep=True) as server:
        ledger = deliver(settings(server, max_request_bytes=1024), batch_of(Signal.LOGS, 2, text="x" * 2000))
    assert [len(request.payload) > 1024 for request in server.kept] == [True, True]
    assert outcomes(ledger) == {(Outcome.DELIVERED, ""): 2}


def test_19_empty_batches_make_no_requests() -> None:
    """(19) No empty envelopes."""
    with NullOtlpServer() as server:
        deliver(settings(server), TelemetryBatch.empty(Signal.LOGS))
    assert server.requests(Signal.LOGS) == 0


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_16_busy_destinations_are_asked_again_after_the_time_they_name(protocol: str) -> None:
    """(13, 14, 16) Twice busy with a hint, then fine: delivered once after two such waits."""
    tries = iter([BUSY, BUSY, None])
    with NullOtlpServer(answer=lambda _: answer_with(next(tries))) as server:
        clock = FakeClock()
        ledger = deliver(settings(server, protocol), batch_of(Signal.LOGS), clock=clock)
    assert outcomes(ledger) == {(Outcome.DELIVERED, ""): 3}
    assert server.requests(Signal.LOGS) == 1
    # The hint is 0.25 s; Retry-After counts whole seconds.
    assert clock.now - START_S == pytest.approx(0.5 if protocol == "grpc" else 2.0)


def answer_with(refusal: Refusal | None) -> bytes:
    if refusal is not None:
        raise refusal
    return b""


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_16_retries_end_and_the_records_are_counted(protocol: str) -> None:
    """(16) A destination that stays busy for five minutes: dropped, with the status it gave."""
    status = "UNAVAILABLE" if protocol == "grpc" else "HTTP 503"
    with NullOtlpServer(answer=lambda _: answer_with(NO_ROOM)) as server:
        clock = FakeClock()
        ledger = deliver(settings(server, protocol), batch_of(Signal.LOGS), clock=clock)
    assert outcomes(ledger) == {(Outcome.DROPPED, f"retries exhausted ({status})"): 3}
    assert 240 < clock.now - START_S <= 300


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_15_a_refused_request_is_never_repeated(protocol: str, caplog: pytest.LogCaptureFixture) -> None:
    """(13, 14, 15) 400 / INVALID_ARGUMENT: dropped at once with the status, no data in the log."""
    tries: list[ExportRequest] = []

    def refuse(request: ExportRequest) -> bytes:
        tries.append(request)
        raise WRONG

    status = "INVALID_ARGUMENT" if protocol == "grpc" else "HTTP 400"
    with caplog.at_level(logging.DEBUG), NullOtlpServer(answer=refuse) as server:
        clock = FakeClock()
        ledger = deliver(settings(server, protocol), batch_of(Signal.LOGS, text="canary"), clock=clock)
    assert len(tries) == 1
    assert clock.now == START_S
    assert outcomes(ledger) == {(Outcome.DROPPED, f"refused ({status})"): 3}
    assert f"dropped 3 logs records: refused ({status})" in caplog.text
    assert "canary" not in caplog.text


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_15_a_partial_success_is_counted_exactly_and_not_repeated(protocol: str) -> None:
    """(7, 15) Two of ten rejected: eight delivered, two dropped, one request."""
    response = ExportLogsServiceResponse(
        partial_success=ExportLogsPartialSuccess(rejected_log_records=2, error_message="too old")
    )
    with NullOtlpServer(answer=lambda _: response.SerializeToString()) as server:
        ledger = deliver(settings(server, protocol), batch_of(Signal.LOGS, 10))
    assert server.requests(Signal.LOGS) == 1
    assert outcomes(ledger) == {(Outcome.DELIVERED, ""): 8, (Outcome.DROPPED, "rejected in part"): 2}


def test_15_a_partial_success_of_several_tenants_keeps_the_sum() -> None:
    """(15) Whose records were rejected is not said; the counts still add up, and no tenant loses more than it sent."""
    response = ExportLogsServiceResponse(partial_success=ExportLogsPartialSuccess(rejected_log_records=7))
    batch = TelemetryBatch.concat([batch_of(Signal.LOGS, 5, "a"), batch_of(Signal.LOGS, 3, "b")])
    with NullOtlpServer(answer=lambda _: response.SerializeToString()) as server:
        balance = deliver(settings(server), batch).balance()
    assert {tenant: b.delivered + b.dropped for (tenant, _), b in balance.items()} == {"a": 5, "b": 3}
    assert sum(b.dropped for b in balance.values()) == 7


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_16_a_destination_that_is_not_there_is_tried_again(protocol: str) -> None:
    """(16) Nobody listens: retried until the time is up, then counted."""
    with NullOtlpServer() as server:
        config = settings(server, protocol, retry_on_failure={"max_elapsed_time": "12s", "jitter": 0})
    clock = FakeClock()
    ledger = deliver(config, batch_of(Signal.LOGS), clock=clock)
    ((outcome, reason),) = outcomes(ledger)
    assert outcome is Outcome.DROPPED
    assert reason in {"retries exhausted (UNAVAILABLE)", "retries exhausted (no answer)"}
    assert clock.now - START_S == pytest.approx(5.0)  # the next wait of 7.5 s would end after 12 s


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_16_an_answer_that_does_not_come_is_a_failure(protocol: str) -> None:
    """(16) A destination that hangs: the timeout ends the try, and it may be repeated."""
    release = threading.Event()

    def hang(_: ExportRequest) -> bytes:
        release.wait(30)
        return b""

    with NullOtlpServer(answer=hang) as server:
        config = settings(server, protocol, timeout="100ms", retry_on_failure={"enabled": False})
        ledger = deliver(config, batch_of(Signal.LOGS))
        release.set()
    ((outcome, reason),) = outcomes(ledger)
    assert outcome is Outcome.DROPPED
    assert reason in {"retries exhausted (DEADLINE_EXCEEDED)", "retries exhausted (no answer)"}


def test_17_requests_are_in_flight_together_but_not_more_than_asked_for() -> None:
    """(17) With a concurrency of three, three requests wait at the destination at a time and never four."""
    lock = threading.Lock()
    together = threading.Barrier(3)
    now, most = 0, 0

    def count(_: ExportRequest) -> bytes:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        together.wait(30)  # passes only when three are here at once
        with lock:
            now -= 1
        return b""

    with NullOtlpServer(answer=count, http=None, grpc=_many_threads()) as server:
        ledger = deliver(settings(server, sending_queue={"num_consumers": 3}), *[batch_of(Signal.LOGS)] * 9)
    assert most == 3
    assert outcomes(ledger) == {(Outcome.DELIVERED, ""): 27}


def _many_threads() -> Any:
    from connectors.otlp.settings import GrpcServerSettings  # noqa: PLC0415

    return GrpcServerSettings(endpoint="127.0.0.1:0", threads=8)


@pytest.mark.parametrize("stop_first", [True, False])
def test_17_a_stopping_exporter_does_not_wait_for_a_dead_destination(stop_first: bool) -> None:
    """(17) After `stop` retries end within the shutdown timeout, and what is left is counted."""
    with NullOtlpServer(answer=lambda _: answer_with(NO_ROOM)) as server:
        clock = FakeClock()
        ledger = Ledger()
        config = settings(server, shutdown_timeout="3s")
        sink = sink_on(clock, config, ledger)
        stopped_s: list[float] = []

        def stop() -> None:
            stopped_s.append(clock.now)
            sink.stop()

        clock.on_advance = stop
        if stop_first:
            stop()
        part = sink.build_part("export", "otlp-0", None)
        part.write_batch([batch_of(Signal.LOGS)])
        part.snapshot()
        part.close()
    assert outcomes(ledger) == {(Outcome.DROPPED, "retries exhausted (UNAVAILABLE)"): 3}
    # Not the five minutes of retries. The clock jumps by whole waits, of which one may be under way.
    assert 2.9 <= clock.now - stopped_s[0] <= 12


def test_a_fault_of_ours_drops_one_batch_and_no_worker(caplog: pytest.LogCaptureFixture) -> None:
    """A client that raises is counted and logged without data; the next batch is delivered."""

    class Flaky:
        calls = 0

        def send(self, signal: Signal, body: bytes) -> Any:
            del signal, body
            raise RuntimeError("canary@example.com")

        def close(self) -> None: ...

    ledger = Ledger()
    config = OtlpExporterSettings(endpoint="127.0.0.1:1")
    part = OtlpSink(config, ledger=ledger, connect=lambda _: Flaky()).build_part("export", "otlp-0", None)
    with caplog.at_level(logging.DEBUG):
        part.write_batch([batch_of(Signal.LOGS)])
        part.snapshot()
    part.close()
    assert outcomes(ledger) == {(Outcome.DROPPED, "internal error"): 3}
    assert "RuntimeError" in caplog.text
    assert "canary" not in caplog.text


def test_headers_go_with_every_request() -> None:
    """(20) Headers of the settings reach the destination over both transports; their values are not in the repr."""
    for protocol in ("grpc", "http/protobuf"):
        with NullOtlpServer(keep=True, tenant_header="X-Scope-OrgID") as server:
            config = settings(server, protocol, headers={"X-Scope-OrgID": "acme"})
            deliver(config, batch_of(Signal.LOGS))
        assert [request.tenant for request in server.kept] == ["acme"]
        assert "acme" not in repr(config)


@pytest.fixture
def destination() -> Iterator[NullOtlpServer]:
    with NullOtlpServer() as server:
        yield server


def test_a_dataflow_ends_with_everything_delivered(destination: NullOtlpServer) -> None:
    """As a Bytewax output: all batches of a finite flow have arrived when it has ended."""
    ledger = Ledger()
    flow = Dataflow("export")
    batches = [batch_of(signal, 10) for signal in Signal for _ in range(5)]
    up = op.key_on("key", op.input("in", flow, TestingSource(batches)), lambda _: "k")
    sink = OtlpSink(settings(destination), partitions=2, ledger=ledger)
    op.output("out", up, sink)
    run_main(flow)
    assert sink.list_parts() == ["otlp-0", "otlp-1"]
    assert [destination.requests(signal) for signal in Signal] == [5, 5, 5]
    assert {row.component for row in ledger.rows()} == {"export.out"}
    assert sum(row.count for row in ledger.rows()) == 150
