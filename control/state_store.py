"""What the folder of a flow's state holds: read from the engine's files, without running anything in them."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import pickle
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from control.exit_codes import UnavailableError
from control.recovery_store import NOTE, part_files

__all__ = ["KeptKey", "KeptStep", "Store", "keys_of", "step_ids", "store_of"]

_PLAIN = {("builtins", name) for name in ("set", "frozenset", "bytearray", "complex", "slice", "range")} | {
    ("datetime", "datetime"),
    ("datetime", "timedelta"),
    ("datetime", "timezone"),
    ("datetime", "date"),
    ("collections", "deque"),
    ("collections", "OrderedDict"),
    ("collections", "defaultdict"),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy.core.multiarray", "scalar"),
    ("numpy._core.multiarray", "scalar"),
    ("numpy._core.numeric", "_frombuffer"),
    ("numpy.core.numeric", "_frombuffer"),
    ("_codecs", "encode"),
}
"""What telflow's own states are made of. Nothing else is called: a pickle may name any function of Python."""


@dataclass(frozen=True, slots=True)
class KeptKey:
    """The last state of a step's key.

    Attributes:
        key: The key; for a source or a sink, the partition's name.
        epoch: In which epoch it was written.
        num_bytes: Its size.
        version: The version it says it has; None when it says none.
        shown: Its content, shortened.
    """

    key: str
    epoch: int
    num_bytes: int
    version: int | None
    shown: str


@dataclass(frozen=True, slots=True)
class KeptStep:
    """The state of a step.

    Attributes:
        step_id: The step.
        keys: How many keys have state.
        num_bytes: What their last states take.
        newest_epoch: In which epoch one was written last.
        versions: The versions they say they have.
    """

    step_id: str
    keys: int
    num_bytes: int
    newest_epoch: int
    versions: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Store:
    """What a folder holds.

    Attributes:
        folder: The folder.
        flow_id: Whose state it is; empty when nothing says so.
        format: How it is written; None when nothing says so.
        files: How many files there are.
        runs: How often the flow has been started.
        workers: How many workers the last run had.
        resume_epoch: The epoch that the next run begins with; None before the first.
        num_bytes: What the files take.
        steps: The steps with state.
    """

    folder: str
    flow_id: str
    format: int | None
    files: int
    runs: int
    workers: int
    resume_epoch: int | None
    num_bytes: int
    steps: tuple[KeptStep, ...]


def step_ids(folder: Path) -> set[str]:
    """Return the steps that have state in a folder.

    Raises:
        UnavailableError: It cannot be read.
    """
    return {step for step, _, _, _ in _last(folder)}


def store_of(folder: Path) -> Store:
    """Return what a folder holds.

    Raises:
        UnavailableError: It cannot be read.
    """
    found: dict[str, list[KeptKey]] = {}
    for step, key, epoch, data in _last(folder):
        found.setdefault(step, []).append(_kept(key, epoch, data))
    steps = tuple(
        KeptStep(
            step,
            len(keys),
            sum(key.num_bytes for key in keys),
            max(key.epoch for key in keys),
            tuple(sorted({key.version for key in keys if key.version is not None})),
        )
        for step, keys in sorted(found.items())
    )
    note: dict[str, Any] = {}
    with contextlib.suppress(OSError, ValueError):
        note = json.loads((folder / NOTE).read_text("utf-8"))
    query = "SELECT ex_num, worker_count, resume_epoch FROM exs"
    runs = [row for path in part_files(folder) for row in _rows(path, query)]
    number, workers, epoch = max(runs, default=(-1, 0, None))
    query = f"SELECT worker_index, worker_frontier FROM fronts WHERE ex_num = {int(number)}"  # noqa: S608 - a number
    reached = dict.fromkeys(range(workers), epoch)
    for path in part_files(folder):
        for worker, frontier in _rows(path, query):
            reached[worker] = max(frontier, reached.get(worker) or 0)
    size = sum(path.stat().st_size for path in folder.glob("part-*.sqlite3*"))
    return Store(
        str(folder),
        str(note.get("flow_id", "")),
        note.get("format"),
        len(part_files(folder)),
        number + 1,
        workers,
        min((e for e in reached.values() if e is not None), default=None),
        size,
        steps,
    )


def keys_of(folder: Path, step_id: str) -> list[KeptKey]:
    """Return the states of a step's keys.

    Raises:
        UnavailableError: The folder cannot be read.
    """
    return sorted((_kept(key, epoch, data) for step, key, epoch, data in _last(folder) if step == step_id), key=_by_key)


def _by_key(kept: KeptKey) -> str:
    return kept.key


def _last(folder: Path) -> list[tuple[str, str, int, bytes]]:
    """Return the last state of every step and key that has not been discarded."""
    if not part_files(folder):
        raise UnavailableError(f"{folder}: expected a folder with a flow's state (part-*.sqlite3), got none")
    newest: dict[tuple[str, str], tuple[int, bytes | None]] = {}
    for path in part_files(folder):
        for step, key, epoch, data in _rows(path, "SELECT step_id, state_key, snap_epoch, ser_change FROM snaps"):
            if (step, key) not in newest or newest[step, key][0] < epoch:
                newest[step, key] = (epoch, data)
    return [(step, key, epoch, data) for (step, key), (epoch, data) in newest.items() if data is not None]


def _rows(path: Path, query: str) -> list[tuple[Any, ...]]:
    try:
        with contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            connection.execute("PRAGMA busy_timeout=5000")
            return connection.execute(query).fetchall()
    except sqlite3.Error as error:
        raise UnavailableError(f"{path}: expected a file of the engine's, it cannot be read: {error}") from error


def _kept(key: str, epoch: int, data: bytes) -> KeptKey:
    try:
        state = _Reader(io.BytesIO(data)).load()
    except Exception as error:  # noqa: BLE001 - a pickle can raise anything
        return KeptKey(key, epoch, len(data), None, f"not readable: {error}")
    version = state.get("version") if isinstance(state, Mapping) else None
    text = repr(state)
    shown = text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"
    return KeptKey(key, epoch, len(data), version if isinstance(version, int) else None, shown)


_SHOWN = 160


class _Reader(pickle.Unpickler):
    """Reads plain data only."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _PLAIN:
            raise pickle.UnpicklingError(f"it holds a {module}.{name}, which is no plain data")
        return getattr(importlib.import_module(module), name)
