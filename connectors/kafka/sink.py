"""The Kafka sink: batches to OTLP messages, every one acknowledged by the brokers before an epoch is committed."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from bytewax.outputs import FixedPartitionedSink, StatefulSinkPartition
from typing_extensions import override

from connectors.kafka.client import ErrorLog
from connectors.kafka.keyed import Part, split_by_tenant, split_by_trace, split_by_trace_partition
from connectors.kafka.producer import Producer, Verdict
from connectors.kafka.settings import KafkaExporterSettings, codec_encoding
from telflow.accounting import LEDGER, Ledger, Outcome
from telflow.batch import TelemetryBatch
from telflow.codec import Encoding, decode, encode, encode_split
from telflow.delivery.dead_letters import DeadLetters
from telflow.delivery.log import Entry
from telflow.errors import DeliveryError, EncodeError
from telflow.liveness import LIVENESS
from telflow.schema import Signal

if TYPE_CHECKING:
    from confluent_kafka import KafkaError

__all__ = ["KafkaSink", "KafkaSinkStats"]

_LOG = logging.getLogger(__name__)
_WAIT_S = 0.05
_AGAIN_S = 1.0


@dataclass(slots=True)
class _Pending:
    """Records of one tenant in a batch, whose messages are on their way; counted when the last has ended its way."""

    signal: Signal
    tenant: str | None
    records: int
    messages: int = 1  # one for the batch itself, until all its messages are made
    dropped: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Message:
    """One message on its way."""

    pending: _Pending
    encoding: Encoding
    topic: str
    value: bytes
    key: bytes | None
    partition: int | None
    headers: list[tuple[str, bytes]]
    since_s: float
    alone: bool = False


@dataclass(frozen=True, slots=True)
class KafkaSinkStats:
    """How a sink is doing.

    Attributes:
        unacknowledged: Messages that the brokers have not acknowledged.
    """

    unacknowledged: int


class KafkaSink(FixedPartitionedSink[TelemetryBatch, int]):
    """Writes OTLP messages to Kafka.

    When `snapshot` has returned, the brokers have acknowledged every record written before, or it was dropped and
    counted with the reason. The producer is idempotent: its own repetitions make no duplicates. What concerns the
    cluster as a whole (brokers down, a topic or a permission missing) is waited for; a message that is itself refused
    is split if it is too large, and dropped else.
    """

    def __init__(
        self,
        settings: KafkaExporterSettings,
        *,
        partitions: int = 1,
        keep_undelivered: bool = False,
        dead_letters: DeadLetters | None = None,
        ledger: Ledger = LEDGER,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        """Describe the sink.

        Args:
            settings: Which brokers and topics.
            partitions: How many partitions share the work in a cluster; never fewer than in an earlier run.
            keep_undelivered: What is unacknowledged when a stop has waited for `shutdown_timeout` ends the run with an
                error, for the next one to bring it again from the flow's saved state. False: it is dropped and counted.
            dead_letters: Keeps what is dropped.
            ledger: Where delivered and dropped records are counted.
            now_s: A monotonic clock.
        """
        self.settings = settings
        self._partitions = partitions
        self.keep_undelivered = keep_undelivered
        self.dead_letters = dead_letters
        self.ledger = ledger
        self.now_s = now_s
        self.deadline_s: float | None = None
        self._parts: list[_KafkaPartition] = []

    def stop(self) -> None:
        """Wait no longer than `shutdown_timeout` from now on: the dataflow is being drained. Safe in a handler."""
        if self.deadline_s is None:
            self.deadline_s = self.now_s() + self.settings.shutdown_timeout.total_seconds()

    @override
    def list_parts(self) -> list[str]:
        return [f"kafka-{number}" for number in range(self._partitions)]

    @override
    def build_part(self, step_id: str, for_part: str, resume_state: int | None) -> _KafkaPartition:
        part = _KafkaPartition(self, step_id, resume_state or 0)
        self._parts.append(part)
        return part

    def stats(self) -> KafkaSinkStats:
        """Return how the sink is doing; safe in any thread."""
        return KafkaSinkStats(sum(part.unacknowledged for part in list(self._parts)))


class _KafkaPartition(StatefulSinkPartition[TelemetryBatch, int]):
    """One producer; the state is the number of batches seen, for the curious."""

    def __init__(self, sink: KafkaSink, step_id: str, seen: int) -> None:
        self._sink = sink
        self._settings = sink.settings
        self._step_id = step_id
        self._seen = seen
        self._errors = ErrorLog(step_id, now_s=sink.now_s)
        self._producer = Producer(sink.settings, step_id, self._errors)
        self._in_flight = 0
        self._again: deque[_Message] = deque()
        self._again_s = 0.0
        self._shrinks = False

    @property
    def unacknowledged(self) -> int:
        """Messages in the producer, and those to be sent again."""
        return self._in_flight + len(self._again)

    @override
    def write_batch(self, values: list[TelemetryBatch]) -> None:
        for batch in values:
            self._seen += 1
            for tenant, part in split_by_tenant(batch):
                self._write(tenant, part)
        self._producer.poll(0)

    @override
    def snapshot(self) -> int:
        self._flush()
        return self._seen

    @override
    def close(self) -> None:
        self._flush()
        self._producer.close()

    def _write(self, tenant: str | None, batch: TelemetryBatch) -> None:
        to = self._settings.topic_of(batch.signal)
        pending = _Pending(batch.signal, tenant, batch.num_rows)
        name = self._settings.tenant_header
        headers = [(name, tenant.encode())] if name and tenant else []
        encoding = codec_encoding(to.encoding)
        for part in self._parts(tenant, batch, to.topic):
            for value in self._encode(part.batch, encoding, pending):
                pending.messages += 1
                now_s = self._sink.now_s()
                self._send(_Message(pending, encoding, to.topic, value, part.key, part.partition, headers, now_s))
        self._end(pending)

    def _parts(self, tenant: str | None, batch: TelemetryBatch, topic: str) -> Iterator[Part]:
        match self._settings.key:
            case "none":
                yield Part(batch)
            case "tenant":
                yield Part(batch, tenant.encode() if tenant else None)
            case "trace_id":
                yield from split_by_trace(batch)
            case "trace_partition":
                count = self._producer.partition_count(topic)
                if count is None:  # no broker says: the key lets the library choose the same when one does
                    yield from split_by_trace(batch)
                else:
                    yield from split_by_trace_partition(batch, count)

    def _encode(self, batch: TelemetryBatch, encoding: Encoding, pending: _Pending) -> Iterator[bytes]:
        try:
            yield from encode_split(batch, self._settings.max_message_bytes, encoding)
        except EncodeError:
            if batch.num_rows == 1:
                self._drop(pending, 1, "record too large")
                self._bury(pending, encode(batch, encoding), encoding, 1, "record too large")
                return
            half = batch.num_rows // 2
            yield from self._encode(batch.slice(0, half), encoding, pending)
            yield from self._encode(batch.slice(half), encoding, pending)

    def _send(self, message: _Message) -> None:
        """Hand a message to the producer; waiting for room in its buffer is the dataflow's backpressure."""
        self._in_flight += 1
        while True:
            if self._out_of_time():
                self._in_flight -= 1
                self._give_up([message])
                return
            error = self._producer.produce(
                message.topic,
                message.value,
                key=message.key,
                partition=message.partition,
                headers=message.headers,
                on_delivery=lambda error, _: self._on_delivery(message, error),
            )
            if error is None:
                return
            if error is Verdict.FULL:
                self._wait()
            else:
                self._on_delivery(message, error)
                return

    def _on_delivery(self, message: _Message, error: KafkaError | None) -> None:
        self._in_flight -= 1
        if error is None:
            self._end(message.pending)
            return
        verdict = self._producer.judge(error)
        if not self._errors.said(f"delivery {error.name()}"):
            _LOG.warning("%s: %s: %s: %s", self._step_id, message.topic, error.name(), error.str())
        if verdict is Verdict.TOO_LARGE:
            self._too_large(message)
        elif verdict is Verdict.REFUSED:
            self._drop_message(message, f"refused ({error.name()})")
        elif self._is_late(message):
            self._drop_message(message, "not acknowledged in time")
        else:
            self._again.append(message)
            self._again_s = self._sink.now_s() + _AGAIN_S

    def _is_late(self, message: _Message) -> bool:
        limit_s = self._settings.delivery_timeout.total_seconds()
        return bool(limit_s) and self._sink.now_s() - message.since_s >= limit_s

    def _too_large(self, message: _Message) -> None:
        """Send in smaller parts what the broker finds too large: the topic's limit is below ours."""
        self._shrinks = self._producer.batches
        pending = message.pending
        batch = decode(message.value, pending.signal, message.encoding, tenant=pending.tenant)
        if batch.num_rows > 1:
            half = batch.num_rows // 2
            pending.messages += 1
            for part in (batch.slice(0, half), batch.slice(half)):
                self._again.append(replace(message, value=encode(part, message.encoding)))
        elif message.alone:
            self._drop_message(message, "record too large")
        else:
            # Perhaps only the messages it travelled with made it too large.
            self._again.append(message)

    def _repeat(self) -> None:
        """Send again what is due."""
        if self._producer.broken:
            self._producer.renew()  # what it held has come back through `_on_delivery`
        if self._again and self._sink.now_s() >= self._again_s and not (self._shrinks and self._in_flight):
            if self._shrinks:
                _LOG.warning(
                    "%s: a topic allows for smaller messages than max_message_bytes (%d); messages are split and sent "
                    "one by one, which costs throughput: set it below the topic's max.message.bytes",
                    self._step_id,
                    self._settings.max_message_bytes,
                )
                self._producer.send_alone()
                self._shrinks = False
            due, self._again = self._again, deque()
            for message in due:
                self._send(replace(message, alone=not self._producer.batches))

    def _flush(self) -> None:
        while self._in_flight or self._again:
            if self._out_of_time():
                self._give_up([])
                return
            self._wait()

    def _wait(self) -> None:
        LIVENESS.waiting()  # on purpose: brokers that do not answer must not make the worker look hung
        self._producer.poll(_WAIT_S)
        self._repeat()

    def _out_of_time(self) -> bool:
        return self._sink.deadline_s is not None and self._sink.now_s() >= self._sink.deadline_s

    def _give_up(self, more: list[_Message]) -> None:
        """End what is unacknowledged when a stop has waited long enough."""
        left = self._in_flight + len(self._again) + len(more)
        if self._sink.keep_undelivered and left:
            raise DeliveryError(
                f"{self._step_id}: {left} messages were not acknowledged by {', '.join(self._settings.brokers)} within "
                f"shutdown_timeout; nothing of them is lost: the next run sends them",
                retryable=True,
            )
        late = [*more, *self._again]
        self._again.clear()
        self._producer.purge()
        late += self._again  # what the purge has given back
        self._again.clear()
        for message in late:
            self._drop_message(message, "not acknowledged before the stop")

    def _drop_message(self, message: _Message, reason: str) -> None:
        pending = message.pending
        records = decode(message.value, pending.signal, message.encoding).num_rows
        self._drop(pending, records, reason)
        self._bury(pending, message.value, message.encoding, records, reason)
        self._end(pending)

    def _bury(self, pending: _Pending, payload: bytes, encoding: Encoding, records: int, reason: str) -> None:
        if self._sink.dead_letters is not None:
            letter = Entry(pending.signal, payload, records, pending.tenant, encoding, time.time_ns())
            self._sink.dead_letters.add(letter, origin=self._step_id, reason=reason)

    def _drop(self, pending: _Pending, records: int, reason: str) -> None:
        pending.dropped[reason] = pending.dropped.get(reason, 0) + records

    def _end(self, pending: _Pending) -> None:
        pending.messages -= 1
        if pending.messages:
            return
        add, component = self._sink.ledger.add, self._step_id
        delivered = pending.records - sum(pending.dropped.values())
        add(Outcome.DELIVERED, pending.signal, pending.tenant, delivered, component=component)
        for reason, count in pending.dropped.items():
            _LOG.warning("%s: dropped %d %s records: %s", component, count, pending.signal, reason)
            add(Outcome.DROPPED, pending.signal, pending.tenant, count, component=component, reason=reason)
