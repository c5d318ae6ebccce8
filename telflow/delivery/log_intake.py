"""The durable intake: a request is accepted once the log holds it, and the source takes it out of memory.

The requests that wait together are decoded into one batch and committed together, then acknowledged. The batch stays in
memory until the source takes it, with the position of its last request; so on the usual way nothing is ever read back.
It is read back from the log, and decoded again, what memory does not hold: what an earlier process left behind, and
what came while the memory budget was spent. The budget of the log is then what refuses.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, cast, runtime_checkable

from telflow.accounting import LEDGER, Ledger, Outcome
from telflow.batch import TelemetryBatch
from telflow.codec import Collector, Encoding
from telflow.delivery.group_commit import GroupCommit, Job
from telflow.delivery.intake import BATCH_OVERHEAD_BYTES, Overloaded, RequestMeta
from telflow.delivery.log import Entry, Log, LogError, LogFull, Loss
from telflow.delivery.log_entry import compressor
from telflow.errors import DecodeError
from telflow.memory_budget import MEMORY, MemoryBudget
from telflow.schema import Signal

__all__ = ["LogIntake", "ResumableIntake"]

_LOG = logging.getLogger(__name__)
_CHUNK_ROWS = 6144
_CHUNK_BYTES = 8 << 20
"""What is in memory is closed at so many records or bytes, as the batches of a `MemoryIntake` are."""
_LEAST_RATIO = 16
"""OTLP compresses to a quarter or fifth; a payload is taken for hopeless in a full log only if this would not do."""


@runtime_checkable
class ResumableIntake(Protocol):
    """An intake that a source can go back in, to where its last committed epoch ended."""

    @property
    def position(self) -> int:
        """The position up to which everything has been taken; what the source keeps as its state."""
        ...

    def resume(self, position: int | None) -> None:
        """Say where the source stands: all above `position` will be taken; None for a source without a past."""
        ...

    def commit(self, position: int) -> None:
        """Forget everything up to `position`, which lies in a committed epoch."""
        ...


class _Request(Job):
    """A request on its way into the log."""

    __slots__ = ("records", "request")

    def __init__(self, partition: str, request: RequestMeta) -> None:
        super().__init__(partition, [], [])
        self.size = len(request.payload)
        self.request = request
        self.records = 0


@dataclass(frozen=True, slots=True)
class _Chunk:
    """Batches that hold everything up to a position, from where the chunk before them ends."""

    batches: list[TelemetryBatch]
    num_bytes: int
    position: int


class _Open:
    """Batches that still grow, one of each signal."""

    def __init__(self) -> None:
        self._collectors: dict[Signal, Collector] = {}
        self._held: dict[Signal, tuple[int, int]] = {}

    @property
    def rows(self) -> int:
        return sum(rows for rows, _ in self._held.values())

    @property
    def num_bytes(self) -> int:
        return sum(size + BATCH_OVERHEAD_BYTES for _, size in self._held.values())

    def add(
        self, signal: Signal, payload: bytes, encoding: Encoding, tenant: str | None, room_bytes: int | None = None
    ) -> int | None:
        """Decode; returns how many records were added, None when they would take more than the room there is.

        Raises:
            DecodeError: The payload is not what it claims to be; nothing was added.
        """
        collector = self._collectors.get(signal)
        if collector is None:
            collector = self._collectors[signal] = Collector(signal)
        room = {} if room_bytes is None else {"room_bytes": room_bytes}
        collected = collector.add(payload, encoding, tenant=tenant, **room)
        if collected is None:
            return None
        if collected.rows:
            self._held[signal] = (collected.rows, collected.num_bytes)
        else:
            collector.finish()  # nobody would ever take the envelopes of requests without records
        return collected.added

    def finish(self) -> list[TelemetryBatch]:
        """Return the batches and begin anew."""
        found = [self._collectors[signal].finish() for signal in self._held]
        self._held.clear()
        return [batch for batch in found if batch is not None]


class LogIntake:
    """An `Intake` whose requests survive what its log survives.

    The source says with `resume` where it stands before anything is accepted, and with `commit` what it will never ask
    for again.

    >>> import tempfile
    >>> from pathlib import Path
    >>> with tempfile.TemporaryDirectory() as folder, Log(Path(folder) / "ingest.db") as log:
    ...     intake = LogIntake(log)
    ...     intake.resume(None)
    ...     intake.accept(RequestMeta("acme", Signal.LOGS, "protobuf", 0, payload=bytes.fromhex("0a0412021200")))
    ...     [batch.num_rows for batch in intake.take(timeout_s=0, max_bytes=1 << 20)], intake.position
    1
    ([1], 1)
    """

    def __init__(
        self,
        log: Log,
        *,
        partition: str = "intake",
        max_bytes: int = 256 << 20,
        retry_after_s: float = 1.0,
        start_timeout_s: float = 10.0,
        ledger: Ledger = LEDGER,
        component: str = "intake",
        memory: MemoryBudget = MEMORY,
    ) -> None:
        """Set up over an open log, whose losses it counts from now on.

        Args:
            log: Where requests are kept; its closing is up to the caller.
            partition: Its partition of the log; stable over restarts, its own in each process of a cluster.
            max_bytes: Bytes of decoded data to hold in memory, `BATCH_OVERHEAD_BYTES` for each batch included.
            retry_after_s: What it tells a refused sender to wait.
            start_timeout_s: How long a request waits for the flow to say where it stands.
            ledger: Where records are counted that an earlier process received, and those that were lost.
            component: Its name there.
            memory: That of the process; near it the intake holds an eighth, beyond it it refuses.
        """
        self._log = log
        self._partition = partition
        self._max_bytes = max_bytes
        self._memory = memory
        self._retry_after_s = retry_after_s
        self._start_timeout_s = start_timeout_s
        self._ledger = ledger
        self._component = component
        self._compress = compressor()
        self._closed = False
        self._early_losses: list[Loss] = []
        self._resumed = threading.Event()
        self._failing = False
        self._lead = threading.Lock()  # held while requests are decoded and committed
        self._group = GroupCommit(self._commit, self._lead)
        # Under the lead: what is open, up to where, and whether memory holds everything from `position` on.
        self._open = _Open()
        self._last = 0
        self._in_memory = False
        self._received_before = 0
        self._position = 0
        self._changed = threading.Condition()  # guards the chunks
        self._chunks: deque[_Chunk] = deque()
        self._chunk_bytes = 0
        self.taken_bytes = 0
        self._lingers = False
        log.watch(self._on_loss)

    @property
    def held_bytes(self) -> int:
        """Bytes of decoded data in memory, overhead included."""
        return self._chunk_bytes + self._open.num_bytes

    @property
    def position(self) -> int:
        """See `ResumableIntake.position`."""
        return self._position

    @property
    def behind(self) -> bool:
        """True while the source reads from the log what memory had no room for."""
        return not self._in_memory

    def admit(self, payload_bytes: int) -> None:
        """See `Intake.admit`."""
        if self._closed:
            raise Overloaded("the receiver is shutting down", retry_after_s=self._retry_after_s)
        if self._memory.spent and (self._position < self._last or self._group.waiting_bytes):
            raise Overloaded("the receiver's memory budget is spent", retry_after_s=self._retry_after_s)
        if self._log.stored_bytes + payload_bytes // _LEAST_RATIO > self._log.max_bytes:
            raise Overloaded("the receiver's disk budget is spent", retry_after_s=self._retry_after_s)

    def accept(self, request: RequestMeta) -> int:
        """See `Intake.accept`."""
        self.admit(len(request.payload))
        if not self._resumed.is_set() and not self._resumed.wait(self._start_timeout_s):
            raise Overloaded("the receiver is still starting", retry_after_s=self._retry_after_s)
        job = _Request(self._partition, request)
        self._group.submit(job)
        job.result()
        return job.records

    def take(self, *, timeout_s: float, max_bytes: int, linger_s: float = 0.0) -> list[TelemetryBatch]:
        """See `Intake.take`; what it returns is everything up to the new `position`."""
        behind = not self._in_memory  # asked first: once it is so, no chunk comes any more
        taken = self._take_chunks(max_bytes)
        if not taken and behind and self._resumed.is_set():
            taken = self._read_back(max_bytes)
        if not taken and not behind:
            with self._changed:
                if not self._chunks and not self._open.rows and not self._closed and timeout_s > 0:
                    self._changed.wait(timeout_s)
                if not self._chunks and self._open.rows and not self._closed and linger_s > 0:
                    self._lingers = True
                    self._changed.wait(linger_s)
                    self._lingers = False
            with self._lead:
                self._close_chunk()
            taken = self._take_chunks(max_bytes)
        return taken

    def resume(self, position: int | None) -> None:
        """See `ResumableIntake.resume`.

        Raises:
            LogError: The log cannot be written.
        """
        with self._lead:
            begin = position or 0
            last = self._log.last_position(self._partition)
            if last < begin:
                # The log was moved away or lost. Positions it gave must not be given to other requests.
                _LOG.warning("%s ends at position %d, the flow stands at %d", self._log.path, last, begin)
                self._log.skip_to(self._partition, begin)
            self._log.trim(self._partition, begin)
            self._position = begin
            self._last = self._received_before = max(last, begin)
            self._in_memory = last <= begin
            self._resumed.set()
        self._on_loss(self._early_losses)

    def commit(self, position: int) -> None:
        """See `ResumableIntake.commit`."""
        self._log.trim(self._partition, position)

    def close(self) -> None:
        """See `Intake.close`."""
        self._closed = True

    @property
    def drained(self) -> bool:
        """See `Intake.drained`."""
        if not self._closed:
            return False
        # A request that was being accepted when the intake was closed holds the lead, and is seen after it.
        with self._lead:
            return self._position >= self._last and not self._group.waiting_bytes

    def _commit(self, jobs: Sequence[Job]) -> Exception | None:
        """See `Commit`: decode all, keep the good ones in the log and, if there is room, in memory."""
        keep = self._in_memory and self.held_bytes < self._memory.share_of(self._max_bytes)
        if not keep:
            self._close_chunk()
        # Without room for them requests are only checked; the source will decode them when it reads them back.
        into = self._open if keep else _Open()
        good: list[_Request] = []
        for job in cast(Sequence[_Request], jobs):
            try:
                job.records = self._decode_one(into, job.request)
                # By the leader, right after decoding: a payload that is still in the processor's cache, and one
                # compressor instead of one for each thread, take 0.8 times the CPU time of the whole (measured).
                job.payloads = [self._compress(job.request.payload)] if job.records else []
            except Exception as error:  # noqa: BLE001 - raised again in the thread of the request
                job.error = error
            else:
                if job.records:
                    good.append(job)
        if not good:
            return None
        kept = False
        try:
            entries = [_entry(job) for job in good]
            self._last = self._log.append_many(
                self._partition, entries, stored=[stored for job in good for stored in job.payloads]
            )
            kept = keep
        except (LogFull, LogError) as error:
            return self._refusal(error)
        finally:
            if keep and not kept:
                self._open = _Open()
            self._in_memory = kept
        self._failing = False
        self._tell_source()
        return None

    def _decode_one(self, into: _Open, request: RequestMeta) -> int:
        # A few bytes can become many. What is over the budget is refused; what memory has no room for now goes into the
        # log only, as long as it is not too much to be looked at.
        room = max(self._max_bytes - self.held_bytes, self._max_bytes // 4)
        added = into.add(request.signal, request.payload, request.encoding, request.tenant, room)
        if added is None:
            raise Overloaded("the receiver's memory budget is spent", retry_after_s=self._retry_after_s)
        return added

    def _refusal(self, error: Exception) -> Overloaded:
        """Tell the senders no more than that they are to come back, and the operator, once, why."""
        if not self._failing:
            self._failing = True
            _LOG.error("requests are refused: %s", error)
        full = isinstance(error, LogFull)
        said = "the receiver's disk is full" if full else "the receiver cannot write to its disk"
        return Overloaded(said, retry_after_s=max(self._retry_after_s, 5.0))

    def _tell_source(self) -> None:
        if self._open.rows >= _CHUNK_ROWS or self._open.num_bytes >= _CHUNK_BYTES:
            self._close_chunk()
        with self._changed:
            if self._chunks or not self._lingers:
                self._changed.notify()

    def _close_chunk(self) -> None:
        """Make a chunk of what is open; under the lead."""
        num_bytes = self._open.num_bytes
        batches = self._open.finish()
        if batches:
            with self._changed:
                self._chunks.append(_Chunk(batches, num_bytes, self._last))
                self._chunk_bytes += num_bytes

    def _take_chunks(self, max_bytes: int) -> list[TelemetryBatch]:
        taken: list[TelemetryBatch] = []
        taken_bytes = 0
        with self._changed:
            while self._chunks and (not taken or taken_bytes + self._chunks[0].num_bytes <= max_bytes):
                chunk = self._chunks.popleft()
                taken += chunk.batches
                taken_bytes += chunk.num_bytes
                self._position = chunk.position
            self._chunk_bytes -= taken_bytes
            self.taken_bytes += taken_bytes
        return taken

    def _read_back(self, max_bytes: int) -> list[TelemetryBatch]:
        """Read from the log what memory does not hold; when that was all, memory holds what comes next."""
        last = self._last
        entries = self._log.read(self._partition, after=self._position, max_bytes=max_bytes)
        batches = self._decode(entries)
        self.taken_bytes += sum(len(entry.payload) for entry in entries)
        # Without entries the rest up to `last` was damaged or too old, and is told as lost.
        self._position = entries[-1].position if entries else max(self._position, last)
        with self._lead:
            self._in_memory = self._position >= self._last
        return batches

    def _decode(self, entries: Iterable[Entry]) -> list[TelemetryBatch]:
        batches: list[TelemetryBatch] = []
        growing = _Open()
        for entry in entries:
            if entry.position <= self._received_before:
                self._count(Outcome.DERIVED, entry.signal, entry.tenant, entry.records, "resumed")
            try:
                growing.add(entry.signal, entry.payload, cast(Encoding, entry.encoding), entry.tenant)
            except DecodeError as error:
                _LOG.error("%s: the entry at position %d: %s", self._log.path, entry.position, error)
                self._count(Outcome.DROPPED, entry.signal, entry.tenant, entry.records, "undecodable")
            if growing.rows >= _CHUNK_ROWS:
                batches += growing.finish()
        return batches + growing.finish()

    def _on_loss(self, losses: Sequence[Loss]) -> None:
        """Count what the log cannot give back, unless it has been taken or is in memory."""
        if not self._resumed.is_set():
            self._early_losses.extend(losses)
            return
        with self._changed:
            held = self._chunks[-1].position if self._chunks else self._position
        for loss in losses:
            if loss.partition != self._partition or loss.position <= held or self._in_memory:
                continue
            if loss.position <= self._received_before:
                self._count(Outcome.DERIVED, loss.signal, loss.tenant, loss.records, "resumed")
            self._count(Outcome.DROPPED, loss.signal, loss.tenant, loss.records, loss.reason)

    def _count(self, outcome: Outcome, signal: Signal, tenant: str | None, records: int, reason: str) -> None:
        self._ledger.add(outcome, signal, tenant, records, component=self._component, reason=reason)


def _entry(job: _Request) -> Entry:
    request = job.request
    return Entry(
        request.signal,
        request.payload,
        job.records,
        request.tenant,
        request.encoding,
        request.arrival_time_unix_nano,
    )
