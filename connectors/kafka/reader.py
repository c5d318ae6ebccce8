"""One consumer for all the topic partitions a process reads, and the offsets it commits for them."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from connectors.kafka.client import ErrorLog, client_options, load_library
from connectors.kafka.settings import KafkaReceiverSettings
from telflow.errors import ConfigError

if TYPE_CHECKING:
    from confluent_kafka import Message

__all__ = ["Place", "Reader", "is_place"]

_LOG = logging.getLogger(__name__)
_ASK_S = 5.0
_DRY_S = 0.002  # the partitions that ask right after one that got nothing get nothing either
_CHUNK = 100  # messages taken from the library at a time; what they may weigh together is bounded by `prefetch_bytes`


class Place(NamedTuple):
    """A topic's partition."""

    topic: str
    number: int

    def __str__(self) -> str:
        return f"{self.topic}/{self.number}"

    @classmethod
    def parse(cls, text: str) -> Place:
        """Read what `str` wrote.

        >>> Place.parse("otlp_spans/3")
        Place(topic='otlp_spans', number=3)
        """
        topic, _, number = text.rpartition("/")
        return cls(topic, int(number))


def is_place(name: str) -> bool:
    """Return whether a partition's name is one that this source gives.

    >>> is_place("otlp_spans/3"), is_place("intake")
    (True, False)
    """
    topic, _, number = name.rpartition("/")
    return bool(topic) and number.isascii() and number.isdigit()


@dataclass(slots=True)
class _Assigned:
    next_offset: int
    waiting: deque[Message] = field(default_factory=deque)
    lost: int = 0


class Reader:
    """Fetches messages and hands them out partition by partition.

    The library fetches in threads of its own and keeps up to `prefetch_bytes`; this class sorts what it has fetched.
    To be used by one thread, the dataflow's worker.
    """

    def __init__(
        self, settings: KafkaReceiverSettings, component: str, *, now_s: Callable[[], float] = time.monotonic
    ) -> None:
        """Make the consumer; nothing waits for a broker yet.

        Args:
            settings: Which brokers, topics and group.
            component: Name to report under.
            now_s: A monotonic clock.

        Raises:
            ConfigError: The library is missing, or it does not know an option.
        """
        self._settings = settings
        self._component = component
        self._now_s = now_s
        self._kafka = load_library()
        self._errors = ErrorLog(component, now_s=now_s)
        # Options of the file first, so that none replaces what the promises rest on.
        options = client_options(settings, self._errors) | {
            "group.id": settings.group_id,
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "auto.offset.reset": "error",
            "allow.auto.create.topics": False,
            "queued.max.messages.kbytes": max(1, settings.prefetch_bytes >> 10),
            "on_commit": self._on_commit,
        }
        try:
            self._consumer = self._kafka.Consumer(options)
        except self._kafka.KafkaException as error:
            raise ConfigError(f"{component}: {error.args[0].str()}") from None
        self._assigned: dict[Place, _Assigned] = {}
        # Fetching begins when all have been started: a broker answers nothing else while a fetch waits for messages.
        self._to_assign: list[Any] = []
        self._counts: dict[str, int] = {}
        self._counts_due_s = -1.0
        self._waiting_bytes = 0
        self._dry_until_s = now_s()
        self._committed: dict[Place, int] = {}

    def counts(self, *, timeout_s: float | None = None) -> Mapping[str, int]:
        """Return how many partitions each topic has, 0 when it does not exist; asked anew every `metadata_interval`.

        Args:
            timeout_s: How long to wait for a broker; None: a moment, and then the last known counts are returned.

        Raises:
            ConfigError: No broker answered within `timeout_s`.
        """
        now_s = self._now_s()
        if self._counts and now_s < self._counts_due_s and timeout_s is None:
            return self._counts
        try:
            # One by one, for a cluster may have thousands of others.
            counts = {topic: self._count(topic, timeout_s or 1.0) for topic in self._settings.by_topic}
        except self._kafka.KafkaException as error:
            if timeout_s is not None:
                raise ConfigError(
                    f"{self._component}: expected a Kafka broker at {', '.join(self._settings.brokers)}, "
                    f"got: {error.args[0].str()}; hint: check `brokers`, `tls` and `sasl`, and that a broker runs"
                ) from error
            self._counts_due_s = now_s + self._settings.metadata_interval.total_seconds() / 4
            return self._counts
        self._counts = counts
        self._counts_due_s = now_s + self._settings.metadata_interval.total_seconds()
        return self._counts

    def _count(self, topic: str, timeout_s: float) -> int:
        return len(self._consumer.list_topics(topic, timeout=timeout_s).topics[topic].partitions)

    def start(self, place: Place, saved: int | None, *, is_new: bool = False) -> int | None:
        """Begin to read a partition.

        Args:
            place: Which.
            saved: The next offset by the flow's saved state; None when it has none.
            is_new: The partition came into being while the flow ran: it is read from its beginning.

        Returns:
            The next offset; None when no broker could say where to begin, which is worth another try later.
        """
        try:
            offset = saved if saved is not None else self._first_offset(place, is_new)
        except self._kafka.KafkaException as error:
            if not self._errors.said(f"{place} start"):
                _LOG.warning("%s: %s cannot be read yet: %s", self._component, place, error.args[0].str())
            return None
        self._assigned[place] = _Assigned(offset)
        self._to_assign.append(self._kafka.TopicPartition(*place, offset))
        _LOG.info("%s: %s is read from offset %d", self._component, place, offset)
        return offset

    def _first_offset(self, place: Place, is_new: bool) -> int:
        """Return where to begin without saved state: where the group is, else where the settings say.

        The group is told at once, so that a restart before the first committed epoch begins there too.
        """
        siblings = [
            self._kafka.TopicPartition(place.topic, number) for number in range(self._counts.get(place.topic, 0))
        ]
        committed = {p.partition: p.offset for p in self._consumer.committed(siblings, timeout=_ASK_S)}
        offset: int = committed.get(place.number, -1)
        if offset < 0:
            low, high = self._watermarks(place)
            # Beside partitions with an offset, one without is one that was added since.
            is_new = is_new or any(other >= 0 for other in committed.values())
            offset = low if is_new or self._settings.initial_offset == "earliest" else high
            where = [self._kafka.TopicPartition(*place, offset)]
            self._consumer.commit(offsets=where, asynchronous=False)
        return offset

    def _watermarks(self, place: Place) -> tuple[int, int]:
        found = self._consumer.get_watermark_offsets(self._kafka.TopicPartition(*place), timeout=_ASK_S)
        if found is None:
            raise self._kafka.KafkaException(self._kafka.KafkaError(self._kafka.KafkaError._TIMED_OUT))  # noqa: SLF001
        low, high = found
        return int(low), int(high)

    def fetch(self, place: Place, max_bytes: int) -> list[Message]:
        """Return messages of a started partition in order, without waiting.

        Args:
            place: Which partition.
            max_bytes: Bytes of their values together; one message is returned whatever its size.
        """
        mine = self._assigned[place]
        if not mine.waiting and self._waiting_bytes < self._settings.prefetch_bytes:
            now_s = self._now_s()
            if now_s >= self._dry_until_s:
                self._pump(max_bytes)
                if not self._waiting_bytes:
                    self._dry_until_s = now_s + _DRY_S
        taken: list[Message] = []
        size = 0
        while mine.waiting and (not taken or size + len(mine.waiting[0]) <= max_bytes):
            message = mine.waiting.popleft()
            size += len(message)
            taken.append(message)
        self._waiting_bytes -= size
        if taken:
            last = taken[-1].offset()
            mine.next_offset = mine.next_offset if last is None else last + 1
        return taken

    def _pump(self, max_bytes: int) -> None:
        """Sort what the library has fetched into the partitions' queues, until a batch's worth has come."""
        if self._to_assign:
            self._consumer.incremental_assign(self._to_assign)
            self._to_assign = []
        come = 0
        while come < max_bytes:
            messages: list[Message] = self._consumer.consume(_CHUNK, 0)
            for message in messages:
                place = Place(message.topic() or "", message.partition() or 0)
                if message.error() is not None:
                    self._on_error(place, message)
                elif place in self._assigned:
                    self._assigned[place].waiting.append(message)
                    come += len(message)
                    self._waiting_bytes += len(message)
            if len(messages) < _CHUNK:
                break

    def _on_error(self, place: Place, message: Message) -> None:
        error = message.error()
        if error is None:
            return
        if error.code() == self._kafka.KafkaError._AUTO_OFFSET_RESET and place in self._assigned:  # noqa: SLF001
            self._restart(place)
        elif not self._errors.said(f"{place} {error.name()}"):
            _LOG.warning("%s: %s: %s: %s", self._component, place, error.name(), error.str())

    def _restart(self, place: Place) -> None:
        """Go on from the oldest message after the next one has been deleted in the topic, and say what is lost."""
        mine = self._assigned[place]
        wanted = mine.waiting[-1].offset() if mine.waiting else None
        wanted = mine.next_offset if wanted is None else wanted + 1
        try:
            low, high = self._watermarks(place)
        except self._kafka.KafkaException:
            low, high = wanted, wanted  # asked again with the next error
        where = [self._kafka.TopicPartition(*place, low)]
        self._consumer.incremental_unassign(where)
        self._consumer.incremental_assign(where)
        if low > wanted:
            mine.lost += low - wanted
            _LOG.error(
                "%s: %s: %d messages from offset %d on were deleted in the topic before they were read; lengthen its "
                "retention or add workers",
                self._component,
                place,
                low - wanted,
                wanted,
            )
        elif wanted > high:
            _LOG.error(
                "%s: %s ends at offset %d, before the next one to read, %d: it was made anew; read from its beginning",
                self._component,
                place,
                high,
                wanted,
            )

    def commit(self, offsets: Mapping[Place, int], *, wait: bool = False) -> None:
        """Tell the brokers up to where everything read has left the flow for good.

        Args:
            offsets: The next offset of partitions.
            wait: Wait for the brokers' answer.
        """
        news = {place: offset for place, offset in offsets.items() if self._committed.get(place) != offset}
        if not news:
            return
        where = [self._kafka.TopicPartition(*place, offset) for place, offset in news.items()]
        try:
            self._consumer.commit(offsets=where, asynchronous=not wait)
        except self._kafka.KafkaException as error:
            self._on_commit(error.args[0], where)
        else:
            self._committed |= news

    def _on_commit(self, error: Any, partitions: list[Any]) -> None:
        if error is None:
            return
        for where in partitions:  # so that they are committed again
            self._committed.pop(Place(where.topic, where.partition), None)
        if not self._errors.said(f"commit {error.name()}"):
            _LOG.warning("%s: offsets could not be committed: %s", self._component, error.str())

    def next_offsets(self) -> dict[Place, int]:
        """Return the next offset to hand out of each partition; safe in any thread."""
        return {place: assigned.next_offset for place, assigned in list(self._assigned.items())}

    def lags(self) -> dict[Place, int]:
        """Return how many messages of each partition are not handed out yet, by what the library last heard."""
        lags: dict[Place, int] = {}
        for place, assigned in self._assigned.items():
            _, high = self._consumer.get_watermark_offsets(self._kafka.TopicPartition(*place), cached=True)
            lags[place] = max(0, high - assigned.next_offset)
        return lags

    @property
    def lost(self) -> int:
        """How many messages were deleted in their topics before they were read."""
        return sum(assigned.lost for assigned in self._assigned.values())

    def close(self) -> None:
        """Leave the brokers."""
        self._consumer.close()
