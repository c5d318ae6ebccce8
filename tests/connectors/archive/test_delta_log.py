"""Damage a power cut leaves in a table's log is found at start, with the file's name and the way out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from connectors.archive.delta_log import ArchiveError, check_log, fsync, make_writable
from connectors.archive.table import ArchiveTable
from telflow import Signal
from telflow.errors import ConfigError
from tests.numbered_logs import archived, rows


def _table(archive: Path) -> Path:
    table = ArchiveTable.open_or_create(archive, Signal.LOGS, ())
    for number in range(3):
        table.append(rows([number]), "source", number)
    return archive / "logs"


def _commit(table: Path, version: int) -> Path:
    return table / "_delta_log" / f"{version:020d}.json"


def test_whole_log_is_accepted(tmp_path: Path) -> None:
    """No log, and one in order."""
    check_log(tmp_path)
    check_log(_table(tmp_path))


@pytest.mark.parametrize("left", [0, 1, 40, -2])
def test_truncated_last_commit(tmp_path: Path, left: int) -> None:
    """Empty or cut short anywhere: refused with the file's name; moved away as the hint says, the rest is there."""
    commit = _commit(_table(tmp_path), 3)
    commit.write_bytes(commit.read_bytes()[:left])
    with pytest.raises(ArchiveError, match=f"{commit.name}.*hint: move it away"):
        ArchiveTable.open(tmp_path, Signal.LOGS)
    commit.unlink()
    assert sorted(archived(tmp_path)) == [0, 1]


def test_empty_commit_in_the_middle(tmp_path: Path) -> None:
    """One that had acknowledged rows is not to be moved away."""
    _commit(table := _table(tmp_path), 2).write_bytes(b"")
    with pytest.raises(ArchiveError, match="restore it from a backup"):
        check_log(table)


def test_truncated_checkpoint(tmp_path: Path) -> None:
    """Cut short, missing, or an unreadable pointer to it: said which; the commits are enough without it."""
    table = _table(tmp_path)
    ArchiveTable.open(tmp_path, Signal.LOGS).delta.create_checkpoint()
    check_log(table)
    (checkpoint,) = (table / "_delta_log").glob("*.checkpoint.parquet")
    pointer = table / "_delta_log" / "_last_checkpoint"
    checkpoint.write_bytes(checkpoint.read_bytes()[:-1])
    with pytest.raises(ArchiveError, match=checkpoint.name):
        check_log(table)
    checkpoint.unlink()
    with pytest.raises(ArchiveError, match=pointer.name):
        check_log(table)
    for broken in ("", "[]", json.dumps({"size": 1})):
        pointer.write_text(broken)
        with pytest.raises(ArchiveError, match=pointer.name):
            check_log(table)
    pointer.unlink()
    check_log(table)
    assert sorted(archived(tmp_path)) == [0, 1, 2]


def test_unwritable_directory(tmp_path: Path) -> None:
    """The message names the path, what was expected, what the system said, and what to do."""
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "archive", Path("/proc/archive")):
        with pytest.raises(ConfigError, match=rf"'{path}': expected .*, got: .+; hint: .+"):
            make_writable(path)


def test_probe_leaves_nothing(tmp_path: Path) -> None:
    """A writable directory is made, with its parents, and stays empty."""
    make_writable(tmp_path / "a" / "b")
    assert list((tmp_path / "a" / "b").iterdir()) == []
    fsync(tmp_path / "a" / "b")
