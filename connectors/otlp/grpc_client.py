"""The OTLP client over gRPC."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc

from connectors.otlp.client import Answer, classify_grpc
from connectors.otlp.protocol import RPC_METHODS
from connectors.otlp.settings import OtlpExporterSettings, TlsClientSettings
from telflow.errors import ConfigError
from telflow.schema import Signal

__all__ = ["GrpcClient"]

_KEEPALIVE_MS = 60_000
_STATUS_DETAILS = "grpc-status-details-bin"


class GrpcClient:
    """Sends requests as raw bytes over one channel, which reconnects by itself."""

    def __init__(self, settings: OtlpExporterSettings) -> None:
        """Prepare the channel; it connects with the first request.

        Raises:
            ConfigError: A certificate cannot be read.
        """
        options: list[tuple[str, int | str]] = [
            ("grpc.max_send_message_length", -1),
            ("grpc.keepalive_time_ms", _KEEPALIVE_MS),
            # The channel's own wait before it connects anew would otherwise grow to two minutes, unknown to our retry.
            ("grpc.max_reconnect_backoff_ms", 5_000),
            ("grpc.enable_retries", 0),
        ]
        compression = grpc.Compression.Gzip if settings.compression == "gzip" else grpc.Compression.NoCompression
        if settings.secure:
            tls = settings.tls or TlsClientSettings()
            if tls.server_name is not None:
                options.append(("grpc.ssl_target_name_override", tls.server_name))
            credentials = grpc.ssl_channel_credentials(_read(tls.ca_file), _read(tls.key_file), _read(tls.cert_file))
            self._channel = grpc.secure_channel(settings.target, credentials, options, compression)
        else:
            self._channel = grpc.insecure_channel(settings.target, options, compression)
        self._calls = {signal: self._channel.unary_unary(method, None, None) for signal, method in RPC_METHODS.items()}
        self._metadata = tuple((name.lower(), value.get_secret_value()) for name, value in settings.headers.items())
        self._timeout_s = settings.timeout.total_seconds()

    def send(self, signal: Signal, body: bytes) -> Answer:
        """See `Transport.send`."""
        try:
            response = self._calls[signal](body, timeout=self._timeout_s, metadata=self._metadata)
        except grpc.RpcError as error:
            # Every error of a call is the call itself, with its outcome (grpc.RpcError, "Client-Side Interface").
            outcome: Any = error
            details = dict(outcome.trailing_metadata() or ()).get(_STATUS_DETAILS)
            return classify_grpc(signal, outcome.code(), outcome.details() or "", status_details=details)
        return classify_grpc(signal, grpc.StatusCode.OK, "", body=response)

    def close(self) -> None:
        """See `Transport.close`."""
        self._channel.close()


def _read(file: Path | None) -> bytes | None:
    try:
        return None if file is None else file.read_bytes()
    except OSError as error:
        raise ConfigError(f"tls: cannot read {file}: {error.strerror}") from None
