"""The Prometheus sink: metrics out by remote write, through the same sending queue as any other destination."""

from __future__ import annotations

import logging
from typing import Any

from bytewax.outputs import FixedPartitionedSink, StatefulSinkPartition
from typing_extensions import override

from connectors.prometheus.remote_write import acceptable
from connectors.prometheus.settings import PrometheusExporterSettings
from connectors.prometheus.transport import PrometheusTransport
from telflow.accounting import LEDGER, Ledger, Outcome
from telflow.batch import TelemetryBatch
from telflow.delivery.clock import Clock
from telflow.delivery.dead_letters import DeadLetters
from telflow.delivery.log import Log
from telflow.delivery.queue_store import QueueStore
from telflow.delivery.sending_queue import QueueStats, SendingQueue
from telflow.errors import ConfigError
from telflow.schema import Signal

__all__ = ["PrometheusSink"]

State = dict[str, Any]
_LOG = logging.getLogger(__name__)
_FORMAT = 1
_NOT_METRICS = "not metrics"
_HINTS = {
    "delta temporality": "Prometheus takes cumulative metrics: have the gateway make them so (delta_to_cumulative)",
}


class PrometheusSink(FixedPartitionedSink[TelemetryBatch, State]):
    """Sends metrics by remote write; `write_batch` hands them over without waiting.

    What is undelivered waits in the log as OTLP, in order (`telflow.delivery.sending_queue`). Points that Prometheus
    has no form for, and records that are no metrics, are dropped and counted with the reason.
    """

    def __init__(
        self,
        settings: PrometheusExporterSettings,
        *,
        partitions: int = 1,
        ledger: Ledger = LEDGER,
        log: Log | None = None,
        dead_letters: DeadLetters | None = None,
        clock: Clock | None = None,
    ) -> None:
        """Describe the sink.

        Args:
            settings: Destination and limits.
            partitions: How many partitions share the work in a cluster; never fewer than in an earlier run.
            ledger: Where delivered and dropped records are counted.
            log: Where undelivered requests survive; None: in memory only.
            dead_letters: Keeps what the destination refuses for good; None: it is only counted.
            clock: What retries are timed by.
        """
        self.settings = settings
        self._partitions = partitions
        self._ledger = ledger
        self._log = log
        self._dead_letters = dead_letters
        self._clock = clock
        self._queues: dict[str, SendingQueue] = {}
        self._stopped = False

    def stop(self) -> None:
        """Limit what is waited for to `shutdown_timeout`: the dataflow is being drained. Safe in a signal handler."""
        self._stopped = True
        for queue in list(self._queues.values()):
            queue.stop()

    def stats(self) -> dict[str, QueueStats]:
        """Return what the queue of each partition of this process holds now."""
        return {part: queue.stats() for part, queue in list(self._queues.items())}

    @override
    def list_parts(self) -> list[str]:
        return [f"prometheus-{number}" for number in range(self._partitions)]

    @override
    def build_part(self, step_id: str, for_part: str, resume_state: State | None) -> _PrometheusPartition:
        store = None
        if self._log is not None:
            max_bytes = self.settings.sending_queue.queue_size
            store = QueueStore(self._log, f"{step_id}/{for_part}", max_bytes=max_bytes)
        queue = SendingQueue(
            PrometheusTransport(self.settings),
            "protobuf",
            self.settings.max_request_bytes,
            self.settings,
            component=step_id,
            store=store,
            resume=_position(step_id, resume_state),
            dead_letters=self._dead_letters,
            ledger=self._ledger,
            clock=self._clock,
            in_order=True,
        )
        self._queues[for_part] = queue
        if self._stopped:
            queue.stop()
        return _PrometheusPartition(queue, step_id, self._ledger)


class _PrometheusPartition(StatefulSinkPartition[TelemetryBatch, State]):
    """Hands metrics to the queue; its state is the position up to which the log holds what is undelivered."""

    def __init__(self, queue: SendingQueue, step_id: str, ledger: Ledger) -> None:
        self._queue = queue
        self._step_id = step_id
        self._ledger = ledger
        self._said: set[str] = set()

    @override
    def write_batch(self, values: list[TelemetryBatch]) -> None:
        for batch in values:
            if batch.signal is not Signal.METRICS:
                self._drop(batch, _NOT_METRICS)
                continue
            fits, refusals = acceptable(batch)
            for refusal in refusals:
                self._drop(refusal.batch, refusal.reason)
            self._queue.put(fits)

    @override
    def snapshot(self) -> State:
        return {"format": _FORMAT, "position": self._queue.snapshot()}

    @override
    def close(self) -> None:
        self._queue.close()

    def _drop(self, batch: TelemetryBatch, reason: str) -> None:
        if not batch.num_rows:
            return
        self._ledger.add_batch(Outcome.DROPPED, batch, component=self._step_id, reason=reason)
        if reason not in self._said:
            self._said.add(reason)
            hint = _HINTS.get(reason)
            _LOG.warning(
                "%s: dropped %d records: %s%s", self._step_id, batch.num_rows, reason, f"; {hint}" if hint else ""
            )


def _position(step_id: str, state: State | None) -> int | None:
    if state is None:
        return None
    if not isinstance(state, dict) or state.get("format") != _FORMAT:
        raise ConfigError(
            f"{step_id}: expected recovery state of format {_FORMAT}, got {state!r};"
            " hint: it is another version's, or another sink had this step id"
        )
    position: int | None = state["position"]
    return position
