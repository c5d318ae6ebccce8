"""What can still be read of a damaged log, brought into a new one."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import zstandard

from telflow.delivery.log_file import LogError, LogFile, LogReader, Partition, Row, explained, lock_beside

__all__ = ["Salvaged", "salvage"]

_TOGETHER = 256


@dataclass(frozen=True, slots=True)
class Salvaged:
    """What became of a partition.

    Attributes:
        name: The partition.
        entries: Entries that were saved.
        records: Records in them.
        lost_entries: Entries that cannot be read any more.
    """

    name: str
    entries: int
    records: int
    lost_entries: int


def salvage(path: Path) -> tuple[Path, list[Salvaged]]:
    """Move a damaged log aside and put what it still holds into a new one, at the same positions.

    A page that cannot be read costs no more than the entries that lie on it.

    Args:
        path: The log's file; no process may have it open.

    Returns:
        Where the damaged log is now, and what was saved.

    Raises:
        LogError: The log is in use, its list of partitions cannot be read, or the new one cannot be written.
    """
    with explained(path, "salvage"):
        if not path.exists():
            raise FileNotFoundError(f"there is no such file: {path}")
        lock = lock_beside(path)
        try:
            aside = _move_aside(path)
        finally:
            os.close(lock)
    with contextlib.closing(LogReader(aside)) as reader:
        partitions = reader.partitions()
        with contextlib.closing(LogFile(path, fsync=True)) as new:
            return aside, [_save(reader, partition, new) for partition in partitions]


def _move_aside(path: Path) -> Path:
    number = 1
    while (aside := path.with_name(f"{path.name}.damaged-{number}")).exists():
        number += 1
    for suffix in ("", "-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError):
            path.with_name(f"{path.name}{suffix}").rename(f"{aside}{suffix}")
    return aside


def _save(reader: LogReader, partition: Partition, new: LogFile) -> Salvaged:
    state = replace(partition, records=0, stored_bytes=0)
    saved = 0
    for first in range(partition.trimmed_to, partition.last_position, _TOGETHER):
        rows = list(_readable(reader, partition.number, first, min(first + _TOGETHER, partition.last_position)))
        state.records += sum(row.records for row in rows)
        state.stored_bytes += sum(len(row.payload) for row in rows)
        saved += len(rows)
        new.write(rows, [state])
        if new.wal_due:
            new.checkpoint()
    new.write([], [state])
    expected = partition.last_position - partition.trimmed_to
    return Salvaged(partition.name, saved, state.records, expected - saved)


def _readable(reader: LogReader, number: int, after: int, through: int) -> Iterator[Row]:
    try:
        rows = list(reader.rows(number, after=after, through=through))
    except LogError:
        rows = []
        for position in range(after + 1, through + 1):
            with contextlib.suppress(LogError):
                rows += reader.rows(number, after=position - 1, through=position)
    for row in rows:
        with contextlib.suppress(zstandard.ZstdError):
            zstandard.ZstdDecompressor().decompress(row.payload, max_output_size=row.payload_bytes)
            yield row
