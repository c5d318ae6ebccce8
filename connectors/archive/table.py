"""One signal's Delta table: durable, idempotent appends, and the list of its files at a version.

Rows are appended in commits that carry a transaction key (`app_id`, offset): a source's rows are numbered, and the
table knows up to which number it has them. A commit counts when its files, their directories and the log are on stable
storage. Parquet is written by pyarrow, which is faster than delta-rs's own writer and writes page checksums; without
them most bit flips in a file read as wrong values, with them as errors.
"""

from __future__ import annotations

import hashlib
import json
import random
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from connectors.archive.arrival import ROWS_KEY, ArchiveFile, FileName, in_arrival_order, row_numbers_text
from connectors.archive.delta_log import ArchiveError, check_log, fsync, fsync_commits, make_writable
from connectors.archive.layout import EVENT_TIME_COLUMNS, archive_schema
from connectors.archive.promote import PromotedAttribute
from telflow.errors import DeliveryError
from telflow.schema import RECORD_SCHEMAS, Signal

if TYPE_CHECKING:
    # deltalake takes 20 MB, which only a worker with an archive is to pay: it is imported where it is used.
    from deltalake import DeltaTable
    from deltalake._internal import RemoveAction
    from deltalake.transaction import AddAction

__all__ = ["ArchiveFile", "ArchiveTable"]

_ATTEMPTS = 5
_BACKOFF_S = 0.02
_CHECKPOINT_EVERY = 50
_ROW_GROUP_ROWS = 32_768  # what a replay reads, filters and holds at a time: about 20 MB of spans
_NO_DATE = "__HIVE_DEFAULT_PARTITION__"


class ArchiveTable:
    """A signal's table under an archive's path.

    Args:
        delta: The table as delta-rs sees it.
        path: Its directory.
        signal: Which signal's records it holds.
    """

    def __init__(self, delta: DeltaTable, path: Path, signal: Signal) -> None:
        self.delta = delta
        self.path = path
        self.signal = signal
        self.columns: list[str] = pa.schema(delta.schema()).names

    @classmethod
    def open(cls, archive: Path, signal: Signal, *, version: int | None = None) -> ArchiveTable:
        """Open an existing table to read it, at `version` or the newest.

        Raises:
            ArchiveError: There is none, it is damaged, or it is not an archive table.
        """
        from deltalake import DeltaTable
        from deltalake.exceptions import DeltaError

        path = archive / signal
        check_log(path)
        if not DeltaTable.is_deltatable(str(path)):
            found = sorted(s for s in Signal if DeltaTable.is_deltatable(str(archive / s)))
            raise ArchiveError(
                f"archive path {str(archive)!r}: expected a table {signal!s}, got {', '.join(found) or 'no table'};"
                " hint: `path` is the directory above traces, metrics and logs"
            )
        try:
            delta = DeltaTable(str(path), version=version)
        except DeltaError as error:
            raise ArchiveError(f"archive table {str(path)!r}: cannot be read: {error}") from error
        _check_columns(path, pa.schema(delta.schema()), archive_schema(signal), delta.metadata().partition_columns)
        return cls(delta, path, signal)

    @classmethod
    def open_or_create(cls, archive: Path, signal: Signal, promote: Sequence[PromotedAttribute]) -> ArchiveTable:
        """Open a table to append to it; create it, or add promoted columns to it, as needed.

        Raises:
            ConfigError: The directory cannot be written.
            ArchiveError: The table is damaged or has other columns.
        """
        from deltalake import DeltaTable, Schema

        path = archive / signal
        make_writable(path)
        check_log(path)
        schema = archive_schema(signal, promote)
        if not DeltaTable.is_deltatable(str(path)):
            DeltaTable.create(
                str(path),
                schema=Schema.from_arrow(schema),
                mode="ignore",  # another worker may be creating it, too
                partition_by=["date"],
                configuration={
                    # Minima and maxima of other columns would keep personal data in the log after its deletion.
                    "delta.dataSkippingStatsColumns": ",".join(EVENT_TIME_COLUMNS[signal]),
                },
            )
            fsync_commits(path, [0])
            fsync(path, archive)
        table = cls.open(archive, signal)
        have = pa.schema(table.delta.schema())
        _check_columns(path, have, schema, ["date"], may_lack={entry.name for entry in promote})
        if missing := [f for f in schema if f.name not in have.names]:
            table.delta.alter.add_columns(list(Schema.from_arrow(pa.schema(missing)).fields))
            table = cls.open(archive, signal)
            fsync_commits(path, [table.delta.version()])
        return table

    def committed(self, app_id: str) -> int:
        """Return up to which offset the table holds the rows of `app_id`; 0 when it has none."""
        self.delta.update_incremental()
        return self.delta.transaction_version(app_id) or 0

    def append(self, rows: pa.Table, app_id: str, offset: int, *, after: int | None = None) -> int:
        """Append the rows `offset` to `offset + len(rows)` of a source; return when they are on stable storage.

        Rows the table already has are dropped, so a source that repeats itself row by row changes nothing.

        Args:
            rows: From `layout.to_rows`.
            app_id: The source; two that run at once have two names.
            offset: Number of rows of this source before these.
            after: Where given, the offset the table must stand at; another one shows a second writer of that name.

        Returns:
            How many rows were new.

        Raises:
            ArchiveError: The rows do not fit the table.
            DeliveryError: They could not be written or committed; nothing of them counts.
        """
        self._check_rows(rows)
        target = offset + rows.num_rows
        committed = self.committed(app_id)
        if after is not None and committed != after:
            raise DeliveryError(
                f"archive table {str(self.path)!r}: expected {app_id!r} to stand at {after}, got {committed};"
                " hint: another process writes under the same name, stop it"
            )
        if committed >= target:
            return 0
        rows = rows.slice(max(committed - offset, 0))
        try:
            actions = list(self._write_files(rows, app_id, target - rows.num_rows, target))
            self._commit(actions, app_id, target)
        except OSError as error:
            raise DeliveryError(
                f"archive table {str(self.path)!r}: cannot be written: {error}", retryable=True
            ) from error
        return int(rows.num_rows)

    def append_through(self, rows: pa.Table, app_id: str, *, after: int, through: int) -> None:
        """Append the rows of a source's positions above `after` up to `through`, to stable storage.

        For a source that numbers something other than rows, and never commits a position twice.

        Args:
            rows: From `layout.to_rows`.
            app_id: The source.
            after: The position the table stands at.
            through: The position it stands at afterwards.

        Raises:
            ArchiveError: The rows do not fit the table, or it stands elsewhere.
            DeliveryError: They could not be written or committed; nothing of them counts.
        """
        self._check_rows(rows)
        try:
            if (committed := self.committed(app_id)) != after:
                raise ArchiveError(
                    f"archive table {str(self.path)!r}: expected {app_id!r} to stand at {after}, got {committed};"
                    " hint: another process writes under the same name, or the table was restored"
                )
            self._commit(list(self._write_files(rows, app_id, after + 1, through)), app_id, through)
        except OSError as error:
            raise DeliveryError(
                f"archive table {str(self.path)!r}: cannot be written: {error}", retryable=True
            ) from error

    def truncate(self, app_id: str, offset: int) -> int:
        """Take back what `app_id` appended beyond `offset`, for a source that starts again there in another order.

        Offsets are not used twice: the next append goes on where the table stands (`committed`).

        Returns:
            How many rows were taken back.

        Raises:
            ArchiveError: The table has less than `offset`: commits that were acknowledged are gone.
            DeliveryError: The change could not be committed.
        """
        from deltalake._internal import RemoveAction

        committed = self.committed(app_id)
        if committed < offset:
            raise ArchiveError(
                f"archive table {str(self.path)!r}: expected the rows of {app_id!r} up to {offset}, got up to"
                f" {committed}; hint: the table was restored or its log is damaged, restore the newest state of both"
            )
        if committed == offset:
            return 0
        removed = []
        rows = 0
        for add in self._adds():
            name = FileName.parse(add["path"])
            if name and name.writer == _file_stem(app_id) and name.last > offset:
                partition = {"date": str(add["partition.date"]) if add["partition.date"] else None}
                removed.append(RemoveAction(add["path"], True, int(time.time() * 1000), add["size_bytes"], partition))
                rows += add["num_records"]
        # One more than was used, also without files: whoever still writes as this source now conflicts.
        self._commit(removed, app_id, committed + 1)
        return rows

    def files(self) -> list[ArchiveFile]:
        """Return the live files at this table's version, in the order in which they were written."""
        return [file for commit in self.commits() for file in commit]

    def commits(self) -> list[tuple[ArchiveFile, ...]]:
        """Return the live files at this table's version by the commit that made them, in order."""
        found = []
        for add in self._adds():
            first, last = _time_range(add, EVENT_TIME_COLUMNS[self.signal])
            written = add["modification_time"]
            found.append(ArchiveFile(add["path"], add["num_records"], add["partition.date"], first, last, written))
        return in_arrival_order(found)

    def _adds(self) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = pa.table(self.delta.get_add_actions(flatten=True)).to_pylist()
        return rows

    def _check_rows(self, rows: pa.Table) -> None:
        """`create_write_transaction` itself accepts files of any schema."""
        expected = pa.schema(self.delta.schema())
        for field in rows.schema:
            dtype = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
            if field.name not in expected.names or not dtype.equals(expected.field(field.name).type):
                want = expected.field(field.name).type if field.name in expected.names else "no such column"
                raise ArchiveError(
                    f"archive table {str(self.path)!r}: column {field.name}: expected {want}, got {dtype}"
                )

    def _write_files(self, rows: pa.Table, app_id: str, first: int, last: int) -> Iterator[AddAction]:
        from deltalake.transaction import AddAction

        dates = pc.unique(rows["date"])
        for day in dates:
            mine, footer = rows, {}
            if len(dates) > 1:
                chosen = _same(rows["date"], day)
                mine = rows.filter(chosen)
                footer = {ROWS_KEY: row_numbers_text(np.flatnonzero(chosen.to_numpy()))}
            directory = self.path / f"date={_NO_DATE if day.as_py() is None else day}"
            if not directory.exists():
                directory.mkdir(exist_ok=True)
                fsync(self.path)
            path = directory / f"{_file_stem(app_id)}-{first:019d}-{last:019d}-{uuid.uuid4().hex[:8]}.parquet"
            self._write(path, mine.drop_columns(["date"]).unify_dictionaries(), footer)
            fsync(path, directory)
            yield AddAction(
                path=f"{directory.name}/{path.name}",
                size=path.stat().st_size,
                partition_values={"date": None if day.as_py() is None else str(day)},
                modification_time=int(path.stat().st_mtime * 1000),
                data_change=True,
                stats=_stats(mine, EVENT_TIME_COLUMNS[self.signal]),
            )

    def _write(self, path: Path, rows: pa.Table, footer: dict[bytes, bytes]) -> None:
        records = {f.name for f in RECORD_SCHEMAS[self.signal]}
        with pq.ParquetWriter(
            path,
            rows.schema,
            compression="zstd",
            compression_level=1,
            use_dictionary=_dictionary_columns(rows.schema),
            # Of the records' own columns only times are worth it: min and max of an identifier exclude nothing.
            write_statistics=[n for n in rows.column_names if n not in records or n in EVENT_TIME_COLUMNS[self.signal]],
            write_page_checksum=True,
            store_schema=False,
        ) as writer:
            writer.write_table(rows, row_group_size=_ROW_GROUP_ROWS)
            if footer:
                writer.add_key_value_metadata(footer)

    def _commit(self, actions: Sequence[AddAction | RemoveAction], app_id: str, version: int) -> None:
        from deltalake.exceptions import CommitFailedError
        from deltalake.transaction import CommitProperties, PostCommitHookProperties, Transaction

        before = self.delta.version()
        no_hooks = PostCommitHookProperties(create_checkpoint=False, cleanup_expired_logs=False)
        properties = CommitProperties(app_transactions=[Transaction(app_id, version)])
        for attempt in range(_ATTEMPTS):
            try:
                self.delta.create_write_transaction(
                    list(actions),
                    "append",
                    self.delta.schema(),
                    ["date"],
                    commit_properties=properties,
                    post_commithook_properties=no_hooks,
                )
            except CommitFailedError as error:
                # The failure may have come after the commit: ask the table.
                if self.committed(app_id) >= version:
                    break
                if attempt == _ATTEMPTS - 1:
                    raise DeliveryError(f"archive table {str(self.path)!r}: {error}", retryable=True) from error
                time.sleep(_BACKOFF_S * random.uniform(0.5, 1.5) * 2**attempt)  # noqa: S311  (jitter, not a secret)
            else:
                break
        if (now := self.committed(app_id)) != version:
            raise DeliveryError(
                f"archive table {str(self.path)!r}: expected {app_id!r} to stand at {version}, got {now};"
                " hint: another process writes under the same name, stop it"
            )
        fsync_commits(self.path, range(before + 1, self.delta.version() + 1))
        if any(v % _CHECKPOINT_EVERY == 0 for v in range(before + 1, self.delta.version() + 1)):
            self._checkpoint()

    def _checkpoint(self) -> None:
        self.delta.create_checkpoint()
        log = self.path / "_delta_log"
        fsync(*log.glob(f"{self.delta.version():020d}.checkpoint*"), log / "_last_checkpoint", log)


def _check_columns(
    path: Path, have: pa.Schema, want: pa.Schema, partitions: list[str], may_lack: Sequence[str] | set[str] = ()
) -> None:
    for field in want:
        got = have.field(field.name).type if field.name in have.names else None
        if got == field.type or (got is None and field.name in may_lack):
            continue
        hint = (
            "the column was promoted with another type before; give this one another name with `column`"
            if field.name in may_lack
            else "this is not a telflow archive, or one of another version; use another `path`"
        )
        raise ArchiveError(
            f"archive table {str(path)!r}: column {field.name}: expected {field.type}, got {got or 'none'};"
            f" hint: {hint}"
        )
    if partitions != ["date"]:
        raise ArchiveError(f"archive table {str(path)!r}: expected the partition column date, got {partitions}")


def _same(column: pa.ChunkedArray, value: pa.Scalar) -> pa.ChunkedArray:
    return pc.is_null(column) if value.as_py() is None else pc.fill_null(pc.equal(column, value), fill_value=False)


def _stats(rows: pa.Table, columns: Sequence[str]) -> str:
    """Delta's per-file statistics, of times only: the log outlives the files and must not name anybody."""
    low: dict[str, int] = {}
    high: dict[str, int] = {}
    for name in columns:
        found = pc.min_max(rows[name]).as_py()
        low[name], high[name] = found["min"], found["max"]
    return json.dumps(
        {"numRecords": rows.num_rows, "minValues": low, "maxValues": high, "nullCount": dict.fromkeys(columns, 0)}
    )


def _time_range(add: dict[str, Any], columns: Sequence[str]) -> tuple[int | None, int | None]:
    """Bounds of a file's event times, from its statistics."""
    low: list[int] = []
    high: list[int] = []
    for name in columns:
        first, last = add.get(f"min.{name}"), add.get(f"max.{name}")
        if first is None or last is None:
            return None, None
        low.append(first)
        high.append(last)
        if first > 0:  # all records have this time, so the next column, for those without, does not matter
            break
    return min(low), max(high)


def _dictionary_columns(schema: pa.Schema) -> list[str]:
    """Parquet paths worth a dictionary: names and other texts with few values; not attribute values, ids, times."""
    return [path for field in schema for path, dtype in _leaves(field.name, field.type) if _few_values(path, dtype)]


def _few_values(path: str, dtype: pa.DataType) -> bool:
    return pa.types.is_dictionary(dtype) or (pa.types.is_string(dtype) and not path.endswith(".str"))


def _leaves(path: str, dtype: pa.DataType) -> Iterator[tuple[str, pa.DataType]]:
    if pa.types.is_list(dtype):
        yield from _leaves(f"{path}.list.element", dtype.value_type)
    elif pa.types.is_struct(dtype):
        for field in dtype:
            yield from _leaves(f"{path}.{field.name}", field.type)
    else:
        yield path, dtype


def _file_stem(app_id: str) -> str:
    """The source's name as part of a file name: of fixed length, in the letters any file system has."""
    return hashlib.sha256(app_id.encode()).hexdigest()[:32]
