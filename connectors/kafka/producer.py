"""The library's producer, made anew when it breaks, and what its errors mean for a message."""

from __future__ import annotations

import enum
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

from connectors.kafka.client import ErrorLog, client_options, load_library
from connectors.kafka.settings import KafkaExporterSettings
from telflow.errors import ConfigError

if TYPE_CHECKING:
    from confluent_kafka import KafkaError, Message

__all__ = ["Producer", "Verdict"]

_OVERHEAD_BYTES = 16 << 10
"""What key, headers and framing add to a message's value."""
_COUNTS_FOR_S = 30.0
_ASK_S = 1.0


class Verdict(enum.Enum):
    """What an error says about a message."""

    LATER = enum.auto()
    """The same message may be accepted later."""
    REFUSED = enum.auto()
    """This message never will."""
    TOO_LARGE = enum.auto()
    """It may be accepted in parts."""
    FULL = enum.auto()
    """The producer's buffer has no room now."""


class Producer:
    """An idempotent producer."""

    def __init__(self, settings: KafkaExporterSettings, component: str, errors: ErrorLog) -> None:
        """Make the producer; nothing waits for a broker yet.

        Args:
            settings: Which brokers, and the options.
            component: Name to report under.
            errors: Where the library's errors are said.

        Raises:
            ConfigError: The library is missing, or it does not know an option.
        """
        self._kafka = load_library()
        kafka_error = self._kafka.KafkaError
        self._refused = {
            kafka_error.INVALID_MSG,
            kafka_error.INVALID_RECORD,
            kafka_error.INVALID_TIMESTAMP,
            kafka_error.POLICY_VIOLATION,
            kafka_error._BAD_MSG,  # noqa: SLF001 - the library's codes of its own errors
            kafka_error._INVALID_ARG,  # noqa: SLF001
        }
        self._too_large = {kafka_error.MSG_SIZE_TOO_LARGE, kafka_error.RECORD_LIST_TOO_LARGE}
        self._full = kafka_error._QUEUE_FULL  # noqa: SLF001
        self._options: dict[str, Any] = client_options(settings, errors) | {
            "enable.idempotence": True,
            "acks": "all",
            "compression.type": settings.compression,
            "linger.ms": settings.linger.total_seconds() * 1000,
            # 0 is without end for the library too.
            "message.timeout.ms": round(settings.delivery_timeout.total_seconds() * 1000),
            "message.max.bytes": settings.max_message_bytes + _OVERHEAD_BYTES,
            "queue.buffering.max.kbytes": settings.buffer_bytes >> 10,
            "queue.buffering.max.messages": 0,
            # What Kafka's own clients do: messages with the same key go to the same partition whoever writes them.
            "partitioner": "murmur2_random",
        }
        self._component = component
        self._counts: dict[str, tuple[int, float]] = {}
        self.broken = False
        self.batches = True
        self._producer = self._make()

    def _make(self) -> Any:
        try:
            return self._kafka.Producer(self._options)
        except self._kafka.KafkaException as error:
            raise ConfigError(f"{self._component}: {error.args[0].str()}") from None

    def produce(
        self,
        topic: str,
        value: bytes,
        *,
        key: bytes | None,
        partition: int | None,
        headers: list[tuple[str, bytes]],
        on_delivery: Callable[[KafkaError | None, Message], None],
    ) -> KafkaError | Literal[Verdict.FULL] | None:
        """Put a message into the producer's buffer.

        Returns:
            None when it is in and `on_delivery` will be called, from `poll`; else why it is not.
        """
        where = {} if partition is None else {"partition": partition}
        try:
            self._producer.produce(topic, value, key, headers=headers, on_delivery=on_delivery, **where)
        except BufferError:
            return Verdict.FULL
        except self._kafka.KafkaException as error:
            refused: KafkaError = error.args[0]
            return Verdict.FULL if refused.code() == self._full else refused
        return None

    def poll(self, wait_s: float) -> None:
        """Call `on_delivery` of messages whose fate is known, waiting for the first."""
        self._producer.poll(wait_s)

    def purge(self) -> None:
        """Give up everything unacknowledged; `on_delivery` has been called for all of it on return."""
        self._producer.purge()
        self._producer.flush(_ASK_S)

    def renew(self) -> None:
        """Replace a producer that broke, after the brokers lost what an idempotent one rests on."""
        self._producer.purge()
        self._producer.flush(_ASK_S)
        self._producer = self._make()
        self.broken = False

    def send_alone(self) -> None:
        """From now on send each message by itself: the brokers' limit on size is for what travels together.

        Nothing may be unacknowledged.
        """
        self._options["batch.size"] = 1
        self._producer = self._make()
        self.batches = False

    def close(self) -> None:
        """Leave the brokers; nothing is waited for."""
        self.purge()

    def judge(self, error: KafkaError) -> Verdict:
        """Return what an error says about the message."""
        if error.fatal():
            self.broken = True
            return Verdict.LATER
        code = error.code()
        if code in self._too_large:
            return Verdict.TOO_LARGE
        return Verdict.REFUSED if code in self._refused else Verdict.LATER

    def partition_count(self, topic: str) -> int | None:
        """Return how many partitions a topic has, asked anew now and then; None when no broker says."""
        now_s = time.monotonic()
        count, known_s = self._counts.get(topic, (0, -_COUNTS_FOR_S))
        if now_s - known_s >= _COUNTS_FOR_S:
            try:
                count = len(self._producer.list_topics(topic, timeout=_ASK_S).topics[topic].partitions)
            except self._kafka.KafkaException:
                known_s = now_s - _COUNTS_FOR_S / 2
            else:
                known_s = now_s
            self._counts[topic] = (count, known_s)
        return count or None
