"""Options of the client library, built from keywords, from a file, or step by step."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, SecretStr

from connectors.otlp.settings import OtlpConnectionSettings, TlsClientSettings
from telflow.delivery.circuit_breaker import CircuitBreakerSettings
from telflow.delivery.retry import RetrySettings
from telflow.settings import Duration

__all__ = ["OtlpClientSettings"]


class OtlpClientSettings(OtlpConnectionSettings):
    """How `OtlpClient` and `AsyncOtlpClient` send.

    `grpc` or `http` begins, each `with_...` returns changed settings and leaves the old ones as they were; every step
    is validated.

    >>> settings = (
    ...     OtlpClientSettings.http("https://otlp.example.com")
    ...     .with_compression("zstd")
    ...     .with_bearer_token("s3cret")
    ...     .with_timeout("5s")
    ...     .with_retry(max_elapsed_time="30s")
    ... )
    >>> settings.protocol, settings.timeout.total_seconds(), settings.retry.max_elapsed_time.total_seconds()
    ('http/protobuf', 5.0, 30.0)
    >>> settings.headers
    {'authorization': SecretStr('**********')}
    """

    concurrency: int = Field(default=4, ge=1)
    """Requests in flight at a time."""

    retry: RetrySettings = RetrySettings()
    """How refused or unanswered requests are repeated."""

    circuit_breaker: CircuitBreakerSettings = CircuitBreakerSettings()
    """When a destination that fails is left alone for a while."""

    shutdown_timeout: Duration = timedelta(seconds=10)
    """How long a client that is being closed goes on delivering what it was given."""

    @property
    def connections(self) -> int:
        """See `OtlpConnectionSettings.connections`."""
        return self.concurrency

    @classmethod
    def grpc(cls, endpoint: str = "localhost:4317") -> Self:
        """Begin with OTLP/gRPC to ``host:port``, or ``https://host:port`` for TLS.

        Raises:
            pydantic.ValidationError: It is no such endpoint; here and in every later step.
        """
        return cls(endpoint=endpoint, protocol="grpc")

    @classmethod
    def http(cls, url: str = "http://localhost:4318", *, json: bool = False) -> Self:
        """Begin with OTLP/HTTP to a URL that ``/v1/traces`` and the like are appended to.

        Args:
            url: Where to.
            json: OTLP/JSON rather than protobuf.
        """
        return cls(endpoint=url, protocol="http/json" if json else "http/protobuf")

    def with_compression(self, compression: Literal["none", "gzip", "zstd"]) -> Self:
        """Compress requests; zstd over HTTP only."""
        return self._with(compression=compression)

    def with_header(self, name: str, value: str) -> Self:
        """Send a header (gRPC: metadata) with every request; its value is kept out of logs."""
        return self._with(headers={**self.headers, name: SecretStr(value)})

    def with_bearer_token(self, token: str) -> Self:
        """Identify by ``authorization: Bearer <token>``."""
        return self.with_header("authorization", f"Bearer {token}")

    def with_tls(
        self,
        *,
        ca_file: str | Path | None = None,
        cert_file: str | Path | None = None,
        key_file: str | Path | None = None,
        server_name: str | None = None,
    ) -> Self:
        """Use TLS; with a certificate and its key, mutual TLS. For the arguments see `TlsClientSettings`."""
        tls = {"ca_file": ca_file, "cert_file": cert_file, "key_file": key_file, "server_name": server_name}
        return self._with(tls=TlsClientSettings.model_validate(tls))

    def with_timeout(self, timeout: timedelta | str) -> Self:
        """Give up waiting for an answer after this time."""
        return self._with(timeout=timeout)

    def with_retry(self, **changes: Any) -> Self:
        """Change how requests are repeated; for the keywords see `RetrySettings`."""
        return self._with(retry=RetrySettings.model_validate({**dict(self.retry), **changes}))

    def without_retry(self) -> Self:
        """Try every request once."""
        return self.with_retry(enabled=False)

    def with_circuit_breaker(self, **changes: Any) -> Self:
        """Change when a failing destination is left alone; for the keywords see `CircuitBreakerSettings`."""
        breaker = CircuitBreakerSettings.model_validate({**dict(self.circuit_breaker), **changes})
        return self._with(circuit_breaker=breaker)

    def with_concurrency(self, concurrency: int) -> Self:
        """Have at most so many requests in flight."""
        return self._with(concurrency=concurrency)

    def with_max_request_bytes(self, max_request_bytes: int) -> Self:
        """Split batches into requests of at most this size, before compression."""
        return self._with(max_request_bytes=max_request_bytes)

    def with_shutdown_timeout(self, timeout: timedelta | str) -> Self:
        """Let a client that is being closed deliver for so long."""
        return self._with(shutdown_timeout=timeout)

    def _with(self, **changes: Any) -> Self:
        return type(self).model_validate({**dict(self), **changes})
