"""OTLP destinations named on the command line."""

from __future__ import annotations

import socket

import pytest

from control.endpoint import exporter_settings, require_listener
from control.exit_codes import UnavailableError
from telflow.errors import ConfigError


@pytest.mark.parametrize(
    ("endpoint", "protocol"),
    [
        ("localhost:4317", "grpc"),
        ("http://localhost:4317", "grpc"),
        ("http://localhost:4318", "http/protobuf"),
        ("https://backend", "http/protobuf"),
    ],
)
def test_the_protocol_follows_from_the_endpoint(endpoint: str, protocol: str) -> None:
    """A URL is HTTP, unless its port is gRPC's; a stated protocol wins."""
    assert exporter_settings(endpoint).protocol == protocol
    assert exporter_settings("http://localhost:1", protocol="http/json").protocol == "http/json"


def test_what_is_no_endpoint_is_refused() -> None:
    """In one line."""
    with pytest.raises(ConfigError, match="expected host:port, for example"):
        exporter_settings("nonsense")


def test_an_endpoint_without_a_listener_is_told_at_once() -> None:
    """Rather than after minutes of retries; what to do is said."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        with pytest.raises(UnavailableError, match=f"endpoint 127.0.0.1:{port}: expected an OTLP receiver"):
            require_listener(exporter_settings(f"127.0.0.1:{port}"))
        unused.listen()
        require_listener(exporter_settings(f"127.0.0.1:{port}"))
        require_listener(exporter_settings(f"http://127.0.0.1:{port}"))
