"""The OTLP receiver: requests in, decoded batches into an intake, an honest answer back."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from connectors.otlp.grpc_server import GrpcServer
from connectors.otlp.http_server import HttpServer
from connectors.otlp.protocol import ExportRequest, Refusal, resolve_tenant
from connectors.otlp.settings import OtlpReceiverSettings
from telflow.accounting import LEDGER, Ledger, Outcome
from telflow.codec import decode
from telflow.delivery.intake import Intake, Overloaded, RequestMeta
from telflow.errors import ConfigError, DecodeError

__all__ = ["BoundPorts", "OtlpReceiver"]

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class BoundPorts:
    """Where a started receiver listens; None for a protocol that is not served."""

    grpc: int | None
    http: int | None


class OtlpReceiver:
    """Receives OTLP over gRPC and HTTP in threads of its own.

    A request is acknowledged when it has been decoded, which validates it, and the intake has taken it over.
    """

    def __init__(
        self,
        settings: OtlpReceiverSettings,
        intake: Intake,
        *,
        name: str = "otlp",
        ledger: Ledger = LEDGER,
        now_unix_nano: Callable[[], int] = time.time_ns,
    ) -> None:
        """Describe the receiver; `start` opens its ports.

        Args:
            settings: Addresses and limits.
            intake: Where decoded requests go.
            name: The component's name in the ledger and in error messages.
            ledger: Where received records are counted.
            now_unix_nano: The clock of arrival times.
        """
        self._name = name
        handler = _Reception(settings, intake, name, ledger, now_unix_nano)
        header, reuse_port = settings.tenant_header, settings.reuse_port
        self._grpc = self._http = None
        if settings.grpc is not None:
            self._grpc = GrpcServer(settings.grpc, handler, tenant_header=header, reuse_port=reuse_port)
        if settings.http is not None:
            self._http = HttpServer(settings.http, handler, tenant_header=header, reuse_port=reuse_port)

    def start(self) -> BoundPorts:
        """Open the ports and serve.

        Raises:
            ConfigError: A port is taken, or another setting cannot be used; nothing is left open.
        """
        try:
            grpc_port = self._grpc.start() if self._grpc else None
            http_port = self._http.start() if self._http else None
        except ConfigError as error:
            self.stop(0)
            hint = "another process may use the port (see: ss -ltnp); choose another port, or 0 for any free one"
            raise ConfigError(f"{self._name}: {error}\n  hint: {hint}") from None
        _LOG.info("%s: listening, gRPC port %s, HTTP port %s", self._name, grpc_port, http_port)
        return BoundPorts(grpc_port, http_port)

    def stop(self, grace_s: float = 5.0) -> None:
        """Accept nothing more, let requests under way finish for up to `grace_s` seconds, close the ports."""
        if self._grpc is not None:
            self._grpc.stop(grace_s)
        if self._http is not None:
            self._http.stop(grace_s)


class _Reception:
    """The `ExportHandler` of a receiver."""

    def __init__(
        self,
        settings: OtlpReceiverSettings,
        intake: Intake,
        name: str,
        ledger: Ledger,
        now_unix_nano: Callable[[], int],
    ) -> None:
        self._tenant = settings.tenant
        self._intake = intake
        self._name = name
        self._ledger = ledger
        self._now_unix_nano = now_unix_nano

    def admit(self, payload_bytes: int) -> None:
        try:
            self._intake.admit(payload_bytes)
        except Overloaded as error:
            raise Refusal.overloaded(error) from None

    def handle(self, request: ExportRequest) -> bytes:
        tenant = resolve_tenant(request.tenant, self._tenant)
        self.admit(len(request.payload))
        try:
            batch = decode(request.payload, request.signal, request.encoding, tenant=tenant)
        except DecodeError as error:
            raise Refusal.undecodable(error) from None
        if batch.num_rows:
            arrival = self._now_unix_nano()
            meta = RequestMeta(tenant, request.signal, request.encoding, arrival, request.peer)
            try:
                self._intake.append(batch, meta, request.payload)
            except Overloaded as error:
                raise Refusal.overloaded(error) from None
            self._ledger.add(Outcome.RECEIVED, batch.signal, tenant, batch.num_rows, component=self._name)
        return b""
