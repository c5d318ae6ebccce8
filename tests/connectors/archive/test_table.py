"""Appends to a table count once, whole, and only when durable."""

from __future__ import annotations

import json
import multiprocessing
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake
from deltalake.exceptions import CommitFailedError

from connectors.archive.delta_log import ArchiveError
from connectors.archive.promote import PromotedAttribute
from connectors.archive.table import ArchiveTable
from telflow import Signal
from telflow.errors import DeliveryError
from tests.numbered_logs import NOON, archived, rows

_DAY = 86_400_000_000_000


def _open(archive: Path, promote: tuple[PromotedAttribute, ...] = ()) -> ArchiveTable:
    return ArchiveTable.open_or_create(archive, Signal.LOGS, promote)


def test_rows_are_appended_once(tmp_path: Path) -> None:
    """A source that repeats itself, whole or in part, through the same object or another, changes nothing."""
    table = _open(tmp_path)
    assert table.append(rows(range(10)), "a", 0) == 10
    assert table.append(rows(range(10)), "a", 0) == 0
    assert _open(tmp_path).append(rows(range(5, 15)), "a", 5) == 5
    assert table.append(rows(range(12, 20)), "a", 12) == 5
    assert table.committed("a") == 20
    assert archived(tmp_path) == dict.fromkeys(range(20), 1)


def test_sources_do_not_meet(tmp_path: Path) -> None:
    """Each has its own offsets, whatever letters its name has."""
    table = _open(tmp_path)
    for number, name in enumerate(["a", "b/0", "../../c", "ü" * 300]):
        assert table.append(rows([number]), name, 0) == 1
    assert archived(tmp_path) == dict.fromkeys(range(4), 1)
    assert table.committed("d") == 0


def test_second_writer_of_a_name_is_noticed(tmp_path: Path) -> None:
    """`after` says where the caller believes the table to stand."""
    ours, theirs = _open(tmp_path), _open(tmp_path)
    ours.append(rows([0]), "a", 0, after=0)
    theirs.append(rows([1]), "a", 1, after=1)
    with pytest.raises(DeliveryError, match="expected 'a' to stand at 1, got 2; hint: another process"):
        ours.append(rows([1]), "a", 1, after=1)
    assert archived(tmp_path) == {0: 1, 1: 1}


def test_truncate_takes_back_what_lies_beyond(tmp_path: Path) -> None:
    """Of one source only; its offsets go on, and readers of an older version keep what they see."""
    table = _open(tmp_path)
    for number in range(4):
        table.append(rows([number], step=_DAY), "a", number)
        table.append(rows([10 + number]), "b", number)
    before = ArchiveTable.open(tmp_path, Signal.LOGS)
    assert table.truncate("a", 2) == 2
    assert archived(tmp_path) == dict.fromkeys([0, 1, 10, 11, 12, 13], 1)
    assert table.truncate("a", 2) == 0
    offset = table.committed("a")
    assert offset > 4
    table.append(rows([7]), "a", offset, after=offset)
    assert table.truncate("a", 4) == 1
    assert archived(tmp_path) == dict.fromkeys([0, 1, 10, 11, 12, 13], 1)
    assert before.delta.to_pyarrow_dataset().count_rows() == 8


def test_lost_commits_are_noticed(tmp_path: Path) -> None:
    """A table behind what was acknowledged to a source is not written on as if nothing were."""
    table = _open(tmp_path)
    table.append(rows([0]), "a", 0)
    with pytest.raises(ArchiveError, match="expected the rows of 'a' up to 5, got up to 1"):
        table.truncate("a", 5)


def test_files_by_day(tmp_path: Path) -> None:
    """A file per day and append, listed with its days and times, also for records without a time."""
    table = _open(tmp_path)
    table.append(pa.concat_tables([rows([1, 2], step=_DAY), rows([0, 1]), rows([0], start=0)]), "a", 0)
    files = table.files()
    assert [(f.date and f.date.isoformat(), f.rows) for f in files] == [
        (None, 1),
        ("2025-06-15", 2),
        ("2025-06-16", 1),
        ("2025-06-17", 1),
    ]
    assert (files[1].first_unix_nano, files[1].last_unix_nano) == (NOON, NOON + 1)
    assert all((tmp_path / "logs" / f.path).exists() for f in files)


def test_log_names_nobody(tmp_path: Path) -> None:
    """The log outlives files: beside times it holds no value of any record, not even a tenant's or a service's name."""
    table = _open(tmp_path, (PromotedAttribute(attribute="user.id"),))
    table.append(rows([1], tenant="canary-tenant", service="canary-service"), "a", 0)
    log = b"".join(path.read_bytes() for path in (tmp_path / "logs" / "_delta_log").iterdir())
    assert b"canary" not in log
    commit = tmp_path / "logs" / "_delta_log" / f"{1:020d}.json"
    actions = map(json.loads, commit.read_text().splitlines())
    (add,) = (action["add"] for action in actions if "add" in action)
    stats = json.loads(add["stats"])
    assert set(stats["minValues"]) == {"time_unix_nano", "observed_time_unix_nano"}


def test_promoted_columns_can_be_added_later(tmp_path: Path) -> None:
    """Older rows read null there, in polars and in DuckDB; leaving them out again is fine too."""
    _open(tmp_path).append(rows([1]), "a", 0)
    promote = (PromotedAttribute(attribute="user.id"), PromotedAttribute(attribute="n", type="int"))
    table = _open(tmp_path, promote)
    with_promoted = rows([2]).append_column("user_id", pa.array(["u"])).append_column("n", pa.array([5]))
    table.append(with_promoted, "a", 1)
    _open(tmp_path).append(rows([3]), "a", 2)
    want = [(1, None, None), (2, "u", 5), (3, None, None)]
    table = ArchiveTable.open(tmp_path, Signal.LOGS)
    found = pl.scan_delta(table.delta).select("flags", "user_id", "n").sort("flags").collect()
    assert found.rows() == want
    logs = table.delta.to_pyarrow_dataset()
    assert logs is not None
    assert duckdb.execute("SELECT flags, user_id, n FROM logs ORDER BY flags").fetchall() == want


def test_promoted_column_keeps_its_type(tmp_path: Path) -> None:
    """The same column as another type is refused before a file is written."""
    _open(tmp_path, (PromotedAttribute(attribute="n", type="int"),))
    with pytest.raises(ArchiveError, match=r"column n: expected string, got int64; hint: .*another name"):
        _open(tmp_path, (PromotedAttribute(attribute="n"),))


def test_foreign_tables_are_refused(tmp_path: Path) -> None:
    """A Delta table of somebody else's, or an archive partitioned in another way, is not read and not written."""
    write_deltalake(str(tmp_path / "logs"), pa.table({"time_unix_nano": ["text"]}))
    complaint = "column time_unix_nano: expected int64, got string"
    with pytest.raises(ArchiveError, match=complaint):
        ArchiveTable.open(tmp_path, Signal.LOGS)
    with pytest.raises(ArchiveError, match=complaint):
        _open(tmp_path)
    write_deltalake(str(tmp_path / "copy" / "logs"), rows([1]).slice(0, 0).cast(_plain(rows([1]).schema)))
    with pytest.raises(ArchiveError, match=r"expected the partition column date, got \[\]"):
        ArchiveTable.open(tmp_path / "copy", Signal.LOGS)


def _plain(schema: pa.Schema) -> pa.Schema:
    types = [f.type.value_type if pa.types.is_dictionary(f.type) else f.type for f in schema]
    return pa.schema([pa.field(name, dtype) for name, dtype in zip(schema.names, types, strict=True)])


def test_missing_table_says_what_there_is(tmp_path: Path) -> None:
    """The path one directory too deep is the usual slip."""
    with pytest.raises(ArchiveError, match="expected a table traces, got no table; hint: `path` is the directory"):
        ArchiveTable.open(tmp_path / "nowhere", Signal.TRACES)
    _open(tmp_path)
    with pytest.raises(ArchiveError, match="expected a table traces, got logs"):
        ArchiveTable.open(tmp_path, Signal.TRACES)


def test_unreadable_table(tmp_path: Path) -> None:
    """A log delta-rs cannot make sense of is reported with the table's path."""
    _open(tmp_path)
    (tmp_path / "logs" / "_delta_log" / f"{0:020d}.json").write_text('{"commitInfo":{}}\n')
    with pytest.raises(ArchiveError, match="cannot be read"):
        ArchiveTable.open(tmp_path, Signal.LOGS)


@pytest.mark.parametrize(
    ("name", "values", "complaint"),
    [("flags", ["x"], "column flags: expected int64, got string"), ("extra", [1], "column extra: expected no such")],
)
def test_rows_of_another_schema_are_refused(tmp_path: Path, name: str, values: list[Any], complaint: str) -> None:
    """delta-rs would commit them; nothing is written."""
    table = _open(tmp_path)
    bad = rows([1])
    at = bad.schema.get_field_index(name)
    bad = bad.append_column(name, pa.array(values)) if at < 0 else bad.set_column(at, name, pa.array(values))
    with pytest.raises(ArchiveError, match=complaint):
        table.append(bad, "a", 0)
    assert not list(tmp_path.rglob("*.parquet"))


def test_files_are_small_and_checked(tmp_path: Path) -> None:
    """zstd, page checksums, no statistics of texts or identifiers, row groups a replay can hold."""
    table = _open(tmp_path)
    table.append(pa.concat_tables([rows(range(100))] * 400), "a", 0)
    (file,) = (tmp_path / "logs").rglob("*.parquet")
    metadata = pq.ParquetFile(file).metadata
    assert metadata.num_row_groups == 2
    columns = {c.path_in_schema: c for c in map(metadata.row_group(0).column, range(metadata.num_columns))}
    assert {c.compression for c in columns.values()} == {"ZSTD"}
    assert columns["time_unix_nano"].is_stats_set
    assert columns["service_name"].is_stats_set
    assert not columns["trace_id"].is_stats_set
    assert not columns["body.str"].is_stats_set
    assert "RLE_DICTIONARY" in columns["resource"].encodings
    assert "RLE_DICTIONARY" not in columns["body.str"].encodings


def test_checkpoints_are_made(tmp_path: Path) -> None:
    """Every fiftieth commit, so that opening a table stays quick."""
    table = _open(tmp_path)
    one = rows([1])
    for number in range(50):
        table.append(one, "a", number)
    pointer = json.loads((tmp_path / "logs" / "_delta_log" / "_last_checkpoint").read_text())
    assert pointer["version"] == 50
    assert _open(tmp_path).committed("a") == 50


def _append_many(archive: Path, name: str) -> None:
    table = _open(archive)
    for number in range(8):
        table.append(rows([number]), name, number, after=number)


def test_writers_in_several_processes(tmp_path: Path) -> None:
    """They create the table at once and commit at once; every row is there once."""
    spawn = multiprocessing.get_context("spawn")
    writers = [spawn.Process(target=_append_many, args=(tmp_path, name)) for name in "ab"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0, 0]
    assert archived(tmp_path) == dict.fromkeys(range(8), 2)


class _Unlucky:
    """A table whose commits fail a number of times, before or after they took place."""

    def __init__(self, delta: DeltaTable, failures: int, *, after: bool) -> None:
        self._delta = delta
        self._failures = failures
        self._after = after

    def __getattr__(self, name: str) -> Any:
        return getattr(self._delta, name)

    def create_write_transaction(self, *args: Any, **options: Any) -> None:
        if self._failures and not self._after:
            self._failures -= 1
            raise CommitFailedError("unlucky")
        self._delta.create_write_transaction(*args, **options)
        if self._failures:
            self._failures -= 1
            raise CommitFailedError("unlucky")


@pytest.mark.parametrize("after", [True, False])
def test_failed_commits_are_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: bool) -> None:
    """Also one that failed after it had taken place counts once."""
    monkeypatch.setattr("connectors.archive.table._BACKOFF_S", 0)
    table = _open(tmp_path)
    monkeypatch.setattr(table, "delta", _Unlucky(table.delta, 3, after=after))
    table.append(rows([1]), "a", 0)
    assert archived(tmp_path) == {1: 1}


def test_commit_that_keeps_failing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Becomes a retryable error, and nothing of the append counts."""
    monkeypatch.setattr("connectors.archive.table._BACKOFF_S", 0)
    table = _open(tmp_path)
    monkeypatch.setattr(table, "delta", _Unlucky(table.delta, 100, after=False))
    with pytest.raises(DeliveryError, match="unlucky") as caught:
        table.append(rows([1]), "a", 0)
    assert caught.value.retryable
    assert not archived(tmp_path)


def test_unwritable_partition(tmp_path: Path) -> None:
    """A file where the day's directory should be: a retryable error that names the table."""
    table = _open(tmp_path)
    (tmp_path / "logs" / "date=2025-06-15").touch()
    with pytest.raises(DeliveryError, match=r"logs'.*cannot be written") as caught:
        table.append(rows([1]), "a", 0)
    assert caught.value.retryable
