"""Destinations that fail in every way they do: the flow goes on, nothing is lost, every record is counted once.

What happens in each case stands as a table in docs/destinations.md.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsPartialSuccess,
    ExportLogsServiceResponse,
)

from connectors.otlp.exporter import OtlpSink
from connectors.otlp.null_server import NullOtlpServer
from connectors.otlp.protocol import ExportRequest, Refusal
from connectors.otlp.settings import OtlpExporterSettings
from telflow import Signal
from telflow.accounting import Ledger
from telflow.codec import decode
from telflow.delivery.dead_letters import DeadLetterReader, DeadLetters
from telflow.delivery.log import Durability, Log
from tests.connectors.otlp.fault_proxy import FaultProxy, Wire
from tests.delivery import logs, outcomes, wait_for

PROTOCOLS = ["grpc", "http/protobuf"]
AWAY = Refusal(grpc.StatusCode.UNAVAILABLE, 503, "away")
WRONG = Refusal(grpc.StatusCode.INVALID_ARGUMENT, 400, "wrong")
EPOCHS, RECORDS = 8, 25
LONGEST_EPOCH_S = 5.0
"""No epoch may wait for the destination; the limit is only far below what waiting for it would take."""


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    with Log(tmp_path / "queues.db", durability=Durability.OS, min_free_bytes=0) as opened:
        yield opened


def settings_for(port: int, protocol: str, **more: Any) -> OtlpExporterSettings:
    return OtlpExporterSettings.model_validate(
        {
            "endpoint": f"127.0.0.1:{port}",
            "protocol": protocol,
            "timeout": "300ms",
            "retry_on_failure": {"initial_interval": "20ms", "max_interval": "50ms"},
            "circuit_breaker": {"open_duration": "50ms"},
            "shutdown_timeout": "5s",
            **more,
        }
    )


def port_of(server: NullOtlpServer, protocol: str) -> int:
    return server.grpc_port if protocol == "grpc" else server.http_port


def numbers(server: NullOtlpServer) -> list[int]:
    """Numbers of the records a destination has accepted, as often as it has them."""
    kept = [decode(request.payload, request.signal) for request in list(server.kept)]
    return [number for batch in kept for number in batch.column("time_unix_nano").to_pylist()]


class Flow:
    """A dataflow's part: epochs that each put in some records and end with a snapshot."""

    def __init__(self, settings: OtlpExporterSettings, log: Log, dead_letters: DeadLetters | None = None) -> None:
        self.ledger = Ledger()
        self.sink = OtlpSink(settings, ledger=self.ledger, log=log, dead_letters=dead_letters)
        self.part: Any = self.sink.build_part("export", "otlp-0", None)
        self.sent = 0

    def run(self, epochs: int = EPOCHS) -> None:
        for _ in range(epochs):
            started_s = time.monotonic()
            self.part.write_batch([logs(RECORDS, tenant="acme", first=self.sent)])
            self.sent += RECORDS
            self.part.snapshot()
            assert time.monotonic() - started_s < LONGEST_EPOCH_S

    def ended(self) -> bool:
        (stats,) = self.sink.stats().values()
        return not stats.parcels


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("wire", [Wire.SILENT, Wire.RESET, Wire.SLOW], ids=lambda wire: wire.value)
def test_a_wire_that_fails(protocol: str, wire: Wire, log: Log) -> None:
    """Never answers, resets, one byte a second: kept on disk while it lasts, delivered once it is over."""
    with NullOtlpServer(keep=True) as server, FaultProxy(port_of(server, protocol)) as proxy:
        flow = Flow(settings_for(proxy.port, protocol), log)
        proxy.wire = wire
        flow.run()
        assert outcomes(flow.ledger) == {}
        assert sum(entry.records for entry in log.index("export/otlp-0")) == flow.sent
        proxy.wire = Wire.GOOD
        wait_for(flow.ended)
        flow.part.close()
    assert sorted(set(numbers(server))) == list(range(1, flow.sent + 1))
    assert outcomes(flow.ledger) == {("delivered", "acme", ""): flow.sent}
    assert log.index("export/otlp-0") == []


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_stop_does_not_wait_for_a_dead_destination_and_a_restart_delivers(protocol: str, log: Log) -> None:
    """Closed while nothing answers: what is undelivered stays on disk, and the next run has it in its account."""
    with NullOtlpServer(keep=True) as server, FaultProxy(port_of(server, protocol)) as proxy:
        proxy.wire = Wire.SILENT
        settings = settings_for(proxy.port, protocol, shutdown_timeout="1s")
        flow = Flow(settings, log)
        flow.run(3)
        started_s = time.monotonic()
        flow.part.close()
        assert time.monotonic() - started_s < 1 + LONGEST_EPOCH_S
        assert outcomes(flow.ledger) == {}
        proxy.wire = Wire.GOOD
        again = Flow(settings, log)
        wait_for(again.ended)
        again.part.close()
    assert sorted(set(numbers(server))) == list(range(1, flow.sent + 1))
    assert outcomes(again.ledger) == {
        ("derived", "acme", "restored"): flow.sent,
        ("delivered", "acme", ""): flow.sent,
    }


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_answers_after_the_deadline(protocol: str, log: Log) -> None:
    """It has the data, but says so too late: sent again, so there twice, and counted once."""
    late = threading.Event()
    late.set()

    def answer(_request: ExportRequest) -> bytes:
        if late.is_set():
            time.sleep(0.6)
        return b""

    with NullOtlpServer(keep=True, answer=answer) as server:
        flow = Flow(settings_for(port_of(server, protocol), protocol), log)
        flow.run(3)
        wait_for(lambda: bool(server.kept))
        late.clear()
        wait_for(flow.ended)
        flow.part.close()
        found = numbers(server)
    assert set(found) == set(range(1, flow.sent + 1))
    assert len(found) > flow.sent
    assert outcomes(flow.ledger) == {("delivered", "acme", ""): flow.sent}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_seventy_per_cent_unavailable(protocol: str, log: Log) -> None:
    """Everything arrives once, tried about three times each."""
    chance, tries = random.Random(3), 0
    lock = threading.Lock()

    def answer(_request: ExportRequest) -> bytes:
        nonlocal tries
        with lock:
            tries += 1
            refuse = chance.random() < 0.7
        if refuse:
            raise AWAY
        return b""

    with NullOtlpServer(keep=True, answer=answer) as server:
        flow = Flow(settings_for(port_of(server, protocol), protocol, timeout="10s"), log)
        flow.run()
        wait_for(flow.ended)
        flow.part.close()
    assert sorted(numbers(server)) == list(range(1, flow.sent + 1))
    assert tries > EPOCHS
    assert outcomes(flow.ledger) == {("delivered", "acme", ""): flow.sent}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_partial_success(protocol: str, log: Log) -> None:
    """Five of each request rejected: never repeated, the counts exact."""
    response = ExportLogsServiceResponse(partial_success=ExportLogsPartialSuccess(rejected_log_records=5))
    with NullOtlpServer(keep=True, answer=lambda _: response.SerializeToString()) as server:
        flow = Flow(settings_for(port_of(server, protocol), protocol, timeout="10s"), log)
        flow.run()
        wait_for(flow.ended)
        flow.part.close()
    assert sorted(numbers(server)) == list(range(1, flow.sent + 1))
    assert outcomes(flow.ledger) == {
        ("delivered", "acme", ""): flow.sent - 5 * EPOCHS,
        ("dropped", "acme", "rejected in part"): 5 * EPOCHS,
    }


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_refused_for_good(protocol: str, log: Log, tmp_path: Path) -> None:
    """Every second request: never repeated, counted as dropped, and kept as dead letters."""
    count = iter(range(1_000_000))

    def answer(_request: ExportRequest) -> bytes:
        if next(count) % 2:
            raise WRONG
        return b""

    path = tmp_path / "deadletter.db"
    with NullOtlpServer(keep=True, answer=answer) as server, DeadLetters(path, min_free_bytes=0) as dead_letters:
        flow = Flow(settings_for(port_of(server, protocol), protocol, timeout="10s"), log, dead_letters)
        flow.run()
        wait_for(flow.ended)
        flow.part.close()
    with DeadLetterReader(path) as reader:
        kept = [decode(entry.payload, entry.signal) for _, entry in reader.read(reader.letters())]
    buried = [number for batch in kept for number in batch.column("time_unix_nano").to_pylist()]
    assert sorted(numbers(server) + buried) == list(range(1, flow.sent + 1))
    status = "INVALID_ARGUMENT" if protocol == "grpc" else "HTTP 400"
    assert outcomes(flow.ledger) == {
        ("delivered", "acme", ""): flow.sent // 2,
        ("dropped", "acme", f"refused ({status})"): flow.sent // 2,
    }


def test_one_dead_destination_does_not_hold_up_another(log: Log) -> None:
    """Two sinks of one flow, one log: the live one has every epoch's records at once, the dead one's are kept."""
    with NullOtlpServer(keep=True) as server, FaultProxy(server.grpc_port) as proxy:
        proxy.wire = Wire.SILENT
        dead = Flow(settings_for(proxy.port, "grpc", shutdown_timeout="1s"), log)
        live_ledger = Ledger()
        live_settings = settings_for(server.grpc_port, "grpc", timeout="10s")
        live: Any = OtlpSink(live_settings, ledger=live_ledger, log=log).build_part("live", "otlp-0", None)
        for number in range(EPOCHS):
            live.write_batch([logs(RECORDS, tenant="acme", first=number * RECORDS)])
            dead.run(1)
            live.snapshot()
            wait_for(_has(server, (number + 1) * RECORDS))
        live.close()
        dead.part.close()
    assert outcomes(live_ledger) == {("delivered", "acme", ""): dead.sent}
    assert sum(entry.records for entry in log.index("export/otlp-0")) == dead.sent
    assert signal_of(server) == {Signal.LOGS}


def _has(server: NullOtlpServer, count: int) -> Callable[[], bool]:
    return lambda: len(numbers(server)) >= count


def signal_of(server: NullOtlpServer) -> set[Signal]:
    return {request.signal for request in server.kept}
