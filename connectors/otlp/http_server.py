"""OTLP over HTTP: protobuf and JSON on one port, bodies compressed with gzip, deflate or zstd."""

from __future__ import annotations

import asyncio
import logging
import math
import ssl
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from weakref import WeakKeyDictionary

import grpc
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from connectors.otlp.client_certificates import ClientNames
from connectors.otlp.compression import CONTENT_ENCODINGS, CorruptBodyError, TooLargeError, decompress
from connectors.otlp.cors import Cors
from connectors.otlp.http_connections import ConnectionServer, most_connections
from connectors.otlp.loop_thread import LoopThread
from connectors.otlp.protocol import (
    HTTP_PATHS,
    ExportHandler,
    ExportRequest,
    OnRefusal,
    Refusal,
    ignore,
    status_bytes,
)
from connectors.otlp.settings import HttpServerSettings, TlsServerSettings, split_address
from telflow.codec import Encoding
from telflow.errors import ConfigError, describe_fault
from telflow.screening import count_records

__all__ = ["HttpServer"]

_LOG = logging.getLogger(__name__)
_ENCODINGS: dict[str, Encoding] = {"application/x-protobuf": "protobuf", "application/json": "json"}
_CONTENT_TYPES: dict[Encoding, str] = {"protobuf": "application/x-protobuf", "json": "application/json"}
_SUCCESS: dict[Encoding, bytes] = {"protobuf": b"", "json": b"{}"}
_SIGNALS = {path: signal for signal, path in HTTP_PATHS.items()}
_READ_BYTES = 1 << 20


class HttpServer:
    """Serves the signal paths from an event loop in a thread of its own until it is stopped."""

    def __init__(
        self,
        settings: HttpServerSettings,
        handler: ExportHandler,
        *,
        tenant_header: str | None = None,
        reuse_port: bool = False,
        on_refusal: OnRefusal = ignore,
    ) -> None:
        """Describe the server; `start` opens the port.

        Args:
            settings: Address and limits.
            handler: What is done with requests.
            tenant_header: Header that names the tenant; None: not asked for.
            reuse_port: Share the port with other processes.
            on_refusal: Told of every request that is refused.
        """
        self._settings = settings
        self._handler = handler
        self._tenant_header = tenant_header
        self._reuse_port = reuse_port
        self._on_refusal = on_refusal
        self._cors = None if settings.cors is None else Cors(settings.cors, headers=filter(None, [tenant_header]))
        self._knows_clients = settings.tls is not None and settings.tls.client_ca_file is not None
        self._clients = ClientNames.of(settings.tls)
        self._connected_s: WeakKeyDictionary[asyncio.BaseTransport, float] = WeakKeyDictionary()
        self._loop: LoopThread | None = None
        self._pool: ThreadPoolExecutor | None = None
        self._web: ConnectionServer | None = None
        self._listener: asyncio.Server | None = None
        self._reading_bytes = 0  # of bodies that are still arriving, or announced

    def start(self) -> int:
        """Open the port and serve.

        Returns:
            The port, which the system has chosen when the settings say 0.

        Raises:
            ConfigError: The address cannot be used, or a certificate cannot be read.
        """
        context = None if self._settings.tls is None else _ssl_context(self._settings.tls)
        self._pool = ThreadPoolExecutor(self._settings.threads, thread_name_prefix="otlp-http-decode")
        self._loop = LoopThread("otlp-http")
        try:
            return self._loop.run(self._listen(context))
        except OSError as error:
            self.stop(0)
            why = error.strerror or str(error)
            raise ConfigError(f"http.endpoint: cannot listen on {self._settings.endpoint}: {why}") from None

    def stop(self, grace_s: float) -> None:
        """Accept nothing more, let requests under way finish for up to `grace_s` seconds, close the port."""
        if self._loop is not None:
            self._loop.run(self._close(grace_s))
            self._loop.stop()
            self._loop = None
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None

    async def _listen(self, context: ssl.SSLContext | None) -> int:
        host, port = split_address(self._settings.endpoint)
        header_timeout_s = self._settings.read_header_timeout.total_seconds()
        self._web = ConnectionServer(
            self._answer,
            max_connections=most_connections(self._settings.max_connections),
            header_timeout_s=header_timeout_s,
            on_refusal=self._on_refusal,
            access_log=None,
            auto_decompress=False,
            read_bufsize=_READ_BYTES,
            lingering_time=10.0,
            keepalive_timeout=self._settings.idle_timeout.total_seconds(),
        )
        self._listener = await asyncio.get_running_loop().create_server(
            self._web,
            host,
            port,
            ssl=context,
            ssl_handshake_timeout=None if context is None else header_timeout_s,
            reuse_port=self._reuse_port or None,
            backlog=1024,
        )
        return int(self._listener.sockets[0].getsockname()[1])

    async def _close(self, grace_s: float) -> None:
        if self._listener is not None:
            self._listener.close()
        if self._web is not None:
            self._web.pre_shutdown()
            await self._web.shutdown(grace_s)

    async def _answer(self, request: web.BaseRequest) -> web.Response:
        if (
            self._cors is not None
            and request.method == "OPTIONS"
            and "Access-Control-Request-Method" in request.headers
        ):
            response = _preflight(self._cors, request)
        else:
            response = await self._answer_export(request)
            if self._cors is not None:
                response.headers.update(self._cors.headers(request.headers))
        if self._settings.max_connection_age is not None and request.transport is not None:
            now_s = asyncio.get_running_loop().time()
            age_s = now_s - self._connected_s.setdefault(request.transport, now_s)
            if age_s >= self._settings.max_connection_age.total_seconds():
                response.force_close()
        return response

    async def _answer_export(self, request: web.BaseRequest) -> web.Response:
        encoding = _ENCODINGS.get(request.content_type)
        try:
            body = await self._export(request, encoding)
            return _response(200, body or _SUCCESS[encoding or "protobuf"], encoding or "protobuf")
        except Refusal as refusal:
            answer = refusal
        except (asyncio.CancelledError, ConnectionError):
            raise  # the sender is gone
        except Exception as error:  # noqa: BLE001 - whatever it is, the worker goes on
            _LOG.error("request from %s: internal error %s", request.remote, describe_fault(error))
            answer = Refusal.internal()
        self._on_refusal(_SIGNALS.get(request.path), answer)
        # JSON for a sender that speaks neither encoding: a person may read it.
        encoding = encoding or "json"
        response = _response(answer.http_status, status_bytes(answer.status(), encoding), encoding)
        if answer.retry_after_s is not None:
            response.headers["Retry-After"] = str(math.ceil(answer.retry_after_s))
        if answer.challenge is not None:
            response.headers["WWW-Authenticate"] = answer.challenge
        if answer.http_status == HTTPStatus.METHOD_NOT_ALLOWED:
            response.headers["Allow"] = "POST"
        if answer.http_status == HTTPStatus.UNSUPPORTED_MEDIA_TYPE:
            response.headers["Accept-Encoding"] = ", ".join(CONTENT_ENCODINGS)
        return response

    async def _export(self, request: web.BaseRequest, encoding: Encoding | None) -> bytes:
        if self._knows_clients:
            self._check_client(request)
        signal = _SIGNALS.get(request.path)
        if signal is None:
            known = ", ".join(_SIGNALS)
            raise Refusal(grpc.StatusCode.UNIMPLEMENTED, 404, f"unknown path; expected one of {known}")
        if request.method != "POST":
            raise Refusal(grpc.StatusCode.UNIMPLEMENTED, 405, f"expected method POST, got {request.method}")
        if encoding is None:
            known = " or ".join(_ENCODINGS)
            raise Refusal(
                grpc.StatusCode.INVALID_ARGUMENT, 415, f"expected Content-Type {known}, got {request.content_type}"
            )
        compression = request.headers.get("Content-Encoding", "identity").strip().lower() or "identity"
        if compression != "identity" and compression not in CONTENT_ENCODINGS:
            known = ", ".join(CONTENT_ENCODINGS)
            raise Refusal(
                grpc.StatusCode.INVALID_ARGUMENT, 415, f"expected Content-Encoding {known} or none, got {compression}"
            )
        limit = self._settings.max_request_bytes
        announced = request.content_length
        if announced is not None and announced > limit:
            raise _too_large(limit)
        # A body of unknown length is admitted as if it were as long as is allowed.
        expected = limit if announced is None else announced
        self._handler.admit(self._reading_bytes + expected)
        self._reading_bytes += expected
        try:
            body = await self._read(request, limit)
            tenant = request.headers.get(self._tenant_header) if self._tenant_header else None
            peer = request.remote or ""

            def take() -> bytes:
                payload = body if compression == "identity" else _content(body, compression, limit)
                try:
                    return self._handler.handle(ExportRequest(signal, encoding, payload, tenant, peer))
                except Refusal as refusal:
                    refusal.records = count_records(payload, signal, encoding)
                    raise

            return await asyncio.get_running_loop().run_in_executor(self._pool, take)
        finally:
            self._reading_bytes -= expected

    def _check_client(self, request: web.BaseRequest) -> None:
        """Let a client pass that has shown a certificate.

        The handshake only asks for one, so that a client without it is told what is wrong, in a way that senders do
        not repeat; one that no authority vouches for does not get as far as this.
        """
        certificate = request.get_extra_info("peercert")
        if not certificate:
            message = "the client showed no certificate; this receiver asks for one (mTLS)"
            raise Refusal.unauthenticated(message, challenge="ClientCertificate")
        if self._clients is not None:
            self._clients.check_http(certificate)

    async def _read(self, request: web.BaseRequest, limit: int) -> bytes:
        parts: list[bytes] = []
        size = 0
        timeout_s = self._settings.read_timeout.total_seconds()
        try:
            async with asyncio.timeout(timeout_s):
                while part := await request.content.readany():
                    size += len(part)
                    if size > limit:
                        raise _too_large(limit)
                    parts.append(part)
        except TimeoutError:
            message = f"the body did not arrive within {timeout_s:g} s"
            raise Refusal(grpc.StatusCode.DEADLINE_EXCEEDED, 408, message) from None
        except (HttpProcessingError, web.RequestPayloadError):
            raise Refusal(grpc.StatusCode.INVALID_ARGUMENT, 400, "the body is not well-formed HTTP") from None
        return parts[0] if len(parts) == 1 else b"".join(parts)


def _preflight(cors: Cors, request: web.BaseRequest) -> web.Response:
    headers = cors.preflight(request.headers)
    if headers is not None:
        return web.Response(status=204, headers=headers)
    refusal = Refusal.forbidden("pages of this origin may not send here (http.cors.allowed_origins)")
    response = _response(refusal.http_status, status_bytes(refusal.status(), "json"), "json")
    response.headers["Vary"] = "Origin"
    return response


def _content(body: bytes, compression: str, limit: int) -> bytes:
    try:
        return decompress(body, compression, limit)
    except TooLargeError:
        raise _too_large(limit) from None
    except CorruptBodyError as error:
        raise Refusal(grpc.StatusCode.INVALID_ARGUMENT, 400, f"Content-Encoding {compression}: {error}") from None


def _too_large(limit: int) -> Refusal:
    message = f"the request is larger than {limit} bytes uncompressed; send smaller batches"
    return Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, 413, message)


def _response(status: int, body: bytes, encoding: Encoding) -> web.Response:
    return web.Response(status=status, body=body, content_type=_CONTENT_TYPES[encoding])


def _ssl_context(tls: TlsServerSettings) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(tls.cert_file, tls.key_file)
        if tls.client_ca_file is not None:
            context.load_verify_locations(tls.client_ca_file)
            context.verify_mode = ssl.CERT_OPTIONAL  # see _check_client
    except OSError as error:  # ssl.SSLError is one
        raise ConfigError(f"http.tls: cannot use {tls.cert_file}, {tls.key_file}: {error}") from None
    return context
