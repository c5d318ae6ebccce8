"""Where a gateway's records go: every destination that its settings name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bytewax.outputs import FixedPartitionedSink

from connectors.archive import ArchiveSink
from connectors.console import ConsoleSink
from connectors.kafka import KafkaSink
from connectors.otlp import OtlpSink
from connectors.prometheus import ExpositionSink, PrometheusSink
from telflow.accounting import Ledger
from telflow.batch import TelemetryBatch
from telflow.delivery.outgoing import Outgoing

if TYPE_CHECKING:
    from flows.gateway import GatewaySettings

__all__ = ["sinks_of"]

Sink = FixedPartitionedSink[TelemetryBatch, Any]


def sinks_of(settings: GatewaySettings, outgoing: Outgoing, ledger: Ledger) -> dict[str, Sink]:
    """Return the sinks of a gateway by name; those that take metrics only come last.

    Args:
        settings: The gateway's.
        outgoing: Where what is not delivered yet survives.
        ledger: Where outcomes are counted.
    """
    sinks: dict[str, Sink] = {
        f"export_{name}": OtlpSink(exporter, ledger=ledger, log=outgoing.queues, dead_letters=outgoing.dead_letters)
        for name, exporter in settings.exporters.items()
    }
    # What a stop leaves undelivered is brought again where everything that comes in is kept.
    keep = settings.storage.durability != "memory" or settings.receivers.kafka is not None
    sinks |= {
        f"kafka_{name}": KafkaSink(exporter, keep_undelivered=keep, dead_letters=outgoing.dead_letters, ledger=ledger)
        for name, exporter in settings.kafka.items()
    }
    if settings.archive is not None:
        committed = outgoing.committed
        log = outgoing.queues if committed is not None else None
        sinks["archive"] = ArchiveSink(settings.archive, ledger=ledger, log=log, committed=committed)
    if settings.console is not None or not (sinks or settings.prometheus or settings.expose):
        sinks["console"] = ConsoleSink(settings.console, ledger=ledger)
    if settings.expose is not None:
        sinks["expose"] = ExpositionSink(settings.expose, ledger=ledger)
    return sinks | {
        f"prometheus_{name}": PrometheusSink(
            exporter, ledger=ledger, log=outgoing.queues, dead_letters=outgoing.dead_letters
        )
        for name, exporter in settings.prometheus.items()
    }
