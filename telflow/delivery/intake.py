"""The intake: where receivers put decoded requests and a dataflow's source takes them.

A receiver acknowledges a request when `Intake.append` has returned, so `append` is where "acknowledged" gets its
meaning. `MemoryIntake` promises only that the process will not forget the data while it lives; a durable log that
keeps the payload takes its place through the same protocol.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass
from typing import Literal, Protocol

from telflow.batch import TelemetryBatch
from telflow.errors import DeliveryError
from telflow.schema import Signal

__all__ = ["BATCH_OVERHEAD_BYTES", "Intake", "MemoryIntake", "Overloaded", "RequestMeta"]

BATCH_OVERHEAD_BYTES = 88 << 10
"""What a batch in memory takes besides its data: a hundred Arrow arrays describe themselves on both sides of the
language border (measured: 55 kB for logs, 75 kB for traces, 88 kB for metrics, however few the records)."""


@dataclass(frozen=True, slots=True)
class RequestMeta:
    """What is known of a request besides its records.

    Attributes:
        tenant: Whose data it is; None when unknown.
        signal: What its records are.
        encoding: How its payload was written.
        arrival_time_unix_nano: When it had arrived completely.
        peer: The sender's address.
        payload: The request's uncompressed bytes, for an intake that keeps them.
    """

    tenant: str | None
    signal: Signal
    encoding: Literal["protobuf", "json"]
    arrival_time_unix_nano: int
    peer: str = ""
    payload: bytes = b""


class Overloaded(DeliveryError):  # noqa: N818 - a state of the receiver that passes, said to the sender as such
    """The intake has no room now; the sender is to come back after `retry_after_s` seconds."""

    def __init__(self, message: str, *, retry_after_s: float = 1.0) -> None:
        super().__init__(message, retryable=True, retry_after_s=retry_after_s)


class Intake(Protocol):
    """Hands requests over from any number of receiver threads to one source."""

    def admit(self, payload_bytes: int) -> None:
        """Refuse a request of this uncompressed size before any work is spent on it.

        Raises:
            Overloaded: There is no room.
        """
        ...

    def append(self, batch: TelemetryBatch, *requests: RequestMeta) -> None:
        """Take over responsibility for `batch`; its senders may be told that it is safe.

        Args:
            batch: What the requests hold, together and in this order.
            requests: Where it came from; one or more, of one signal and encoding.

        Raises:
            Overloaded: There is no room; nothing was taken.
        """
        ...

    def take(self, *, timeout_s: float, max_bytes: int) -> list[TelemetryBatch]:
        """Remove and return batches in order of arrival, waiting up to `timeout_s` seconds for the first.

        Returns:
            At least one when there is any, and no further one beyond `max_bytes` of Arrow data; none after the wait.
        """
        ...

    def close(self) -> None:
        """Admit nothing from now on; what is inside can still be taken. Safe in a signal handler."""
        ...

    @property
    def drained(self) -> bool:
        """True when the intake is closed and empty: nothing will ever be taken again."""
        ...


class MemoryIntake:
    """An intake in memory with a hard limit.

    >>> intake = MemoryIntake(max_bytes=1 << 20)
    >>> intake.append(TelemetryBatch.empty(Signal.LOGS), RequestMeta("acme", Signal.LOGS, "protobuf", 0))
    >>> len(intake.take(timeout_s=0, max_bytes=1 << 20))
    1
    """

    def __init__(self, max_bytes: int = 256 << 20, *, retry_after_s: float = 1.0) -> None:
        """Build an empty intake.

        Args:
            max_bytes: Bytes it may hold, `BATCH_OVERHEAD_BYTES` for each batch included; beyond that it refuses.
            retry_after_s: What it tells a refused sender to wait.
        """
        self._max_bytes = max_bytes
        self._retry_after_s = retry_after_s
        self._held_bytes = 0
        self._closed = False
        self._batches: deque[tuple[TelemetryBatch, int]] = deque()
        self._changed = threading.Condition()

    @property
    def held_bytes(self) -> int:
        """Bytes waiting to be taken, overhead included."""
        return self._held_bytes

    def admit(self, payload_bytes: int) -> None:
        """See `Intake.admit`; decoding makes a payload larger, so this is the least it will need."""
        if self._closed:
            raise Overloaded("the receiver is shutting down", retry_after_s=self._retry_after_s)
        if self._held_bytes + payload_bytes > self._max_bytes:
            raise Overloaded("the receiver's memory budget is spent", retry_after_s=self._retry_after_s)

    def append(self, batch: TelemetryBatch, *requests: RequestMeta) -> None:  # noqa: ARG002 - of use to a log
        """See `Intake.append`."""
        size = batch.num_bytes
        with self._changed:
            self.admit(size + BATCH_OVERHEAD_BYTES)
            self._batches.append((batch, size))
            self._held_bytes += size + BATCH_OVERHEAD_BYTES
            self._changed.notify()

    def take(self, *, timeout_s: float, max_bytes: int) -> list[TelemetryBatch]:
        """See `Intake.take`."""
        with self._changed:
            if not self._batches and not self._closed and timeout_s > 0:
                self._changed.wait(timeout_s)
            taken: list[TelemetryBatch] = []
            taken_bytes = 0
            while self._batches and (not taken or taken_bytes + self._batches[0][1] <= max_bytes):
                batch, size = self._batches.popleft()
                taken.append(batch)
                taken_bytes += size
            self._held_bytes -= taken_bytes + len(taken) * BATCH_OVERHEAD_BYTES
        return taken

    def close(self) -> None:
        """See `Intake.close`.

        Takes no lock, because a signal handler may interrupt the very thread that holds it; a waiting `take` notices
        at the end of its wait.
        """
        self._closed = True

    @property
    def drained(self) -> bool:
        """See `Intake.drained`."""
        # An append that was under way when the intake was closed holds the lock, and its batch is seen after it.
        with self._changed:
            return self._closed and not self._batches
