"""The Kafka source: OTLP messages from topics to batches, one Bytewax partition for each topic partition.

What has been read is told to the brokers only after the flow has committed the epoch it was read in, so a crash
repeats messages and never skips one, and the brokers' own tools show how far behind the flow is.
"""

from __future__ import annotations

import atexit
import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition
from typing_extensions import override

from connectors.kafka.decoding import Failure, decode_values, tenant_from
from connectors.kafka.reader import Place, Reader
from connectors.kafka.settings import KafkaReceiverSettings
from telflow.accounting import LEDGER, Ledger, Outcome
from telflow.batch import TelemetryBatch
from telflow.codec import Encoding
from telflow.delivery.committed import CommittedStates
from telflow.delivery.dead_letters import DeadLetters
from telflow.delivery.log import Entry
from telflow.errors import ConfigError, DecodeError, TelflowError
from telflow.memory_budget import MEMORY
from telflow.schema import Signal

if TYPE_CHECKING:
    from confluent_kafka import Message

__all__ = ["KafkaSource", "KafkaSourceStats", "rooms"]

_LOG = logging.getLogger(__name__)
_LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)
_SHORTEST_REST_S = 0.003125
_LONGEST_REST_S = 0.1
_ROOM_REST_S = 0.5
_ROOMS = 2


@dataclass(frozen=True, slots=True)
class KafkaSourceStats:
    """How a source is doing.

    Attributes:
        lag: Messages of each topic partition that were not read yet (`otlp_spans/0`).
        lost: Messages that the topic deleted before they were read.
        undecodable: Messages that were no OTLP requests.
    """

    lag: Mapping[str, int]
    lost: int
    undecodable: int


def rooms(partitions: int) -> int:
    """Return how many partitions to provide for where a topic has so many.

    Bytewax asks for a source's partitions once, so there are two more than the topic has: they begin to read when the
    topic grows, without a restart. Not more, for the engine saves the state of each with every epoch, which costs a
    write to its recovery files even if nothing was read. The number never shrinks while the topic's does not, which
    recovery needs.

    >>> [rooms(n) for n in (0, 1, 12)]
    [2, 3, 14]
    """
    return partitions + _ROOMS


class KafkaSource(FixedPartitionedSource[TelemetryBatch, int | None]):
    """Reads OTLP messages from Kafka.

    The state of a partition is its next offset. A run begins where the flow's saved state says; without one where the
    consumer group is, and else at `initial_offset`. Without a recovery folder nothing is committed to the brokers:
    only saved state tells what has left the flow for good.

    A message that cannot be decoded becomes a dead letter, is counted as one record that was received and dropped
    (`undecodable`), and is not read again.
    """

    def __init__(
        self,
        settings: KafkaReceiverSettings,
        *,
        recovery_dir: Path | None = None,
        name: str = "kafka",
        dead_letters: DeadLetters | None = None,
        epoch_budget_bytes: int | None = None,
        ledger: Ledger = LEDGER,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """Describe the source.

        Args:
            settings: Which brokers and topics.
            recovery_dir: Where the dataflow keeps its state.
            name: The component's name in the ledger and in the log.
            dead_letters: Keeps messages that are no OTLP requests. None: the log says where they are in Kafka.
            epoch_budget_bytes: Message bytes per epoch and topic partition. A cluster has backpressure only at the
                edges of epochs, so each source there must limit itself. None: no limit, right for a single worker.
            ledger: Where records are counted.
            now_s: A monotonic clock.
        """
        self.settings = settings
        self.name = name
        self.dead_letters = dead_letters
        self.epoch_budget_bytes = epoch_budget_bytes
        self.ledger = ledger
        self.now_s = now_s
        self.stopped = False
        self.undecodable = 0
        self._states = None if recovery_dir is None else CommittedStates(recovery_dir)
        self._saved: dict[Place, int] = {}
        self._asking: threading.Thread | None = None
        self._closing = threading.Event()
        atexit.register(self.close)  # for a run that nobody closes: its last epoch is committed only when it has ended
        self._reader: Reader | None = None
        self._started: dict[Place, str] = {}
        self._known: dict[str, int] = {}
        self._provided: dict[str, int] = {}
        self._outgrown: set[str] = set()
        self._commit_due_s = now_s()
        self._lag: dict[str, int] = {}
        self._lost = 0

    @property
    def reader(self) -> Reader:
        """The consumer of this process, made when it is first needed.

        Raises:
            ConfigError: It cannot be made.
        """
        if self._reader is None:
            self._reader = Reader(self.settings, self.name, now_s=self.now_s)
        return self._reader

    @override
    def list_parts(self) -> list[str]:
        try:
            counts = self.reader.counts(timeout_s=self.settings.startup_timeout.total_seconds())
        except ConfigError:
            self.close()
            raise
        self._known = self._known or dict(counts)  # as it was when the source was first asked
        self._provided = {topic: rooms(count) for topic, count in counts.items()}
        for topic in (topic for topic, count in counts.items() if not count):
            _LOG.warning("%s: there is no topic %s yet; it is read as soon as there is", self.name, topic)
        return [str(Place(topic, number)) for topic, count in counts.items() for number in range(rooms(count))]

    @override
    def build_part(self, step_id: str, for_part: str, resume_state: int | None) -> _KafkaPartition:
        place = Place.parse(for_part)
        signal, encoding = self.settings.by_topic[place.topic]
        self._started[place] = step_id
        is_new = place.number >= self._known.get(place.topic, 0)
        return _KafkaPartition(self, place, signal, encoding, resume_state, is_new=is_new)

    def stop(self) -> None:
        """End all partitions: the dataflow is being drained. Safe in a signal handler."""
        self.stopped = True

    def commit_when_due(self) -> None:
        """Commit what is known to be saved, and look how far behind the source is, once every `commit_interval`."""
        if self.now_s() < self._commit_due_s:
            return
        self._commit_due_s = self.now_s() + self.settings.commit_interval.total_seconds()
        if self._states is not None and self._asking is None:
            # Asked beside the worker: an answer takes a millisecond or two for each partition.
            self._asking = threading.Thread(target=self._ask_now_and_then, name="kafka-committed", daemon=True)
            self._asking.start()
        self.reader.commit(self._saved)
        for topic, count in self.reader.counts().items():
            if count > self._provided.get(topic, count) and topic not in self._outgrown:
                self._outgrown.add(topic)
                _LOG.warning("%s: %s has %d partitions now; restart to read the new ones", self.name, topic, count)
        self._lag = {str(place): lag for place, lag in self.reader.lags().items()}
        self._lost = self.reader.lost

    def _ask_now_and_then(self) -> None:
        while not self._closing.wait(self.settings.commit_interval.total_seconds()):
            self._ask()

    def _ask(self) -> None:
        """Ask for the saved state of partitions that have moved on since it was asked for."""
        assert self._states is not None  # noqa: S101 - asked only where there are states
        moved = [p for p, offset in self.reader.next_offsets().items() if self._saved.get(p) != offset]
        for place in moved:
            try:
                offset = self._states.get(self._started[place], str(place))
            except TelflowError as error:
                _LOG.warning("%s: offsets cannot be committed: %s", self.name, error)
                return
            if isinstance(offset, int):
                self._saved[place] = offset

    def close(self) -> None:
        """Commit what the run has committed at its end, and leave the brokers; done at the process's end else."""
        atexit.unregister(self.close)
        self._closing.set()
        if self._asking is not None:
            self._asking.join()
        if self._reader is not None:
            if self._states is not None:
                self._ask()
                self._reader.commit(self._saved, wait=True)
            self._lost = self._reader.lost
            self._reader.close()
            self._reader = None
        if self._states is not None:
            self._states.close()

    def stats(self) -> KafkaSourceStats:
        """Return how the source is doing; safe in any thread."""
        return KafkaSourceStats(self._lag, self._lost, self.undecodable)


class _KafkaPartition(StatefulSourcePartition[TelemetryBatch, int | None]):
    """One topic partition, or room for one that the topic may get."""

    def __init__(
        self,
        source: KafkaSource,
        place: Place,
        signal: Signal,
        encoding: Encoding,
        saved: int | None,
        *,
        is_new: bool,
    ) -> None:
        self._source = source
        self._settings = source.settings
        self._place = place
        self._signal = signal
        self._encoding = encoding
        self._next_offset = saved
        self._reading = False
        self._is_new = is_new
        self._epoch_bytes = 0
        self._rest_s = 0.0
        self._begin()

    def _begin(self) -> None:
        """Start reading if the topic has this partition."""
        reader = self._source.reader
        if reader.counts().get(self._place.topic, 0) <= self._place.number:
            self._rest_s = _ROOM_REST_S
            return
        offset = reader.start(self._place, self._next_offset, is_new=self._is_new)
        if offset is None:
            self._rest_s = _ROOM_REST_S
            return
        self._next_offset, self._rest_s, self._reading = offset, 0.0, True

    @override
    def next_batch(self) -> list[TelemetryBatch]:
        if self._source.stopped:
            raise StopIteration
        if not self._reading:
            self._begin()
            return []
        self._source.commit_when_due()
        budget = self._source.epoch_budget_bytes
        if budget is not None and self._epoch_bytes >= budget:
            self._rest_s = _SHORTEST_REST_S
            return []
        most_bytes = 0 if MEMORY.spent else MEMORY.share_of(self._settings.max_batch_bytes)
        messages = self._source.reader.fetch(self._place, most_bytes) if most_bytes else []
        if not messages:
            self._rest_s = min(max(self._rest_s * 2, _SHORTEST_REST_S), _LONGEST_REST_S)
            return []
        self._rest_s = 0.0
        self._epoch_bytes += sum(len(message) for message in messages)
        batches = self._decode(messages)
        last = messages[-1].offset()
        assert last is not None  # noqa: S101 - a message that was fetched has one
        self._next_offset = last + 1
        return batches

    @override
    def next_awake(self) -> datetime:
        if not self._rest_s:
            return _LONG_AGO
        # On a grid, so that all partitions that rest wake the engine once and not each by itself.
        return datetime.fromtimestamp((time.time() // self._rest_s + 1) * self._rest_s, UTC)

    @override
    def snapshot(self) -> int | None:
        self._epoch_bytes = 0
        return self._next_offset

    def _decode(self, messages: list[Message]) -> list[TelemetryBatch]:
        good: list[Message] = []
        tenants: list[str | None] = []
        for message in messages:
            try:
                tenant = tenant_from(message.headers(), self._settings.tenant_header, self._settings.tenant)
            except DecodeError as error:
                self._put_aside(message, None, str(error))
            else:
                good.append(message)
                tenants.append(tenant)
        decoded = decode_values([m.value() or b"" for m in good], self._signal, self._encoding, tenants)
        for failure in decoded.failures:
            self._fail(good, tenants, failure)
        for batch in decoded.batches:
            self._source.ledger.add_batch(Outcome.RECEIVED, batch, component=self._source.name)
        return list(decoded.batches)

    def _fail(self, messages: list[Message], tenants: list[str | None], failure: Failure) -> None:
        self._put_aside(messages[failure.index], tenants[failure.index], failure.reason)

    def _put_aside(self, message: Message, tenant: str | None, reason: str) -> None:
        origin = f"{self._place}@{message.offset()}"
        _LOG.warning("%s: the message at %s is no OTLP request: %s", self._source.name, origin, reason)
        if self._source.dead_letters is not None:
            created_ms = message.timestamp()[1]
            letter = Entry(self._signal, message.value() or b"", 0, tenant, self._encoding, created_ms * 1_000_000)
            self._source.dead_letters.add(letter, origin=self._source.name, reason="undecodable")
        self._source.undecodable += 1
        for what, why in ((Outcome.RECEIVED, ""), (Outcome.DROPPED, "undecodable")):
            self._source.ledger.add(what, self._signal, tenant, 1, component=self._source.name, reason=why)
