"""The order in which records reached an archive, which a replay keeps so that windows come out as they did live.

What is late, and which window a row opens, depends on the rows before it. Files are named after their writer and its
numbering (`connectors.archive.table`), which gives the order of one writer's commits. A commit over several days has a
file for each; such a file says in its footer which rows of the commit it holds, so that they can be put together again.
"""

from __future__ import annotations

import base64
import re
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import PurePosixPath

import numpy as np
import numpy.typing as npt

__all__ = ["ROWS_KEY", "ArchiveFile", "FileName", "in_arrival_order", "row_numbers", "row_numbers_text"]

ROWS_KEY = b"telflow.rows"
"""Key of a file's footer: which rows of its commit it holds (`row_numbers_text`)."""

_FILE = re.compile(r"(?P<writer>[0-9a-f]{32})-(?P<first>\d{19})-(?P<last>\d{19})-[0-9a-f]{8}\.parquet")


@dataclass(frozen=True, slots=True)
class FileName:
    """What the name of a file that telflow wrote says.

    Attributes:
        writer: Who wrote it.
        first: The writer's number of the commit's first row, or of what else it numbers.
        last: And of the last.
    """

    writer: str
    first: int
    last: int

    @classmethod
    def parse(cls, path: str) -> FileName | None:
        """Read a path; None when another program named it (compaction by delta-rs does)."""
        found = _FILE.fullmatch(PurePosixPath(path).name)
        return found and cls(found["writer"], int(found["first"]), int(found["last"]))


@dataclass(frozen=True, slots=True)
class ArchiveFile:
    """One live Parquet file of a table.

    Attributes:
        path: Relative to the table, the same as long as the file lives.
        rows: How many records it holds.
        date: Its partition; None for records without a plausible event time.
        first_unix_nano: No record is earlier, as stored (unsigned times beyond int64 are negative); None when unknown.
        last_unix_nano: No record is later, likewise.
        written_unix_ms: When it was written.
    """

    path: str
    rows: int
    date: date | None
    first_unix_nano: int | None
    last_unix_nano: int | None
    written_unix_ms: int = 0


def in_arrival_order(files: Iterable[ArchiveFile]) -> list[tuple[ArchiveFile, ...]]:
    """Return the files of each commit, commits in the order in which they were made.

    The order of one writer's commits is exact, and a tenant has one writer at a time; those of several writers are
    merged by the time at which they were written. Files that telflow did not name come first, by day and event time:
    they are what a compaction made of days that are over, and tell nothing about the order within.
    """
    foreign: list[ArchiveFile] = []
    commits: dict[FileName, list[ArchiveFile]] = {}
    for file in files:
        name = FileName.parse(file.path)
        if name is None:
            foreign.append(file)
        else:
            commits.setdefault(name, []).append(file)
    foreign.sort(key=lambda f: (f.date or date.min, f.first_unix_nano or 0, f.path))
    ordered: list[tuple[int, str, int, tuple[ArchiveFile, ...]]] = []
    written: dict[str, int] = {}  # by writer; the system clock may have been set back
    for name in sorted(commits, key=lambda n: (n.first, n.last)):
        commit = tuple(sorted(commits[name], key=lambda f: (f.date or date.min, f.path)))
        written[name.writer] = max(written.get(name.writer, 0), *(f.written_unix_ms for f in commit))
        ordered.append((written[name.writer], name.writer, name.first, commit))
    return [*((f,) for f in foreign), *(commit for *_, commit in sorted(ordered, key=lambda entry: entry[:3]))]


def row_numbers_text(numbers: npt.NDArray[np.int64]) -> bytes:
    """Write ascending row numbers as short text.

    >>> row_numbers({ROWS_KEY: row_numbers_text(np.array([0, 1, 5]))}, rows=3)
    array([0, 1, 5])
    """
    steps = np.diff(numbers, prepend=0).astype("<u4").tobytes()
    return base64.b64encode(zlib.compress(steps))


def row_numbers(footer: Mapping[bytes, bytes] | None, rows: int) -> npt.NDArray[np.int64] | None:
    """Return which rows of its commit a file holds; None when its footer does not say (a file of an older release).

    Args:
        footer: The file's key-value metadata.
        rows: How many rows it has; a footer that speaks of another number is not believed.
    """
    text = (footer or {}).get(ROWS_KEY)
    if text is None:
        return None
    try:
        steps = np.frombuffer(zlib.decompress(base64.b64decode(text)), "<u4")
    except (ValueError, zlib.error):
        return None
    return np.cumsum(steps, dtype=np.int64) if len(steps) == rows else None
