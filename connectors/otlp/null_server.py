"""A destination that takes everything and does nothing with it: for tests, benchmarks and the demo.

It serves the same protocols as the receiver but never looks into a payload, so it costs a benchmark as little as a
server can, and what it keeps is exactly what was sent.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from types import TracebackType
from typing import Self

from connectors.otlp.grpc_server import GrpcServer
from connectors.otlp.http_server import HttpServer
from connectors.otlp.protocol import ExportRequest
from connectors.otlp.settings import GrpcServerSettings, HttpServerSettings
from telflow.schema import Signal

__all__ = ["NullOtlpServer"]

_ANY_PORT = "127.0.0.1:0"
_GRPC = GrpcServerSettings(endpoint=_ANY_PORT, max_request_bytes=256 << 20)
_HTTP = HttpServerSettings(endpoint=_ANY_PORT, max_request_bytes=256 << 20)


class NullOtlpServer:
    """Counts requests, and keeps them when asked to.

    >>> with NullOtlpServer(grpc=None) as server:
    ...     server.http_port > 0, server.requests(Signal.LOGS)
    (True, 0)
    """

    def __init__(
        self,
        *,
        grpc: GrpcServerSettings | None = _GRPC,
        http: HttpServerSettings | None = _HTTP,
        tenant_header: str | None = None,
        keep: bool = False,
        answer: Callable[[ExportRequest], bytes] | None = None,
    ) -> None:
        """Describe the server; entering it as a context, or `start`, opens its ports.

        Args:
            grpc: gRPC address and limits; any free port by default, None: not served.
            http: HTTP address and limits; any free port by default, None: not served.
            tenant_header: Header that is passed on as the request's tenant.
            keep: Keep every request in `kept`.
            answer: Returns the response message or raises a `Refusal`; success when not given.
        """
        self.grpc_port = 0
        self.http_port = 0
        self.kept: list[ExportRequest] = []
        self._keep = keep
        self._answer = answer
        self._lock = threading.Lock()
        self._requests: Counter[Signal] = Counter()
        self._bytes: Counter[Signal] = Counter()
        self._grpc = GrpcServer(grpc, self, tenant_header=tenant_header) if grpc else None
        self._http = HttpServer(http, self, tenant_header=tenant_header) if http else None

    def start(self) -> None:
        """Open the ports.

        Raises:
            ConfigError: A port is taken.
        """
        if self._grpc is not None:
            self.grpc_port = self._grpc.start()
        if self._http is not None:
            self.http_port = self._http.start()

    def stop(self) -> None:
        """Close the ports."""
        for server in (self._grpc, self._http):
            if server is not None:
                server.stop(1.0)

    def requests(self, signal: Signal) -> int:
        """Requests of one signal that were answered with success."""
        return self._requests[signal]

    def payload_bytes(self, signal: Signal) -> int:
        """Uncompressed bytes of these requests."""
        return self._bytes[signal]

    def admit(self, payload_bytes: int) -> None:
        """See `ExportHandler.admit`: there is always room."""

    def handle(self, request: ExportRequest) -> bytes:
        """See `ExportHandler.handle`."""
        response = self._answer(request) if self._answer is not None else b""
        with self._lock:
            self._requests[request.signal] += 1
            self._bytes[request.signal] += len(request.payload)
            if self._keep:
                self.kept.append(request)
        return response

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()
