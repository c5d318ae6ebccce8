"""A source of numbered batches, for flows that tests run on clusters and kill.

Environment: FOLDER (where it notes how far it is), COUNT (batches of each partition), HOLD (1: do not end then, wait to
be killed).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition
from typing_extensions import override

from telflow.batch import TelemetryBatch

__all__ = ["SOURCES", "NumberedSource", "half_way"]

SOURCES = ["a", "b", "c", "d"]
Make = Callable[[str, int], TelemetryBatch]


def half_way(folder: Path, count: int) -> bool:
    """Whether each partition has given a third of `count` batches."""
    found = [(folder / f"at-{source}") for source in SOURCES]
    return all(path.exists() and int(path.read_text() or 0) > count // 3 for path in found)


class NumberedSource(FixedPartitionedSource[TelemetryBatch, int]):
    """Gives ``make(partition, 0)``, ``make(partition, 1)`` ..., one every 30 ms; goes on where the snapshot was."""

    def __init__(self, make: Make) -> None:
        self._make = make

    @override
    def list_parts(self) -> list[str]:
        return SOURCES

    @override
    def build_part(self, step_id: str, for_part: str, resume_state: int | None) -> _Partition:
        return _Partition(self._make, for_part, resume_state or 0)


class _Partition(StatefulSourcePartition[TelemetryBatch, int]):
    def __init__(self, make: Make, source: str, resume: int) -> None:
        self._make = make
        self._source = source
        self._next = resume
        self._awake: datetime | None = None

    @override
    def next_batch(self) -> list[TelemetryBatch]:
        done = self._next >= int(os.environ["COUNT"])
        if done and os.environ["HOLD"] != "1":
            raise StopIteration
        self._awake = datetime.now(UTC) + timedelta(milliseconds=30)
        if done:
            return []
        self._next += 1
        (Path(os.environ["FOLDER"]) / f"at-{self._source}").write_text(str(self._next))
        return [self._make(self._source, self._next - 1)]

    @override
    def next_awake(self) -> datetime | None:
        return self._awake

    @override
    def snapshot(self) -> int:
        return self._next
