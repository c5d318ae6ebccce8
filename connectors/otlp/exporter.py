"""The OTLP sink: batches out to one destination through its sending queue, every record accounted for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bytewax.outputs import FixedPartitionedSink, StatefulSinkPartition
from typing_extensions import override

from connectors.otlp.balanced import connect_all
from connectors.otlp.settings import OtlpExporterSettings
from telflow.accounting import LEDGER, Ledger
from telflow.batch import TelemetryBatch
from telflow.delivery.clock import Clock
from telflow.delivery.dead_letters import DeadLetters
from telflow.delivery.log import Log
from telflow.delivery.queue_store import QueueStore
from telflow.delivery.sending_queue import QueueStats, SendingQueue
from telflow.delivery.transport import Router, Transport
from telflow.errors import ConfigError

__all__ = ["OtlpSink"]

State = dict[str, Any]
_FORMAT = 1


class OtlpSink(FixedPartitionedSink[TelemetryBatch, State]):
    """Exports batches over OTLP; `write_batch` hands them over without waiting for the destination.

    With a log, a destination that is down holds up neither the dataflow nor the other destinations: what an epoch
    leaves undelivered is kept in the log, and `snapshot` returns the position up to which it is (see
    `telflow.delivery.sending_queue`). Without one, `snapshot` returns when every record written before is delivered, or
    dropped and counted with the reason; a destination that is down then holds the dataflow up, which in the end makes
    the receivers refuse data with a hint to retry.
    """

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
        """Describe the sink.

        Args:
            settings: Destination and limits.
            partitions: How many partitions share the work in a cluster; never fewer than in an earlier run.
            ledger: Where delivered and dropped records are counted.
            log: Where undelivered requests survive; None: in memory only.
            dead_letters: Keeps what the destination refuses for good; None: it is only counted.
            connect: Makes what carries the requests.
            clock: What retries are timed by.
        """
        self.settings = settings
        self._partitions = partitions
        self._ledger = ledger
        self._log = log
        self._dead_letters = dead_letters
        self._connect = connect
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
        return [f"otlp-{number}" for number in range(self._partitions)]

    @override
    def build_part(self, step_id: str, for_part: str, resume_state: State | None) -> _OtlpPartition:
        store = None
        if self._log is not None:
            max_bytes = self.settings.sending_queue.queue_size
            store = QueueStore(self._log, f"{step_id}/{for_part}", max_bytes=max_bytes)
        queue = SendingQueue(
            self._connect(self.settings),
            "json" if self.settings.protocol == "http/json" else "protobuf",
            self.settings.request_bytes,
            self.settings,
            component=step_id,
            store=store,
            resume=_position(step_id, resume_state),
            dead_letters=self._dead_letters,
            ledger=self._ledger,
            clock=self._clock,
        )
        self._queues[for_part] = queue
        if self._stopped:
            queue.stop()
        return _OtlpPartition(queue)


class _OtlpPartition(StatefulSinkPartition[TelemetryBatch, State]):
    """Hands batches to the queue; its state is the position up to which the log holds what is undelivered."""

    def __init__(self, queue: SendingQueue) -> None:
        self._queue = queue

    @override
    def write_batch(self, values: list[TelemetryBatch]) -> None:
        for batch in values:
            self._queue.put(batch)

    @override
    def snapshot(self) -> State:
        return {"format": _FORMAT, "position": self._queue.snapshot()}

    @override
    def close(self) -> None:
        self._queue.close()


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
