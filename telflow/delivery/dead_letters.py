"""The dead-letter store: what a destination refused for good, or a receiver could not decode, with reason and origin.

It is a log of its own, `deadletter.db`, with a partition for each pair of origin and reason; both come from a small set
of fixed words. It is limited in bytes, and when it is full further letters are not kept: they are counted as dropped
all the same, as everything here is, and a line in the log says so.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from pydantic import Field

from telflow.delivery.log import Durability, Entry, Log, LogError, LogFull
from telflow.delivery.log_entry import Loss, read_entries
from telflow.delivery.log_file import LogReader, Partition, Slice
from telflow.settings import Settings

__all__ = ["DeadLetter", "DeadLetterReader", "DeadLetterSettings", "DeadLetters"]

_LOG = logging.getLogger(__name__)


class DeadLetterSettings(Settings):
    """Keeps what would otherwise only be counted: see `telflow deadletter`. Needs the gateway's storage."""

    max_bytes: int = Field(default=1 << 30, ge=1 << 20)
    """Bytes the store may hold, compressed; what comes after that is dropped and counted as it would be without."""

    undecodable: bool = False
    """Also keep requests that receivers could not decode: a sender that repeats garbage fills the store."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """What is known of one letter besides its payload.

    Attributes:
        id: Names it; the same as long as it is kept.
        origin: Which destination or receiver had no use for it.
        reason: Why.
        signal: What its records are.
        tenant: Whose they are; None when unknown.
        records: How many; 0 when it could not be decoded.
        encoding: How the payload is written.
        arrival_time_unix_nano: When telflow got it.
        stored_bytes: Its size on the disk, compressed.
        position: Its place among those of this origin and reason.
    """

    id: str
    origin: str
    reason: str
    signal: str
    tenant: str | None
    records: int
    encoding: str
    arrival_time_unix_nano: int
    stored_bytes: int
    position: int


class DeadLetters:
    """Keeps letters; every method may be called from any thread. One process at a time has the store open.

    >>> import tempfile
    >>> from telflow.schema import Signal
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with DeadLetters(Path(folder) / "deadletter.db") as dead_letters:
    ...         kept = dead_letters.add(Entry(Signal.LOGS, b"...", 3), origin="export", reason="refused (HTTP 400)")
    ...     with DeadLetterReader(Path(folder) / "deadletter.db") as reader:
    ...         [(letter.origin, letter.reason, letter.records) for letter in reader.letters()]
    [('export', 'refused (HTTP 400)', 3)]
    """

    def __init__(
        self,
        path: Path,
        *,
        durability: Durability = Durability.OS,
        max_bytes: int = 1 << 30,
        min_free_bytes: int = 64 << 20,
    ) -> None:
        """Open or create the store.

        Args:
            path: Its file.
            durability: What a kept letter survives.
            max_bytes: Compressed bytes it may hold.
            min_free_bytes: Bytes to leave free on the disk.

        Raises:
            LogError: The file cannot be used, or another process has it.
        """
        self._log = Log(path, durability=durability, max_bytes=max_bytes, min_free_bytes=min_free_bytes)
        self._said = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def add(self, entry: Entry, *, origin: str, reason: str) -> bool:
        """Keep a letter; returns False when there is no room, or the disk is not usable."""
        try:
            self._log.append(_partition(origin, reason), entry)
        except (LogError, LogFull) as error:
            if not self._said:
                _LOG.error("dead letters are not kept any more: %s", error)
            self._said = True
            return False
        self._said = False
        return True

    def remove(self, letters: Iterable[DeadLetter]) -> None:
        """Forget letters.

        Raises:
            LogError: The file cannot be written.
        """
        by_partition: dict[str, list[int]] = {}
        for letter in letters:
            by_partition.setdefault(_partition(letter.origin, letter.reason), []).append(letter.position)
        for partition, positions in by_partition.items():
            self._log.remove(partition, positions)

    def close(self) -> None:
        """Close the store; closing twice does nothing."""
        self._log.close()


class DeadLetterReader:
    """Reads the store, also while a gateway writes it; used by one thread."""

    def __init__(self, path: Path) -> None:
        """Open an existing store.

        Raises:
            LogError: There is none, or it is not one.
        """
        self._reader = LogReader(path)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._reader.close()

    def letters(self) -> list[DeadLetter]:
        """Return all letters, the oldest first."""
        found = [letter for partition in self._reader.partitions() for letter in self._of(partition)]
        return sorted(found, key=lambda letter: (letter.arrival_time_unix_nano, letter.id))

    def read(self, letters: Sequence[DeadLetter]) -> Iterator[tuple[DeadLetter, Entry]]:
        """Yield letters with their payloads; those that were removed meanwhile, or are damaged, are left out."""
        partitions = {partition.name: partition for partition in self._reader.partitions()}
        for letter in letters:
            partition = partitions[_partition(letter.origin, letter.reason)]
            losses: list[Loss] = []
            after = letter.position - 1
            entries = read_entries(self._reader.rows, partition, after=after, max_bytes=0, losses=losses)
            if entries and entries[0].position == letter.position:
                yield letter, entries[0]

    def _of(self, partition: Partition) -> Iterator[DeadLetter]:
        origin, reason = json.loads(partition.name)
        last = partition.last_position
        for each in self._reader.slices(partition.number, after=partition.trimmed_to, through=last, limit=last):
            yield _letter(partition.name, origin, reason, each)


def _partition(origin: str, reason: str) -> str:
    return json.dumps([origin, reason])


def _letter(partition: str, origin: str, reason: str, each: Slice) -> DeadLetter:
    group = hashlib.sha256(partition.encode()).hexdigest()[:6]
    return DeadLetter(
        f"{group}-{each.position}",
        origin,
        reason,
        each.signal,
        each.tenant,
        each.records,
        each.encoding,
        each.arrival_time_unix_nano,
        each.stored_bytes,
        each.position,
    )
