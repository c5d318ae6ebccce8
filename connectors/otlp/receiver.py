"""The OTLP receiver: requests in, decoded batches into an intake, an honest answer back."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from connectors.otlp.grpc_server import GrpcServer
from connectors.otlp.http_server import HttpServer
from connectors.otlp.protocol import ExportHandler, OnRefusal, ignore
from connectors.otlp.reception import Reception
from connectors.otlp.record_limit import RecordLimit
from connectors.otlp.settings import OtlpReceiverSettings
from connectors.otlp.undecodable import KeepUndecodable
from telflow.accounting import LEDGER, Ledger
from telflow.delivery.dead_letters import DeadLetters
from telflow.delivery.intake import Intake
from telflow.errors import ConfigError
from telflow.telemetry.refusals import Refusals

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
        dead_letters: DeadLetters | None = None,
        refusals: Refusals | None = None,
        now_unix_nano: Callable[[], int] = time.time_ns,
    ) -> None:
        """Describe the receiver; `start` opens its ports.

        Args:
            settings: Addresses and limits.
            intake: Where decoded requests go.
            name: The component's name in the ledger and in error messages.
            ledger: Where received records are counted.
            dead_letters: Keeps requests that cannot be decoded; None: they are only refused.
            refusals: Where refused requests are counted; None: nowhere.
            now_unix_nano: The clock of arrival times.
        """
        self._name = name
        whose, limit = settings.tenant, settings.max_record_bytes
        handler: ExportHandler = Reception(
            intake, tenant=whose, component=name, ledger=ledger, now_unix_nano=now_unix_nano
        )
        if limit is not None:
            handler = RecordLimit(handler, limit, tenant=whose, component=name, ledger=ledger)
        if dead_letters is not None:
            handler = KeepUndecodable(handler, dead_letters, tenant=whose, component=name, now_unix_nano=now_unix_nano)
        header, reuse_port = settings.tenant_header, settings.reuse_port
        self._refusals = refusals
        self._grpc = self._http = None
        if settings.grpc is not None:
            self._grpc = GrpcServer(
                settings.grpc, handler, tenant_header=header, reuse_port=reuse_port, on_refusal=self._counted("grpc")
            )
        if settings.http is not None:
            self._http = HttpServer(
                settings.http, handler, tenant_header=header, reuse_port=reuse_port, on_refusal=self._counted("http")
            )

    def _counted(self, transport: str) -> OnRefusal:
        refusals, name = self._refusals, self._name
        if refusals is None:
            return ignore
        return lambda signal, refusal: refusals.add(
            name, transport, signal or "", refusal.reason, records=refusal.records
        )

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
