"""The client library at real destinations: the same scenarios for threads and for asyncio."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsPartialSuccess, ExportLogsServiceResponse
from pydantic import ValidationError

from connectors.otlp import AsyncOtlpClient, Delivered, NullOtlpServer, OtlpClient, OtlpClientSettings, UndeliveredError
from connectors.otlp.protocol import ExportRequest, Refusal
from connectors.otlp.settings import GrpcServerSettings
from telflow import Signal, TelemetryBatch
from telflow.codec import decode
from telflow.delivery.circuit_breaker import CircuitState
from telflow.delivery.transport import Answer
from telflow.errors import ConfigError, DeliveryError
from tests.connectors.otlp.clients import (
    NO_ROOM,
    PROTOCOLS,
    QUICK,
    WRONG,
    Kind,
    both,
    logs,
    settings_for,
)
from tests.connectors.otlp.conftest import request_message
from tests.oracle import batch_from_message


@both
@pytest.mark.parametrize(
    ("protocol", "compression"),
    [(p, c) for p in PROTOCOLS for c in ("none", "gzip", "zstd") if (p, c) != ("grpc", "zstd")],
)
def test_what_is_sent_arrives(kind: Kind, protocol: str, compression: str) -> None:
    """Every transport, encoding and compression delivers the same records of every signal."""
    batches = [batch_from_message(request_message(signal, 1500), signal) for signal in Signal]
    with NullOtlpServer(keep=True) as server:
        results = kind.send(settings_for(server, protocol, compression=compression), *batches)
    assert results == [Delivered(accepted=1500, requests=1)] * 3
    encoding: Any = "json" if protocol == "http/json" else "protobuf"
    arrived = [decode(request.payload, request.signal, encoding) for request in server.kept]
    assert all(got.records.equals(sent.records) for got, sent in zip(arrived, batches, strict=True))


@both
def test_nothing_is_sent_of_an_empty_batch(kind: Kind) -> None:
    """No empty envelope reaches the destination."""
    with NullOtlpServer() as server:
        assert kind.send(settings_for(server), TelemetryBatch.empty(Signal.LOGS)) == [Delivered()]
        assert server.requests(Signal.LOGS) == 0


@both
def test_what_the_destination_rejects_in_part_is_told(kind: Kind) -> None:
    """Partial success is success: the counts and its words come back, and it is not repeated."""
    part = ExportLogsPartialSuccess(rejected_log_records=2, error_message="too old")
    body = ExportLogsServiceResponse(partial_success=part).SerializeToString()
    with NullOtlpServer(answer=lambda _: body) as server:
        (got,) = kind.send(settings_for(server), logs(5))
        assert server.requests(Signal.LOGS) == 1
    assert got == Delivered(accepted=3, rejected=2, requests=1, messages=("too old",))


@both
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_refusal_for_good_is_an_error_with_the_records(kind: Kind, protocol: str) -> None:
    """Tried once; the error says where, what, and holds the batch, but quotes nothing the destination said."""
    with NullOtlpServer(answer=_Answers(WRONG, repeat=True)) as server:
        (error,) = kind.send(settings_for(server, protocol), logs(5))
    assert isinstance(error, UndeliveredError)
    assert (error.retryable, error.refused.num_rows, error.unsent.num_rows) == (False, 5, 0)
    assert error.status in {"INVALID_ARGUMENT", "HTTP 400"}
    assert "5 of 5 logs records not delivered" in str(error)
    assert "sending them again is no use" in str(error)
    assert "canary" not in str(error)
    assert "canary" in error.detail


@both
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_passing_failure_is_repeated(kind: Kind, protocol: str) -> None:
    """Twice unavailable, then taken: delivered once."""
    answers = _Answers(NO_ROOM, NO_ROOM)
    with NullOtlpServer(answer=answers) as server:
        assert kind.send(settings_for(server, protocol), logs()) == [Delivered(accepted=3, requests=1)]
    assert answers.asked == 3


@both
def test_giving_up_returns_what_may_be_sent_again(kind: Kind) -> None:
    """Of a batch in many requests, the ones after the failure are unsent; sending these again completes it."""
    batch = logs(400)
    answers = _Answers(None, None, *[NO_ROOM] * 3)
    with NullOtlpServer(answer=answers, keep=True) as server:
        settings = settings_for(server, max_request_bytes=2048, retry={**QUICK, "max_elapsed_time": "2ms", "jitter": 0})
        (error,) = kind.send(settings.with_retry(enabled=False), batch)
        assert isinstance(error, UndeliveredError)
        assert (error.retryable, error.refused.num_rows, error.delivered.requests) == (True, 0, 2)
        assert error.delivered.accepted + error.unsent.num_rows == 400
        assert error.delivered.undelivered == error.unsent.num_rows
        assert "may take them later" in str(error)
        answers.script.clear()
        (rest,) = kind.send(settings, error.unsent)
    assert rest.accepted == error.unsent.num_rows
    arrived = TelemetryBatch.concat([decode(r.payload, Signal.LOGS, tenant="acme") for r in server.kept])
    assert arrived.records["body"].equals(batch.records["body"])


@both
def test_one_bad_request_does_not_take_the_others_along(kind: Kind) -> None:
    """Of a batch in many requests the second is refused: exactly its records are in the error, all others arrive."""
    with NullOtlpServer(answer=_Answers(None, WRONG), keep=True) as server:
        (error,) = kind.send(settings_for(server, max_request_bytes=2048), logs(400))
    assert isinstance(error, UndeliveredError)
    assert 0 < error.refused.num_rows < 200
    assert (error.unsent.num_rows, error.delivered.accepted) == (0, 400 - error.refused.num_rows)
    arrived = TelemetryBatch.concat([decode(r.payload, Signal.LOGS) for r in server.kept])
    assert arrived.num_rows == error.delivered.accepted
    times = {*arrived.records["time_unix_nano"].to_pylist(), *error.refused.records["time_unix_nano"].to_pylist()}
    assert times == set(range(400))


@both
def test_no_request_is_larger_than_asked_for(kind: Kind) -> None:
    """All are within the limit, except a record that is larger by itself: that is sent all the same."""
    batch = TelemetryBatch.concat([logs(300), logs(1, "y" * 5000)])
    with NullOtlpServer(keep=True) as server:
        (got,) = kind.send(settings_for(server, max_request_bytes=1024), batch)
    sizes = sorted(len(request.payload) for request in server.kept)
    assert (got.accepted, got.requests) == (301, len(sizes))
    assert sizes[-2] <= 1024 < sizes[-1]


@both
def test_an_open_circuit_spares_the_destination(kind: Kind) -> None:
    """After four failures the fifth batch fails without a request, as one that may be sent later."""
    answers = _Answers(NO_ROOM, repeat=True)
    with NullOtlpServer(answer=answers) as server:
        settings = settings_for(server).without_retry().with_circuit_breaker(min_requests=4, open_duration="1h")
        errors = kind.send(settings, *[logs()] * 6)
    assert [error.status for error in errors] == ["UNAVAILABLE"] * 4 + ["circuit open"] * 2
    assert errors[-1].retryable
    assert 3000 < errors[-1].retry_after_s <= 3600
    assert answers.asked == 4


@both
def test_retries_go_through_the_circuit_when_it_closes(kind: Kind) -> None:
    """A batch waits for the open circuit, probes, and is delivered."""
    answers = _Answers(*[NO_ROOM] * 3)
    with NullOtlpServer(answer=answers) as server:
        breaker = {"min_requests": 2, "open_duration": "20ms"}
        assert kind.send(settings_for(server, circuit_breaker=breaker), logs())[0].accepted == 3
    assert answers.asked == 4


def test_the_circuits_state_can_be_seen() -> None:
    """As a property of both clients."""
    settings = OtlpClientSettings.grpc("127.0.0.1:1")
    with OtlpClient(settings) as client:
        assert client.circuit is CircuitState.CLOSED
    assert AsyncOtlpClient(settings).circuit is CircuitState.CLOSED


@both
def test_flush_sums_up_what_was_submitted(kind: Kind) -> None:
    """Accepted, and given up, each once; the next flush begins at nothing."""
    with NullOtlpServer(answer=_Answers(None, WRONG)) as server:
        got, after = kind.flush(settings_for(server, concurrency=1), logs(3), logs(4), logs(5))
    assert (got, after) == (Delivered(accepted=8, undelivered=4, requests=2), Delivered())


@both
def test_submitted_batches_are_in_flight_together(kind: Kind) -> None:
    """With a concurrency of three, three requests wait at the destination at a time, never four."""
    lock, together = threading.Lock(), threading.Barrier(3)
    now = most = 0

    def count(_: ExportRequest) -> bytes:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        together.wait(30)  # passes only when three are here at once
        with lock:
            now -= 1
        return b""

    with NullOtlpServer(answer=count, http=None, grpc=GrpcServerSettings(endpoint="127.0.0.1:0", threads=8)) as server:
        got, _ = kind.flush(settings_for(server, concurrency=3), *[logs()] * 9)
    assert (most, got.accepted) == (3, 27)


@both
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_closing_lets_what_is_under_way_be_delivered(kind: Kind, protocol: str) -> None:
    """Closed while the destination is at work, the client waits for its answer; after that it takes nothing."""
    entered = threading.Event()

    def work(_: ExportRequest) -> bytes:
        entered.set()
        time.sleep(0.1)
        return b""

    with NullOtlpServer(answer=work) as server:
        assert kind.close(settings_for(server, protocol), logs(), entered, 30) == Delivered(accepted=3, requests=1)


@both
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_closing_has_a_time_limit(kind: Kind, protocol: str) -> None:
    """A destination that never answers does not hold a closing client: the batch comes back as unsent."""
    entered, release = threading.Event(), threading.Event()

    def hang(_: ExportRequest) -> bytes:
        entered.set()
        release.wait(60)
        return b""

    with NullOtlpServer(answer=hang) as server:
        started = time.monotonic()
        error = kind.close(settings_for(server, protocol), logs(), entered, 0.05)
        took = time.monotonic() - started
        release.set()
    assert isinstance(error, UndeliveredError)
    assert error.unsent.num_rows == 3
    assert took < 20


@both
def test_closing_ends_waits_between_tries(kind: Kind) -> None:
    """A batch that waits an hour for its next try is given up when the time to close is over."""
    entered = threading.Event()

    def refuse(_: ExportRequest) -> bytes:
        entered.set()
        raise NO_ROOM

    with NullOtlpServer(answer=refuse) as server:
        slow = {"initial_interval": "1h", "max_interval": "1h", "max_elapsed_time": "0"}
        error = kind.close(settings_for(server, retry=slow), logs(), entered, 0.2)
    assert isinstance(error, UndeliveredError)
    assert error.status == "UNAVAILABLE"


@both
def test_a_dead_destination_is_no_answer(kind: Kind) -> None:
    """Nothing listens: the error is one that may be sent again, over both transports."""
    for settings in (OtlpClientSettings.grpc("127.0.0.1:1"), OtlpClientSettings.http("http://127.0.0.1:1")):
        (error,) = kind.send(settings.without_retry(), logs())
        assert error.retryable
        assert error.status in {"UNAVAILABLE", "no answer"}


def test_flush_has_a_time_limit() -> None:
    """What is still under way then is said, and stays under way."""
    release = threading.Event()

    def hang(_: ExportRequest) -> bytes:
        release.wait(60)
        return b""

    with NullOtlpServer(answer=hang) as server:
        with OtlpClient(settings_for(server)) as client:
            client.submit(logs())
            with pytest.raises(DeliveryError, match=r"1 batches still under way after 0\.05 s"):
                client.flush(0.05)
            release.set()
            assert client.flush(60).accepted == 3
        release.clear()

        async def run() -> None:
            async with AsyncOtlpClient(settings_for(server)) as client:
                await client.submit(logs())
                with pytest.raises(DeliveryError, match="1 batches still under way"):
                    await client.flush(0.05)
                release.set()
                assert (await client.flush(60)).accepted == 3

        asyncio.run(run())


def test_a_drained_client_stops_repeating() -> None:
    """`stop`, as a signal handler calls it, ends retries within the shutdown timeout, on the injected clock."""
    clock = [100.0]

    def sleep(seconds: float) -> None:
        clock[0] += seconds
        client.stop()

    with NullOtlpServer(answer=_Answers(NO_ROOM, repeat=True)) as server:
        settings = settings_for(server, shutdown_timeout="3s", retry={"max_elapsed_time": "0"})
        with OtlpClient(settings, now_s=lambda: clock[0], sleep=sleep) as client, pytest.raises(UndeliveredError):
            client.send(logs())
    assert clock[0] == pytest.approx(103, abs=0.2)


def test_sixty_requests_wait_in_one_loop_without_a_thread_each() -> None:
    """The asynchronous client is one: sixty sends wait for their answers together, and no thread works for them."""
    together = threading.Barrier(60)

    def wait_for_all(_: ExportRequest) -> bytes:
        together.wait(60)
        return b""

    async def run(send: Callable[[TelemetryBatch], Awaitable[Delivered]]) -> set[str]:
        sends = asyncio.gather(*(send(logs()) for _ in range(60)))
        names: set[str] = set()
        while not sends.done():
            names |= {thread.name for thread in threading.enumerate()}
            await asyncio.sleep(0.005)
        assert sum(got.accepted for got in await sends) == 180
        return names

    async def both_transports(server: NullOtlpServer) -> set[str]:
        found: set[str] = set()
        for protocol in ("grpc", "http/protobuf"):
            async with AsyncOtlpClient(settings_for(server, protocol, concurrency=60)) as client:
                found |= await run(client.send)
        return found

    from connectors.otlp.settings import HttpServerSettings  # noqa: PLC0415

    grpc_settings = GrpcServerSettings(endpoint="127.0.0.1:0", threads=60)
    http_settings = HttpServerSettings(endpoint="127.0.0.1:0", threads=60)
    with NullOtlpServer(grpc=grpc_settings, http=http_settings, answer=wait_for_all) as server:
        names = asyncio.run(both_transports(server))
    assert not [name for name in names if name.startswith(("asyncio_", "otlp-client", "otlp-http-client"))]


def test_a_cancelled_send_is_cancelled() -> None:
    """Cancelling the task that sends is no answer of the destination; the client goes on."""
    entered, release = threading.Event(), threading.Event()

    def hang(_: ExportRequest) -> bytes:
        entered.set()
        release.wait(60)
        return b""

    async def run(settings: OtlpClientSettings) -> None:
        async with AsyncOtlpClient(settings) as client:
            task = asyncio.create_task(client.send(logs()))
            assert await asyncio.to_thread(entered.wait, 30)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            release.set()
            assert (await client.send(logs())).accepted == 3

    for protocol in ("grpc", "http/protobuf"):
        entered.clear()
        release.clear()
        with NullOtlpServer(answer=hang) as server:
            asyncio.run(run(settings_for(server, protocol)))


def test_a_fault_of_a_transport_is_counted() -> None:
    """An exception nobody foresaw is raised to the caller, and a flush knows the records."""

    class Broken:
        def send(self, signal: Signal, body: bytes) -> Answer:
            raise RuntimeError(f"{signal} {len(body)}")

        def close(self) -> None: ...

    with OtlpClient(OtlpClientSettings.grpc(), connect=lambda _: Broken()) as client:
        with pytest.raises(RuntimeError):
            client.send(logs())
        assert isinstance(client.submit(logs()).exception(30), RuntimeError)
        assert client.flush() == Delivered(undelivered=3)


def test_certificates_that_cannot_be_read_are_said_first() -> None:
    """Before anything is sent: when the client is made, or entered."""

    async def enter(settings: OtlpClientSettings) -> None:
        async with AsyncOtlpClient(settings):
            pass

    for begin in (OtlpClientSettings.grpc, OtlpClientSettings.http):
        settings = begin("https://localhost:1").with_tls(ca_file="/nonexistent/ca.pem")
        with pytest.raises(ConfigError, match="tls: cannot"):
            OtlpClient(settings)
        with pytest.raises(ConfigError, match="tls: cannot"):
            asyncio.run(enter(settings))


def test_settings_step_by_step() -> None:
    """Each step changes one thing and is validated; the result is that of keywords."""
    built = (
        OtlpClientSettings.http("https://otlp.example.com", json=True)
        .with_compression("zstd")
        .with_header("x-scope-orgid", "acme")
        .with_bearer_token("token")
        .with_tls(ca_file="ca.pem", cert_file="client.pem", key_file="client.key", server_name="otlp")
        .with_timeout("3s")
        .with_retry(initial_interval="1s", max_elapsed_time="10s")
        .with_circuit_breaker(failure_ratio=0.2)
        .with_concurrency(9)
        .with_max_request_bytes(4096)
        .with_shutdown_timeout("1s")
    )
    assert built == OtlpClientSettings.model_validate(
        {
            "endpoint": "https://otlp.example.com",
            "protocol": "http/json",
            "compression": "zstd",
            "headers": {"x-scope-orgid": "acme", "authorization": "Bearer token"},
            "tls": {"ca_file": "ca.pem", "cert_file": "client.pem", "key_file": "client.key", "server_name": "otlp"},
            "timeout": "3s",
            "retry": {"initial_interval": "1s", "max_elapsed_time": "10s"},
            "circuit_breaker": {"failure_ratio": 0.2},
            "concurrency": 9,
            "max_request_bytes": 4096,
            "shutdown_timeout": "1s",
        }
    )
    assert not built.without_retry().retry.enabled
    with pytest.raises(ValidationError, match="got zstd; use http/protobuf"):
        OtlpClientSettings.grpc().with_compression("zstd")
    with pytest.raises(ValidationError, match="max_interval"):
        OtlpClientSettings.grpc().with_retry(initial_interval="1h")


class _Answers:
    """A destination's answers in order, then success; or the first for ever."""

    def __init__(self, *script: Refusal | None, repeat: bool = False) -> None:
        self.script = list(script)
        self.asked = 0
        self._repeat = repeat
        self._lock = threading.Lock()

    def __call__(self, _: ExportRequest) -> bytes:
        with self._lock:
            self.asked += 1
            answer = None if not self.script else self.script[0] if self._repeat else self.script.pop(0)
        if answer is not None:
            raise answer
        return b""
