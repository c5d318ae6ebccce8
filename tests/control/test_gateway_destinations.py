"""A whole gateway whose destinations fail: senders are told the truth, restarts finish the work, the account agrees."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2_grpc import LogsServiceStub

from connectors.otlp.null_server import NullOtlpServer
from connectors.otlp.protocol import ExportRequest, Refusal
from control.account import totals
from control.gateway_run import Gateway
from flows.gateway import GatewaySettings
from telflow.accounting import Ledger
from telflow.codec import decode
from telflow.delivery.dead_letters import DeadLetterReader
from tests.connectors.otlp.fault_proxy import FaultProxy, Wire
from tests.delivery import outcomes, wait_for
from tests.numbered_logs import archived

WRONG = Refusal(grpc.StatusCode.INVALID_ARGUMENT, 400, "wrong")
QUICK = {
    "timeout": "300ms",
    "retry_on_failure": {"initial_interval": "20ms", "max_interval": "50ms"},
    "circuit_breaker": {"open_duration": "50ms"},
    "shutdown_timeout": "1s",
}


class Running:
    """A gateway in a thread of this process, with a ledger of its own as a process has."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.ledger = Ledger()
        values = {
            "receivers": {"otlp": {"grpc": {"endpoint": "127.0.0.1:0"}, "http": False}},
            "storage": {"dir": str(folder / "state"), "durability": "os", "min_free_bytes": 0},
            "epoch": "100ms",
            "redact": False,
            **settings,
        }
        self._gateway = Gateway(GatewaySettings.model_validate(values), ledger=self.ledger)
        self._port = self._gateway.start().grpc
        self._thread = threading.Thread(target=self._gateway.run)
        self._thread.start()

    def send(self, first: int, count: int) -> None:
        """Send log records, numbered in `flags`; raises if they are not accepted."""
        request = ExportLogsServiceRequest()
        records = request.resource_logs.add().scope_logs.add().log_records
        for number in range(first, first + count):
            records.add(time_unix_nano=1_750_000_000_000_000_000 + number, flags=number)
        with grpc.insecure_channel(f"127.0.0.1:{self._port}") as channel:
            LogsServiceStub(channel).Export(request, timeout=30)

    def stop(self) -> None:
        self._gateway.drain.request()
        self._thread.join(60)
        assert not self._thread.is_alive()


def arrived(server: NullOtlpServer) -> Counter[int]:
    kept = list(server.kept)
    return Counter(n for r in kept for n in decode(r.payload, r.signal).column("flags").to_pylist())


def has(server: NullOtlpServer, count: int) -> Callable[[], bool]:
    return lambda: len(arrived(server)) >= count


def test_a_dead_destination_a_live_one_and_the_archive(tmp_path: Path) -> None:
    """The dead one holds up neither the senders, nor the live one, nor the stop; the next run delivers the rest."""
    with NullOtlpServer(keep=True) as away, NullOtlpServer(keep=True) as live, FaultProxy(away.grpc_port) as proxy:
        proxy.wire = Wire.SILENT
        settings: dict[str, Any] = {
            "exporters": {
                "away": {"endpoint": f"127.0.0.1:{proxy.port}", **QUICK},
                "live": {"endpoint": f"127.0.0.1:{live.grpc_port}"},
            },
            "archive": {"path": str(tmp_path / "archive"), "flush_interval": "1h"},
        }
        first = Running(tmp_path, **settings)
        for number in range(0, 100, 10):
            first.send(number, 10)
        wait_for(has(live, 100))
        first.stop()
        sums = totals(first.ledger)
        assert (sums.received, sums.derived, sums.delivered, sums.dropped) == (100, 200, 200, 0)
        assert sums.in_flight == 100  # what the dead destination has not got, safe on disk
        assert archived(tmp_path / "archive") == dict.fromkeys(range(100), 1)
        assert not away.kept
        proxy.wire = Wire.GOOD
        second = Running(tmp_path, **settings)
        second.send(100, 10)
        wait_for(has(away, 110))
        wait_for(has(live, 110))
        second.stop()
    sums = totals(second.ledger)
    assert (sums.received, sums.derived, sums.delivered, sums.in_flight) == (10, 20 + 100, 130, 0)
    assert ("derived", "", "restored") in outcomes(second.ledger)
    assert arrived(away) == arrived(live) == dict.fromkeys(range(110), 1)
    assert archived(tmp_path / "archive") == dict.fromkeys(range(110), 1)


def test_what_is_refused_or_cannot_be_decoded_is_in_the_store(tmp_path: Path) -> None:
    """Both with their origin; the sender of garbage is told so, the other one that its data is accepted."""

    def answer(_request: ExportRequest) -> bytes:
        raise WRONG

    with NullOtlpServer(answer=answer) as server:
        running = Running(
            tmp_path,
            exporters={"out": {"endpoint": f"127.0.0.1:{server.grpc_port}"}},
            dead_letters={"undecodable": True},
        )
        running.send(0, 10)
        with grpc.insecure_channel(f"127.0.0.1:{running._port}") as channel:
            export = channel.unary_unary("/opentelemetry.proto.collector.logs.v1.LogsService/Export", None, None)
            with pytest.raises(grpc.RpcError) as refused:
                export(b"\xff\xff", timeout=30)
        wait_for(lambda: totals(running.ledger).dropped == 10)
        running.stop()
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    with DeadLetterReader(tmp_path / "state" / "deadletter.db") as reader:
        letters = {(letter.origin, letter.reason, letter.records) for letter in reader.letters()}
    assert letters == {
        ("otlp", "undecodable", 0),
        ("gateway.export_out.write", "refused (INVALID_ARGUMENT)", 10),
    }
    assert totals(running.ledger).in_flight == 0


def test_in_memory_as_before(tmp_path: Path) -> None:
    """`durability: memory`: no file appears, what the stop leaves undelivered is dropped and counted."""
    with NullOtlpServer() as server, FaultProxy(server.grpc_port) as proxy:
        proxy.wire = Wire.RESET
        running = Running(
            tmp_path,
            exporters={"out": {"endpoint": f"127.0.0.1:{proxy.port}", **QUICK}},
            storage={"durability": "memory"},
        )
        running.send(0, 10)
        running.stop()
    assert outcomes(running.ledger)[("dropped", "", "retries exhausted (UNAVAILABLE)")] == 10
    assert list(tmp_path.iterdir()) == []
