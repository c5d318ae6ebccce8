"""The OTLP client over HTTP."""

from __future__ import annotations

import ssl

import aiohttp

from connectors.otlp.client import Answer, Verdict, classify_http
from connectors.otlp.compression import compress
from connectors.otlp.loop_thread import LoopThread
from connectors.otlp.protocol import HTTP_PATHS
from connectors.otlp.settings import OtlpExporterSettings
from telflow.errors import ConfigError
from telflow.schema import Signal

__all__ = ["HttpClient"]

_LARGEST_ANSWER = 1 << 20  # a Status or a partial success; what is longer is no answer of an OTLP server


class HttpClient:
    """Sends requests over a pool of kept connections from an event loop in a thread of its own."""

    def __init__(self, settings: OtlpExporterSettings) -> None:
        """Prepare the pool; it connects with the first request.

        Raises:
            ConfigError: A certificate cannot be read.
        """
        self._urls = {signal: settings.url + path for signal, path in HTTP_PATHS.items()}
        self._compression = settings.compression
        self._headers = {name: value.get_secret_value() for name, value in settings.headers.items()}
        self._headers["Content-Type"] = (
            "application/json" if settings.protocol == "http/json" else "application/x-protobuf"
        )
        if settings.compression != "none":
            self._headers["Content-Encoding"] = settings.compression
        self._tls = _ssl_context(settings) if settings.secure else None
        self._server_name = settings.tls.server_name if settings.tls else None
        self._loop = LoopThread("otlp-http-client")
        self._session = self._loop.run(self._open(settings))

    async def _open(self, settings: OtlpExporterSettings) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=settings.concurrency, ssl=self._tls or True),
            timeout=aiohttp.ClientTimeout(total=settings.timeout.total_seconds()),
            headers=self._headers,
        )

    def send(self, signal: Signal, body: bytes) -> Answer:
        """See `Transport.send`."""
        # Compressed in the caller's thread: it takes longer than all the rest, and without the interpreter's lock.
        return self._loop.run(self._post(signal, compress(body, self._compression)))

    async def _post(self, signal: Signal, body: bytes) -> Answer:
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

    def close(self) -> None:
        """See `Transport.close`."""
        self._loop.run(self._session.close())
        self._loop.stop()


def _ssl_context(settings: OtlpExporterSettings) -> ssl.SSLContext:
    tls = settings.tls
    try:
        context = ssl.create_default_context(cafile=tls.ca_file if tls else None)
        if tls is not None and tls.cert_file is not None:
            context.load_cert_chain(tls.cert_file, tls.key_file)
    except OSError as error:  # ssl.SSLError is one
        raise ConfigError(f"tls: cannot use the certificates: {error}") from None
    return context
