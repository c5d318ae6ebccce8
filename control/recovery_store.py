"""The folder with a flow's state: made, and checked before the engine opens it.

Bytewax keeps state in SQLite files, `part-0.sqlite3` and so on, which the workers share out; they must all be there.
telflow puts a note beside them that says whose state it is and how it is written.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from control.exit_codes import UnavailableError

__all__ = ["FORMAT", "NOTE", "locked", "part_files", "prepare_store", "wait_until_unused", "worker_lock"]

FORMAT = 1
"""How this release writes state; it reads this and nothing else."""

NOTE = "telflow.json"
_LOCK = "telflow.lock"
_WORKERS = "workers.lock"
_WAIT_S = 0.05


def prepare_store(folder: Path, flow_id: str, *, index: int = 0, count: int = 1) -> None:
    """Make the folder of a flow's state, or make sure that it can be resumed from.

    Args:
        folder: Where it is.
        flow_id: Whose state it holds.
        index: Number of this host, which keeps one of the files.
        count: How many hosts there are.

    Raises:
        UnavailableError: It cannot be written, or holds something else.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        _check_note(folder, flow_id)
        path = folder / f"part-{index}.sqlite3"
        if not path.exists() and (count > 1 or not part_files(folder)):
            _make_part(folder, index, count)
        _check_parts(folder, count)
    except OSError as error:
        raise UnavailableError(
            f"recovery_dir: expected a directory that can be written, got {folder}: {error.strerror}"
        ) from error


def part_files(folder: Path) -> list[Path]:
    """Return the engine's files in a folder."""
    return sorted(folder.glob("part-*.sqlite3"))


@contextlib.contextmanager
def locked(folder: Path, what: str) -> Iterator[None]:
    """Hold a folder for one supervisor; the kernel lets go of it when the process ends, however it does.

    Raises:
        UnavailableError: Another one has it.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (folder / _LOCK).open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise UnavailableError(
                f"recovery_dir: {folder} is in use by process {lock.read().strip() or '?'}, which runs {what} already\n"
                "  hint: `telflow status` shows it; another flow needs a folder of its own"
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


@contextlib.contextmanager
def worker_lock(folder: Path) -> Iterator[None]:
    """Let `wait_until_unused` see that a worker of this folder lives."""
    with (folder / _WORKERS).open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        yield


def wait_until_unused(folder: Path, timeout_s: float = 10.0) -> None:
    """Wait until no worker of an earlier supervisor has the folder's files open.

    Raises:
        UnavailableError: One still has after the time.
    """
    deadline_s = time.monotonic() + timeout_s
    with (folder / _WORKERS).open("a") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > deadline_s:
                    raise UnavailableError(f"{folder}: workers of an earlier run still use it") from None
                time.sleep(_WAIT_S)
            else:
                return


def _check_note(folder: Path, flow_id: str) -> None:
    path = folder / NOTE
    expected = {"format": FORMAT, "flow_id": flow_id}
    if not path.exists():
        _write(path, json.dumps(expected) + "\n")
        return
    try:
        note = json.loads(path.read_text("utf-8"))
        found, owner = int(note["format"]), str(note["flow_id"])
    except (ValueError, KeyError, TypeError) as error:
        raise UnavailableError(f"{path}: expected telflow's note about the state in this folder: {error}") from error
    if found != FORMAT:
        raise UnavailableError(
            f"recovery_dir: expected state of format {FORMAT}, got {found} in {folder}\n"
            "  hint: run it with the release that wrote it, or begin anew in another folder"
        )
    if owner != flow_id:
        raise UnavailableError(
            f"recovery_dir: expected the state of the flow {flow_id}, got that of {owner} in {folder}\n"
            "  hint: give each flow a folder of its own"
        )


def _make_part(folder: Path, index: int, count: int) -> None:
    from bytewax.recovery import init_db_dir

    with tempfile.TemporaryDirectory(dir=folder, prefix=".new-") as new:
        init_db_dir(Path(new), count)
        Path(new, f"part-{index}.sqlite3").rename(folder / f"part-{index}.sqlite3")


def _check_parts(folder: Path, count: int) -> None:
    parts = part_files(folder)
    for path in parts:
        try:
            with contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
                found = connection.execute("SELECT part_count FROM parts").fetchone()
        except sqlite3.Error as error:
            raise UnavailableError(
                f"recovery_dir: {path} cannot be read: {error}\n  hint: bring back a backup, or begin anew elsewhere"
            ) from error
        of = int(found[0]) if found else 0
        if count > 1 and of != count:
            raise UnavailableError(
                f"recovery_dir: expected the state of {count} hosts, got that of {of} in {folder}\n"
                "  hint: keep the hosts of the cluster file as they were, or begin anew in another folder"
            )
        if count == 1 and of != len(parts):
            raise UnavailableError(
                f"recovery_dir: expected {of} files part-*.sqlite3, got {len(parts)} in {folder}\n"
                "  hint: the state is spread over several hosts; bring the other files here"
            )


def _write(path: Path, text: str) -> None:
    new = path.with_suffix(".new")
    new.write_text(text, "utf-8")
    new.replace(path)
