"""The port and the threads with which a gateway tells how it is."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from bytewax.dataflow import Dataflow

from connectors.otlp.settings import split_address
from control.drain import Drain
from control.epochs import Epochs
from control.self_telemetry import SelfTelemetry, expositions_of
from control.telemetry_server import TelemetryServer
from flows.gateway import GatewaySettings
from flows.telemetry_settings import TelemetrySettings
from telflow.accounting import Ledger
from telflow.delivery.log import Log
from telflow.errors import ConfigError
from telflow.telemetry import Refusals

__all__ = ["GatewayTelemetry"]

_LOG = logging.getLogger(__name__)


def _quiet_s(settings: GatewaySettings, telemetry: TelemetrySettings) -> float:
    """How long records may lie still: an archive gathers them for `flush_interval`, and none of it is a queue's."""
    gathers_s = settings.archive.flush_interval.total_seconds() if settings.archive is not None else 0.0
    return max(telemetry.quiet.total_seconds(), 4 * gathers_s)


class GatewayTelemetry:
    """Metrics, health and readiness of one gateway; nothing at all where `telemetry` is switched off."""

    def __init__(
        self,
        settings: GatewaySettings,
        flow: Dataflow,
        drain: Drain,
        *,
        ledger: Ledger,
        epochs: Epochs,
        intake_bytes: Callable[[], int],
        refusals: Refusals | None = None,
        logs: Mapping[str, Log] | None = None,
    ) -> None:
        """Set up; nothing is opened before `start`.

        Args:
            settings: The gateway's.
            flow: Its dataflow.
            drain: The wish to stop it.
            ledger: The record counts.
            epochs: When its sinks were flushed.
            intake_bytes: What waits between the receivers and the flow.
            refusals: What its receivers refused.
            logs: Its logs on disk, by name.
        """
        self.address: str | None = None
        self._drain = drain
        self._running = False
        self._ended = False
        self._itself: SelfTelemetry | None = None
        self._server: TelemetryServer | None = None
        if settings.telemetry is None:
            return
        self._settings = settings.telemetry
        self._itself = SelfTelemetry(
            settings.telemetry,
            flow,
            ledger=ledger,
            epochs=epochs,
            epoch_s=settings.epoch_interval.total_seconds(),
            intake_bytes=intake_bytes,
            intake_capacity_bytes=settings.intake.max_bytes,
            quiet_s=_quiet_s(settings, settings.telemetry),
            refusals=refusals,
            logs=logs,
        )
        self._server = TelemetryServer(
            split_address(settings.telemetry.endpoint),
            self._itself,
            health=self._unhealthy,
            readiness=self._unready,
            more=[*expositions_of(flow)],
        )

    def start(self) -> None:
        """Open the port and begin to check the accounts.

        Raises:
            ConfigError: The port is taken, and it is not the default's.
        """
        if self._itself is None or self._server is None:
            return
        try:
            port = self._server.start()
        except ConfigError as error:
            if "endpoint" in self._settings.model_fields_set:
                raise
            _LOG.warning("%s; own metrics and health are not served: set telemetry.endpoint", error)
        else:
            self.address = f"{self._settings.endpoint.rpartition(':')[0]}:{port}"
        self._itself.start()

    @contextmanager
    def running(self) -> Iterator[None]:
        """The time in which the dataflow runs."""
        self._running = True
        try:
            yield
        finally:
            self._running, self._ended = False, True

    def stop(self) -> None:
        """Close the port, end the checks; safe when nothing was started."""
        if self._server is not None:
            self._server.stop()
        if self._itself is not None:
            self._itself.stop()

    def _unhealthy(self) -> list[str]:
        return ["the dataflow has ended"] if self._ended else []

    def _unready(self) -> list[str]:
        reasons = self._unhealthy()
        if not self._running and not self._ended:
            reasons.append("the dataflow has not started")
        if self._drain.requested:
            reasons.append("the gateway is being stopped")
        if self._itself is not None and self._itself.intake_full():
            reasons.append("the memory for received data is spent; senders are told to come back later")
        return reasons
