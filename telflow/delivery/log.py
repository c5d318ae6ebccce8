"""The log: an embedded, crash-safe, append-only store of payloads with their metadata.

It is SQLite in WAL mode, a store that is kept and tested by others; telflow adds only what delivery needs on top:

* **Group commit.** Any number of threads append; the first one there commits what all have brought, so that many
  requests share one transaction and one fsync. Nobody waits for others to come, and no entry passes through a thread
  of its own: handing over twice costs more than the commit.
* **Positions.** Each partition numbers its entries 1, 2, 3 and so on, without gaps and without reuse: a position is a
  promise that snapshots and transaction identifiers can keep across restarts and trims. Clocks order nothing.
* **Budgets.** The log refuses to grow over its byte budget or to take the disk's last bytes (`LogFull`), so that a dead
  destination cannot fill the disk. What its age budget ends is reported entry by entry.
* **Trim.** What lies at or below a position is forgotten at once and erased soon after, in small transactions between
  those of the appending threads.

Payloads are compressed in the appending thread, outside every lock: zstd level -5, which takes 0.7 times the CPU time
of level 1 and writes 1.3 times its bytes (measured). Each carries a checksum, because SQLite has none in its pages.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Self

from telflow.delivery.disk_room import DiskRoom
from telflow.delivery.group_commit import GroupCommit, Job
from telflow.delivery.log_entry import (
    Durability,
    Entry,
    LogCounters,
    Loss,
    LossReport,
    PartitionStats,
    expire,
    partition_stats,
    read_entries,
    to_row,
    within,
    without,
)
from telflow.delivery.log_file import POSITIONS, LogError, LogFile, LogFull, Partition, Row, Slice, explained
from telflow.delivery.log_keeper import Keeper
from telflow.errors import TelflowError

__all__ = ["Durability", "Entry", "Log", "LogCounters", "LogError", "LogFull", "Loss", "PartitionStats"]

_SLICE_ENTRIES = 256
_SLICE_BYTES = 2 << 20
_SLICE_PAUSE_S = 0.001


class Log:
    """A log in one file; every method may be called from any thread.

    >>> import tempfile
    >>> from telflow.schema import Signal
    >>> with tempfile.TemporaryDirectory() as folder, Log(Path(folder) / "ingest.db") as log:
    ...     position = log.append("intake", Entry(Signal.LOGS, b"payload", records=1))
    ...     [entry.payload for entry in log.read("intake", after=0)]
    [b'payload']
    """

    def __init__(
        self,
        path: Path,
        *,
        durability: Durability = Durability.FSYNC,
        max_bytes: int = 4 << 30,
        min_free_bytes: int = 64 << 20,
        max_age_s: float | None = None,
        on_loss: Callable[[Sequence[Loss]], None] | None = None,
        now_unix_nano: Callable[[], int] = time.time_ns,
    ) -> None:
        """Open or create the log.

        Args:
            path: Its file; SQLite keeps two more beside it, and a lock file lies there too. The folder is created, for
                its owner only.
            durability: What an acknowledged entry survives.
            max_bytes: Compressed payload bytes it may hold. The files take up to a quarter more, and 32 MiB of WAL.
            min_free_bytes: Bytes to leave free on the disk, for checkpoints of the WAL (up to 32 MiB), snapshots
                and everybody else.
            max_age_s: Age at which entries are forgotten even though nobody has trimmed them; None: never.
            on_loss: Told of every entry that was accepted and cannot be given back, from the thread that found it.
            now_unix_nano: The clock that ages are reckoned with; a log without `max_age_s` uses none.

        Raises:
            LogError: The folder or file cannot be written, another process has it, or it is not a log of this version.
        """
        self.path = path
        self.counters = LogCounters()
        self._max_bytes = max_bytes
        self._min_free_bytes = min_free_bytes
        self._max_age_s = max_age_s
        self._losses = LossReport(path, self.counters, on_loss)
        self._now_unix_nano = now_unix_nano
        self._disk = DiskRoom(path.parent, min_free_bytes)
        self._file = LogFile(path, fsync=durability is Durability.FSYNC)
        try:
            self._partitions = {p.name: p for p in self._file.reader.partitions()}
        except BaseException:
            self._file.close()
            raise
        # What is trimmed but still on the disk lies above this position.
        self._erased_to = dict.fromkeys(self._partitions, 0)
        self._held_bytes = sum(p.stored_bytes for p in self._partitions.values())
        self._broken: LogError | None = None
        self._closed = False
        self._door = threading.Lock()  # guards what the methods know of partitions; held for moments
        self._lead = threading.Lock()  # held while the file is written
        self._group = GroupCommit(self._commit, self._lead)
        self._reading = threading.Lock()  # held while it is read through the reader's connection
        self._keeper = Keeper(f"log {path.name}", self._keep, None if max_age_s is None else min(1.0, max_age_s / 4))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def stored_bytes(self) -> int:
        """Compressed payload bytes on the disk, trimmed ones that are not erased yet included."""
        return self._held_bytes

    @property
    def max_bytes(self) -> int:
        """The byte budget."""
        return self._max_bytes

    def watch(self, on_loss: Callable[[Sequence[Loss]], None]) -> None:
        """Set `on_loss` after the fact, for whoever reads the log; it is told of earlier losses too."""
        self._losses.watch(on_loss)

    def last_position(self, partition: str) -> int:
        """Return the position of the newest entry ever appended; 0 when there never was one."""
        found = self._partitions.get(partition)
        return found.last_position if found else 0

    def append(self, partition: str, entry: Entry) -> int:
        """Add an entry and wait until it is as safe as `durability` says; return its position.

        Raises:
            LogFull: The byte budget or the disk has no room.
            LogError: The log is closed or broken.
        """
        return self.append_many(partition, [entry])

    def append_many(self, partition: str, entries: Sequence[Entry], *, stored: Sequence[bytes] | None = None) -> int:
        """Like `append` for several entries, all of them or none; return the position of the last.

        Args:
            partition: Where to.
            entries: What; without any nothing is done, and the partition's last position returned.
            stored: Their payloads as `compress` makes them, when the caller has done that already.
        """
        if not entries:
            return self.last_position(partition)
        job = Job(partition, entries, stored)
        self._admit(job)
        self._group.submit(job)
        return job.result()

    def append_soon(self, partition: str, entry: Entry) -> Future[int]:
        """Like `append`, but return at once; the future's result is the position once the entry is safe.

        Raises:
            LogFull: The byte budget has no room.
            LogError: The log is closed or broken.
        """
        future: Future[int] = Future()
        job = Job(partition, [entry], future=future)
        self._admit(job)
        self._group.submit_soon(job)
        if self._group.crowded:
            self._group.work()  # whoever outruns the disk does its work
        else:
            self._keeper.wake()
        return future

    def read(self, partition: str, *, after: int, max_bytes: int = 8 << 20) -> list[Entry]:
        """Return entries above position `after` in order: as many as fit `max_bytes`, but one at least.

        Entries that the disk has damaged are left out, counted and told to `on_loss`; when nothing else is left, the
        list is empty.

        Raises:
            LogError: The file cannot be read.
        """
        found = self._partitions.get(partition)
        if found is None:
            return []
        losses: list[Loss] = []
        with self._reading:
            self._check_open()
            entries = read_entries(self._file.reader.rows, found, after=after, max_bytes=max_bytes, losses=losses)
        self._losses.tell(losses)
        return entries

    def trim(self, partition: str, position: int) -> int:
        """Forget the entries at or below `position`; return how many they were.

        No reader sees them again. They are erased from the disk soon after; a crash before that brings them back, so a
        reader says where it stands with `after`.
        """
        with self._door:
            found = self._partitions.get(partition)
            if found is None:
                return 0
            position = min(position, found.last_position)
            count = max(0, position - found.trimmed_to)
            found.trimmed_to = max(found.trimmed_to, position)
        if count:
            self._keeper.wake()
        return count

    def truncate(self, partition: str, beyond: int) -> int:
        """Forget the entries above position `beyond`, durably, and give their positions again; return how many.

        Raises:
            LogError: The log is closed or broken, or the file cannot be written.
        """
        with self._lead, self._breaking():
            self._check_open()
            found = self._partitions.get(partition)
            if found is None or found.last_position <= beyond:
                return 0
            count = found.last_position - max(beyond, found.trimmed_to)
            while found.last_position > beyond:
                after = max(beyond, found.last_position - _SLICE_ENTRIES)
                with self._reading:
                    rows = self._file.reader.slices(found.number, after=after, limit=_SLICE_ENTRIES)
                state = without(found, rows)
                state.last_position = after
                state.trimmed_to = min(found.trimmed_to, after)
                self._file.delete(state, after=after, through=found.last_position)
                self._adopt(found, state)
            self._erased_to[partition] = min(self._erased_to[partition], beyond)
            return max(0, count)

    def skip_to(self, partition: str, position: int) -> None:
        """Give no position at or below `position` any more, durably, and forget the entries that have one.

        For a log that was replaced, while somebody's snapshot remembers positions of the one before.
        """
        with self._lead, self._breaking():
            self._check_open()
            found = self._partition(partition)
            state = replace(found, last_position=max(found.last_position, position))
            state.trimmed_to = max(found.trimmed_to, position)
            self._file.write([], [state])
            self._adopt(found, state)
        self._keeper.wake()

    def remove(self, partition: str, positions: Sequence[int]) -> None:
        """Forget single entries, durably; the positions of the others stay as they are.

        Raises:
            LogError: The log is closed or broken, or the file cannot be written.
            LogFull: The disk is full.
        """
        with self._lead, self._breaking():
            self._check_open()
            found = self._partitions.get(partition)
            if found is None:
                return
            gone = sorted(set(positions))
            for first in range(0, len(gone), _SLICE_ENTRIES):
                some = gone[first : first + _SLICE_ENTRIES]
                with self._reading:
                    rows = self._file.reader.slices_at(found.number, some)
                state = without(found, rows)
                self._file.delete_some(state, some)
                self._adopt(found, state)

    def index(self, partition: str) -> list[Slice]:
        """Return the metadata of all entries of a partition in order, without reading their payloads.

        Raises:
            LogError: The file cannot be read.
        """
        found = self._partitions.get(partition)
        if found is None:
            return []
        with self._reading:
            self._check_open()
            return self._file.reader.slices(
                found.number, after=found.trimmed_to, through=found.last_position, limit=found.last_position
            )

    def partition_bytes(self, partition: str) -> int:
        """Return the compressed payload bytes a partition has on the disk."""
        found = self._partitions.get(partition)
        return found.stored_bytes if found else 0

    def stats(self) -> list[PartitionStats]:
        """Return what each partition holds, by name."""
        with self._reading:
            self._check_open()
            return [
                partition_stats(self._file.reader.slices, self._partitions[name]) for name in sorted(self._partitions)
            ]

    def close(self) -> None:
        """Commit what waits, then close; closing twice does nothing."""
        with self._door:
            if self._closed:
                return
            self._closed = True
        self._keeper.stop()
        self._group.work()
        with self._lead, self._reading:
            # What is trimmed stays trimmed, whether or not it has been erased.
            if self._broken is None:
                with contextlib.suppress(LogError, LogFull):
                    self._file.write([], self._partitions.values())
            self._file.close()

    def _admit(self, job: Job) -> None:
        """Refuse a job that there is no room for, or no log.

        Raises:
            LogFull: The byte budget or the disk has no room.
            LogError: The log is closed or broken.
        """
        if not self._has_room(job.size):
            self._make_room(job.size)
        self._check_open()
        if self._broken is not None:
            raise self._broken

    def _has_room(self, size: int) -> bool:
        if self._held_bytes + self._group.waiting_bytes + size > self._max_bytes:
            return False
        with explained(self.path, "write"):
            # A payload is written twice before its first copy is given back: to the WAL, and by the checkpoint.
            return self._disk.has(2 * size)

    def _make_room(self, size: int) -> None:
        """Erase what is trimmed until there is room.

        Raises:
            LogFull: There is none.
        """
        erased = True
        while erased and not self._closed:
            erased = self._erase_some()
            # Nothing to erase may mean that the keeper has just done it.
            if self._has_room(size):
                return
        self.counters.refused_entries += 1
        if self._disk.short:
            raise LogFull(f"{self.path}: the disk under the log has less than {self._min_free_bytes} bytes free")
        raise LogFull(f"{self.path}: the log holds {self._held_bytes} of at most {self._max_bytes} bytes")

    def _commit(self, group: Sequence[Job]) -> TelflowError | None:
        """See `Commit`."""
        started_s = time.perf_counter()
        try:
            with self._breaking():
                self._write(group)
        except (LogError, LogFull) as error:
            return error
        except BaseException:
            self._broken = LogError(f"{self.path}: a commit was interrupted; nothing more is accepted", final=True)
            raise
        self.counters.add_commit(time.perf_counter() - started_s)
        for job in group:
            self.counters.add_entries(job.entries, job.size)
        if self._file.wal_due:
            self._keeper.wake()
        return None

    def _write(self, group: Sequence[Job]) -> None:
        if self._file.wal_overdue:
            self._checkpoint()
        states: dict[str, Partition] = {}
        rows: list[Row] = []
        for job in group:
            state = states.get(job.partition)
            if state is None:
                state = states[job.partition] = replace(self._partition(job.partition))
            first = state.number * POSITIONS + state.last_position + 1
            for number, (entry, stored) in enumerate(zip(job.entries, job.payloads, strict=True), start=first):
                rows.append(to_row(number, entry, stored))
                state.records += entry.records
            state.last_position += len(job.entries)
            state.stored_bytes += job.size
            job.position = state.last_position
        self._file.write(rows, states.values())
        for name, state in states.items():
            self._adopt(self._partition(name), state)

    def _partition(self, name: str) -> Partition:
        found = self._partitions.get(name)
        if found is None:
            number = max((p.number for p in self._partitions.values()), default=0) + 1
            self._erased_to[name] = 0
            found = self._partitions[name] = Partition(number, name)
        return found

    def _adopt(self, found: Partition, state: Partition) -> None:
        """Make what has been written what is known; a trim may have gone further meanwhile."""
        with self._door:
            self._held_bytes += state.stored_bytes - found.stored_bytes
            went_back = state.last_position < found.last_position
            found.trimmed_to = (min if went_back else max)(found.trimmed_to, state.trimmed_to)
            found.last_position = state.last_position
            found.records = state.records
            found.stored_bytes = state.stored_bytes

    def _keep(self) -> None:
        """Commit for `append_soon`, expire, erase and make checkpoints, beside the appending threads."""
        self._group.work()
        self._expire()
        if self._erase_all() or self._file.wal_due:
            with self._lead, self._breaking():
                if self._file.wal_due:
                    self._checkpoint()
                self._file.shrink()

    def _expire(self) -> None:
        if self._max_age_s is None:
            return
        oldest = self._now_unix_nano() - int(self._max_age_s * 1e9)
        for found in list(self._partitions.values()):
            while losses := self._expire_some(found, oldest):
                self._losses.tell(losses)

    def _expire_some(self, found: Partition, oldest: int) -> list[Loss]:
        with self._reading:
            if self._closed:
                return []
            rows = self._file.reader.slices(
                found.number, after=found.trimmed_to, through=found.last_position, limit=_SLICE_ENTRIES
            )
        with self._door:
            return expire(found, rows, oldest)

    def _erase_all(self) -> bool:
        erased = False
        while not self._closed and self._erase_some():
            erased = True
            time.sleep(_SLICE_PAUSE_S)  # an appending thread that waits for the lead gets it
        return erased

    def _erase_some(self) -> bool:
        """Delete some of what is trimmed, in one transaction; False: nothing is left to delete."""
        with self._lead, self._breaking():
            for name, found in list(self._partitions.items()):
                through = found.trimmed_to
                after = self._erased_to[name]
                if after >= through:
                    continue
                with self._reading:
                    rows = self._file.reader.slices(found.number, after=after, through=through, limit=_SLICE_ENTRIES)
                rows = within(rows, _SLICE_BYTES)
                if rows:
                    through = rows[-1].position
                    state = without(found, rows)
                    self._file.delete(state, after=after, through=through)
                    self._adopt(found, state)
                self._erased_to[name] = through
                if rows:
                    return True
        return False

    def _checkpoint(self) -> None:
        self._file.checkpoint()
        self.counters.checkpoints += 1

    def _check_open(self) -> None:
        if self._closed:
            raise LogError(f"{self.path}: the log is closed")

    @contextlib.contextmanager
    def _breaking(self) -> Iterator[None]:
        """Accept nothing more after an error that leaves unknown what the disk holds, a failed sync above all."""
        if self._broken is not None:
            raise self._broken
        try:
            yield
        except LogError as error:
            if error.final:
                self._broken = error
            raise
