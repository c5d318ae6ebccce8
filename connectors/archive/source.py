"""`ArchiveSource`: the archive read back into batches, for replay.

Each signal's files, as the Delta table lists them at one version, are dealt to the source's partitions. A partition
reads one Parquet row group after the other, verifies its checksums, filters it, and emits it in batches; its state
names the version, file, row group and row to go on at, so an interrupted replay resumes where it was, also when the
table has grown in the meantime.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition
from pydantic import AwareDatetime, Field, model_validator
from typing_extensions import override

from connectors.archive.delta_log import ArchiveError
from connectors.archive.layout import ENVELOPE_COLUMNS, EVENT_TIME_COLUMNS, event_time, from_rows
from connectors.archive.table import ArchiveFile, ArchiveTable
from telflow.accounting import LEDGER, Ledger, Outcome
from telflow.batch import TelemetryBatch
from telflow.errors import ConfigError, DecodeError
from telflow.schema import RECORD_SCHEMAS, Signal
from telflow.settings import Settings

__all__ = ["ArchiveReadSettings", "ArchiveSource", "ReplayProgress"]

State = dict[str, Any]
_FORMAT = 1
_PACE_S = 0.1
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class ArchiveReadSettings(Settings):
    """What to read back from an archive."""

    path: Path
    """The archive's directory, above the tables `traces`, `metrics` and `logs`."""

    signals: tuple[Signal, ...] = ()
    """Which tables; by default all there are."""

    start: AwareDatetime | None = None
    """Only records whose event time is not before this moment."""

    end: AwareDatetime | None = None
    """Only records whose event time is before this moment."""

    tenant: str | None = None
    """Only this tenant's records; an empty text selects records without a tenant."""

    service: str | None = None
    """Only records of the service with this `service.name`."""

    batch_rows: int = Field(default=8192, ge=1)
    """Most records in one batch."""

    rate: float | None = Field(default=None, gt=0)
    """Most records a second, for each process that replays; by default as fast as possible."""

    partitions: int = Field(default=1, ge=1, le=64)
    """Into how many parts each table is dealt, to be read in parallel by as many workers. With 1, batches come in the
    order of their days and files. Must not shrink while an interrupted replay is to be resumed."""

    on_damage: Literal["fail", "skip"] = "fail"
    """What a damaged file does: end the replay with an error, or be left out from the damaged place on, counted as
    dropped."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.start is not None and self.end is not None and self.start >= self.end:
            raise ValueError(f"expected start before end, got {self.start.isoformat()} and {self.end.isoformat()}")
        return self


@dataclass(frozen=True, slots=True)
class ReplayProgress:
    """How far a source is, over its partitions in this process.

    Attributes:
        rows: Rows of the files selected by time, before any filter: what there is to read.
        rows_read: Of these, read; the ones read before an interruption included.
        rows_emitted: Records emitted after all filters since the source was built.
    """

    rows: int
    rows_read: int
    rows_emitted: int


class ArchiveSource(FixedPartitionedSource[TelemetryBatch, State]):
    """Bytewax source that emits what an archive holds.

    Args:
        settings: What to read.
        on_progress: Called after each batch.
        ledger: Counts emitted records as derived.
        clock: Monotonic seconds, for `rate`.

    Raises:
        ArchiveError: A table is missing or damaged.
    """

    def __init__(
        self,
        settings: ArchiveReadSettings,
        *,
        on_progress: Callable[[ReplayProgress], None] | None = None,
        ledger: Ledger = LEDGER,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        signals = settings.signals or tuple(s for s in Signal if (settings.path / s / "_delta_log").is_dir())
        # Without any, opening one says what is wrong.
        self._tables = {s: ArchiveTable.open(settings.path, s) for s in signals or (Signal.TRACES,)}
        self._reading = _Reading(settings, ledger, clock, on_progress)

    @override
    def list_parts(self) -> list[str]:
        return [f"{signal}-{n:03d}" for signal in self._tables for n in range(self._reading.settings.partitions)]

    @override
    def build_part(self, step_id: str, for_part: str, resume_state: State | None) -> _ArchivePartition:
        name, _, number = for_part.rpartition("-")
        table = self._tables[Signal(name)]
        if resume_state is not None:
            if resume_state.get("format") != _FORMAT:
                raise ConfigError(f"{step_id}: expected recovery state of format {_FORMAT}, got {resume_state!r}")
            table = ArchiveTable.open(self._reading.settings.path, table.signal, version=resume_state["version"])
        return _ArchivePartition(self._reading, table, int(number), step_id, resume_state)


class _Reading:
    """What the partitions of a source share: filters, pace and progress."""

    def __init__(
        self,
        settings: ArchiveReadSettings,
        ledger: Ledger,
        clock: Callable[[], float],
        on_progress: Callable[[ReplayProgress], None] | None,
    ) -> None:
        self.settings = settings
        self.ledger = ledger
        self._clock = clock
        self._on_progress = on_progress
        self._rows = self._read = self._emitted = 0
        self._due_s = 0.0
        self._start = None if settings.start is None else _unix_nano(settings.start)
        self._end = None if settings.end is None else _unix_nano(settings.end)
        pace = settings.batch_rows if settings.rate is None else max(1, int(settings.rate * _PACE_S))
        self.batch_rows = min(settings.batch_rows, pace)

    @property
    def filters(self) -> bool:
        """Whether any record may be left out."""
        wanted = self.settings
        return not (self._start is self._end is None and wanted.tenant is None and wanted.service is None)

    def wants(self, file: ArchiveFile) -> bool:
        """Whether a file may hold a record in the time range."""
        first, last = file.first_unix_nano, file.last_unix_nano
        if first is None or last is None or first < 0:  # unsigned times beyond int64 stand below zero
            return True
        return (self._start is None or last >= self._start) and (self._end is None or first < self._end)

    def mask(self, signal: Signal, rows: pa.Table) -> pa.Array:
        """Which rows are wanted, from the columns `filter_columns` names."""
        times = event_time(signal, rows).to_numpy().view(np.uint64)
        keep = np.ones(rows.num_rows, bool)
        if self._start is not None:
            keep &= times >= np.uint64(self._start)
        if self._end is not None:
            keep &= times < np.uint64(self._end)
        mask = pa.array(keep)
        if self.settings.service is not None:
            mask = pc.and_(mask, pc.equal(rows["service_name"], self.settings.service))
        if self.settings.tenant is not None:
            mask = pc.and_(mask, pc.equal(pc.fill_null(rows["tenant"], ""), self.settings.tenant))
        return mask

    def plan(self, rows: int, already: int) -> None:
        self._rows += rows
        self._read += already

    def advance(self, read: int, emitted: int) -> None:
        """Count rows, and put off the next batch as the rate asks."""
        self._read += read
        self._emitted += emitted
        if self.settings.rate is not None:
            self._due_s = max(self._due_s, self._clock()) + emitted / self.settings.rate
        if self._on_progress is not None:
            self._on_progress(ReplayProgress(self._rows, self._read, self._emitted))

    def wait_s(self) -> float:
        return max(0.0, self._due_s - self._clock())


class _ArchivePartition(StatefulSourcePartition[TelemetryBatch, State]):
    def __init__(
        self, reading: _Reading, table: ArchiveTable, number: int, step_id: str, resume_state: State | None
    ) -> None:
        self._reading = reading
        self._table = table
        self._step_id = step_id
        signal = table.signal
        own = [name for name in RECORD_SCHEMAS[signal].names if name not in {"resource", "scope"}]
        self._columns = [*own, *ENVELOPE_COLUMNS]
        self._filter_columns = ["tenant", "service_name", *EVENT_TIME_COLUMNS[signal]]
        parts = reading.settings.partitions
        mine = [f for f in table.files() if zlib.crc32(f.path.encode()) % parts == number]
        files = [f for f in mine if reading.wants(f)]
        # The position: file by name, row group, and row of what the filters leave of it.
        self._at = 0
        self._group = self._row = 0
        if resume_state is not None:
            names = [f.path for f in files]
            path = resume_state["file"]
            if path is not None and path not in names:
                raise ConfigError(
                    f"{step_id}: expected the settings of the interrupted replay, got others (they leave out {path});"
                    " hint: resume with the same ones, or start anew with another recovery directory"
                )
            self._at = len(files) if path is None else names.index(path)
            self._group, self._row = resume_state["row_group"], resume_state["row"]
        self._files = files
        self._open: pq.ParquetFile | None = None
        self._loaded: TelemetryBatch | None = None
        self._to_count = 0
        reading.plan(sum(f.rows for f in files), sum(f.rows for f in files[: self._at]))

    @override
    def next_batch(self) -> list[TelemetryBatch]:
        if self._at == len(self._files):
            raise StopIteration
        if self._loaded is None:
            self._loaded = self._load()
        whole = self._loaded
        batch = whole.slice(self._row, min(self._reading.batch_rows, whole.num_rows - self._row))
        self._row += batch.num_rows
        if self._row >= whole.num_rows:
            self._next_group()
        self._reading.ledger.add_batch(Outcome.DERIVED, batch, component=self._step_id)
        read, self._to_count = self._to_count, 0
        self._reading.advance(read, batch.num_rows)
        return [batch] if batch.num_rows else []

    @override
    def next_awake(self) -> datetime | None:
        wait_s = self._reading.wait_s()
        return datetime.now(UTC) + timedelta(seconds=wait_s) if wait_s else None

    @override
    def snapshot(self) -> State:
        done = self._at == len(self._files)
        return {
            "format": _FORMAT,
            "version": self._table.delta.version(),
            "file": None if done else self._files[self._at].path,
            "row_group": self._group,
            "row": self._row,
        }

    def _load(self) -> TelemetryBatch:
        """Read the row group at the position; without rows when the filters, or damage, leave none."""
        file = self._files[self._at]
        signal = self._table.signal
        try:
            if self._open is None:
                self._open = pq.ParquetFile(
                    self._table.path / file.path,
                    page_checksum_verification=True,
                    read_dictionary=list(ENVELOPE_COLUMNS),
                )
            self._to_count += self._open.metadata.row_group(self._group).num_rows
            return self._wanted(signal, self._open)
        except (OSError, pa.ArrowException, DecodeError) as error:
            # A file that cannot even be opened is one damaged place.
            lost = file.rows if self._open is None else self._open.metadata.row_group(self._group).num_rows
            if self._reading.settings.on_damage == "fail":
                raise ArchiveError(
                    f"archive file {str(self._table.path / file.path)!r}, row group {self._group}: expected {lost}"
                    f" records, got: {error}; hint: restore the file from a backup, or leave damaged places out"
                    " (on_damage: skip)"
                ) from error
            for outcome in (Outcome.DERIVED, Outcome.DROPPED):
                self._reading.ledger.add(
                    outcome, signal, None, lost, component=self._step_id, reason="damaged archive file"
                )
            if self._open is None:  # then `_next_group` goes on with the next file
                self._to_count += lost
            return TelemetryBatch.empty(signal)

    def _wanted(self, signal: Signal, file: pq.ParquetFile) -> TelemetryBatch:
        mask = None
        if self._reading.filters:
            mask = self._reading.mask(signal, self._rows(file, self._filter_columns))
            if not pc.any(mask).as_py():
                return TelemetryBatch.empty(signal)
        rows = self._rows(file, self._columns)
        return from_rows(signal, rows if mask is None or pc.all(mask).as_py() else rows.filter(mask))

    def _rows(self, file: pq.ParquetFile, columns: list[str]) -> pa.Table:
        return file.read_row_group(self._group, columns=columns, use_threads=False)

    def _next_group(self) -> None:
        self._loaded = None
        self._group += 1
        self._row = 0
        if self._open is None or self._group >= self._open.num_row_groups:
            if self._open is not None:
                self._open.close()
            self._open = None
            self._at += 1
            self._group = 0


def _unix_nano(moment: datetime) -> int:
    """Exact, unlike `timestamp()`, which is a float."""
    since = moment - _EPOCH
    return max(0, ((since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds) * 1000)
