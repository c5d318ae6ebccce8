"""The intake: where receivers put requests and a dataflow's source takes batches.

A receiver acknowledges a request when `Intake.accept` has returned, so `accept` is where "acknowledged" gets its
meaning. `MemoryIntake` promises only that the process will not forget the data while it lives; a durable log that
keeps the payload takes its place through the same protocol.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass
from typing import Protocol

from telflow.batch import TelemetryBatch
from telflow.codec import Collector, Encoding
from telflow.errors import DeliveryError
from telflow.memory_budget import MEMORY, MemoryBudget
from telflow.schema import Signal

__all__ = ["BATCH_OVERHEAD_BYTES", "Intake", "MemoryIntake", "Overloaded", "RequestMeta"]

BATCH_OVERHEAD_BYTES = 88 << 10
"""What a batch in memory takes besides its data: a hundred Arrow arrays describe themselves on both sides of the
language border (measured: 55 kB for logs, 75 kB for traces, 88 kB for metrics, however few the records)."""
_BATCH_ROWS = 6144
_BATCH_BYTES = 8 << 20
"""A batch of so many records, or of so many bytes, grows no further: large enough that what a batch costs besides its
records does not count, and with the request that makes it full still below the 8192 records that `coalesce` allows."""


@dataclass(frozen=True, slots=True)
class RequestMeta:
    """What is known of a request besides its records.

    Attributes:
        tenant: Whose data it is; None when unknown.
        signal: What its records are.
        encoding: How its payload was written.
        arrival_time_unix_nano: When it had arrived completely.
        peer: The sender's address.
        payload: The request's uncompressed bytes.
    """

    tenant: str | None
    signal: Signal
    encoding: Encoding
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

    def accept(self, request: RequestMeta) -> int:
        """Decode a request and take over responsibility for it; its sender may be told that it is safe.

        Returns:
            How many records it has.

        Raises:
            DecodeError: The payload is not what it claims to be; nothing was taken.
            Overloaded: There is no room; nothing was taken.
        """
        ...

    def take(self, *, timeout_s: float, max_bytes: int, linger_s: float = 0.0) -> list[TelemetryBatch]:
        """Remove and return batches, those of one signal in order of arrival.

        Args:
            timeout_s: How long to wait for the first.
            max_bytes: Bytes of Arrow data to return.
            linger_s: How long a batch that is not full yet may go on growing.

        Returns:
            At least one when there is any, and no further one beyond `max_bytes` of Arrow data; none after the wait.
        """
        ...

    @property
    def taken_bytes(self) -> int:
        """Bytes of all that was ever taken, as `take` counts them."""
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

    Requests of one signal are decoded into one batch that is open until the source takes it or it is full. So it is
    load that makes batches large, and nobody waits for others: decoding eight requests of 512 spans into one batch
    takes about half the CPU time of decoding each and joining the batches (measured).

    >>> intake = MemoryIntake(max_bytes=1 << 20)
    >>> intake.accept(RequestMeta("acme", Signal.LOGS, "protobuf", 0, payload=bytes.fromhex("0a0412021200")))
    1
    >>> [batch.num_rows for batch in intake.take(timeout_s=0, max_bytes=1 << 20)]
    [1]
    """

    def __init__(
        self, max_bytes: int = 256 << 20, *, retry_after_s: float = 1.0, memory: MemoryBudget = MEMORY
    ) -> None:
        """Build an empty intake.

        Args:
            max_bytes: Bytes it may hold, `BATCH_OVERHEAD_BYTES` for each batch included; beyond that it refuses.
            retry_after_s: What it tells a refused sender to wait.
            memory: That of the process; beyond it the intake refuses, too, and near it holds an eighth.
        """
        self._max_bytes = max_bytes
        self._memory = memory
        self._retry_after_s = retry_after_s
        self._held_bytes = 0
        self.taken_bytes = 0
        self._closed = False
        self._lingers = False
        self._growing = {signal: _Growing(signal) for signal in Signal}
        self._full: deque[tuple[TelemetryBatch, int]] = deque()
        self._changed = threading.Condition()

    @property
    def held_bytes(self) -> int:
        """Bytes waiting to be taken, overhead included."""
        return self._held_bytes

    def admit(self, payload_bytes: int) -> None:
        """See `Intake.admit`; decoding makes a payload larger, so this is the least it will need."""
        if self._closed:
            raise Overloaded("the receiver is shutting down", retry_after_s=self._retry_after_s)
        room_bytes = self._memory.share_of(self._max_bytes) - self._held_bytes
        if payload_bytes > room_bytes or (self._held_bytes and self._memory.spent):
            raise self._spent()

    def _spent(self) -> Overloaded:
        return Overloaded("the receiver's memory budget is spent", retry_after_s=self._retry_after_s)

    def accept(self, request: RequestMeta) -> int:
        """See `Intake.accept`."""
        growing = self._growing[request.signal]
        with growing.lock:
            self.admit(len(request.payload))
            before_bytes = growing.num_bytes
            added = growing.add(request, self._max_bytes - self._held_bytes - len(request.payload))
            if added is None:
                raise self._spent()
            grown_bytes = growing.num_bytes - before_bytes
            full = growing.take() if growing.full else None
            with self._changed:
                self._held_bytes += grown_bytes
                if full is not None:
                    self._full.append(full)
                if full is not None or not self._lingers:
                    self._changed.notify()
        return added

    def take(self, *, timeout_s: float, max_bytes: int, linger_s: float = 0.0) -> list[TelemetryBatch]:
        """See `Intake.take`."""
        taken, taken_bytes = self._take_full(max_bytes)
        if not taken:
            with self._changed:
                if not self._held_bytes and not self._closed and timeout_s > 0:
                    self._changed.wait(timeout_s)
                if self._held_bytes and not self._full and not self._closed and linger_s > 0:
                    self._lingers = True
                    self._changed.wait(linger_s)
                    self._lingers = False
            taken, taken_bytes = self._take_full(max_bytes)
        if not taken:
            for growing in self._growing.values():
                with growing.lock:
                    batch, num_bytes = growing.take() or (None, 0)
                if batch is not None and (not taken or taken_bytes + num_bytes <= max_bytes):
                    taken.append(batch)
                    taken_bytes += num_bytes
                elif batch is not None:
                    with self._changed:
                        self._full.append((batch, num_bytes))
        with self._changed:
            self._held_bytes -= taken_bytes
            self.taken_bytes += taken_bytes
        return taken

    def _take_full(self, max_bytes: int) -> tuple[list[TelemetryBatch], int]:
        taken: list[TelemetryBatch] = []
        taken_bytes = 0
        with self._changed:
            while self._full and (not taken or taken_bytes + self._full[0][1] <= max_bytes):
                batch, num_bytes = self._full.popleft()
                taken.append(batch)
                taken_bytes += num_bytes
        return taken, taken_bytes

    def close(self) -> None:
        """See `Intake.close`.

        Takes no lock, because a signal handler may interrupt the very thread that holds it; a waiting `take` notices
        at the end of its wait.
        """
        self._closed = True

    @property
    def drained(self) -> bool:
        """See `Intake.drained`."""
        # A request that was being accepted when the intake was closed holds its lock, and is seen after it.
        for growing in self._growing.values():
            with growing.lock:
                if growing.rows:
                    return False
        return self._closed and not self._full


class _Growing:
    """The open batch of one signal, for one thread at a time."""

    def __init__(self, signal: Signal) -> None:
        self._collector = Collector(signal)
        self.lock = threading.Lock()
        self.rows = 0
        self.num_bytes = 0
        """What it takes, the overhead of a batch included."""

    @property
    def full(self) -> bool:
        return self.rows >= _BATCH_ROWS or self.num_bytes >= _BATCH_BYTES

    def add(self, request: RequestMeta, room_bytes: int) -> int | None:
        collected = self._collector.add(request.payload, request.encoding, tenant=request.tenant, room_bytes=room_bytes)
        if collected is None:
            return None
        if collected.rows:
            self.rows, self.num_bytes = collected.rows, collected.num_bytes + BATCH_OVERHEAD_BYTES
        else:
            self._collector.finish()  # nobody would ever take the envelopes of requests without records
        return collected.added

    def take(self) -> tuple[TelemetryBatch, int] | None:
        if not self.rows:
            return None
        batch = self._collector.finish()
        num_bytes, self.rows, self.num_bytes = self.num_bytes, 0, 0
        return None if batch is None else (batch, num_bytes)
