"""Options of the OTLP receiver and exporter."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr, model_validator

from telflow.delivery.balancing import Strategy
from telflow.delivery.endpoints import HealthCheckSettings
from telflow.delivery.queue_settings import DeliverySettings
from telflow.settings import Duration, Settings, Switchable

__all__ = [
    "Address",
    "CorsSettings",
    "GrpcKeepaliveSettings",
    "GrpcServerSettings",
    "HttpServerSettings",
    "OtlpConnectionSettings",
    "OtlpExporterSettings",
    "OtlpReceiverSettings",
    "TlsClientSettings",
    "TlsServerSettings",
    "split_address",
]

_MIB = 1 << 20
_HIGHEST_PORT = 65535


def split_address(address: str) -> tuple[str, int]:
    """Return host and port of ``host:port``; an IPv6 host stands in brackets.

    Raises:
        ValueError: It is not of that form.

    >>> split_address("[::1]:4317")
    ('::1', 4317)
    """
    host, colon, port = address.rpartition(":")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not colon or not bare or (":" in bare and bare == host):
        raise ValueError(f"expected host:port, for example 127.0.0.1:4317 or [::1]:4317, got {address!r}")
    if not (port.isascii() and port.isdigit() and int(port) <= _HIGHEST_PORT):
        raise ValueError(f"expected a port between 0 and {_HIGHEST_PORT}, got {port!r}")
    return bare, int(port)


def _checked_address(address: str) -> str:
    split_address(address)
    return address


Address = Annotated[str, AfterValidator(_checked_address)]
"""``host:port`` to listen on; port 0 lets the system choose."""


class TlsServerSettings(Settings):
    """Certificate of a server, and whose clients it trusts."""

    cert_file: Path
    """PEM file with the server's certificate and its chain."""

    key_file: Path
    """PEM file with the private key."""

    client_ca_file: Path | None = None
    """PEM file with the authorities of client certificates; when set, a client without one is refused (mTLS)."""

    client_names: tuple[str, ...] = ()
    """Names of the clients that may send, as their certificates have them (subject alternative names, else the common
    name); ``*`` stands for any text. Others are refused with PERMISSION_DENIED, 403. Empty: every client whose
    certificate `client_ca_file` vouches for."""

    @model_validator(mode="after")
    def _check(self) -> TlsServerSettings:
        if self.client_names and self.client_ca_file is None:
            raise ValueError("client_names: expected client_ca_file with it, which makes clients show a certificate")
        return self


class TlsClientSettings(Settings):
    """Whom a client trusts, and how it identifies itself."""

    ca_file: Path | None = None
    """PEM file with the authorities to trust; the system's when not set."""

    cert_file: Path | None = None
    """PEM file with the client's certificate (mTLS)."""

    key_file: Path | None = None
    """PEM file with the private key of `cert_file`."""

    server_name: str | None = None
    """Name expected in the server's certificate, when it is not the endpoint's host."""

    @model_validator(mode="after")
    def _check(self) -> TlsClientSettings:
        if (self.cert_file is None) != (self.key_file is None):
            raise ValueError("expected cert_file and key_file together, got one of them")
        return self


class GrpcKeepaliveSettings(Settings):
    """How long gRPC connections live, and how both sides find out that the other is gone."""

    time: Duration = Field(default=timedelta(hours=2), ge=timedelta(seconds=1))
    """Ask a silent client so often whether it is still there."""

    timeout: Duration = Field(default=timedelta(seconds=20), gt=timedelta())
    """A client that does not say so within this time is gone; its connection is closed."""

    min_time: Duration = Field(default=timedelta(seconds=10), gt=timedelta())
    """A client that asks more often than this is told to calm down, by closing its connection."""

    permit_without_stream: bool = True
    """Let clients ask also while they send nothing."""

    max_connection_idle: Duration | None = Field(default=None, ge=timedelta(seconds=1))
    """Close a connection on which nothing was sent for this time; null: never."""

    max_connection_age: Duration | None = Field(default=None, ge=timedelta(milliseconds=100))
    """Ask a client to connect anew after this time, so that connections spread over workers that share a port, and
    over those behind a load balancer; gRPC varies it by 10 %. Requests under way are finished. null: never."""

    max_connection_age_grace: Duration | None = Field(default=None, ge=timedelta(milliseconds=100))
    """After `max_connection_age`, cut off what is not finished within this time; null: wait for it."""


class GrpcServerSettings(Settings):
    """OTLP over gRPC."""

    endpoint: Address = "127.0.0.1:4317"
    """Address to listen on; ``0.0.0.0:4317`` for every interface."""

    max_request_bytes: int = Field(default=20 * _MIB, ge=4 * _MIB)
    """Largest request, uncompressed; a larger one is refused with RESOURCE_EXHAUSTED."""

    threads: int = Field(default=16, ge=1)
    """Requests handled at a time; more wait in their connections. Those that wait for one another are decoded together,
    so more threads than cores are of use."""

    max_concurrent_streams: int = Field(default=1000, ge=1)
    """Requests a connection may have open at a time; more wait in the client. Not low: what a client sends over it
    before it knows of it is refused."""

    keepalive: GrpcKeepaliveSettings = GrpcKeepaliveSettings()
    """How long connections live."""

    tls: TlsServerSettings | None = None
    """Serve over TLS; plain text when not set."""


class CorsSettings(Settings):
    """Which web pages may send from a browser (Cross-Origin Resource Sharing, Fetch standard, "CORS protocol").

    This protects the visitors of a page, not the receiver: anything but a browser sends without asking.
    """

    allowed_origins: tuple[str, ...] = Field(min_length=1)
    """Origins of the pages, such as ``https://shop.example.com``; ``*`` stands for any text."""

    allowed_headers: tuple[str, ...] = ()
    """Headers that pages may set besides Content-Type, Content-Encoding and the tenant header; ``*``: any."""

    max_age: Duration = Field(default=timedelta(hours=2), ge=timedelta())
    """How long a browser may remember what it was allowed."""


class HttpServerSettings(Settings):
    """OTLP over HTTP, protobuf and JSON."""

    endpoint: Address = "127.0.0.1:4318"
    """Address to listen on; ``0.0.0.0:4318`` for every interface."""

    max_request_bytes: int = Field(default=20 * _MIB, ge=1024)
    """Largest request, before and after decompression; a larger one is refused with 413."""

    read_timeout: Duration = Field(default=timedelta(seconds=30), gt=timedelta())
    """A request whose body has not arrived completely after this time is refused with 408."""

    read_header_timeout: Duration = Field(default=timedelta(seconds=30), gt=timedelta())
    """A new connection whose first request's headers, and with TLS whose handshake, are not complete after this time is
    closed (408)."""

    threads: int = Field(default=8, ge=1)
    """Requests decompressed and decoded at a time; more wait."""

    max_connections: int | None = Field(default=None, ge=1)
    """Connections open at a time; further ones are told to come back (503) and closed. By default three quarters of the
    files the process may have open (``ulimit -n``)."""

    idle_timeout: Duration = Field(default=timedelta(seconds=75), gt=timedelta())
    """Close a connection on which no complete request headers have come for this time since its last request."""

    max_connection_age: Duration | None = Field(default=None, ge=timedelta(milliseconds=100))
    """Close a connection with its first answer after this time, so that connections spread over workers that share a
    port; null: never."""

    cors: Switchable[CorsSettings] = None
    """Answer browsers that ask whether a web page may send; null: no page may."""

    tls: TlsServerSettings | None = None
    """Serve over TLS; plain text when not set."""


class OtlpReceiverSettings(Settings):
    """Receives OTLP from SDKs, Collectors and other gateways."""

    grpc: Switchable[GrpcServerSettings] = GrpcServerSettings()
    """OTLP over gRPC; false: not served."""

    http: Switchable[HttpServerSettings] = HttpServerSettings()
    """OTLP over HTTP; false: not served."""

    tenant: str | None = Field(default=None, min_length=1)
    """Whose data it is when the request does not say; null: nobody's."""

    tenant_header: str | None = Field(default=None, min_length=1)
    """Header (gRPC: metadata key) whose value names the tenant, for example ``x-scope-orgid``. Anyone who can reach
    the port can write any name into it: set it only where all senders are trusted."""

    max_record_bytes: int | None = Field(default=4 * _MIB, ge=1024)
    """A larger span, log record or data point is left out of its request; the sender is told how many were (partial
    success). By default what destinations over gRPC take as a whole request; null: no limit but the request's."""

    reuse_port: bool = False
    """Let several processes of a host listen on the same ports (SO_REUSEPORT)."""

    @model_validator(mode="after")
    def _check(self) -> OtlpReceiverSettings:
        if self.grpc is None and self.http is None:
            raise ValueError("expected grpc or http or both, got neither")
        return self


class OtlpConnectionSettings(Settings):
    """Where OTLP is sent to, and how one request travels."""

    endpoint: str
    """Where to: ``host:port`` or ``https://host:port`` for gRPC; for HTTP the URL that ``/v1/traces`` and the like are
    appended to."""

    protocol: Literal["grpc", "http/protobuf", "http/json"] = "grpc"
    """Transport and encoding."""

    compression: Literal["none", "gzip", "zstd"] = "none"
    """How requests are compressed; zstd over HTTP only."""

    headers: dict[str, SecretStr] = Field(default_factory=dict)
    """Headers (gRPC: metadata) of every request, for example ``authorization``. Values are kept out of logs."""

    timeout: Duration = Field(default=timedelta(seconds=10), gt=timedelta())
    """A request not answered after this time has failed and may be repeated."""

    tls: Switchable[TlsClientSettings] = None
    """How to use TLS, which an ``https://`` endpoint turns on too; plain text when neither is given."""

    max_request_bytes: int | None = Field(default=None, ge=1024)
    """Largest request before compression; larger batches are split. By default 4 MiB for gRPC and 20 MiB for HTTP."""

    keepalive_time: Duration = Field(default=timedelta(seconds=60), ge=timedelta(seconds=1))
    """gRPC: ask a silent destination so often whether it is still there. HTTP: keep an idle connection so long."""

    keepalive_timeout: Duration = Field(default=timedelta(seconds=20), ge=timedelta(seconds=1))
    """gRPC: a connection whose destination does not say within this time that it is there is given up."""

    @property
    def connections(self) -> int:
        """Connections kept over HTTP, at most."""
        return 4

    @property
    def request_bytes(self) -> int:
        """`max_request_bytes`, or the protocol's default."""
        return self.max_request_bytes or (4 * _MIB if self.protocol == "grpc" else 20 * _MIB)

    @property
    def secure(self) -> bool:
        """True when the connection uses TLS."""
        return self.tls is not None or self.endpoint.startswith("https://")

    @property
    def target(self) -> str:
        """The address gRPC dials: the endpoint without its scheme."""
        return self.endpoint.removeprefix("https://").removeprefix("http://").rstrip("/")

    @property
    def url(self) -> str:
        """The URL that signal paths are appended to over HTTP."""
        has_scheme = self.endpoint.startswith(("http://", "https://"))
        base = self.endpoint if has_scheme else f"{'https' if self.tls else 'http'}://{self.endpoint}"
        return base.rstrip("/")

    @property
    def where(self) -> str:
        """The endpoint, or all of them, for a person to read."""
        return self.endpoint

    @model_validator(mode="after")
    def _check_endpoint(self) -> Self:
        self._check_where()
        return self

    def _check_where(self) -> None:
        if self.protocol == "grpc" and self.compression == "zstd":
            raise ValueError("expected compression none or gzip with protocol grpc, got zstd; use http/protobuf")
        if self.protocol == "grpc":
            split_address(self.target)
        else:
            parts = urlsplit(self.url)
            if not parts.hostname or parts.query or parts.fragment:
                raise ValueError(f"endpoint: expected a URL such as http://localhost:4318, got {self.endpoint!r}")
        if self.tls is not None and self.endpoint.startswith("http://"):
            raise ValueError("endpoint: expected https:// together with tls, got http://")


class OtlpExporterSettings(OtlpConnectionSettings, DeliverySettings):
    """Sends OTLP to a backend, a Collector or another gateway."""

    endpoint: str = ""
    """Where to: ``host:port`` or ``https://host:port`` for gRPC; for HTTP the URL that ``/v1/traces`` and the like are
    appended to. This or `endpoints`."""

    endpoints: tuple[str, ...] = ()
    """Several endpoints of one destination, written like `endpoint`; `strategy` says which of them gets what."""

    strategy: Strategy = "failover"
    """With `endpoints`: ``failover``, the first that is well, in their order; ``round_robin``, each in turn;
    ``least_pending``, the one with the fewest requests on their way; ``consistent_hash``, records with the same
    `hash_key` to the same endpoint."""

    hash_key: str = Field(default="trace_id", min_length=1)
    """With ``consistent_hash``: ``trace_id``, ``tenant``, or an attribute of the record or else of its resource.
    Records without it, data points above all, go by their resource's ``service.name``."""

    health_check: HealthCheckSettings = HealthCheckSettings()
    """With `endpoints`: when one is taken out, and how it comes back."""

    @property
    def where(self) -> str:
        """See `OtlpConnectionSettings.where`."""
        return self.endpoint or f"{self.strategy} of {', '.join(self.endpoints)}"

    @property
    def connections(self) -> int:
        """See `OtlpConnectionSettings.connections`."""
        return self.sending_queue.num_consumers

    def alone(self, endpoint: str) -> Self:
        """Return the settings of one of several endpoints."""
        return self.model_copy(update={"endpoint": endpoint, "endpoints": ()})

    def _check_where(self) -> None:
        if bool(self.endpoint) == bool(self.endpoints):
            raise ValueError("expected endpoint or endpoints, got " + ("both" if self.endpoint else "neither"))
        if len(set(self.endpoints)) < len(self.endpoints):
            raise ValueError("endpoints: expected each endpoint once")
        for settings in map(self.alone, self.endpoints):
            settings._check_where()  # noqa: SLF001 - its own
        if self.endpoint:
            super()._check_where()
