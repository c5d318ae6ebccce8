"""An OTLP destination named on the command line."""

from __future__ import annotations

import socket
from urllib.parse import urlsplit

from connectors.otlp import OtlpClientSettings, OtlpExporterSettings
from connectors.otlp.settings import OtlpConnectionSettings
from control.exit_codes import UnavailableError
from telflow.configuration import from_options

__all__ = ["client_settings", "exporter_settings", "require_listener"]

_CONNECT_TIMEOUT_S = 3.0
_GRPC_PORT = 4317


def exporter_settings(endpoint: str, *, protocol: str | None = None, **options: object) -> OtlpExporterSettings:
    """Return the exporter's settings for an endpoint; without a protocol, a URL of port other than 4317 means HTTP.

    Raises:
        ConfigError: It is no endpoint.

    >>> exporter_settings("localhost:4317").protocol, exporter_settings("http://localhost:4318").protocol
    ('grpc', 'http/protobuf')
    """
    return from_options(OtlpExporterSettings, _options(endpoint, protocol, options))


def client_settings(endpoint: str, *, protocol: str | None = None, **options: object) -> OtlpClientSettings:
    """Return the client's settings for an endpoint; see `exporter_settings`.

    Raises:
        ConfigError: It is no endpoint.
    """
    return from_options(OtlpClientSettings, _options(endpoint, protocol, options))


def _options(endpoint: str, protocol: str | None, options: dict[str, object]) -> dict[str, object]:
    if protocol is None:
        is_url = endpoint.startswith(("http://", "https://"))
        protocol = "http/protobuf" if is_url and urlsplit(endpoint).port != _GRPC_PORT else "grpc"
    return {"endpoint": endpoint, "protocol": protocol, **options}


def require_listener(settings: OtlpConnectionSettings) -> None:
    """Make sure that something listens at the endpoint, rather than retry for minutes what was a typing error.

    Raises:
        UnavailableError: Nothing does.
    """
    parts = urlsplit(settings.endpoint if "://" in settings.endpoint else f"//{settings.endpoint}")
    port = parts.port or (443 if settings.secure else 80)
    try:
        socket.create_connection((parts.hostname or "", port), _CONNECT_TIMEOUT_S).close()
    except OSError as error:
        raise UnavailableError(
            f"endpoint {settings.endpoint}: expected an OTLP receiver, got {error.strerror or error}\n"
            "  hint: start one with `telflow run`, or name another with --endpoint"
        ) from error
