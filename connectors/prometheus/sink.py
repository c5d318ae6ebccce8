"""The Prometheus sink: metrics out by remote write, through the same sending queue as any other destination."""

from __future__ import annotations

import logging

from typing_extensions import override

from connectors.prometheus.remote_write import acceptable
from connectors.prometheus.settings import PrometheusExporterSettings
from connectors.prometheus.transport import PrometheusTransport
from connectors.sending_sink import SendingSink, Way
from telflow.accounting import Outcome
from telflow.batch import TelemetryBatch
from telflow.schema import Signal

__all__ = ["PrometheusSink"]

_LOG = logging.getLogger(__name__)
_NOT_METRICS = "not metrics"
_HINTS = {
    "delta temporality": "Prometheus takes cumulative metrics: have the gateway make them so (delta_to_cumulative)",
}


class PrometheusSink(SendingSink[PrometheusExporterSettings]):
    """Sends metrics by remote write; `write_batch` hands them over without waiting for the destination.

    What is undelivered waits in the log as OTLP, and is sent in order. Points that Prometheus has no form for, and
    records that are no metrics, are dropped and counted with the reason, which the log tells once for each step.
    """

    kind = "prometheus"
    _said: frozenset[tuple[str, str]] = frozenset()

    @override
    def way(self) -> Way:
        settings = self.settings
        return Way(PrometheusTransport(settings), "protobuf", settings.max_request_bytes, in_order=True)

    @override
    def sendable(self, batch: TelemetryBatch, step_id: str) -> TelemetryBatch:
        if batch.signal is not Signal.METRICS:
            self._drop(batch, _NOT_METRICS, step_id)
            return batch.slice(0, 0)
        fits, refusals = acceptable(batch)
        for refusal in refusals:
            self._drop(refusal.batch, refusal.reason, step_id)
        return fits

    def _drop(self, batch: TelemetryBatch, reason: str, step_id: str) -> None:
        self._ledger.add_batch(Outcome.DROPPED, batch, component=step_id, reason=reason)
        if batch.num_rows and (step_id, reason) not in self._said:
            self._said |= {(step_id, reason)}
            hint = _HINTS.get(reason)
            _LOG.warning("%s: dropped %d records: %s%s", step_id, batch.num_rows, reason, f"; {hint}" if hint else "")
