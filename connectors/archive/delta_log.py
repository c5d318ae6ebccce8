"""The part of a Delta table's log that delta-rs leaves to its user: durability, and damage found before it spreads.

delta-rs writes commits without fsync, so a power cut may leave the newest ones empty or cut short. Readers accept an
empty last commit without a word, and an unreadable one makes the whole table unreadable.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable
from pathlib import Path

from telflow.errors import ConfigError, TelflowError

__all__ = ["ArchiveError", "check_log", "fsync", "fsync_commits", "make_writable"]

LOG = "_delta_log"
_COMMIT = re.compile(r"(\d{20})\.json")
_MAGIC = b"PAR1"


class ArchiveError(TelflowError):
    """An archive cannot be used as it is: missing, damaged, or not written by telflow; the message says which file."""


def fsync(*paths: Path) -> None:
    """Force files or directories to stable storage."""
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def fsync_commits(table: Path, versions: Iterable[int]) -> None:
    """Force these commits of a table to stable storage, then the directory that names them."""
    log = table / LOG
    fsync(*(log / f"{version:020d}.json" for version in versions), log)


def make_writable(path: Path) -> None:
    """Create the directory `path` unless it exists, and prove that files can be made in it.

    Raises:
        ConfigError: It cannot be created or written.
    """
    probe = path / f".telflow-write-probe-{os.getpid()}"
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise ConfigError(
            f"archive path {str(path)!r}: expected a directory telflow may write to, got: {error.strerror};"
            f" hint: create it for the user telflow runs as (uid {os.geteuid()}), or change `path`"
        ) from error


def check_log(table: Path) -> None:
    """Look for what a power cut leaves behind at the end of a table's log.

    Raises:
        ArchiveError: A commit is empty or cut short, or the checkpoint readers start from is; with the way out.
    """
    log = table / LOG
    if not log.is_dir():
        return
    commits = sorted(entry.path for entry in os.scandir(log) if _COMMIT.fullmatch(entry.name))
    for number, name in enumerate(commits):
        path = Path(name)
        last = number == len(commits) - 1
        if not path.stat().st_size:
            raise _damaged(path, "an empty file", "move it away" if last else "restore it from a backup")
        if last and not _is_commit(path):
            raise _damaged(path, "a commit cut short", "move it away")
    pointer = log / "_last_checkpoint"
    if pointer.exists() and (damaged := _damaged_checkpoint(log, pointer)):
        raise _damaged(damaged, "a checkpoint cut short", f"move it and {pointer.name} away: the commits are complete")


def _damaged(path: Path, got: str, repair: str) -> ArchiveError:
    return ArchiveError(
        f"archive log {str(path)!r}: expected a whole Delta log file, got {got} (a power cut or a full disk);"
        f" hint: {repair}, then start again. A commit that telflow acknowledged was on disk before, so nothing that"
        " was acknowledged is in a damaged last commit"
    )


def _is_commit(path: Path) -> bool:
    try:
        return all(isinstance(json.loads(line), dict) for line in path.read_bytes().splitlines())
    except ValueError:
        return False


def _damaged_checkpoint(log: Path, pointer: Path) -> Path | None:
    try:
        version = json.loads(pointer.read_bytes())["version"]
    except (ValueError, KeyError, TypeError):
        return pointer
    found = list(log.glob(f"{version:020d}.checkpoint*.parquet"))
    for checkpoint in found:
        content = checkpoint.read_bytes()
        if content[:4] != _MAGIC or content[-4:] != _MAGIC:
            return checkpoint
    return None if found else pointer
