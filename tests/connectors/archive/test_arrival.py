"""The order in which files were written is found again from their names and times."""

from __future__ import annotations

import random
from datetime import date

import numpy as np
import pytest

from connectors.archive.arrival import (
    ROWS_KEY,
    ArchiveFile,
    FileName,
    in_arrival_order,
    row_numbers,
    row_numbers_text,
)


def _file(writer: str, first: int, written: int, day: int = 1) -> ArchiveFile:
    name = f"{writer * 32}-{first:019d}-{first + 9:019d}-{day:08x}.parquet"
    return ArchiveFile(f"date=2025-06-{day:02d}/{name}", 10, date(2025, 6, day), day, day, written)


def test_commits_in_the_order_of_each_writer() -> None:
    """By number within a writer, also when its clock was set back; between writers by time; a commit is one unit."""
    a = [_file("a", 0, 100), _file("a", 10, 300, day=2), _file("a", 10, 301, day=1), _file("a", 20, 50)]
    b = [_file("b", 0, 200), _file("b", 10, 400)]
    shuffled = random.Random(1).sample(a + b, 6)
    units = in_arrival_order(shuffled)
    assert units == [(a[0],), (b[0],), (a[2], a[1]), (a[3],), (b[1],)]


def test_files_of_others_come_first() -> None:
    """Compaction names files its own way and dates them today, though their rows are the oldest."""
    compacted = [
        ArchiveFile(f"date=2025-05-{day}/part-00001-c000.zstd.parquet", 10, date(2025, 5, day), time, time, 999)
        for day, time in ((11, 5), (10, 7), (10, 3))
    ]
    assert FileName.parse(compacted[0].path) is None
    ours = _file("a", 0, 1)
    expected = [(compacted[2],), (compacted[1],), (compacted[0],), (ours,)]
    assert in_arrival_order([compacted[0], ours, *compacted[1:]]) == expected


def test_row_numbers_survive() -> None:
    """And take little room, taken in turns or in runs."""
    numbers = np.flatnonzero(np.random.default_rng(1).random(131_072) < 0.5)
    text = row_numbers_text(numbers)
    found = row_numbers({ROWS_KEY: text}, len(numbers))
    assert found is not None
    assert np.array_equal(found, numbers)
    assert len(text) < 40_000
    assert len(row_numbers_text(np.arange(131_072))) < 1024


@pytest.mark.parametrize(
    "footer", [None, {}, {ROWS_KEY: b"?"}, {ROWS_KEY: b"AAAA"}, {ROWS_KEY: row_numbers_text(np.arange(4))}]
)
def test_a_footer_that_does_not_fit_is_not_believed(footer: dict[bytes, bytes] | None) -> None:
    """None, or of another number of rows, or damaged."""
    assert row_numbers(footer, 3) is None
