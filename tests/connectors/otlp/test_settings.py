"""OTLP settings: what is accepted, and how what is not is said."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from connectors.otlp.settings import OtlpExporterSettings, OtlpReceiverSettings, TlsClientSettings, split_address


def test_the_default_receiver_listens_on_the_loopback_at_the_ports_of_otlp() -> None:
    """(2) gRPC on 4317, HTTP on 4318, not open to the world unless asked for."""
    settings = OtlpReceiverSettings()
    assert settings.grpc is not None
    assert settings.http is not None
    assert (settings.grpc.endpoint, settings.http.endpoint) == ("127.0.0.1:4317", "127.0.0.1:4318")
    assert settings.http.max_request_bytes == 20 << 20


@pytest.mark.parametrize(
    ("address", "parts"),
    [("localhost:0", ("localhost", 0)), ("[::]:4317", ("::", 4317)), ("1.2.3.4:65535", ("1.2.3.4", 65535))],
)
def test_addresses(address: str, parts: tuple[str, int]) -> None:
    """Names, IPv4 and bracketed IPv6."""
    assert split_address(address) == parts


@pytest.mark.parametrize(
    "address", ["4317", "localhost", ":4317", "::1:4317", "h:65536", "h:-1", "h:x", "h:", "[]:1", ""]
)
def test_addresses_that_are_none(address: str) -> None:
    """Each is refused with an example or the range of ports."""
    with pytest.raises(ValueError, match=r"expected host:port|expected a port between 0 and 65535"):
        split_address(address)


def test_a_receiver_of_nothing_is_refused() -> None:
    """Both protocols switched off is a mistake."""
    with pytest.raises(ValidationError, match="expected grpc or http or both"):
        OtlpReceiverSettings(grpc=None, http=None)


@pytest.mark.parametrize(
    ("values", "target", "url", "secure"),
    [
        ({"endpoint": "h:1"}, "h:1", "http://h:1", False),
        ({"endpoint": "https://h:1/"}, "h:1", "https://h:1", True),
        ({"endpoint": "h:1", "tls": {}}, "h:1", "https://h:1", True),
        ({"endpoint": "http://h:1/otlp/", "protocol": "http/json"}, "h:1/otlp", "http://h:1/otlp", False),
    ],
)
def test_endpoints(values: dict[str, Any], target: str, url: str, secure: bool) -> None:
    """The scheme or tls decides about encryption; HTTP keeps a path prefix."""
    settings = OtlpExporterSettings(**values)
    assert (settings.target, settings.url, settings.secure) == (target, url, secure)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"endpoint": "nowhere"}, "expected host:port"),
        ({"endpoint": "h:1", "compression": "zstd"}, "compression none or gzip with protocol grpc"),
        ({"endpoint": "http://", "protocol": "http/protobuf"}, "expected a URL"),
        ({"endpoint": "http://h/?a=1", "protocol": "http/protobuf"}, "expected a URL"),
        ({"endpoint": "http://h:1", "protocol": "http/protobuf", "tls": {}}, "expected https://"),
        ({"endpoint": "h:1", "retry_on_failure": {"initial_interval": "1m"}}, "max_interval to be at least"),
        ({"endpoint": "h:1", "sending_queue": {"num_consumers": 0}}, "greater than or equal to 1"),
    ],
)
def test_what_does_not_fit_together_is_refused(values: dict[str, Any], message: str) -> None:
    """The message says what was expected."""
    with pytest.raises(ValidationError, match=message):
        OtlpExporterSettings(**values)


def test_requests_are_capped_as_the_protocol_recommends() -> None:
    """(18) 4 MiB over gRPC, 20 MiB over HTTP, or what is set."""
    assert OtlpExporterSettings(endpoint="h:1").request_bytes == 4 << 20
    assert OtlpExporterSettings(endpoint="h:1", protocol="http/protobuf").request_bytes == 20 << 20
    assert OtlpExporterSettings(endpoint="h:1", max_request_bytes=9999).request_bytes == 9999


def test_a_client_certificate_needs_its_key() -> None:
    """One without the other cannot identify anybody."""
    with pytest.raises(ValidationError, match="cert_file and key_file together"):
        TlsClientSettings(cert_file="x.pem")  # type: ignore[arg-type]
