"""`ArchiveSink`: batches into the archive's Delta tables, exactly once where the flow's sources replay.

With a log (the gateway's `storage`), a partition of the sink appends batches to it, and `connectors.archive.committer`
commits them to the tables later, in files as large as they should be; see there for why nothing is lost or doubled.

Without one, a partition of the sink buffers batches and appends them to the tables when enough have come together, and
at every `snapshot()`: what it has returned from there is on stable storage. Its state is how many rows of each signal
it wrote in its life. When the flow resumes from an epoch, rows appended after that epoch are taken back, since the
sources send them again and, with several of them, in another order. (Dropping as many rows as the table has too many,
instead, would lose some and double others.)

Who "it" is lives in the recovery store itself: a new store starts a new life, and can take back nothing of another.
Without a recovery directory nothing is ever taken back: rows that reached the archive stay, also when a crash lost what
was behind them. That is right for sources that cannot send again.
"""

from __future__ import annotations

import logging
import math
import sqlite3
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from bytewax.outputs import FixedPartitionedSink, StatefulSinkPartition
from pydantic import Field
from typing_extensions import override

from connectors.archive.committer import ArchiveCommitter, Committed, log_identity
from connectors.archive.delta_log import ArchiveError, check_log, make_writable
from connectors.archive.layout import check_promote, to_rows
from connectors.archive.promote import DEFAULT_PROMOTE, PromotedAttribute
from connectors.archive.queued import QueuedPartition, resumed_position
from connectors.archive.table import ArchiveTable
from telflow.accounting import LEDGER, Ledger, Outcome
from telflow.batch import TelemetryBatch
from telflow.delivery.clock import Clock, SystemClock
from telflow.delivery.log import Log
from telflow.errors import ConfigError, TelflowError
from telflow.schema import Signal
from telflow.settings import Duration, Settings

__all__ = ["ArchiveSettings", "ArchiveSink", "writer_identity"]

State = dict[str, Any]
_LOG = logging.getLogger(__name__)
_FORMAT = 1
_BUSY_TIMEOUT_S = 30


class ArchiveSettings(Settings):
    """Where and how telemetry is archived: one Delta table per signal."""

    path: Path
    """The archive's directory; the tables `traces`, `metrics` and `logs` are made in it."""

    recovery_dir: Path | None = None
    """The flow's Bytewax recovery directory, if its sources send again what a crash interrupted: every record is then
    archived exactly once. Leave it out when they cannot (a receiver without an ingest log): nothing is taken back. Not
    needed, and not looked at, with the gateway's storage."""

    partitions: int = Field(default=1, ge=1, le=64)
    """How many writers share the work; more than workers are of no use. May grow, must not shrink, between runs."""

    promote: tuple[PromotedAttribute, ...] = DEFAULT_PROMOTE
    """Attributes with a column of their own, for quick queries; tenant and service name always have one."""

    flush_rows: int = Field(default=131_072, ge=1)
    """Rows after which they are written before the interval is over: of one signal, or of all of them with storage."""

    flush_bytes: int = Field(default=128 * 1024 * 1024, ge=1)
    """Bytes of one signal in memory after which they are written, even within an epoch; with storage: bytes kept in
    memory until they are written, beyond which they are read back from disk."""

    flush_interval: Duration = Field(default=timedelta(seconds=30), gt=timedelta())
    """With the gateway's storage: how often files are written; rows wait in the queue on disk until then. Without: age
    of the oldest buffered row after which the next batch makes all be written, even within an epoch."""

    queue_size: int = Field(default=4 << 30, ge=1 << 20)
    """With the gateway's storage: bytes of rows on disk that are not written yet, compressed; beyond it the flow
    waits."""

    shutdown_timeout: Duration = Field(default=timedelta(seconds=10), ge=timedelta())
    """How long a stopping gateway waits for room in the queue."""


class ArchiveSink(FixedPartitionedSink[TelemetryBatch, State]):
    """Bytewax sink that appends batches of any signal to an archive.

    Args:
        settings: Where and how.
        ledger: Counts what is on stable storage as delivered.
        clock: Monotonic seconds.
        log: Where rows wait for their commit; None: they are committed at every snapshot.
        committed: With a log: says which epochs the engine has committed.
        queue_clock: With a log: what commits are timed by.

    Raises:
        ConfigError: The archive cannot be written, a promoted column clashes, or `recovery_dir` is not one.
        ArchiveError: A table's log is damaged.
    """

    def __init__(
        self,
        settings: ArchiveSettings,
        *,
        ledger: Ledger = LEDGER,
        clock: Callable[[], float] = time.monotonic,
        log: Log | None = None,
        committed: Committed | None = None,
        queue_clock: Clock | None = None,
    ) -> None:
        check_promote(settings.promote)
        make_writable(settings.path)
        for signal in Signal:
            check_log(settings.path / signal)
        self._settings = settings
        self._ledger = ledger
        self._clock = clock
        if (log is None) != (committed is None):
            raise ConfigError("archive: expected a log and what the engine has committed together, got one of them")
        self._log = log
        self._committed = committed
        self._queue_clock = queue_clock or SystemClock()
        self._committers: list[ArchiveCommitter] = []
        self._stop_at_s = math.inf

    def stop(self) -> None:
        """Wait for room in the log no longer than `shutdown_timeout`. Takes no lock: safe in a signal handler."""
        self._stop_at_s = min(
            self._stop_at_s, self._queue_clock.now_s() + self._settings.shutdown_timeout.total_seconds()
        )

    def finish(self) -> None:
        """With a log: commit what is left, now that the dataflow has ended and all its epochs are committed.

        What is not committed for an error stays in the log for the next run.
        """
        for committer in self._committers:
            try:
                committer.commit()
            except TelflowError as error:
                _LOG.error("archive: not committed, left to the next run: %s", error)

    @override
    def list_parts(self) -> list[str]:
        return [f"archive-{number:03d}" for number in range(self._settings.partitions)]

    @override
    def build_part(
        self, step_id: str, for_part: str, resume_state: State | None
    ) -> StatefulSinkPartition[TelemetryBatch, State]:
        if self._log is not None and self._committed is not None:
            return self._build_queued(self._log, self._committed, step_id, for_part, resume_state)
        return _ArchivePartition(
            self._settings, step_id, for_part, resume_state, ledger=self._ledger, clock=self._clock
        )

    def _build_queued(
        self, log: Log, committed: Committed, step_id: str, for_part: str, resume_state: State | None
    ) -> QueuedPartition:
        identity = log_identity(log)
        partition = f"{step_id}/{for_part}"
        app_id = f"{identity}/{partition}"
        settings = self._settings
        tables = {signal: ArchiveTable.open_or_create(settings.path, signal, settings.promote) for signal in Signal}
        versions = {signal: table.committed(app_id) for signal, table in tables.items()}
        position = resumed_position(resume_state, identity)
        if position is None and not any(versions.values()):
            position = 0  # no epoch was ever committed: the sources send everything again
        if position is not None:
            log.truncate(partition, position)
        if (highest := max(versions.values())) > log.last_position(partition):
            raise ArchiveError(
                f"archive {str(settings.path)!r}: expected {app_id!r} to stand at {log.last_position(partition)} at"
                f" most, which is what the flow resumes from, got {highest}; hint: the recovery state is older than the"
                " archive, restore the newest state of both"
            )

        def committed_position() -> int:
            return resumed_position(committed.get(step_id, for_part), identity) or 0

        committer = ArchiveCommitter(
            tables,
            log,
            partition,
            app_id,
            committed_position,
            promote=settings.promote,
            flush_rows=settings.flush_rows,
            flush_bytes=settings.flush_bytes,
            flush_interval_s=settings.flush_interval.total_seconds(),
            component=step_id,
            ledger=self._ledger,
            clock=self._queue_clock,
        )
        self._committers.append(committer)
        committer.start()
        return QueuedPartition(
            log,
            partition,
            identity,
            committer,
            max_bytes=settings.queue_size,
            clock=self._queue_clock,
            stopping=lambda: self._queue_clock.now_s() >= self._stop_at_s,
        )


class _ArchivePartition(StatefulSinkPartition[TelemetryBatch, State]):
    def __init__(
        self,
        settings: ArchiveSettings,
        step_id: str,
        part: str,
        resume_state: State | None,
        *,
        ledger: Ledger,
        clock: Callable[[], float],
    ) -> None:
        self._settings = settings
        self._step_id = step_id
        self._ledger = ledger
        self._clock = clock
        resumes: State = {}
        if settings.recovery_dir is None:
            self._writer = uuid.uuid4().hex
        elif resume_state is None:
            self._writer = writer_identity(settings.recovery_dir)
        else:
            resumes = _checked_state(resume_state, step_id)
            self._writer = resumes["writer"]
        self._app_id = f"{self._writer}/{step_id}/{part}"
        self._tables: dict[Signal, ArchiveTable] = {}
        self._offsets: dict[Signal, int] = {}
        self._buffers: dict[Signal, list[TelemetryBatch]] = {signal: [] for signal in Signal}
        self._rows = dict.fromkeys(Signal, 0)
        self._bytes = dict.fromkeys(Signal, 0)
        self._oldest_s: float | None = None
        self._failed = False
        for signal in Signal:
            table = ArchiveTable.open_or_create(settings.path, signal, settings.promote)
            table.truncate(self._app_id, resumes.get("offsets", {}).get(signal.value, 0))
            self._tables[signal] = table
            self._offsets[signal] = table.committed(self._app_id)

    @override
    def write_batch(self, values: list[TelemetryBatch]) -> None:
        with self._reporting():
            self._write_batch(values)

    @override
    def snapshot(self) -> State:
        with self._reporting():
            self._flush_all()
        offsets = {signal.value: offset for signal, offset in self._offsets.items()}
        return {"format": _FORMAT, "writer": self._writer, "offsets": offsets}

    @override
    def close(self) -> None:
        if not self._failed:
            self._flush_all()

    @contextmanager
    def _reporting(self) -> Iterator[None]:
        """Bytewax closes what is left when something raises; raising once more there would abort it without a word."""
        try:
            yield
        except BaseException:
            self._failed = True
            _LOG.exception("%s: the archive cannot be written, the flow ends", self._step_id)
            raise

    def _write_batch(self, values: list[TelemetryBatch]) -> None:
        for batch in values:
            if not batch.num_rows:
                continue
            if self._oldest_s is None:
                self._oldest_s = self._clock()
            self._buffers[batch.signal].append(batch)
            self._rows[batch.signal] += batch.num_rows
            self._bytes[batch.signal] += batch.num_bytes
            full = self._rows[batch.signal] >= self._settings.flush_rows
            if full or self._bytes[batch.signal] >= self._settings.flush_bytes:
                self._flush(batch.signal)
        if self._oldest_s is not None:
            age_s = self._clock() - self._oldest_s
            if age_s >= self._settings.flush_interval.total_seconds():
                self._flush_all()

    def _flush_all(self) -> None:
        for signal in Signal:
            self._flush(signal)
        self._oldest_s = None

    def _flush(self, signal: Signal) -> None:
        batches = self._buffers[signal]
        if not batches:
            return
        rows = to_rows(batches, self._settings.promote)
        offset = self._offsets[signal]
        self._tables[signal].append(rows, self._app_id, offset, after=offset)
        self._offsets[signal] = offset + rows.num_rows
        self._buffers[signal] = []
        self._rows[signal] = self._bytes[signal] = 0
        for batch in batches:
            self._ledger.add_batch(Outcome.DELIVERED, batch, component=self._step_id)


def writer_identity(recovery_dir: Path) -> str:
    """Return the identity that writers have as long as this Bytewax recovery store lives; the first call makes it.

    It is kept in a table of its own in the store's first database, so that it is backed up, moved and deleted with it.

    Raises:
        ConfigError: The directory is no recovery store.
    """
    databases = sorted(recovery_dir.glob("part-*.sqlite3"))
    if not databases:
        raise ConfigError(
            f"recovery_dir {str(recovery_dir)!r}: expected a Bytewax recovery store (part-*.sqlite3), got none;"
            " hint: make one with `python -m bytewax.recovery DIR 1` and run the flow with it"
        )
    with closing(sqlite3.connect(databases[0], timeout=_BUSY_TIMEOUT_S)) as connection, connection:
        connection.execute("CREATE TABLE IF NOT EXISTS telflow_writer (id TEXT NOT NULL)")
        connection.execute(
            "INSERT INTO telflow_writer SELECT ? WHERE NOT EXISTS (SELECT 1 FROM telflow_writer)", (uuid.uuid4().hex,)
        )
        (identity,) = connection.execute("SELECT id FROM telflow_writer").fetchone()
    return str(identity)


def _checked_state(state: State, step_id: str) -> State:
    if state.get("format") != _FORMAT:
        raise ConfigError(
            f"{step_id}: expected recovery state of format {_FORMAT}, got {state.get('format')!r};"
            " hint: it is another version's, or another sink had this step id"
        )
    return state
