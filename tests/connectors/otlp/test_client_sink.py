"""The sink straight through the client: every record accounted for, by tenant and reason."""

from __future__ import annotations

import logging
import threading
from typing import Any

import bytewax.operators as op
import pytest
from bytewax.dataflow import Dataflow
from bytewax.testing import TestingSource, run_main
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsPartialSuccess, ExportLogsServiceResponse

from connectors.otlp import NullOtlpServer, OtlpClient, OtlpClientSettings, OtlpClientSink
from connectors.otlp.protocol import ExportRequest
from telflow import Signal, TelemetryBatch
from telflow.accounting import Ledger, Outcome
from tests.connectors.otlp.clients import NO_ROOM, WRONG, logs, settings_for


def run(settings: OtlpClientSettings, *batches: TelemetryBatch, **options: Any) -> dict[tuple[Outcome, str, str], int]:
    """Run a flow of these batches; counts by outcome, tenant and reason."""
    ledger = Ledger()
    flow = Dataflow("load")
    up = op.input("in", flow, TestingSource(list(batches)))
    op.output("send", up, OtlpClientSink(settings, ledger=ledger, **options))
    run_main(flow)
    assert {row.component for row in ledger.rows()} <= {"load.send"}
    return {(row.outcome, row.tenant, row.reason): row.count for row in ledger.rows()}


def two_tenants() -> TelemetryBatch:
    return TelemetryBatch.concat([logs(6).with_tenant("acme"), logs(2).with_tenant("beta")])


def test_a_flow_ends_with_everything_delivered() -> None:
    """Batches of several tenants, and an empty one."""
    with NullOtlpServer() as server:
        counts = run(settings_for(server), *[two_tenants()] * 20, TelemetryBatch.empty(Signal.LOGS))
        assert server.requests(Signal.LOGS) == 20
    assert counts == {(Outcome.DELIVERED, "acme", ""): 120, (Outcome.DELIVERED, "beta", ""): 40}


def test_what_is_rejected_in_part_is_shared_out() -> None:
    """The destination does not say whose; the sum is exact."""
    part = ExportLogsPartialSuccess(rejected_log_records=4)
    body = ExportLogsServiceResponse(partial_success=part).SerializeToString()
    with NullOtlpServer(answer=lambda _: body) as server:
        assert run(settings_for(server), two_tenants()) == {
            (Outcome.DELIVERED, "acme", ""): 3,
            (Outcome.DELIVERED, "beta", ""): 1,
            (Outcome.DROPPED, "acme", "rejected in part"): 3,
            (Outcome.DROPPED, "beta", "rejected in part"): 1,
        }


def test_what_is_refused_or_given_up_is_dropped_with_the_reason() -> None:
    """Each with the destination's status."""

    def refuse(request: ExportRequest) -> bytes:
        raise WRONG if b"bad" in request.payload else NO_ROOM

    with NullOtlpServer(answer=refuse) as server:
        counts = run(settings_for(server).without_retry(), logs(3, "bad"), logs(4, "good"))
    assert counts == {
        (Outcome.DROPPED, "acme", "refused (INVALID_ARGUMENT)"): 3,
        (Outcome.DROPPED, "acme", "retries exhausted (UNAVAILABLE)"): 4,
    }


def test_of_a_split_batch_only_the_refused_part_is_dropped() -> None:
    """The rest of the same batch is delivered."""

    def refuse_the_last(request: ExportRequest) -> bytes:
        if b"x199" in request.payload:
            raise WRONG
        return b""

    with NullOtlpServer(answer=refuse_the_last) as server:
        counts = run(settings_for(server, max_request_bytes=1024), logs(200))
    dropped = counts[Outcome.DROPPED, "acme", "refused (INVALID_ARGUMENT)"]
    assert 0 < dropped < 100
    assert counts[Outcome.DELIVERED, "acme", ""] == 200 - dropped


def test_a_draining_sink_gives_up_in_time() -> None:
    """`stop` reaches the client: a batch that would be repeated for ever is counted when the time is over."""
    asked = threading.Event()

    def refuse(_: ExportRequest) -> bytes:
        asked.set()
        raise NO_ROOM

    with NullOtlpServer(answer=refuse) as server:
        endless = {"initial_interval": "1h", "max_interval": "1h", "max_elapsed_time": "0"}
        ledger = Ledger()
        sink = OtlpClientSink(settings_for(server, retry=endless, shutdown_timeout="50ms"), ledger=ledger)
        part = sink.build("send", 0, 1)
        part.write_batch([logs()])
        assert asked.wait(30)
        sink.stop()
        part.close()
    assert [(row.outcome, row.count) for row in ledger.rows()] == [(Outcome.DROPPED, 3)]


def test_a_fault_of_ours_drops_one_batch_and_no_worker(caplog: pytest.LogCaptureFixture) -> None:
    """Counted, and logged without data."""

    class Broken:
        def send(self, *_: object) -> Any:
            raise RuntimeError("canary@example.com")

        def close(self) -> None: ...

    def broken(settings: OtlpClientSettings) -> OtlpClient:
        return OtlpClient(settings, connect=lambda _: Broken())

    with caplog.at_level(logging.DEBUG):
        counts = run(OtlpClientSettings.grpc("127.0.0.1:1"), logs(), make_client=broken)
    assert counts == {(Outcome.DROPPED, "acme", "internal error"): 3}
    assert "RuntimeError" in caplog.text
    assert "canary" not in caplog.text
