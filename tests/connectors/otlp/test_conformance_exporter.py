"""The exporter against OTLP's points 13 to 20, each test named by its point (docs/reference/conformance.md).

Destinations are the official gRPC services and Python's own HTTP server. Every point is shown for the exporter, which
has a sending queue, and for the client library, which has none.
"""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest

from connectors.otlp import OtlpClientSettings, OtlpClientSink, OtlpExporterSettings, OtlpSink
from connectors.otlp.settings import OtlpConnectionSettings
from telflow import Signal, TelemetryBatch
from telflow.accounting import Ledger, Outcome
from telflow.delivery.dead_letters import DeadLetterReader, DeadLetters
from telflow.delivery.retry import Backoff
from tests.connectors.otlp.conftest import request_message
from tests.connectors.otlp.destination import Destination, Say, Wire, destination
from tests.oracle import REQUESTS, batch_from_message, normal_form

Code = grpc.StatusCode
Counts = dict[tuple[Outcome, str], int]
PROTOCOLS = ["grpc", "http/protobuf", "http/json"]
RETRYABLE = {
    Code.CANCELLED,
    Code.DEADLINE_EXCEEDED,
    Code.ABORTED,
    Code.OUT_OF_RANGE,
    Code.UNAVAILABLE,
    Code.DATA_LOSS,
}
QUICK = {"initial_interval": "1ms", "max_interval": "1ms", "max_elapsed_time": "60s"}
BUSY = Say(Code.UNAVAILABLE, 503)
DELIVERED = {(Outcome.DELIVERED, ""): 3}


def logs(records: int = 3, text: str = "x") -> TelemetryBatch:
    return batch_from_message(request_message(Signal.LOGS, records, text), Signal.LOGS, "acme")


class Exporter:
    """The sink with its sending queue."""

    name = "exporter"

    @staticmethod
    def settings(port: int, protocol: str, **more: Any) -> OtlpExporterSettings:
        values = {"timeout": "60s", **more}
        values["retry_on_failure"] = values.pop("retry", QUICK)
        values["sending_queue"] = {"num_consumers": values.pop("concurrency", 4)}
        return OtlpExporterSettings.model_validate(_connection(port, protocol, values))

    @staticmethod
    def begin(
        settings: OtlpConnectionSettings, ledger: Ledger, dead_letters: DeadLetters | None = None
    ) -> tuple[Any, Any]:
        assert isinstance(settings, OtlpExporterSettings)
        sink = OtlpSink(settings, ledger=ledger, dead_letters=dead_letters)
        return sink, sink.build_part("export", "otlp-0", None)


class Client:
    """The client library, in the sink that `telflow generate` uses."""

    name = "client"

    @staticmethod
    def settings(port: int, protocol: str, **more: Any) -> OtlpClientSettings:
        values = {"timeout": "60s", "retry": QUICK, **more}
        return OtlpClientSettings.model_validate(_connection(port, protocol, values))

    @staticmethod
    def begin(settings: OtlpConnectionSettings, ledger: Ledger) -> tuple[Any, Any]:
        assert isinstance(settings, OtlpClientSettings)
        sink = OtlpClientSink(settings, ledger=ledger)
        return sink, sink.build("export", 0, 1)


def _connection(port: int, protocol: str, values: dict[str, Any]) -> dict[str, Any]:
    secure = "https://" if values.get("tls") else "" if protocol == "grpc" else "http://"
    return {"endpoint": f"{secure}127.0.0.1:{port}", "protocol": protocol, **values}


Kind = type[Exporter] | type[Client]
every_kind = pytest.mark.parametrize("kind", [Exporter, Client], ids=lambda k: k.name)
every_protocol = pytest.mark.parametrize("protocol", PROTOCOLS)


def counts(ledger: Ledger) -> Counts:
    return {(row.outcome, row.reason): row.count for row in ledger.rows()}


def deliver(kind: Kind, to: Destination | int, protocol: str, *batches: TelemetryBatch, **more: Any) -> Counts:
    """Send batches and close; what became of their records."""
    ledger = Ledger()
    port = to if isinstance(to, int) else to.port(protocol)
    _, part = kind.begin(kind.settings(port, protocol, **more), ledger)
    part.write_batch(list(batches))
    if kind is Exporter:
        part.snapshot()
    part.close()
    return counts(ledger)


@pytest.mark.parametrize("code", [code for code in Code if code is not Code.OK], ids=lambda c: c.name)
@every_kind
def test_13_grpc_codes(kind: Kind, code: grpc.StatusCode) -> None:
    """(13) Exactly six codes are repeated; all others are given up after one request."""
    with destination(Say(code)) as to:
        became = deliver(kind, to, "grpc", logs())
    if code in RETRYABLE:
        assert (len(to.arrived), became) == (2, DELIVERED)
    else:
        assert (len(to.arrived), became) == (1, {(Outcome.DROPPED, f"refused ({code.name})"): 3})


@every_kind
def test_13_resource_exhausted_with_retry_info(kind: Kind) -> None:
    """(13, 16) RESOURCE_EXHAUSTED is repeated when, and only when, the destination says that it may recover."""
    with destination(Say(Code.RESOURCE_EXHAUSTED, retry_after_s=0.01)) as to:
        assert deliver(kind, to, "grpc", logs()) == DELIVERED
    assert len(to.arrived) == 2


@pytest.mark.parametrize(
    "status", [301, 307, 400, 401, 403, 404, 405, 408, 409, 413, 415, 422, 429, 500, 501, 502, 503, 504, 505]
)
@every_kind
def test_14_http_statuses(kind: Kind, status: int) -> None:
    """(14) Exactly 429, 502, 503 and 504 are repeated; redirects are not followed."""
    with destination(Say(Code.UNKNOWN, status)) as to:
        became = deliver(kind, to, "http/protobuf", logs())
    if status in {429, 502, 503, 504}:
        assert (len(to.arrived), became) == (2, DELIVERED)
    else:
        assert (len(to.arrived), became) == (1, {(Outcome.DROPPED, f"refused (HTTP {status})"): 3})


@every_protocol
@every_kind
def test_15_a_partial_success_is_not_repeated(kind: Kind, protocol: str) -> None:
    """(15) Two of ten rejected: one request, eight delivered, two dropped and counted."""
    with destination(Say(rejected=2)) as to:
        became = deliver(kind, to, protocol, logs(10))
    assert len(to.arrived) == 1
    assert became == {(Outcome.DELIVERED, ""): 8, (Outcome.DROPPED, "rejected in part"): 2}


def test_15_what_is_refused_goes_to_the_dead_letters(tmp_path: Path) -> None:
    """(15) When a store is configured, the exporter keeps refused records there, with origin and reason."""
    ledger = Ledger()
    path = tmp_path / "deadletter.db"
    with destination(Say(Code.INVALID_ARGUMENT)) as to, DeadLetters(path) as letters:
        _, part = Exporter.begin(Exporter.settings(to.grpc_port, "grpc"), ledger, letters)
        part.write_batch([logs()])
        part.snapshot()
        part.close()
    with DeadLetterReader(path) as reader:
        kept = [(letter.origin, letter.reason, letter.records) for letter in reader.letters()]
    assert kept == [("export", "refused (INVALID_ARGUMENT)", 3)]
    assert sum(counts(ledger).values()) == 3
    assert len(to.arrived) == 1


@every_protocol
@every_kind
def test_16_the_destinations_wait_replaces_ours(kind: Kind, protocol: str) -> None:
    """(16) An hour of backoff, but RetryInfo or Retry-After says one second: repeated then, and not earlier."""
    patient = {"initial_interval": "1h", "max_interval": "1h", "max_elapsed_time": "0"}
    with destination(Say(Code.UNAVAILABLE, 503, retry_after_s=1.0)) as to:
        assert deliver(kind, to, protocol, logs(), retry=patient) == DELIVERED
    first, second = to.arrived
    assert second.at_s - first.at_s >= 1.0


def test_16_the_defaults_are_those_of_the_collector() -> None:
    """(16) 5 s growing to 30 s with jitter; given up after 5 min, but never what is kept on disk."""
    for retry in (OtlpExporterSettings(endpoint="a:1").retry_on_failure, OtlpClientSettings(endpoint="a:1").retry):
        assert (retry.initial_interval.seconds, retry.max_interval.seconds, retry.jitter) == (5, 30, 0.5)
        for kept in (False, True):
            last = Backoff(retry, started_s=0, kept=kept).next_wait_s(now_s=299)
            assert (last is not None) is kept


@every_protocol
@every_kind
def test_16_a_lost_connection_is_tried_again(kind: Kind, protocol: str) -> None:
    """(16) The connection breaks in the middle of a request, without an answer: it is sent again, and arrives."""
    with destination() as to:
        wire = Wire(to.port(protocol), break_first=True)
        assert deliver(kind, wire.port, protocol, logs(200)) == {(Outcome.DELIVERED, ""): 200}
        wire.close()
    assert wire.connections >= 2
    assert len(to.arrived) == 1


@every_protocol
@every_kind
def test_17_calls_are_concurrent_as_many_as_configured(kind: Kind, protocol: str) -> None:
    """(17) With three, three requests wait at the destination at a time, never four."""
    lock, together = threading.Lock(), threading.Barrier(3)
    now = most = 0

    def count() -> None:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        together.wait(60)  # passes only when three are here at once
        with lock:
            now -= 1

    with destination() as to:
        to.before_answer = count
        became = deliver(kind, to, protocol, *[logs()] * 9, concurrency=3)
    assert (most, became) == (3, {(Outcome.DELIVERED, ""): 27})


@every_protocol
@every_kind
def test_17_connections_are_kept(kind: Kind, protocol: str) -> None:
    """(17) Twenty requests, one after the other, go over one connection."""
    with destination() as to:
        assert deliver(kind, to, protocol, *[logs()] * 20, concurrency=1) == {(Outcome.DELIVERED, ""): 60}
    assert len({request.peer for request in to.arrived}) == 1


@every_protocol
@every_kind
def test_17_a_graceful_shutdown_waits(kind: Kind, protocol: str) -> None:
    """(17) Closed while the destination is at work on a request: its answer is waited for, within the time."""
    entered = threading.Event()
    with destination() as to:

        def work() -> None:
            entered.set()
            time.sleep(0.1)

        to.before_answer = work
        ledger = Ledger()
        sink, part = kind.begin(kind.settings(to.port(protocol), protocol, shutdown_timeout="60s"), ledger)
        part.write_batch([logs()])
        assert entered.wait(60)
        sink.stop()
        part.close()
    assert counts(ledger) == DELIVERED


@every_kind
def test_17_a_shutdown_has_a_limit(kind: Kind) -> None:
    """(17) A destination that refuses for ever does not hold it up: what is left is dropped and counted."""
    endless = {"initial_interval": "1h", "max_interval": "1h", "max_elapsed_time": "0"}
    with destination(*[BUSY] * 10) as to:
        asked = threading.Event()
        to.before_answer = asked.set
        ledger = Ledger()
        settings = kind.settings(to.grpc_port, "grpc", retry=endless, shutdown_timeout="100ms")
        sink, part = kind.begin(settings, ledger)
        part.write_batch([logs()])
        assert asked.wait(60)
        sink.stop()
        part.close()
    assert counts(ledger) == {(Outcome.DROPPED, "retries exhausted (UNAVAILABLE)"): 3}


@pytest.mark.parametrize("signal", list(Signal))
@pytest.mark.parametrize(
    ("protocol", "compression"),
    [(p, c) for p in PROTOCOLS for c in ("none", "gzip", "zstd") if (p, c) != ("grpc", "zstd")],
)
@every_kind
def test_18_compression(kind: Kind, protocol: str, compression: Any, signal: Signal) -> None:
    """(18) None, gzip and (HTTP) zstd: the official library reads the same records; compressed, far fewer bytes."""
    message = request_message(signal, 2000)
    with destination() as to:
        wire = Wire(to.port(protocol))
        batch = batch_from_message(message, signal, "acme")
        deliver(kind, wire.port, protocol, batch, compression=compression)
        wire.close()
    (request,) = to.arrived
    assert normal_form(request.message, signal) == normal_form(message, signal)
    assert (wire.sent_bytes > request.body_bytes) is (compression == "none")
    if compression != "none":
        assert wire.sent_bytes < request.body_bytes / 2
    if protocol != "grpc":
        assert request.headers.get("content-encoding") == (None if compression == "none" else compression)


@pytest.mark.parametrize("signal", list(Signal))
@every_protocol
@every_kind
def test_18_requests_are_capped_by_splitting(kind: Kind, protocol: str, signal: Signal) -> None:
    """(18) No request is larger than the cap, uncompressed, and together they are the batch."""
    message = request_message(signal, 600)
    with destination() as to:
        batch = batch_from_message(message, signal, "acme")
        became = deliver(kind, to, protocol, batch, max_request_bytes=2048, concurrency=1)
    assert became == {(Outcome.DELIVERED, ""): 600}
    assert len(to.arrived) > 5
    assert max(request.body_bytes for request in to.arrived) <= 2048
    whole: Any = REQUESTS[signal]()
    for request in to.arrived:
        whole.MergeFrom(request.message)
    arrived, sent = normal_form(whole, signal), normal_form(message, signal)
    assert {k: sorted(v) for k, v in arrived.items()} == {k: sorted(v) for k, v in sent.items()}


def test_18_the_default_caps() -> None:
    """(18) 4 MiB over gRPC, 20 MiB over HTTP."""
    for settings in (OtlpExporterSettings, OtlpClientSettings):
        assert settings(endpoint="a:1").request_bytes == 4 << 20
        assert settings(endpoint="http://a:1", protocol="http/protobuf").request_bytes == 20 << 20


@every_kind
def test_19_destinations_are_independent(kind: Kind) -> None:
    """(19) One that does not answer holds nothing up of the other's, which is acknowledged meanwhile."""
    release = threading.Event()
    batch = logs()
    with destination() as stuck, destination() as well:
        stuck.before_answer = lambda: release.wait(60)
        ledgers = Ledger(), Ledger()
        parts = [
            kind.begin(kind.settings(to.grpc_port, "grpc"), ledger)[1]
            for to, ledger in zip((stuck, well), ledgers, strict=True)
        ]
        for _ in range(3):
            for part in parts:
                part.write_batch([batch])
        _wait_for(lambda: counts(ledgers[1]) == {(Outcome.DELIVERED, ""): 9})
        assert counts(ledgers[0]) == {}
        release.set()
        for part in parts:
            part.close()
    assert counts(ledgers[0]) == {(Outcome.DELIVERED, ""): 9}
    assert batch == logs(), "what both share is unchanged"


def _wait_for(condition: Callable[[], bool]) -> None:
    until_s = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < until_s
        time.sleep(0.01)


@pytest.mark.parametrize("signal", list(Signal))
@every_kind
def test_19_no_empty_envelopes(kind: Kind, signal: Signal) -> None:
    """(19) Resources and scopes whose records were filtered away are not sent, nor is an empty request."""
    batch = batch_from_message(request_message(signal, 3), signal, "acme")
    both = TelemetryBatch.concat([batch, batch_from_message(request_message(signal, 2, "other"), signal, "beta")])
    with destination() as to:
        deliver(kind, to, "grpc", both.slice(0, 3), both.slice(0, 0))
    (request,) = to.arrived
    (envelope,) = getattr(request.message, f"resource_{'spans' if signal is Signal.TRACES else signal.value}")
    assert len(getattr(envelope, f"scope_{'spans' if signal is Signal.TRACES else signal.value}")) == 1
    assert normal_form(request.message, signal) == normal_form(request_message(signal, 3), signal)


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
@pytest.mark.parametrize("mutual", [False, True])
@every_kind
def test_20_tls_and_mutual_tls(kind: Kind, protocol: str, mutual: bool, certificates: Path) -> None:
    """(20) A custom authority, another server name, and a certificate of our own where one is asked for."""
    tls: dict[str, Any] = {"ca_file": certificates / "ca.pem", "server_name": "gateway.test"}
    ours = {"cert_file": certificates / "client.pem", "key_file": certificates / "client.key"}
    with destination(credentials=_grpc_credentials(certificates, mutual), tls=_tls(certificates, mutual)) as to:
        assert deliver(kind, to, protocol, logs(), tls=tls | ours if mutual else tls) == DELIVERED
        wrong = [{**tls, **ours, "server_name": "somebody.else"}, {"server_name": "gateway.test", **ours}]
        if mutual:
            wrong.append(tls)  # shows no certificate
        for settings in wrong:
            ((outcome, reason),) = deliver(kind, to, protocol, logs(), tls=settings, retry={"enabled": False})
            assert outcome is Outcome.DROPPED
            assert reason.startswith("retries exhausted (")
    assert len(to.arrived) == 1


def _grpc_credentials(folder: Path, mutual: bool) -> grpc.ServerCredentials:
    pair = ((folder / "server.key").read_bytes(), (folder / "server.pem").read_bytes())
    authority = (folder / "ca.pem").read_bytes() if mutual else None
    return grpc.ssl_server_credentials([pair], authority, require_client_auth=mutual)


def _tls(folder: Path, mutual: bool) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem", folder / "server.key")
    if mutual:
        context.load_verify_locations(folder / "ca.pem")
        context.verify_mode = ssl.CERT_REQUIRED
    return context


@every_protocol
@every_kind
def test_20_headers_and_bearer_tokens(kind: Kind, protocol: str) -> None:
    """(20) Each destination has its own headers, and its own token; their values are not in the settings' repr."""
    headers = {"Authorization": "Bearer s3cret", "X-Scope-OrgID": "acme"}
    with destination() as to, destination() as other:
        assert deliver(kind, to, protocol, logs(), headers=headers) == DELIVERED
        assert deliver(kind, other, protocol, logs()) == DELIVERED
    got = to.arrived[0].headers
    assert (got["authorization"], got["x-scope-orgid"]) == ("Bearer s3cret", "acme")
    assert "authorization" not in other.arrived[0].headers
    assert "s3cret" not in repr(kind.settings(1, protocol, headers=headers))
