"""Commits to the archive what lies in a committed epoch, in files of a size that has nothing to do with epochs.

A sink partition appends every batch to its partition of a log, which gives it a position, and its snapshot is the last
position. Later, every `flush_interval` or when enough has come together, this committer writes what is new up to a
position `C` into the tables, with `C` as the version of the table's transaction.

The invariant: **`C` is never above the position in a committed snapshot.** From it follows that nothing is lost or
doubled, whatever dies at whatever moment:

* On resume the log is truncated to the position `P` of the resumed snapshot, and the positions above `P` are given
  again, to other data. No table has anything above `P`: a committed snapshot said `C`, a resume never goes back behind
  a committed epoch, so `C <= P`. A position at or below a table's version therefore always means the same records.
* A crash after the commit to a table and before the trim of the log leaves entries at or below the table's version;
  they are skipped. One between the commits to two tables leaves them at different versions; each skips its own.
* A log that was lost starts a new life under another identity, with transactions of its own.

Data stays in memory between its append and its commit as long as `flush_bytes` allows; beyond that it is read back.
"""

from __future__ import annotations

import logging
import threading
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from connectors.archive.layout import to_rows
from connectors.archive.promote import PromotedAttribute
from connectors.archive.table import ArchiveTable
from telflow.accounting import Ledger, Outcome
from telflow.batch import TelemetryBatch
from telflow.delivery.clock import Clock
from telflow.delivery.log import Entry, Log, LogError
from telflow.errors import DeliveryError, TelflowError
from telflow.schema import Signal

__all__ = ["ArchiveCommitter", "Committed", "log_identity"]

_LOG = logging.getLogger(__name__)
_IDENTITY = "telflow/identity"
_RETRY_S = 1.0


class Committed(Protocol):
    """Says what a resume would start from; `telflow.delivery.committed.CommittedStates`."""

    def get(self, step_id: str, key: str) -> Any | None:
        """Return the state of a step's key in the last committed epoch."""
        ...


@dataclass(slots=True)
class _Waiting:
    """An entry of the log that its table does not have yet."""

    position: int
    signal: Signal
    records: int
    size: int
    batch: TelemetryBatch | None


class ArchiveCommitter:
    """The committer of one sink partition, with a thread of its own once it is started."""

    def __init__(
        self,
        tables: dict[Signal, ArchiveTable],
        log: Log,
        partition: str,
        app_id: str,
        committed_position: Callable[[], int],
        *,
        promote: Sequence[PromotedAttribute],
        flush_rows: int,
        flush_bytes: int,
        flush_interval_s: float,
        component: str,
        ledger: Ledger,
        clock: Clock,
    ) -> None:
        """Set up; what the log holds and the tables do not is waiting at once, and counts as derived (``restored``).

        Args:
            tables: Where records of each signal go.
            log: Where batches are until they are committed.
            partition: The sink partition's part of the log, truncated to what was resumed.
            app_id: Name of the transactions.
            committed_position: Returns the position in the last committed snapshot; 0 when there is none.
            promote: Attributes with a column of their own.
            flush_rows: Rows after which they are committed before the interval is over.
            flush_bytes: Bytes of batches kept in memory, and committed at a time.
            flush_interval_s: Seconds between commits.
            component: The sink's name in the ledger and in log lines.
            ledger: Counts what is on stable storage as delivered.
            clock: What the interval is timed by.

        Raises:
            LogError: The log cannot be read.
        """
        self._tables = tables
        self._log = log
        self._partition = partition
        self._app_id = app_id
        self._committed_position = committed_position
        self._promote = promote
        self._flush_rows = flush_rows
        self._flush_bytes = flush_bytes
        self._interval_s = flush_interval_s
        self._component = component
        self._ledger = ledger
        self._clock = clock
        self._versions = {signal: table.committed(app_id) for signal, table in tables.items()}
        self._changed = threading.Condition()  # guards what follows
        self._waiting: deque[_Waiting] = deque()
        self._held_bytes = 0
        self._rows = 0
        self._ended = False
        self._committing = threading.Lock()
        self.error: TelflowError | None = None
        for entry in log.index(partition):
            signal = Signal(entry.signal)
            if entry.position > self._versions[signal]:
                self._waiting.append(_Waiting(entry.position, signal, entry.records, entry.stored_bytes, None))
                self._rows += entry.records
                ledger.add(Outcome.DERIVED, signal, entry.tenant, entry.records, component=component, reason="restored")
        self._thread = threading.Thread(target=self._run, name=f"{component} committer", daemon=True)

    def start(self) -> None:
        """Commit from now on, in a thread."""
        self._thread.start()

    def add(self, position: int, batch: TelemetryBatch) -> None:
        """Take note of a batch that is in the log; batches come in the order of their positions."""
        with self._changed:
            kept = self._held_bytes + batch.num_bytes <= self._flush_bytes
            self._held_bytes += batch.num_bytes if kept else 0
            self._waiting.append(
                _Waiting(position, batch.signal, batch.num_rows, batch.num_bytes, batch if kept else None)
            )
            self._rows += batch.num_rows
            if self._rows >= self._flush_rows:
                self._changed.notify_all()

    def end(self) -> None:
        """End the thread; a commit that has begun is finished first."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()
        if self._thread.is_alive():
            self._thread.join()

    def commit(self) -> int:
        """Commit what lies in a committed epoch, and return how many records that was.

        Raises:
            DeliveryError: A table cannot be written now; nothing of that commit counts.
            ArchiveError: A table is damaged.
            LogError: The log cannot be read.
        """
        with self._committing:
            if not self._waiting:
                return 0
            through = self._committed_position()
            try:
                records = sum(self._commit_some(some) for some in self._chunks(through))
            except DeliveryError:
                # The failure may have come after a commit: what counts is what the tables say.
                self._versions = {signal: table.committed(self._app_id) for signal, table in self._tables.items()}
                raise
            if records:
                self._trim(through)
            return records

    def _run(self) -> None:
        due_s = self._clock.now_s() + self._interval_s
        while True:
            with self._changed:
                while not self._ended and self._clock.now_s() < due_s and self._rows < self._flush_rows:
                    self._clock.wait(self._changed, due_s)
                if self._ended:
                    return
            due_s = self._clock.now_s() + self._interval_s
            try:
                found = self.commit()
            except DeliveryError as error:
                _LOG.error("%s: not committed, tried again: %s", self._component, error)
                found = 0
            except TelflowError as error:
                # The flow ends with it, at its next batch or snapshot; what waits stays in the log.
                self.error = error
                return
            if not found:
                # Enough is waiting, but its epoch is not committed yet, or the table cannot be written: a moment later.
                with self._changed:
                    if not self._ended:
                        self._clock.wait(self._changed, self._clock.now_s() + min(_RETRY_S, self._interval_s))

    def _chunks(self, through: int) -> Iterator[list[_Waiting]]:
        """Yield what waits up to a position, in order, as much at a time as memory allows."""
        while True:
            with self._changed:
                chunk: list[_Waiting] = []
                size = 0
                for waiting in self._waiting:
                    if waiting.position > through or (chunk and size + waiting.size > self._flush_bytes):
                        break
                    chunk.append(waiting)
                    size += waiting.size
            if not chunk:
                return
            yield chunk

    def _commit_some(self, chunk: Sequence[_Waiting]) -> int:
        by_signal: dict[Signal, list[tuple[int, TelemetryBatch]]] = {}
        for waiting in chunk:
            batch = waiting.batch or self._read(waiting)
            by_signal.setdefault(waiting.signal, []).append((waiting.position, batch))
        for signal, found in by_signal.items():
            fresh = [(position, batch) for position, batch in found if position > self._versions[signal]]
            if not fresh:
                continue  # an earlier try got as far as this table
            through = fresh[-1][0]
            rows = to_rows([batch for _, batch in fresh], self._promote)
            self._tables[signal].append_through(rows, self._app_id, after=self._versions[signal], through=through)
            self._versions[signal] = through
            for _, batch in fresh:
                self._ledger.add_batch(Outcome.DELIVERED, batch, component=self._component)
        with self._changed:
            for _ in chunk:
                done = self._waiting.popleft()
                self._rows -= done.records
                self._held_bytes -= done.size if done.batch is not None else 0
        return sum(waiting.records for waiting in chunk)

    def _read(self, waiting: _Waiting) -> TelemetryBatch:
        entries = self._log.read(self._partition, after=waiting.position - 1, max_bytes=0)
        if not entries or entries[0].position != waiting.position:
            raise LogError(
                f"{self._log.path}: entry {waiting.position} of {self._partition} is gone or damaged: {waiting.records}"
                f" {waiting.signal} records that the archive does not have\n"
                "  hint: see `telflow log inspect`; to go on without them, remove the entry"
            )
        return TelemetryBatch.from_ipc_bytes(entries[0].payload)

    def _trim(self, through: int) -> None:
        with self._changed:
            first = self._waiting[0].position if self._waiting else through + 1
        self._log.trim(self._partition, min(through, first - 1))


def log_identity(log: Log) -> str:
    """Return the identity of a log: the same as long as it lives, another one for a log that replaced it.

    Raises:
        LogError: The log cannot be used.
    """
    entries = log.read(_IDENTITY, after=0)
    if not entries:
        log.append(_IDENTITY, Entry(Signal.LOGS, uuid.uuid4().hex.encode(), 0))
        entries = log.read(_IDENTITY, after=0)
    return entries[0].payload.decode()
