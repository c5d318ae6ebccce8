"""The port on which a gateway tells how it is: `/metrics` for Prometheus, `/healthz`, `/readyz`."""

from __future__ import annotations

import json
import logging
import socket
import socketserver
import sys
import threading
from collections.abc import Callable, Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from typing import Protocol
from urllib.parse import urlsplit

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from typing_extensions import override

from telflow.errors import ConfigError, describe_fault

__all__ = ["Condition", "TelemetryServer"]

_LOG = logging.getLogger(__name__)
_STILL_S = 5.0  # a client that says nothing for so long is hung up on


class Condition(Protocol):
    """What is wrong; nothing when all is well."""

    def __call__(self) -> list[str]:
        """Return the complaints."""
        ...


class TelemetryServer:
    """Serves three paths to GET, in threads of its own, without authentication."""

    def __init__(
        self,
        address: tuple[str, int],
        collector: Collector,
        *,
        health: Condition,
        readiness: Condition,
        more: Sequence[Callable[[], bytes]] = (),
    ) -> None:
        """Describe the server; `start` opens its port.

        Args:
            address: Host and port; port 0 for any free one.
            collector: Where metrics come from.
            health: Why the process should be restarted.
            readiness: Why it should get no data now.
            more: What else `/metrics` shows, as Prometheus text; with any of it, nothing but text is spoken.
        """
        self._address = address
        registry = CollectorRegistry(auto_describe=False)
        registry.register(collector)
        answers = {
            "/metrics": lambda accept: _metrics(registry, accept, more),
            "/healthz": lambda _: _condition(health),
            "/readyz": lambda _: _condition(readiness),
        }
        self._handler = type("Handler", (_Handler,), {"answers": answers})
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> int:
        """Open the port and serve; returns its number.

        Raises:
            ConfigError: The port is taken.
        """
        host, port = self._address
        kind = _Server6 if ":" in host else _Server
        try:
            self._server = kind((host, port), self._handler)
        except OSError as error:
            raise ConfigError(f"telemetry.endpoint: {host}:{port} cannot be opened: {error.strerror}") from error
        self._thread = threading.Thread(target=self._server.serve_forever, name="telflow-telemetry", daemon=True)
        self._thread.start()
        return int(self._server.server_address[1])

    def stop(self) -> None:
        """Close the port; safe when it was never opened."""
        if self._server is not None and self._thread is not None:
            self._server.shutdown()
            self._server.server_close()
            self._thread.join(_STILL_S)
            self._server = None


class _Server(socketserver.ThreadingTCPServer):
    # Not the HTTP server of the standard library, which asks the DNS for its own name before it serves.
    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    @override
    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up is no event."""
        error = sys.exception()
        if error is not None and not isinstance(error, OSError):
            _LOG.error("telemetry: %s", describe_fault(error))


class _Server6(_Server):
    address_family = socket.AF_INET6


class _Handler(BaseHTTPRequestHandler):
    answers: dict[str, Callable[[str], tuple[HTTPStatus, str, bytes]]]
    protocol_version = "HTTP/1.1"
    server_version = "telflow"
    sys_version = ""
    timeout = _STILL_S

    def do_GET(self) -> None:
        answer = self.answers.get(urlsplit(self.path).path)
        if answer is None:
            self._send(HTTPStatus.NOT_FOUND, "text/plain", b"there are /metrics, /healthz and /readyz\n")
            return
        try:
            said = answer(self.headers.get("Accept", ""))
        except Exception as error:  # noqa: BLE001 - the gateway is not to suffer for what tells about it
            _LOG.error("telemetry: %s: %s", self.path, describe_fault(error))
            said = HTTPStatus.INTERNAL_SERVER_ERROR, "text/plain", b"internal error; the log has the details\n"
        self._send(*said)

    def _send(self, status: HTTPStatus, content_type: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    @override
    def log_message(self, format: str, *args: object) -> None:
        _LOG.debug(format, *args)


def _metrics(
    registry: CollectorRegistry, accept: str, more: Sequence[Callable[[], bytes]]
) -> tuple[HTTPStatus, str, bytes]:
    encoder, content_type = choose_encoder("" if more else accept)
    return HTTPStatus.OK, content_type, b"".join([encoder(registry), *(render() for render in more)])


def _condition(ask: Condition) -> tuple[HTTPStatus, str, bytes]:
    complaints = ask()
    status = HTTPStatus.SERVICE_UNAVAILABLE if complaints else HTTPStatus.OK
    body = {"status": "unavailable" if complaints else "ok", "reasons": complaints}
    return status, "application/json", json.dumps(body).encode() + b"\n"
