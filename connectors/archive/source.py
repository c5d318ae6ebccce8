"""`ArchiveSource`: the archive read back into batches, for replay.

Each signal's files are read in the order in which they were written (`connectors.archive.arrival`), as the Delta table
lists them at one version. A partition of the source reads one Parquet row group after the other, verifies its
checksums, filters it, and emits it in batches; its state names the version, file, row group and row to go on at, so an
interrupted replay resumes where it was, also when the table has grown in the meantime.

What several partitions share is dealt by tenant, so that each tenant's records come in their order, on however many
workers: windows and their late records are then those of the live run.
"""

from __future__ import annotations

import hashlib
import time
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition
from pydantic import AwareDatetime, Field, model_validator
from typing_extensions import override

from connectors.archive.arrival import ArchiveFile, row_numbers
from connectors.archive.delta_log import ArchiveError
from connectors.archive.layout import ENVELOPE_COLUMNS, EVENT_TIME_COLUMNS, event_time, from_rows
from connectors.archive.table import ArchiveTable
from telflow.accounting import LEDGER, Ledger, Outcome
from telflow.batch import TelemetryBatch
from telflow.errors import ConfigError, DecodeError
from telflow.schema import RECORD_SCHEMAS, Signal
from telflow.settings import Settings

__all__ = ["ArchiveReadSettings", "ArchiveSource", "ReplayProgress", "part_of"]

State = dict[str, Any]
Ints = npt.NDArray[np.int64]
_FORMAT = 2
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
    """Into how many parts each table is dealt, to be read in parallel by as many workers. Stays as it is while an
    interrupted replay is to be resumed; the number of workers may change."""

    deal: Literal["tenant", "file"] = "tenant"
    """What one part of several gets. ``tenant``: some tenants' records, from every file, in the order in which they
    were archived, which windows need. ``file``: some of the files; quicker, for a copy whose order does not matter."""

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
        rows: Rows of the files selected by time, before any filter: what there is to read. A file that several
            partitions read counts for each.
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
        chooses = not (self._start is self._end is None and wanted.tenant is None and wanted.service is None)
        return chooses or self._deals_tenants

    @property
    def _deals_tenants(self) -> bool:
        return self.settings.deal == "tenant" and self.settings.partitions > 1

    def deals(self, commit: tuple[ArchiveFile, ...], number: int) -> bool:
        """Whether a partition reads files of a commit."""
        return self._deals_tenants or zlib.crc32(commit[0].path.encode()) % self.settings.partitions == number

    def wants(self, file: ArchiveFile) -> bool:
        """Whether a file may hold a record in the time range."""
        first, last = file.first_unix_nano, file.last_unix_nano
        if first is None or last is None or first < 0:  # unsigned times beyond int64 stand below zero
            return True
        return (self._start is None or last >= self._start) and (self._end is None or first < self._end)

    def mask(self, signal: Signal, rows: pa.Table, number: int) -> pa.Array:
        """Which rows a partition wants, from the columns that filters read."""
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
        if self._deals_tenants:
            mask = pc.and_(mask, pa.array(_parts_of(rows["tenant"], self.settings.partitions) == number))
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
        self._number = number
        own = [name for name in RECORD_SCHEMAS[signal].names if name not in {"resource", "scope"}]
        self._columns = [*own, *ENVELOPE_COLUMNS]
        self._filter_columns = ["tenant", "service_name", *EVENT_TIME_COLUMNS[signal]]
        mine = (commit for commit in table.commits() if reading.deals(commit, number))
        wanted = (tuple(file for file in commit if reading.wants(file)) for commit in mine)
        # Files that are read together: those of a commit over several days hold its rows in turns.
        self._units = [commit for commit in wanted if commit]
        # The position: unit by its first file, row group (of a single file), and row of what the filters leave of it.
        self._at = 0
        self._group = self._row = 0
        if resume_state is not None:
            self._resume(resume_state)
        self._open: pq.ParquetFile | None = None
        self._loaded: TelemetryBatch | None = None
        self._to_count = 0
        reading.plan(_rows_in(self._units), _rows_in(self._units[: self._at]))

    def _resume(self, state: State) -> None:
        places = {unit[0].path: at for at, unit in enumerate(self._units)}
        path, dealt = state["file"], state["dealt"]
        if dealt != self._dealt or (path is not None and path not in places):
            other = f"dealt by {' '.join(map(str, dealt))}" if dealt != self._dealt else f"they leave out {path}"
            raise ConfigError(
                f"{self._step_id}: expected the settings of the interrupted replay, got others ({other});"
                " hint: resume with the same ones, or start anew with another recovery directory"
            )
        self._at = len(self._units) if path is None else places[path]
        self._group, self._row = state["row_group"], state["row"]

    @property
    def _dealt(self) -> list[Any]:
        return [self._reading.settings.deal, self._reading.settings.partitions]

    @override
    def next_batch(self) -> list[TelemetryBatch]:
        if self._at == len(self._units):
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
        done = self._at == len(self._units)
        return {
            "format": _FORMAT,
            "version": self._table.delta.version(),
            "dealt": self._dealt,
            "file": None if done else self._units[self._at][0].path,
            "row_group": self._group,
            "row": self._row,
        }

    def _load(self) -> TelemetryBatch:
        """Read what is at the position: a row group, or a unit of several files, its rows in their order."""
        unit = self._units[self._at]
        if len(unit) == 1:
            return self._read(unit[0], self._group)[0]
        batches: list[TelemetryBatch] = []
        numbers: list[Ints] | None = []
        for file in unit:
            group = 0
            kept: list[Ints] = []
            while True:
                batch, rows = self._read(file, group)
                batches.append(batch)
                kept.append(rows)
                group += 1
                if self._open is None or group >= self._open.num_row_groups:
                    break
            of_file = None
            if self._open is not None:
                of_file = row_numbers(self._open.metadata.metadata, self._open.metadata.num_rows)
                self._close()
            if of_file is None or numbers is None:
                numbers = None  # an older release's: day by day, then
            else:
                numbers.append(of_file[np.concatenate(kept)])
        whole = TelemetryBatch.concat(batches)
        return whole if numbers is None else whole.take(np.argsort(np.concatenate(numbers), kind="stable"))

    def _read(self, file: ArchiveFile, group: int) -> tuple[TelemetryBatch, Ints]:
        """Read a row group: wanted records, and their row numbers in the file; none when damage leaves none."""
        signal = self._table.signal
        try:
            if self._open is None:
                self._open = pq.ParquetFile(
                    self._table.path / file.path,
                    page_checksum_verification=True,
                    read_dictionary=list(ENVELOPE_COLUMNS),
                )
            self._to_count += self._open.metadata.row_group(group).num_rows
            return self._wanted(signal, self._open, group)
        except (OSError, pa.ArrowException, DecodeError) as error:
            # A file that cannot even be opened is one damaged place.
            lost = file.rows if self._open is None else self._open.metadata.row_group(group).num_rows
            if self._reading.settings.on_damage == "fail":
                raise ArchiveError(
                    f"archive file {str(self._table.path / file.path)!r}, row group {group}: expected {lost}"
                    f" records, got: {error}; hint: restore the file from a backup, or leave damaged places out"
                    " (on_damage: skip)"
                ) from error
            for outcome in (Outcome.DERIVED, Outcome.DROPPED):
                self._reading.ledger.add(
                    outcome, signal, None, lost, component=self._step_id, reason="damaged archive file"
                )
            if self._open is None:  # then `_next_group` goes on with the next file
                self._to_count += lost
            return TelemetryBatch.empty(signal), np.empty(0, np.int64)

    def _wanted(self, signal: Signal, file: pq.ParquetFile, group: int) -> tuple[TelemetryBatch, Ints]:
        before = sum(file.metadata.row_group(n).num_rows for n in range(group))
        kept = np.arange(before, before + file.metadata.row_group(group).num_rows)
        mask = None
        if self._reading.filters:
            mask = self._reading.mask(signal, self._rows(file, group, self._filter_columns), self._number)
            kept = kept[mask.to_numpy(zero_copy_only=False)]
            if not len(kept):
                return TelemetryBatch.empty(signal), kept
        rows = self._rows(file, group, self._columns)
        return from_rows(signal, rows if mask is None or len(kept) == rows.num_rows else rows.filter(mask)), kept

    def _rows(self, file: pq.ParquetFile, group: int, columns: list[str]) -> pa.Table:
        return file.read_row_group(group, columns=columns, use_threads=False)

    def _next_group(self) -> None:
        self._loaded = None
        self._group += 1
        self._row = 0
        if self._open is None or self._group >= self._open.num_row_groups:
            self._close()
            self._at += 1
            self._group = 0

    def _close(self) -> None:
        if self._open is not None:
            self._open.close()
        self._open = None


def _rows_in(units: Iterable[tuple[ArchiveFile, ...]]) -> int:
    return sum(file.rows for unit in units for file in unit)


def _parts_of(tenants: pa.ChunkedArray, parts: int) -> Ints:
    """Return which partition each record belongs to, by its tenant."""
    found = [np.empty(0, np.int64)]
    for chunk in tenants.chunks:
        encoded = chunk if isinstance(chunk, pa.DictionaryArray) else chunk.dictionary_encode()
        # One more than there are tenants: what has none.
        part = np.array([_part_of(tenant, parts) for tenant in [*encoded.dictionary.to_pylist(), None]])
        found.append(part[pc.fill_null(encoded.indices, len(encoded.dictionary)).to_numpy()])
    return np.concatenate(found)


def part_of(batch: TelemetryBatch, parts: int) -> int:
    """Return which of so many partitions, dealt by tenant, a batch is from."""
    if parts == 1 or not batch.num_rows:
        return 0
    return _part_of(batch.resources["tenant"][batch.records["resource"][0].as_py()].as_py(), parts)


def _part_of(tenant: str | None, parts: int) -> int:
    """The same in every process and release; a checksum would not spread short names that are alike."""
    return int.from_bytes(hashlib.blake2b((tenant or "").encode(), digest_size=8).digest()) % parts


def _unix_nano(moment: datetime) -> int:
    """Exact, unlike `timestamp()`, which is a float."""
    since = moment - _EPOCH
    return max(0, ((since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds) * 1000)
