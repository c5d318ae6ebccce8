"""Requests over gRPC, as raw bytes on one channel, which reconnects by itself."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeAlias

import grpc
import grpc.aio

from connectors.otlp.answer import classify_grpc
from connectors.otlp.protocol import RPC_METHODS
from connectors.otlp.settings import OtlpConnectionSettings, TlsClientSettings
from telflow.delivery.transport import Answer, Verdict
from telflow.errors import ConfigError
from telflow.schema import Signal

__all__ = ["AsyncGrpcTransport", "GrpcTransport"]

_Options: TypeAlias = "list[tuple[str, int | str]]"
_STATUS_DETAILS = "grpc-status-details-bin"
_CLOSED = Answer(Verdict.RETRYABLE, "no answer", "the connection was closed on this side")


class GrpcTransport:
    """Sends requests from any number of threads."""

    def __init__(self, settings: OtlpConnectionSettings) -> None:
        """Prepare the channel; it connects with the first request.

        Raises:
            ConfigError: A certificate cannot be read.
        """
        options, compression = _options(settings), _compression(settings)
        if settings.secure:
            self._channel = grpc.secure_channel(settings.target, _credentials(settings), options, compression)
        else:
            self._channel = grpc.insecure_channel(settings.target, options, compression)
        self._calls = {signal: self._channel.unary_unary(method, None, None) for signal, method in RPC_METHODS.items()}
        self._metadata = _metadata(settings)
        self._timeout_s = settings.timeout.total_seconds()

    def send(self, signal: Signal, body: bytes) -> Answer:
        """See `Transport.send`."""
        try:
            response = self._calls[signal](body, timeout=self._timeout_s, metadata=self._metadata)
        except grpc.RpcError as error:
            # Every error of a call is the call itself, with its outcome (grpc.RpcError, "Client-Side Interface").
            outcome: Any = error
            return _failed(signal, outcome.code(), outcome.details(), outcome.trailing_metadata())
        except ValueError:
            return _CLOSED  # gRPC's way to say that the channel is
        return classify_grpc(signal, grpc.StatusCode.OK, "", body=response)

    def close(self) -> None:
        """See `Transport.close`."""
        self._channel.close()


class AsyncGrpcTransport:
    """Sends requests from the tasks of one event loop, over `grpc.aio`."""

    def __init__(self, settings: OtlpConnectionSettings) -> None:
        """Prepare the channel; it connects with the first request. To be called in the event loop that will use it.

        Raises:
            ConfigError: A certificate cannot be read.
        """
        options, compression = _options(settings), _compression(settings)
        if settings.secure:
            self._channel = grpc.aio.secure_channel(settings.target, _credentials(settings), options, compression)
        else:
            self._channel = grpc.aio.insecure_channel(settings.target, options, compression)
        self._calls = {signal: self._channel.unary_unary(method, None, None) for signal, method in RPC_METHODS.items()}
        self._metadata = _metadata(settings)
        self._timeout_s = settings.timeout.total_seconds()
        self._closed = False

    async def send(self, signal: Signal, body: bytes) -> Answer:
        """See `AsyncTransport.send`."""
        try:
            response = await self._calls[signal](body, timeout=self._timeout_s, metadata=self._metadata)
        except grpc.aio.AioRpcError as error:
            return _failed(signal, error.code(), error.details(), error.trailing_metadata())
        except grpc.aio.UsageError:
            return _CLOSED
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if not self._closed or (task is not None and task.cancelling()):
                raise
            return _CLOSED  # it is the call that was cancelled, not the task that waits for it
        return classify_grpc(signal, grpc.StatusCode.OK, "", body=response)

    async def close(self) -> None:
        """See `AsyncTransport.close`."""
        self._closed = True
        await self._channel.close(None)


def _options(settings: OtlpConnectionSettings) -> _Options:
    options: _Options = [
        ("grpc.max_send_message_length", -1),
        ("grpc.keepalive_time_ms", _milliseconds(settings.keepalive_time)),
        ("grpc.keepalive_timeout_ms", _milliseconds(settings.keepalive_timeout)),
        # The channel's own wait before it connects anew would otherwise grow to two minutes, unknown to our retry.
        ("grpc.max_reconnect_backoff_ms", 5_000),
        ("grpc.enable_retries", 0),
    ]
    if settings.tls is not None and settings.tls.server_name is not None:
        options.append(("grpc.ssl_target_name_override", settings.tls.server_name))
    return options


def _compression(settings: OtlpConnectionSettings) -> grpc.Compression:
    return grpc.Compression.Gzip if settings.compression == "gzip" else grpc.Compression.NoCompression


def _credentials(settings: OtlpConnectionSettings) -> grpc.ChannelCredentials:
    tls = settings.tls or TlsClientSettings()
    return grpc.ssl_channel_credentials(_read(tls.ca_file), _read(tls.key_file), _read(tls.cert_file))


def _metadata(settings: OtlpConnectionSettings) -> tuple[tuple[str, str], ...]:
    return tuple((name.lower(), value.get_secret_value()) for name, value in settings.headers.items())


def _failed(signal: Signal, code: grpc.StatusCode, message: str | None, trailer: Any) -> Answer:
    details = dict(trailer or ()).get(_STATUS_DETAILS)
    return classify_grpc(signal, code, message or "", status_details=details)


def _milliseconds(duration: timedelta) -> int:
    return duration // timedelta(milliseconds=1)


def _read(file: Path | None) -> bytes | None:
    try:
        return None if file is None else file.read_bytes()
    except OSError as error:
        raise ConfigError(f"tls: cannot read {file}: {error.strerror}") from None
