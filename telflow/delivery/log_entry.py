"""What a log holds: entries, what is known of their partitions, and how they are read back and compressed."""

from __future__ import annotations

import contextlib
import enum
import logging
import threading
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, cast

import zstandard

from telflow.delivery.log_file import POSITIONS, Partition, Row, Slice
from telflow.schema import Signal

__all__ = [
    "Durability",
    "Entry",
    "LogCounters",
    "Loss",
    "LossReport",
    "PartitionStats",
    "compress",
    "compressor",
    "expire",
    "partition_stats",
    "read_entries",
    "to_row",
    "within",
    "without",
]

_LOG = logging.getLogger(__name__)
_LEVEL = -5

Encoding = Literal["protobuf", "json", "arrow"]


class Durability(enum.StrEnum):
    """What an acknowledged entry survives."""

    FSYNC = "fsync"
    """The loss of power: the disk has said that it is written."""
    OS = "os"
    """The death of the process: the operating system has it."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One payload with what is known of it.

    Attributes:
        signal: What its records are.
        payload: The bytes, uncompressed.
        records: How many records the payload holds.
        tenant: Whose data it is; None when unknown.
        encoding: How the payload is written (`protobuf`, `json`, `arrow`).
        arrival_time_unix_nano: When it came in.
        position: Its number within its partition; 0 until it is appended.
    """

    signal: Signal
    payload: bytes
    records: int
    tenant: str | None = None
    encoding: Encoding = "protobuf"
    arrival_time_unix_nano: int = 0
    position: int = 0


@dataclass(frozen=True, slots=True)
class Loss:
    """An entry that the log has accepted and will not give back.

    Attributes:
        partition: Where it was.
        position: Its number there.
        reason: `expired`: older than the age budget; `damaged`: the disk gave back other bytes than were written.
        signal: What its records are.
        tenant: Whose they are.
        records: How many.
    """

    partition: str
    position: int
    reason: Literal["expired", "damaged"]
    signal: Signal
    tenant: str | None
    records: int


@dataclass(frozen=True, slots=True)
class PartitionStats:
    """What a partition holds.

    Attributes:
        name: The partition.
        entries: Entries not trimmed.
        records: Records in the entries on the disk: those, and trimmed ones that are not erased yet.
        stored_bytes: Compressed bytes of the payloads on the disk.
        first_position: Position of the oldest, or of the next one when there is none.
        last_position: Position of the newest ever appended; 0 when there never was one.
        oldest_unix_nano: Arrival of the oldest; None when there is none.
    """

    name: str
    entries: int
    records: int
    stored_bytes: int
    first_position: int
    last_position: int
    oldest_unix_nano: int | None


def read_entries(
    rows: Callable[..., Generator[Row, None, None]],
    partition: Partition,
    *,
    after: int,
    max_bytes: int,
    losses: list[Loss],
) -> list[Entry]:
    """Read entries of a partition in order: as many as fit `max_bytes` uncompressed, but one at least.

    Args:
        rows: `LogReader.rows`.
        partition: Whose.
        after: Position above which to begin.
        max_bytes: Payload bytes to return at most.
        losses: Gets the entries that the disk has damaged.
    """
    entries: list[Entry] = []
    read_bytes = 0
    decompressor = zstandard.ZstdDecompressor()
    base = partition.number * POSITIONS
    with contextlib.closing(rows(partition.number, after=max(after, partition.trimmed_to))) as found:
        for row in found:
            if entries and read_bytes + row.payload_bytes > max_bytes:
                break
            signal, position = Signal(row.signal), row.id - base
            try:
                payload = decompressor.decompress(row.payload, max_output_size=row.payload_bytes)
            except zstandard.ZstdError:
                losses.append(Loss(partition.name, position, "damaged", signal, row.tenant, row.records))
                continue
            entries.append(
                Entry(
                    signal,
                    payload,
                    row.records,
                    row.tenant,
                    cast(Encoding, row.encoding),
                    row.arrival_time_unix_nano,
                    position,
                )
            )
            read_bytes += row.payload_bytes
    return entries


def partition_stats(slices: Callable[..., list[Slice]], partition: Partition) -> PartitionStats:
    """Return what a partition holds; `slices` is `LogReader.slices`."""
    entries = partition.last_position - partition.trimmed_to
    oldest = slices(partition.number, after=partition.trimmed_to, through=partition.last_position, limit=1)
    return PartitionStats(
        partition.name,
        entries,
        partition.records,
        partition.stored_bytes,
        partition.trimmed_to + 1,
        partition.last_position,
        oldest[0].arrival_time_unix_nano if oldest else None,
    )


@dataclass(slots=True)
class LogCounters:
    """What a log has done since it was opened; read it at any time.

    Attributes:
        commits: Transactions that appended.
        entries: Entries appended.
        records: Records in them.
        payload_bytes: Their payloads before compression.
        stored_bytes: And after it.
        commit_s: Seconds spent in those transactions, the disk's part included.
        refused_entries: Entries refused for lack of room.
        expired_entries: Entries ended by the age budget.
        damaged_entries: Times an entry was to be read that the disk has damaged.
        checkpoints: Times the WAL was brought into the database.
    """

    commits: int = 0
    entries: int = 0
    records: int = 0
    payload_bytes: int = 0
    stored_bytes: int = 0
    commit_s: float = 0.0
    refused_entries: int = 0
    expired_entries: int = 0
    damaged_entries: int = 0
    checkpoints: int = 0

    def add_commit(self, seconds: float) -> None:
        """Count a transaction that appended."""
        self.commits += 1
        self.commit_s += seconds

    def add_entries(self, entries: Sequence[Entry], stored_bytes: int) -> None:
        """Count what it appended."""
        self.entries += len(entries)
        self.stored_bytes += stored_bytes
        for entry in entries:
            self.records += entry.records
            self.payload_bytes += len(entry.payload)


def expire(partition: Partition, rows: Iterable[Slice], oldest_unix_nano: int) -> list[Loss]:
    """Trim the first of `rows`, as long as they arrived before a time; return them."""
    losses: list[Loss] = []
    for row in rows:
        if row.arrival_time_unix_nano >= oldest_unix_nano:
            break
        if row.position > partition.trimmed_to:
            partition.trimmed_to = row.position
            losses.append(Loss(partition.name, row.position, "expired", Signal(row.signal), row.tenant, row.records))
    return losses


class LossReport:
    """Tells of losses, or keeps them until somebody wants to know."""

    def __init__(self, path: Path, counters: LogCounters, on_loss: Callable[[Sequence[Loss]], None] | None) -> None:
        self._path = path
        self._counters = counters
        self._on_loss = on_loss
        self._untold: list[Loss] = []
        self._telling = threading.Lock()

    def watch(self, on_loss: Callable[[Sequence[Loss]], None]) -> None:
        """Tell `on_loss` from now on, and what nobody has been told yet."""
        with self._telling:
            self._on_loss = on_loss
            untold, self._untold = self._untold, []
        if untold:
            on_loss(untold)

    def tell(self, losses: Sequence[Loss]) -> None:
        """Count losses of one partition and one reason, and pass them on."""
        if not losses:
            return
        first = losses[0]
        if first.reason == "damaged":
            self._counters.damaged_entries += len(losses)
        else:
            self._counters.expired_entries += len(losses)
        _LOG.error(
            "%s: %d entries of partition %s are %s, the first at position %d",
            *(self._path, len(losses), first.partition, first.reason, first.position),
        )
        with self._telling:
            on_loss = self._on_loss
            if on_loss is None:
                self._untold.extend(losses)
        if on_loss is not None:
            on_loss(losses)


def within(rows: list[Slice], size: int) -> list[Slice]:
    """Return the first rows that hold no more than `size` bytes, but one at least."""
    held = 0
    for count, row in enumerate(rows):
        held += row.stored_bytes
        if count and held > size:
            return rows[:count]
    return rows


def without(partition: Partition, rows: Iterable[Slice]) -> Partition:
    """Return what is known of a partition once `rows` are deleted."""
    state = replace(partition)
    for row in rows:
        state.records -= row.records
        state.stored_bytes -= row.stored_bytes
    return state


def to_row(number: int, entry: Entry, stored: bytes) -> Row:
    """Return an entry as it is stored: under a number of the file, its payload compressed."""
    return Row(
        number,
        entry.signal.value,
        entry.tenant,
        entry.encoding,
        entry.arrival_time_unix_nano,
        entry.records,
        len(entry.payload),
        stored,
    )


_local = threading.local()


def compressor() -> Callable[[bytes], bytes]:
    """Return what makes of a payload what is stored, for one thread at a time."""
    return zstandard.ZstdCompressor(level=_LEVEL, write_checksum=True).compress


def compress(payload: bytes) -> bytes:
    """Return the payload as it is stored, with a checksum.

    Each thread keeps its compressor: making one for each payload costs more than a small payload does.
    """
    found = getattr(_local, "compress", None)
    if found is None:
        found = _local.compress = compressor()
    return cast(Callable[[bytes], bytes], found)(payload)
