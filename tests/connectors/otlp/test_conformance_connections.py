"""Connections of the receiver: TLS and who may send, keep-alive, concurrent streams, age, shared ports.

Numbers are OTLP's points (docs/reference/conformance.md); senders are the official stubs and Python's own HTTP client.
"""

from __future__ import annotations

import os
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from connectors.otlp.grpc_server import GrpcServer
from connectors.otlp.protocol import ExportHandler, ExportRequest
from connectors.otlp.settings import GrpcServerSettings, OtlpReceiverSettings, TlsServerSettings
from telflow import Signal
from tests.certificates import make_certificates
from tests.connectors.otlp.conftest import Running, Start, request_message
from tests.connectors.otlp.senders import STUBS, GrpcSender, HttpSender, Sender

ROOT = Path(__file__).parents[3]
PROTOCOLS = pytest.mark.parametrize("protocol", ["grpc", "http"])


def server_tls(folder: Path, *, mutual: bool = False, names: tuple[str, ...] = ()) -> TlsServerSettings:
    authority = folder / "ca.pem" if mutual else None
    cert, key = folder / "server.pem", folder / "server.key"
    return TlsServerSettings(cert_file=cert, key_file=key, client_ca_file=authority, client_names=names)


def sender(protocol: str, folder: Path, client: str | None = None, *, trust: bool = True) -> Sender:
    """A sender over TLS; `client` names the certificate it shows."""
    if protocol == "grpc":
        pair = (
            ((folder / f"{client}.key").read_bytes(), (folder / f"{client}.pem").read_bytes())
            if client
            else (None,) * 2
        )
        root = (folder / "ca.pem").read_bytes() if trust else None
        return GrpcSender(grpc.ssl_channel_credentials(root, *pair), "gateway.test")
    context = ssl.create_default_context(cafile=folder / "ca.pem" if trust else None)
    context.check_hostname = False  # the certificate is for gateway.test; the chain is verified all the same
    if client:
        context.load_cert_chain(folder / f"{client}.pem", folder / f"{client}.key")
    return HttpSender(tls=context)


def start_tls(start: Start, tls: TlsServerSettings) -> Running:
    return start(grpc={"tls": tls}, http={"tls": tls})


@PROTOCOLS
def test_20_tls(start: Start, certificates: Path, protocol: str) -> None:
    """(20) Both transports over TLS, TLS 1.2 at least; a sender that does not trust the authority sends nothing."""
    running = start_tls(start, server_tls(certificates))
    assert sender(protocol, certificates).send(running, request_message(Signal.LOGS), Signal.LOGS).ok
    distrustful = sender(protocol, certificates, trust=False)
    if isinstance(distrustful, GrpcSender):
        assert distrustful.send(running, b"", Signal.LOGS).code == "UNAVAILABLE"
    else:
        with pytest.raises(ssl.SSLCertVerificationError):
            distrustful.send(running, b"", Signal.LOGS)
    port = running.grpc_port if protocol == "grpc" else running.http_port
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection(("127.0.0.1", port), timeout=30) as plain, old.wrap_socket(plain) as wrapped:
        assert wrapped.version() in {"TLSv1.2", "TLSv1.3"}


@PROTOCOLS
@pytest.mark.parametrize("client", ["client", "stranger", "bare"])
def test_12_mutual_tls_lets_the_authoritys_clients_in(
    start: Start, certificates: Path, protocol: str, client: str
) -> None:
    """(12, 20) With client_ca_file alone, every certificate of the authority will do."""
    running = start_tls(start, server_tls(certificates, mutual=True))
    assert sender(protocol, certificates, client).send(running, request_message(Signal.LOGS), Signal.LOGS).ok


def test_12_no_client_certificate(start: Start, certificates: Path) -> None:
    """(12) HTTP: 401 with a Status that says what is missing. gRPC's library refuses the handshake: UNAVAILABLE."""
    running = start_tls(start, server_tls(certificates, mutual=True))
    answer = sender("http", certificates).send(running, request_message(Signal.LOGS), Signal.LOGS)
    assert (answer.code, answer.status.code) == (401, 16)
    assert "certificate" in answer.status.message
    assert answer.headers["www-authenticate"] == "ClientCertificate"
    assert sender("grpc", certificates).send(running, b"", Signal.LOGS).code == "UNAVAILABLE"
    assert running.taken() == []


@PROTOCOLS
def test_12_a_certificate_of_nobody(start: Start, certificates: Path, tmp_path: Path, protocol: str) -> None:
    """(12) One that no known authority has signed ends in the handshake, over both transports."""
    make_certificates(tmp_path, {"client": "client.test"})
    (tmp_path / "ca.pem").write_bytes((certificates / "ca.pem").read_bytes())
    running = start_tls(start, server_tls(certificates, mutual=True))
    unknown = sender(protocol, tmp_path, "client")
    if isinstance(unknown, GrpcSender):
        assert unknown.send(running, b"", Signal.LOGS).code == "UNAVAILABLE"
    else:
        with pytest.raises((ssl.SSLError, ConnectionError)):
            unknown.send(running, b"", Signal.LOGS)
    assert running.taken() == []


@PROTOCOLS
@pytest.mark.parametrize(("client", "allowed"), [("client", True), ("bare", True), ("stranger", False)])
def test_12_only_certain_clients(start: Start, certificates: Path, protocol: str, client: str, allowed: bool) -> None:
    """(12) With client_names another name of the same authority is PERMISSION_DENIED, 403."""
    running = start_tls(start, server_tls(certificates, mutual=True, names=("client.*", "bare")))
    known = sender(protocol, certificates, client)
    answer = known.send(running, request_message(Signal.LOGS), Signal.LOGS)
    assert answer.ok is allowed
    if not allowed:
        assert (answer.code, answer.status.code) == (known.codes["forbidden"], 7)
        assert running.taken() == []


class Peers:
    """A handler that keeps where each request came from."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def admit(self, payload_bytes: int) -> None: ...

    def handle(self, request: ExportRequest) -> bytes:
        self.seen.append(request.peer)
        return b""


@contextmanager
def grpc_server(handler: ExportHandler, **settings: Any) -> Iterator[int]:
    """A gRPC server as the receiver has it, with another handler behind; its port."""
    server = GrpcServer(GrpcServerSettings.model_validate({"endpoint": "127.0.0.1:0", **settings}), handler)
    try:
        yield server.start()
    finally:
        server.stop(1)


SETTINGS, PING, GOAWAY = 4, 6, 7


@contextmanager
def raw_http2(port: int) -> Iterator[tuple[socket.socket, Iterator[tuple[int, bytes]]]]:
    """An HTTP/2 connection without a library, and the (type, payload) of the frames that come on it (RFC 9113, 4.1)."""

    def frames() -> Iterator[tuple[int, bytes]]:
        while len(head := stream.read(9)) == 9:
            yield head[3], stream.read(int.from_bytes(head[:3], "big"))

    with (
        socket.create_connection(("127.0.0.1", port), timeout=60) as connection,
        connection.makefile("rb") as stream,
    ):
        connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, SETTINGS, 0, 0, 0, 0, 0]))
        yield connection, frames()


def test_17_concurrent_streams() -> None:
    """(17) Forty calls on one connection: as many as there are threads are worked on together, none is refused."""
    lock, now, most = threading.Lock(), 0, 0
    together = threading.Barrier(8)

    class Handler:
        def admit(self, payload_bytes: int) -> None: ...

        def handle(self, _: ExportRequest) -> bytes:
            nonlocal now, most
            with lock:
                now += 1
                most = max(most, now)
            together.wait(60)  # passes only when eight are here at once
            with lock:
                now -= 1
            return b""

    with grpc_server(Handler(), threads=8) as port, GrpcSender().channel(port) as channel:
        stub = STUBS[Signal.LOGS](channel)
        for call in [stub.Export.future(request_message(Signal.LOGS), timeout=60) for _ in range(40)]:
            call.result()
    assert most == 8


def test_17_the_limit_of_streams_is_announced(start: Start) -> None:
    """(17) The server's first frame tells clients how many streams a connection may have (RFC 9113, 6.5.2)."""
    running = start(grpc={"max_concurrent_streams": 321})
    with raw_http2(running.grpc_port) as (_, frames):
        kind, settings = next(frames)
    assert kind == SETTINGS
    pairs = [settings[at : at + 6] for at in range(0, len(settings), 6)]
    found = {int.from_bytes(pair[:2], "big"): int.from_bytes(pair[2:], "big") for pair in pairs}
    assert found[3] == 321


def test_17_keep_alive_over_http(running: Running) -> None:
    """(17) One connection serves any number of requests, refusals among them."""
    http = HttpSender()
    connection = http.connection(running.http_port)
    connection.connect()
    ours = connection.sock.getsockname()
    for body in (b"", b"\xff", b""):
        http.send(running, body, Signal.LOGS, connection=connection)
    assert connection.sock.getsockname() == ours
    connection.close()


def test_17_idle_http_connections_are_closed(start: Start) -> None:
    """(17) After idle_timeout without a request the server hangs up."""
    running = start(http={"idle_timeout": "100ms"})
    http = HttpSender()
    connection = http.connection(running.http_port)
    assert http.send(running, b"", Signal.LOGS, connection=connection).ok
    connection.sock.settimeout(60)
    assert connection.sock.recv(1) == b""
    connection.close()


def test_17_old_http_connections_are_closed_with_an_answer(start: Start) -> None:
    """(17) The first answer after max_connection_age says Connection: close; no request is lost by it."""
    running = start(http={"max_connection_age": "100ms"})
    http = HttpSender()
    connection = http.connection(running.http_port)
    while http.send(running, b"", Signal.LOGS, connection=connection).headers.get("connection") != "close":
        threading.Event().wait(0.02)
    connection.close()
    assert http.send(running, b"", Signal.LOGS).headers.get("connection") != "close"


def test_17_old_grpc_connections_are_renewed_without_loss() -> None:
    """(17) With max_connection_age a channel reconnects by itself, from another port; every call succeeds."""
    handler, sent = Peers(), 0
    age = {"max_connection_age": "200ms", "max_connection_age_grace": "60s"}
    with grpc_server(handler, keepalive=age) as port, GrpcSender().channel(port) as channel:
        stub = STUBS[Signal.LOGS](channel)
        while len(set(handler.seen)) < 3:
            stub.Export(request_message(Signal.LOGS), timeout=60)
            sent += 1
            threading.Event().wait(0.02)
    assert len(handler.seen) == sent


@pytest.mark.parametrize(("min_time", "patient"), [("1ms", True), ("1h", False)])
def test_17_pings(start: Start, min_time: str, patient: bool) -> None:
    """(17) A client that asks as often as it may is answered; one that asks more often is told to calm down."""
    running = start(grpc={"keepalive": {"min_time": min_time}})
    with raw_http2(running.grpc_port) as (connection, frames):
        acknowledged, calm_down = 0, False
        while acknowledged < 10 and not calm_down:
            threading.Event().wait(0.02)
            connection.sendall(bytes([0, 0, 8, PING, 0, 0, 0, 0, 0]) + bytes(8))
            kind, payload = next(frame for frame in frames if frame[0] in {PING, GOAWAY})
            acknowledged += kind == PING
            calm_down = b"too_many_pings" in payload
    assert calm_down is not patient
    assert (acknowledged == 10) is patient


def test_02_several_workers_share_the_ports() -> None:
    """(2) With reuse_port two processes serve the same gRPC and HTTP port, and both get their share."""
    workers: list[subprocess.Popen[str]] = []
    ports = ["0", "0"]
    try:
        for _ in range(2):
            worker = subprocess.Popen(
                [sys.executable, "-m", "tests.connectors.otlp.share_ports", *ports],
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            workers.append(worker)
            assert worker.stdout is not None
            ports = worker.stdout.readline().split()

        class Both:
            grpc_port, http_port = int(ports[0]), int(ports[1])

        message = request_message(Signal.LOGS)
        for _ in range(40):
            assert GrpcSender().send(Both, message, Signal.LOGS).ok
        after_grpc = [_received(worker) for worker in workers]
        for _ in range(40):
            assert HttpSender().send(Both, message, Signal.LOGS).ok
        after_http = [_received(worker) for worker in workers]
    finally:
        for worker in workers:
            worker.communicate(timeout=60)
    assert sum(after_grpc) == 120
    assert sum(after_http) == 240
    assert min(after_grpc) > 0
    assert all(after > before for before, after in zip(after_grpc, after_http, strict=True))


def _received(worker: subprocess.Popen[str]) -> int:
    assert worker.stdin is not None
    assert worker.stdout is not None
    worker.stdin.write("\n")
    worker.stdin.flush()
    return int(worker.stdout.readline())


def test_names_without_an_authority_are_refused(certificates: Path) -> None:
    """Names are in certificates, which clients show only when asked to."""
    with pytest.raises(ValueError, match="client_names: expected client_ca_file"):
        server_tls(certificates, names=("client",))
    settings: Any = OtlpReceiverSettings()
    assert settings.grpc.tls is None
