"""The file under a log: an SQLite database in WAL mode, opened so that nobody else writes it, and read beside that.

Why these settings (figures: one 512-span request of 215 kB, zstd):

* Pages of 16 KiB: 0.6 times the CPU time of 4 KiB pages, because a payload spans fewer of them.
* One row per entry in one b-tree, keyed by partition and position in one integer: an index beside it, as a key of two
  columns brings with it, would be written once more for every entry.
* Checkpoints are made by the connection that writes and never beside a write: SQLite before 3.51.3 can lose pages when
  one connection resets the WAL while another begins a checkpoint (sqlite.org/wal.html, "The WAL-Reset Bug"), and
  Python brings along whatever SQLite its system has.
* `secure_delete=FAST` overwrites freed bytes where that costs no further write.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from telflow.errors import DeliveryError, TelflowError

__all__ = [
    "POSITIONS",
    "LogError",
    "LogFile",
    "LogFull",
    "LogReader",
    "Partition",
    "Row",
    "Slice",
    "explained",
    "lock_beside",
]

_APPLICATION = 0x74666C67
_FORMAT = 1
_PAGE_BYTES = 16 << 10
_WAL_LIMIT_BYTES = 16 << 20
_SHRINK_ABOVE_BYTES = 64 << 20
_SHRINK_WHEN_USED_BYTES = 8 << 20
_TABLES = """
CREATE TABLE IF NOT EXISTS partition (
    number INTEGER PRIMARY KEY,
    name TEXT NOT NULL,
    last_position INTEGER NOT NULL,
    trimmed_to INTEGER NOT NULL,
    records INTEGER NOT NULL,
    stored_bytes INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS entry (
    id INTEGER PRIMARY KEY,
    signal TEXT NOT NULL,
    tenant TEXT,
    encoding TEXT NOT NULL,
    arrival_time_unix_nano INTEGER NOT NULL,
    records INTEGER NOT NULL,
    payload_bytes INTEGER NOT NULL,
    payload BLOB NOT NULL
);
"""

POSITIONS = 1 << 40
"""Positions of one partition; `entry.id` is the partition's number times this plus the position."""


class LogError(TelflowError):
    """The log's file cannot be used; the message says which, why, and what to do.

    Attributes:
        final: True when nobody knows any more what the disk holds; the log accepts nothing until it is opened anew.
    """

    def __init__(self, message: str, *, final: bool = False) -> None:
        super().__init__(message)
        self.final = final


class LogFull(DeliveryError):  # noqa: N818 - a state that passes, told to the sender as such
    """The log's byte budget, or the disk under it, has no room for the entry; nothing of it was kept."""

    def __init__(self, message: str) -> None:
        super().__init__(message, retryable=True, retry_after_s=5.0)


class Row(NamedTuple):
    """An entry as it is stored; the first field is its number in the file."""

    id: int
    signal: str
    tenant: str | None
    encoding: str
    arrival_time_unix_nano: int
    records: int
    payload_bytes: int
    payload: bytes


class Slice(NamedTuple):
    """The metadata of an entry, for deciding on its end."""

    position: int
    records: int
    stored_bytes: int
    arrival_time_unix_nano: int
    signal: str
    tenant: str | None
    encoding: str


@dataclass(slots=True)
class Partition:
    """What the file says of a partition.

    Attributes:
        number: Its number in the file.
        name: Its name.
        last_position: Position of the newest entry ever appended; 0 when there never was one.
        trimmed_to: Entries at or below this position are no more.
        records: Records of the entries that are on the disk.
        stored_bytes: Compressed bytes of their payloads.
    """

    number: int
    name: str
    last_position: int = 0
    trimmed_to: int = 0
    records: int = 0
    stored_bytes: int = 0


class LogReader:
    """Reads a log's file, also while another process writes it; call from one thread at a time."""

    def __init__(self, path: Path) -> None:
        """Open an existing file for reading only.

        Raises:
            LogError: There is none, or it is not a log of this format.
        """
        self._path = path
        with explained(path, "read"):
            if not path.exists():
                raise FileNotFoundError(f"there is no such file: {path}")
            self._connection = sqlite3.connect(
                f"{path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None, check_same_thread=False
            )
            self._connection.execute("PRAGMA busy_timeout=30000")
            self._connection.execute("PRAGMA cache_size=-512")
            try:
                _check_format(path, self._connection)
            except BaseException:
                self._connection.close()
                raise

    def partitions(self) -> list[Partition]:
        """Return all partitions by name."""
        query = "SELECT number, name, last_position, trimmed_to, records, stored_bytes FROM partition ORDER BY name"
        with explained(self._path, "read"):
            return [Partition(*row) for row in self._connection.execute(query)]

    def rows(self, number: int, *, after: int, through: int = POSITIONS - 1) -> Generator[Row, None, None]:
        """Yield the entries of a partition in order; close the iterator to end the read."""
        query = "SELECT * FROM entry WHERE id > ? AND id <= ? ORDER BY id"
        base = number * POSITIONS
        with (
            explained(self._path, "read"),
            contextlib.closing(self._connection.execute(query, (base + after, base + through))) as rows,
        ):
            for row in rows:
                yield Row._make(row)

    def slices(self, number: int, *, after: int, limit: int, through: int = POSITIONS - 1) -> list[Slice]:
        """Return the metadata of up to `limit` entries in order, without reading their payloads."""
        base = number * POSITIONS
        return self._slices(base, "id > ? AND id <= ? ORDER BY id LIMIT ?", (base + after, base + through, limit))

    def slices_at(self, number: int, positions: Sequence[int]) -> list[Slice]:
        """Return the metadata of the entries at these positions, in order; at most a few hundred are asked for."""
        base = number * POSITIONS
        places = ",".join("?" * len(positions))
        return self._slices(base, f"id IN ({places}) ORDER BY id", [base + position for position in positions])

    def _slices(self, base: int, where: str, values: Sequence[int]) -> list[Slice]:
        columns = "id, records, length(payload), arrival_time_unix_nano, signal, tenant, encoding"
        query = f"SELECT {columns} FROM entry WHERE {where}"  # noqa: S608 - no part of it comes from outside
        with explained(self._path, "read"):
            found = self._connection.execute(query, values).fetchall()
        return [Slice(row[0] - base, *row[1:]) for row in found]

    def close(self) -> None:
        """Close the file."""
        self._connection.close()


class LogFile:
    """Writes a log's file; call from one thread at a time.

    `reader` reads the same file through a connection of its own, so that reading never waits for a write.
    """

    def __init__(self, path: Path, *, fsync: bool) -> None:
        """Open or create the file, its folder included, for its owner only.

        Args:
            path: Where it is; SQLite keeps two more files beside it, and a lock file lies there too.
            fsync: Sync every commit to the disk.

        Raises:
            LogError: The folder or file cannot be written, another process has it, or it is not a log of this format.
        """
        self.path = path
        self._wal_bytes = 0
        with explained(path, "open"):
            self._lock = lock_beside(path)
            try:
                self._open(fsync)
            except BaseException:
                os.close(self._lock)
                raise

    def _open(self, fsync: bool) -> None:
        if not self.path.exists():
            # SQLite gives the files beside it the same permissions. Only a file that is new may be opened here:
            # closing it would end the POSIX locks of everybody in this process who has it open.
            os.close(os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        self._writer = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
        try:
            self._set_up(fsync)
            self.reader = LogReader(self.path)
        except BaseException:
            self._writer.close()
            raise

    def _set_up(self, fsync: bool) -> None:
        execute = self._writer.execute
        execute("PRAGMA busy_timeout=30000")
        new = execute("PRAGMA schema_version").fetchone() == (0,)
        if new:
            execute(f"PRAGMA page_size={_PAGE_BYTES}")
            execute(f"PRAGMA application_id={_APPLICATION}")
            execute(f"PRAGMA user_version={_FORMAT}")
        _check_format(self.path, self._writer)
        self.path.chmod(0o600)
        if execute("PRAGMA journal_mode=WAL").fetchone() != ("wal",):
            raise sqlite3.OperationalError("the file system does not allow a write-ahead log (shared memory)")
        execute(f"PRAGMA synchronous={'FULL' if fsync else 'NORMAL'}")
        execute("PRAGMA wal_autocheckpoint=0")
        execute(f"PRAGMA journal_size_limit={_WAL_LIMIT_BYTES}")
        execute("PRAGMA secure_delete=FAST")
        execute("PRAGMA cache_size=-2000")
        execute("PRAGMA temp_store=MEMORY")
        if new:
            self._writer.executescript(f"BEGIN;{_TABLES}COMMIT;")
            if fsync:
                _sync_folder(self.path.parent)

    @property
    def wal_due(self) -> bool:
        """True when the WAL has grown to its limit and a checkpoint is to be made."""
        return self._wal_bytes >= _WAL_LIMIT_BYTES

    @property
    def wal_overdue(self) -> bool:
        """True when it has grown far over it."""
        return self._wal_bytes >= 2 * _WAL_LIMIT_BYTES

    def write(self, rows: Sequence[Row], partitions: Iterable[Partition]) -> None:
        """Add entries and set what is known of their partitions, in one transaction.

        Raises:
            LogFull: The disk is full; nothing was written.
            LogError: The file cannot be written.
        """
        with self._transaction():
            if rows:
                self._writer.executemany("INSERT INTO entry VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows)
            self._set(partitions)
        self._count_wal(sum(len(row.payload) for row in rows), len(rows))

    def delete(self, partition: Partition, *, after: int, through: int) -> None:
        """Delete the entries above `after` up to `through`, and set what is known of the partition."""
        base = partition.number * POSITIONS
        with self._transaction():
            deleted = self._writer.execute("DELETE FROM entry WHERE id > ? AND id <= ?", (base + after, base + through))
            self._set([partition])
        self._count_wal(0, deleted.rowcount)

    def delete_some(self, partition: Partition, positions: Sequence[int]) -> None:
        """Delete single entries, and set what is known of the partition."""
        base = partition.number * POSITIONS
        with self._transaction():
            self._writer.executemany("DELETE FROM entry WHERE id = ?", [(base + each,) for each in positions])
            self._set([partition])
        self._count_wal(len(positions) * _PAGE_BYTES, len(positions))

    def checkpoint(self) -> None:
        """Bring the WAL's content into the database, so that the WAL begins anew."""
        with explained(self.path, "write"):
            _, pages, moved = self._writer.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
            # What a reader still needs stays, and is moved the next time.
            self._wal_bytes = max(0, pages - moved) * _PAGE_BYTES

    def shrink(self) -> bool:
        """Give the disk back what a nearly empty file no longer needs; returns whether there was anything to give."""
        with explained(self.path, "write"):
            (pages,) = self._writer.execute("PRAGMA page_count").fetchone()
            (free,) = self._writer.execute("PRAGMA freelist_count").fetchone()
            used_bytes = (pages - free) * _PAGE_BYTES
            if pages * _PAGE_BYTES < _SHRINK_ABOVE_BYTES or used_bytes > _SHRINK_WHEN_USED_BYTES:
                return False
            self._writer.execute("VACUUM")
            self._count_wal(used_bytes, 0)
        self.checkpoint()
        return True

    def close(self) -> None:
        """Close the file; everything is in the database then, and the WAL is gone."""
        try:
            self.reader.close()
            with explained(self.path, "close"):
                self._writer.close()
        finally:
            os.close(self._lock)

    def _set(self, partitions: Iterable[Partition]) -> None:
        self._writer.executemany(
            "INSERT INTO partition VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (number) DO UPDATE SET "
            "last_position = excluded.last_position, trimmed_to = excluded.trimmed_to, "
            "records = excluded.records, stored_bytes = excluded.stored_bytes",
            [(p.number, p.name, p.last_position, p.trimmed_to, p.records, p.stored_bytes) for p in partitions],
        )

    def _count_wal(self, payload_bytes: int, entries: int) -> None:
        """Reckon what a transaction has added to the WAL; asking SQLite would be a checkpoint already."""
        self._wal_bytes += payload_bytes + (entries // 4 + 3) * _PAGE_BYTES

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        with explained(self.path, "write"):
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._writer.execute("COMMIT")
            except BaseException:
                with contextlib.suppress(sqlite3.Error):
                    self._writer.execute("ROLLBACK")
                raise


@contextlib.contextmanager
def explained(path: Path, doing: str) -> Iterator[None]:
    """Turn the errors of the file and of SQLite into those of a log."""
    try:
        yield
    except sqlite3.Error as error:
        code = (getattr(error, "sqlite_errorcode", 0) or 0) & 0xFF
        if code == sqlite3.SQLITE_FULL:
            raise LogFull(f"{path}: the disk under the log is full") from error
        if code in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}:
            raise LogError(
                f"{path}: the log is damaged: {error}\n"
                "  hint: move it away with the files of the same name beside it, telflow starts a new one; what it "
                "still holds can be read with `telflow log salvage`",
                final=True,
            ) from error
        final = code == sqlite3.SQLITE_IOERR and error.sqlite_errorcode != sqlite3.SQLITE_IOERR_WRITE
        raise LogError(f"{path}: cannot {doing} the log: {error}{_hint(final=final)}", final=final) from error
    except OSError as error:
        raise LogError(f"{path}: cannot {doing} the log: {error.strerror or error}{_hint(final=False)}") from error


def _hint(final: bool) -> str:
    if final:
        return "\n  hint: the disk reports an error (see the kernel's log); nothing more is accepted until a restart"
    return "\n  hint: expected a folder that this user may write, on a local disk that is not mounted read-only"


def _check_format(path: Path, connection: sqlite3.Connection) -> None:
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (found,) = connection.execute("PRAGMA user_version").fetchone()
    if application != _APPLICATION:
        raise LogError(
            f"{path}: expected a telflow log or no file, got a database of something else\n"
            "  hint: give telflow a storage folder of its own"
        )
    if found != _FORMAT:
        raise LogError(
            f"{path}: expected a log of format {_FORMAT}, got one of format {found}\n"
            "  hint: let the version of telflow that wrote it drain it, then move the file away"
        )


def _make_folder(folder: Path) -> None:
    if not folder.is_dir():
        folder.mkdir(parents=True, mode=0o700)
        _sync_folder(folder.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def lock_beside(path: Path) -> int:
    """Hold something against other processes, by a lock file beside it, until the returned descriptor is closed.

    A file of its own, because SQLite's locks are none of our business.

    Raises:
        LogError: Another process holds it, or the folder cannot be written.
    """
    with explained(path, "lock"):
        _make_folder(path.parent)
        name = path.with_name(f"{path.name}.lock")
        descriptor = os.open(name, os.O_CREAT | os.O_RDWR, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.read(descriptor, 32).decode(errors="replace").strip()
            os.close(descriptor)
            raise LogError(
                f"{path}: another process{f' ({holder})' if holder else ''} has it open\n"
                "  hint: give each process a storage folder of its own (storage.dir), or stop the other one"
            ) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"pid {os.getpid()}\n".encode(), 0)
        return descriptor
