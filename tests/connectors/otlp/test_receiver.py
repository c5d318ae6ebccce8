"""The receiver as a whole: ports, certificates, start and stop."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from connectors.otlp.receiver import BoundPorts, OtlpReceiver
from connectors.otlp.settings import (
    GrpcServerSettings,
    HttpServerSettings,
    OtlpReceiverSettings,
    TlsServerSettings,
)
from telflow import Signal
from telflow.delivery.intake import MemoryIntake, RequestMeta
from telflow.errors import ConfigError
from tests.connectors.otlp.conftest import Running, Start, request_message

ANY = "127.0.0.1:0"


@pytest.mark.parametrize("taken", ["grpc", "http"])
def test_a_taken_port_is_said_with_the_key_the_address_and_a_hint(taken: str) -> None:
    """Nothing is left open, and the message says what to change."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        settings = OtlpReceiverSettings(
            grpc=GrpcServerSettings(endpoint=address if taken == "grpc" else ANY),
            http=HttpServerSettings(endpoint=address if taken == "http" else ANY),
        )
        with pytest.raises(ConfigError) as refused:
            OtlpReceiver(settings, MemoryIntake(), name="receivers.otlp").start()
    message = str(refused.value)
    assert message.startswith(f"receivers.otlp: {taken}.endpoint: cannot listen on {address}: ")
    assert "in use" in message.lower()
    assert "hint: another process may use the port" in message


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_an_address_that_is_not_ours_is_said(protocol: str) -> None:
    """192.0.2.1 (documentation) belongs to no machine."""
    settings = OtlpReceiverSettings(
        grpc=GrpcServerSettings(endpoint="192.0.2.1:4317") if protocol == "grpc" else None,
        http=HttpServerSettings(endpoint="192.0.2.1:4318") if protocol == "http" else None,
    )
    with pytest.raises(ConfigError, match=rf"{protocol}\.endpoint: cannot listen on 192\.0\.2\.1"):
        OtlpReceiver(settings, MemoryIntake()).start()


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_a_certificate_that_cannot_be_read_is_said(protocol: str, tmp_path: Path) -> None:
    """The message names the setting and the file."""
    tls = TlsServerSettings(cert_file=tmp_path / "cert.pem", key_file=tmp_path / "key.pem")
    settings = OtlpReceiverSettings(
        grpc=GrpcServerSettings(endpoint=ANY, tls=tls) if protocol == "grpc" else None,
        http=HttpServerSettings(endpoint=ANY, tls=tls) if protocol == "http" else None,
    )
    with pytest.raises(ConfigError, match=rf"{protocol}\.tls: cannot .*\.pem"):
        OtlpReceiver(settings, MemoryIntake()).start()


def test_one_protocol_alone() -> None:
    """What is null is not served."""
    receiver = OtlpReceiver(OtlpReceiverSettings(http=None, grpc=GrpcServerSettings(endpoint=ANY)), MemoryIntake())
    ports = receiver.start()
    assert ports == BoundPorts(ports.grpc, None)
    assert ports.grpc
    receiver.stop()


def test_a_port_can_be_shared_when_asked_for() -> None:
    """With reuse_port several processes (here: receivers) listen on one port; without it the second is refused."""
    first = OtlpReceiver(_shared(0, 0), MemoryIntake())
    ports = first.start()
    second = OtlpReceiver(_shared(ports.grpc or 0, ports.http or 0), MemoryIntake())
    assert second.start() == ports
    second.stop()
    first.stop()


def _shared(grpc_port: int, http_port: int) -> OtlpReceiverSettings:
    return OtlpReceiverSettings(
        grpc=GrpcServerSettings(endpoint=f"127.0.0.1:{grpc_port}"),
        http=HttpServerSettings(endpoint=f"127.0.0.1:{http_port}"),
        reuse_port=True,
    )


def test_stopping_twice_or_before_the_start_does_no_harm(start: Start) -> None:
    """A supervisor may stop what never came up."""
    OtlpReceiver(OtlpReceiverSettings(), MemoryIntake()).stop()
    running = start()
    running.stop()
    running.stop()


def test_after_a_stop_the_port_is_free_again(start: Start) -> None:
    """A restart finds its ports."""
    running = start()
    running.stop()
    again = start(
        grpc={"endpoint": f"127.0.0.1:{running.grpc_port}"}, http={"endpoint": f"127.0.0.1:{running.http_port}"}
    )
    assert again.http_port == running.http_port
    assert again.post(b"").status == 200


def test_the_intake_learns_where_a_request_came_from(start: Start) -> None:
    """Tenant, signal, encoding, time of arrival, peer and payload are there for an intake that keeps them."""
    seen: list[RequestMeta] = []

    class Curious(MemoryIntake):
        def accept(self, request: RequestMeta) -> int:
            seen.append(request)
            return super().accept(request)

    running: Running = start(intake=Curious(), tenant="acme")
    body = request_message(Signal.LOGS).SerializeToString()
    running.post(body)
    (meta,) = seen
    assert meta.payload == body
    assert (meta.tenant, meta.signal, meta.encoding, meta.peer) == ("acme", Signal.LOGS, "protobuf", "127.0.0.1")
    assert meta.arrival_time_unix_nano > 1_600_000_000_000_000_000
