"""TLS and mTLS both ways, over gRPC and HTTP, with certificates made for the test (conformance point 20)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from connectors.otlp.exporter import OtlpSink
from connectors.otlp.null_server import NullOtlpServer
from connectors.otlp.settings import GrpcServerSettings, HttpServerSettings, OtlpExporterSettings, TlsServerSettings
from connectors.otlp.transport import connect
from telflow import Signal
from telflow.accounting import Ledger, Outcome
from telflow.errors import ConfigError
from tests.connectors.otlp.conftest import request_message
from tests.oracle import batch_from_message

PROTOCOLS = ["grpc", "http/protobuf"]


def server(folder: Path, *, mutual: bool) -> NullOtlpServer:
    tls = TlsServerSettings(
        cert_file=folder / "server.pem",
        key_file=folder / "server.key",
        client_ca_file=folder / "ca.pem" if mutual else None,
    )
    return NullOtlpServer(
        grpc=GrpcServerSettings(endpoint="127.0.0.1:0", tls=tls),
        http=HttpServerSettings(endpoint="127.0.0.1:0", tls=tls),
    )


def outcomes(destination: NullOtlpServer, protocol: str, tls: dict[str, Any]) -> list[tuple[Outcome, int]]:
    """Send three records and say what became of them."""
    port = destination.grpc_port if protocol == "grpc" else destination.http_port
    settings = OtlpExporterSettings.model_validate(
        {
            "endpoint": f"https://127.0.0.1:{port}",
            "protocol": protocol,
            "tls": tls,
            "retry_on_failure": {"enabled": False},
        }
    )
    ledger = Ledger()
    part = OtlpSink(settings, ledger=ledger).build_part("export", "otlp-0", None)
    part.write_batch([batch_from_message(request_message(Signal.LOGS), Signal.LOGS)])
    part.close()
    return [(row.outcome, row.count) for row in ledger.rows()]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_20_a_custom_authority_and_another_name(protocol: str, certificates: Path) -> None:
    """Trusting the authority and expecting the certificate's name, the exporter delivers."""
    tls = {"ca_file": certificates / "ca.pem", "server_name": "gateway.test"}
    with server(certificates, mutual=False) as destination:
        assert outcomes(destination, protocol, tls) == [(Outcome.DELIVERED, 3)]


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("trusts", ["nobody new", "another name"])
def test_20_a_server_that_is_not_trusted_gets_nothing(protocol: str, trusts: str, certificates: Path) -> None:
    """An unknown authority or a wrong name: nothing is sent, everything is counted as dropped."""
    tls: dict[str, Any] = {"server_name": "gateway.test"}
    if trusts == "another name":
        tls = {"ca_file": certificates / "ca.pem", "server_name": "somebody.else"}
    with server(certificates, mutual=False) as destination:
        assert outcomes(destination, protocol, tls) == [(Outcome.DROPPED, 3)]
        assert destination.requests(Signal.LOGS) == 0


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("known", [True, False])
def test_20_a_server_that_wants_to_know_its_clients(protocol: str, known: bool, certificates: Path) -> None:
    """With mTLS only the client with a certificate of the authority gets through."""
    tls = {"ca_file": certificates / "ca.pem", "server_name": "gateway.test"}
    if known:
        tls |= {"cert_file": certificates / "client.pem", "key_file": certificates / "client.key"}
    with server(certificates, mutual=True) as destination:
        assert outcomes(destination, protocol, tls) == [(Outcome.DELIVERED if known else Outcome.DROPPED, 3)]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_certificate_that_cannot_be_read_is_said(protocol: str, tmp_path: Path) -> None:
    """Before anything is sent."""
    settings = OtlpExporterSettings.model_validate(
        {"endpoint": "h:1", "protocol": protocol, "tls": {"ca_file": tmp_path / "none.pem"}}
    )
    with pytest.raises(ConfigError, match="tls: cannot"):
        connect(settings)
