"""What an HTTP connection may cost before it has sent a request: a place among so many, for so long.

A sender that opens connections and says nothing, or a byte now and then, would else keep others out with next to no
effort of its own ("slowloris"). Bodies have a time limit of their own, `read_timeout`.
"""

from __future__ import annotations

import asyncio
import resource
from collections.abc import Callable
from typing import Any

import grpc
from aiohttp import web
from typing_extensions import override

from connectors.otlp.protocol import OnRefusal, Refusal

__all__ = ["ConnectionServer", "most_connections"]

_RETRY_AFTER_S = 1


def most_connections(wanted: int | None, files: int | None = None) -> int:
    """Return how many connections may be open at a time.

    Args:
        wanted: The setting; None: three quarters of the files this process may have open, for each connection is one.
        files: How many these are; None: the system is asked.

    >>> most_connections(None, files=1024), most_connections(50, files=1024)
    (768, 50)
    """
    if wanted is not None:
        return wanted
    if files is None:
        files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return 1 << 20 if files == resource.RLIM_INFINITY else max(1, files * 3 // 4)


class ConnectionServer(web.Server):
    """A server whose connections are limited in number, and in the time they may take to send a first request."""

    def __init__(
        self,
        handler: Callable[[web.BaseRequest], Any],
        *,
        max_connections: int,
        header_timeout_s: float,
        on_refusal: OnRefusal,
        **options: Any,
    ) -> None:
        """Set up.

        Args:
            handler: Answers requests.
            max_connections: A further one is told to come back (503) and closed.
            header_timeout_s: One whose first request's headers are not complete by then is closed (408).
            on_refusal: Told of both.
            options: Of aiohttp's `RequestHandler`.
        """
        super().__init__(self._begun, **options)
        self.max_connections = max_connections
        self.header_timeout_s = header_timeout_s
        self.on_refusal = on_refusal
        self.open = 0
        self._handler = handler
        self._options = options

    @override
    def __call__(self) -> web.RequestHandler:
        return _Connection(self, self._options)

    async def _begun(self, request: web.BaseRequest) -> Any:
        if isinstance(request.protocol, _Connection):
            request.protocol.has_asked()
        return await self._handler(request)


class _Connection(web.RequestHandler):
    __slots__ = ("_counted", "_header_timer", "_server")

    def __init__(self, server: ConnectionServer, options: dict[str, Any]) -> None:
        super().__init__(server, loop=asyncio.get_running_loop(), **options)
        self._server = server
        self._counted = False
        self._header_timer: asyncio.TimerHandle | None = None

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        server = self._server
        if server.open >= server.max_connections:
            message = f"more than {server.max_connections} connections"
            self._turn_away(transport, Refusal(grpc.StatusCode.UNAVAILABLE, 503, message, retry_after_s=_RETRY_AFTER_S))
            return
        self._counted = True
        server.open += 1
        super().connection_made(transport)
        self._header_timer = self._loop.call_later(server.header_timeout_s, self._is_late)

    @override
    def connection_lost(self, exc: BaseException | None) -> None:
        self.has_asked()
        if self._counted:
            self._counted = False
            self._server.open -= 1
            super().connection_lost(exc)

    def has_asked(self) -> None:
        """A request has begun."""
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None

    def _is_late(self) -> None:
        self._header_timer = None
        if self.transport is not None:
            message = f"no complete request headers within {self._server.header_timeout_s:g} s"
            self._turn_away(self.transport, Refusal(grpc.StatusCode.DEADLINE_EXCEEDED, 408, message))

    def _turn_away(self, transport: asyncio.BaseTransport, refusal: Refusal) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - a TCP server's is one
        self._server.on_refusal(None, refusal)
        status = "503 Service Unavailable" if refusal.http_status == 503 else "408 Request Timeout"  # noqa: PLR2004
        retry = "" if refusal.retry_after_s is None else f"Retry-After: {_RETRY_AFTER_S}\r\n"
        text = refusal.message.encode()
        head = (
            f"HTTP/1.1 {status}\r\n{retry}Connection: close\r\nContent-Type: text/plain\r\nContent-Length: {len(text)}"
        )
        transport.write(head.encode() + b"\r\n\r\n" + text)
        transport.close()
