"""One destination with several endpoints, real servers: they come, go and return, and every record arrives."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest

from connectors.otlp.exporter import OtlpSink
from connectors.otlp.null_server import NullOtlpServer
from connectors.otlp.protocol import ExportRequest, Refusal
from connectors.otlp.settings import GrpcServerSettings, OtlpExporterSettings
from telflow import Signal, TelemetryBatch
from telflow.accounting import Ledger
from telflow.codec import decode
from telflow.delivery.log import Durability, Log
from tests.delivery import logs, outcomes, wait_for

AWAY = Refusal(grpc.StatusCode.UNAVAILABLE, 503, "away")


class Server:
    """A destination that can be away."""

    def __init__(self, stack: ExitStack) -> None:
        self.away = False
        self.server = stack.enter_context(NullOtlpServer(keep=True, answer=self._answer))

    def _answer(self, _request: ExportRequest) -> bytes:
        if self.away:
            raise AWAY
        return b""

    @property
    def records(self) -> set[int]:
        """Numbers of the log records it has."""
        kept = [decode(r.payload, r.signal) for r in list(self.server.kept) if r.signal is Signal.LOGS]
        return set().union(*(batch.column("time_unix_nano").to_pylist() for batch in kept))


@pytest.fixture
def servers() -> Iterator[list[Server]]:
    with ExitStack() as stack:
        yield [Server(stack) for _ in range(3)]


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Log]:
    with Log(tmp_path / "queues.db", durability=Durability.OS, min_free_bytes=0) as opened:
        yield opened


def settings_for(servers: list[Server], strategy: str, **more: Any) -> OtlpExporterSettings:
    return OtlpExporterSettings.model_validate(
        {
            "endpoints": [f"127.0.0.1:{each.server.grpc_port}" for each in servers],
            "strategy": strategy,
            "health_check": {"interval": "20ms", "failures": 2},
            "retry_on_failure": {"initial_interval": "10ms", "max_interval": "50ms"},
            "circuit_breaker": {"open_duration": "20ms"},
            **more,
        }
    )


@pytest.mark.parametrize("strategy", ["failover", "round_robin", "least_pending", "consistent_hash"])
@pytest.mark.parametrize("durable", [True, False])
def test_endpoints_come_and_go_and_nothing_is_lost(
    servers: list[Server], log: Log, strategy: str, durable: bool
) -> None:
    """Each endpoint is away for a while, once all are: every record arrives, each counted as delivered once."""
    ledger = Ledger()
    settings = settings_for(servers, strategy, hash_key="tenant")
    part = OtlpSink(settings, ledger=ledger, log=log if durable else None).build_part("export", "otlp-0", None)
    number = 0
    for away in ([], [0], [0, 1], [1], [2], [0, 1, 2] if durable else [], []):
        for index, server in enumerate(servers):
            server.away = index in away
        for _ in range(5):
            part.write_batch([logs(10, tenant=f"t{number}", first=number)])
            number += 10
        part.snapshot()
    expected = set(range(1, number + 1))
    wait_for(lambda: set().union(*(server.records for server in servers)) == expected)
    part.snapshot()
    part.close()
    assert sum(row.count for row in ledger.rows()) == number
    assert {outcome for outcome, _, _ in outcomes(ledger)} == {"delivered"}
    assert log.index("export/otlp-0") == []


def test_traces_stay_together(servers: list[Server]) -> None:
    """By trace: whatever batch its spans come in, a trace is at one endpoint, and all endpoints have some."""
    part = OtlpSink(settings_for(servers, "consistent_hash"), ledger=Ledger()).build_part("export", "otlp-0", None)
    batches = [_traces(start) for start in (0, 100, 0)]
    part.write_batch(batches)
    part.close()
    where: dict[bytes, set[int]] = {}
    for index, server in enumerate(servers):
        for request in server.server.kept:
            for trace in decode(request.payload, request.signal).column("trace_id").to_pylist():
                where.setdefault(trace, set()).add(index)
    assert len(where) == 200
    assert all(len(places) == 1 for places in where.values())
    assert set().union(*where.values()) == {0, 1, 2}


def _traces(first: int) -> TelemetryBatch:
    from tests.oracle import REQUESTS, batch_from_message  # noqa: PLC0415

    request: Any = REQUESTS[Signal.TRACES]()
    spans = request.resource_spans.add().scope_spans.add().spans
    for number in range(first, first + 100):
        for _ in range(2):
            spans.add(trace_id=number.to_bytes(16, "big"), span_id=bytes(8), name="s")
    return batch_from_message(request, Signal.TRACES)


def test_a_server_that_died_is_replaced_and_taken_back(servers: list[Server]) -> None:
    """The first of a failover really goes away, its port closed, and comes back on it."""
    settings = settings_for(servers, "failover", timeout="1s")
    part = OtlpSink(settings, ledger=Ledger()).build_part("export", "otlp-0", None)
    first = servers[0].server
    port = first.grpc_port
    part.write_batch([logs(5)])
    part.snapshot()
    first.stop()
    for number in range(5, 20, 5):
        part.write_batch([logs(5, first=number)])
        part.snapshot()
    assert len(servers[1].records) == 15
    with NullOtlpServer(grpc=GrpcServerSettings(endpoint=f"127.0.0.1:{port}"), http=None) as again:

        def arrives() -> bool:
            part.write_batch([logs(1, first=100)])
            part.snapshot()
            return again.requests(Signal.LOGS) > 0

        wait_for(arrives)
        part.close()


def test_settings_of_several_endpoints() -> None:
    """One of endpoint and endpoints; each valid, each once; a person can read them."""
    values: dict[str, Any] = {"endpoints": ["a:4317", "https://b:4317"], "strategy": "round_robin"}
    settings = OtlpExporterSettings.model_validate(values)
    assert settings.where == "round_robin of a:4317, https://b:4317"
    assert [settings.alone(e).secure for e in settings.endpoints] == [False, True]
    for bad, message in (
        ({"endpoint": "c:4317"}, "expected endpoint or endpoints, got both"),
        ({"endpoints": []}, "expected endpoint or endpoints, got neither"),
        ({"endpoints": ["a:4317", "a:4317"]}, "each endpoint once"),
        ({"endpoints": ["a:4317", "b"]}, "expected host:port"),
        ({"strategy": "random"}, "Input should be 'failover'"),
    ):
        with pytest.raises(ValueError, match=message):
            OtlpExporterSettings.model_validate({**values, **bad})
