"""The OTLP sink: batches out to one destination through its sending queue, every record accounted for."""

from __future__ import annotations

from collections.abc import Callable

from typing_extensions import override

from connectors.otlp.balanced import connect_all
from connectors.otlp.settings import OtlpExporterSettings
from connectors.sending_sink import SendingSink, Way
from telflow.accounting import LEDGER, Ledger
from telflow.codec import Encoding
from telflow.delivery.clock import Clock
from telflow.delivery.dead_letters import DeadLetters
from telflow.delivery.log import Log
from telflow.delivery.transport import Router, Transport

__all__ = ["OtlpSink"]


class OtlpSink(SendingSink[OtlpExporterSettings]):
    """Exports batches over OTLP; `write_batch` hands them over without waiting for the destination."""

    kind = "otlp"

    def __init__(
        self,
        settings: OtlpExporterSettings,
        *,
        partitions: int = 1,
        ledger: Ledger = LEDGER,
        log: Log | None = None,
        dead_letters: DeadLetters | None = None,
        connect: Callable[[OtlpExporterSettings], Transport | Router] = connect_all,
        clock: Clock | None = None,
    ) -> None:
        """Describe the sink: as `SendingSink`, and `connect` makes what carries the requests."""
        super().__init__(
            settings, partitions=partitions, ledger=ledger, log=log, dead_letters=dead_letters, clock=clock
        )
        self._connect = connect

    @override
    def way(self) -> Way:
        encoding: Encoding = "json" if self.settings.protocol == "http/json" else "protobuf"
        return Way(self._connect(self.settings), encoding, self.settings.request_bytes)
