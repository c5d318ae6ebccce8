"""Requests over HTTP, on a pool of kept connections."""

from __future__ import annotations

import asyncio
import concurrent.futures
import ssl

import aiohttp

from connectors.otlp.answer import classify_http
from connectors.otlp.compression import compress
from connectors.otlp.loop_thread import LoopThread
from connectors.otlp.protocol import HTTP_PATHS
from connectors.otlp.settings import OtlpConnectionSettings
from telflow.delivery.transport import Answer, Verdict
from telflow.errors import ConfigError
from telflow.schema import Signal

__all__ = ["AsyncHttpTransport", "HttpTransport"]

_LARGEST_ANSWER = 1 << 20  # a Status or a partial success; what is longer is no answer of an OTLP server
_CLOSED = Answer(Verdict.RETRYABLE, "no answer", "the connection was closed on this side")
_LONG_TO_COMPRESS = 64 << 10  # bytes; more would hold the event loop up for milliseconds


class AsyncHttpTransport:
    """Sends requests from the tasks of one event loop."""

    def __init__(self, settings: OtlpConnectionSettings) -> None:
        """Prepare the pool; it connects with the first request. To be called in the event loop that will use it.

        Raises:
            ConfigError: A certificate cannot be read.
        """
        pool = _Pool(settings)
        self._compression = settings.compression
        self._pool = pool
        pool.open()

    async def send(self, signal: Signal, body: bytes) -> Answer:
        """See `AsyncTransport.send`."""
        if self._compression != "none" and len(body) > _LONG_TO_COMPRESS:
            # Work for a processor, not for the loop that everybody waits for; it releases the interpreter's lock.
            body = await asyncio.to_thread(compress, body, self._compression)
        else:
            body = compress(body, self._compression)
        return await self._pool.post(signal, body)

    async def close(self) -> None:
        """See `AsyncTransport.close`."""
        await self._pool.close()


class HttpTransport:
    """Sends requests from any number of threads; the connections live in an event loop in a thread of its own."""

    def __init__(self, settings: OtlpConnectionSettings) -> None:
        """Prepare the pool; it connects with the first request.

        Raises:
            ConfigError: A certificate cannot be read.
        """
        self._compression = settings.compression
        self._pool = _Pool(settings)
        self._loop = LoopThread("otlp-http-client")
        self._loop.run(self._open())

    async def _open(self) -> None:
        self._pool.open()

    def send(self, signal: Signal, body: bytes) -> Answer:
        """See `Transport.send`."""
        # Compressed in the caller's thread: it takes longer than all the rest, and without the interpreter's lock.
        compressed = compress(body, self._compression)
        try:
            return self._loop.run(self._pool.post(signal, compressed))
        except (concurrent.futures.CancelledError, RuntimeError):
            return _CLOSED  # the loop has ended before the request

    def close(self) -> None:
        """See `Transport.close`."""
        self._loop.run(self._pool.close())
        self._loop.stop()


class _Pool:
    """The connections to a destination, and how it is asked."""

    def __init__(self, settings: OtlpConnectionSettings) -> None:
        self._urls = {signal: settings.url + path for signal, path in HTTP_PATHS.items()}
        self._headers = {name: value.get_secret_value() for name, value in settings.headers.items()}
        self._headers["Content-Type"] = (
            "application/json" if settings.protocol == "http/json" else "application/x-protobuf"
        )
        if settings.compression != "none":
            self._headers["Content-Encoding"] = settings.compression
        self._tls = _ssl_context(settings) if settings.secure else None
        self._server_name = settings.tls.server_name if settings.tls else None
        self._connections = settings.connections
        self._timeout_s = settings.timeout.total_seconds()
        self._keepalive_s = settings.keepalive_time.total_seconds()

    def open(self) -> None:
        """Make the session, in the event loop that runs now."""
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=self._connections, ssl=self._tls or True, keepalive_timeout=self._keepalive_s
            ),
            timeout=aiohttp.ClientTimeout(total=self._timeout_s),
            headers=self._headers,
        )

    async def post(self, signal: Signal, body: bytes) -> Answer:
        """Send one request, compressed already."""
        if self._session.closed:
            return _CLOSED
        try:
            async with self._session.post(
                self._urls[signal], data=body, allow_redirects=False, server_hostname=self._server_name
            ) as response:
                answer = bytearray()
                async for part in response.content.iter_any():
                    answer += part
                    if len(answer) > _LARGEST_ANSWER:
                        break
                return classify_http(signal, response.status, response.headers, bytes(answer[:_LARGEST_ANSWER]))
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            # No answer came: the specification has such a request repeated.
            return Answer(Verdict.RETRYABLE, "no answer", type(error).__name__)

    async def close(self) -> None:
        """Close the connections."""
        await self._session.close()


def _ssl_context(settings: OtlpConnectionSettings) -> ssl.SSLContext:
    tls = settings.tls
    try:
        context = ssl.create_default_context(cafile=tls.ca_file if tls else None)
        if tls is not None and tls.cert_file is not None:
            context.load_cert_chain(tls.cert_file, tls.key_file)
    except OSError as error:  # ssl.SSLError is one
        raise ConfigError(f"tls: cannot use the certificates: {error}") from None
    return context
