"""A sink that sends through a queue: batches are handed over, and each request ends its way accounted for."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeAlias, TypeVar

from bytewax.outputs import FixedPartitionedSink, StatefulSinkPartition
from typing_extensions import override

from telflow.accounting import LEDGER, Ledger
from telflow.batch import TelemetryBatch
from telflow.codec import Encoding
from telflow.delivery.clock import Clock
from telflow.delivery.dead_letters import DeadLetters
from telflow.delivery.log import Log
from telflow.delivery.queue_settings import DeliverySettings
from telflow.delivery.queue_store import QueueStore
from telflow.delivery.sending_queue import QueueStats, SendingQueue
from telflow.delivery.transport import Router, Transport
from telflow.errors import ConfigError

__all__ = ["SendingPartition", "SendingSink", "Way"]

State: TypeAlias = dict[str, Any]
SettingsT = TypeVar("SettingsT", bound=DeliverySettings)
_FORMAT = 1


@dataclass(frozen=True, slots=True)
class Way:
    """How a destination is reached.

    Attributes:
        transport: Carries the requests.
        encoding: How they are written.
        max_request_bytes: Their size at most, before compression.
        in_order: Whether they are sent one after the other, in the order of their records.
    """

    transport: Transport | Router
    encoding: Encoding
    max_request_bytes: int
    in_order: bool = False


class SendingSink(FixedPartitionedSink[TelemetryBatch, State], Generic[SettingsT]):
    """One destination behind a sending queue (`telflow.delivery.sending_queue`); what it is, is the subclass's to say.

    With a log, a destination that is down holds up neither the dataflow nor the other destinations: what an epoch
    leaves undelivered is kept in the log, and `snapshot` returns the position up to which it is. Without one,
    `snapshot` returns when every record written before is delivered, or dropped and counted with the reason; a
    destination that is down then holds the dataflow up, which in the end makes the receivers refuse data with a hint to
    retry.
    """

    kind: ClassVar[str]
    """What the names of the partitions begin with, which recovery knows them by."""

    def __init__(
        self,
        settings: SettingsT,
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

    @abstractmethod
    def way(self) -> Way:
        """Return how the destination is reached, for one partition.

        Raises:
            ConfigError: It cannot be: a certificate is not readable, for example.
        """

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
        return [f"{self.kind}-{number}" for number in range(self._partitions)]

    @override
    def build_part(self, step_id: str, for_part: str, resume_state: State | None) -> SendingPartition:
        resume = _position(step_id, resume_state)
        store = None
        if self._log is not None:
            max_bytes = self.settings.sending_queue.queue_size
            store = QueueStore(self._log, f"{step_id}/{for_part}", max_bytes=max_bytes)
        way = self.way()
        queue = SendingQueue(
            way.transport,
            way.encoding,
            way.max_request_bytes,
            self.settings,
            component=step_id,
            store=store,
            resume=resume,
            dead_letters=self._dead_letters,
            ledger=self._ledger,
            clock=self._clock,
            in_order=way.in_order,
        )
        self._queues[for_part] = queue
        if self._stopped:
            queue.stop()
        return SendingPartition(self, queue, step_id)

    def sendable(self, batch: TelemetryBatch, step_id: str) -> TelemetryBatch:
        """Return what of a batch is for this destination, which is all of it unless a subclass counts the rest."""
        del step_id
        return batch


class SendingPartition(StatefulSinkPartition[TelemetryBatch, State]):
    """Hands batches to the queue; its state is the position up to which the log holds what is undelivered."""

    def __init__(self, sink: SendingSink[Any], queue: SendingQueue, step_id: str) -> None:
        self._sink = sink
        self._queue = queue
        self._step_id = step_id

    @override
    def write_batch(self, values: list[TelemetryBatch]) -> None:
        for batch in values:
            self._queue.put(self._sink.sendable(batch, self._step_id))

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
